"""Does the caption help? The loss with the right one against another picture's, and against none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.evals.intervals import mean_interval
from sutura.evals.run import derangement
from sutura.models.vljepa_conditioned import VLJEPAConditioned
from sutura.nn.masking import gather_patches
from sutura.train.conditioned import DISTANCES, Prepared, target_patches, token_losses
from sutura.train.conditioned_data import Part, assemble, draw_masks

#: Pictures scored at once.
BATCH = 32
#: Training pictures that the constant guess is the mean of.
AVERAGED = 512
#: Of masks and of the exchange of captions, the same for every run, so that runs are paired picture by picture.
SEED = 0


def exchanged(captions: Sequence[Sequence[str]], seed: int = SEED) -> list[int]:
    """For every picture another one, whose first caption is none of the picture's own.

    One random cycle through all pictures; where the next one's first caption is an own one too, the next but one is
    taken, and so on.

    Raises:
        UserError: every picture has the same caption.
    """
    names = [str(i) for i in range(len(captions))]
    following = {int(a): int(b) for a, b in derangement(names, seed).items()}
    found = []
    for picture, own in enumerate(captions):
        other = following[picture]
        while captions[other][0] in own and other != picture:
            other = following[other]
        if other == picture:
            raise UserError(
                f"Every caption is one of picture {picture}'s own; there is none to exchange it for."
            )
        found.append(other)
    return found


@torch.no_grad()
def score_captions(model: VLJEPAConditioned, prepared: Prepared) -> pl.DataFrame:
    """Losses of the held-out pictures, one row a picture; the same patches are hidden under every condition.

    Returns:
        `image_id`, `hidden` (places predicted), the mean loss a hidden place under `right`, `shuffled` and `none`
        (`none` alone without text), of `constant` (the training pictures' mean target of that place), and `better`:
        the share of hidden places where the right caption beats the shuffled one.
    """
    model.eval()
    config, part = prepared.config, prepared.held
    on = next(model.parameters()).device
    constant = _constant(model, prepared)
    first, count = part.first_caption(), len(part.data)
    wrong = exchanged(part.data.captions) if part.text is not None else []
    rows: list[dict[str, Any]] = []
    for start in range(0, count, BATCH):
        pictures = list(range(start, min(start + BATCH, count)))
        draw = generator(SEED, "held masks", start)
        keep, asked = draw_masks(config.mask, prepared.grid, len(pictures), draw)
        given: dict[str, list[int | None]] = {"none": [None] * len(pictures)}
        if part.text is not None:
            given["right"] = [int(first[i]) for i in pictures]
            given["shuffled"] = [int(first[wrong[i]]) for i in pictures]
        losses: dict[str, np.ndarray] = {}
        for name, captions in given.items():
            batch = _to(assemble(part, pictures, keep, asked, captions, prepared.colours), on)
            found, _, wanted = token_losses(model, batch, config)
            losses[name] = found.cpu().double().numpy()
            if name == "none":
                guess = gather_patches(constant.expand(len(pictures), -1, -1), batch.asked)
                losses["constant"] = DISTANCES[config.loss](guess, wanted).cpu().double().numpy()
        for at, picture in enumerate(pictures):
            row = {name: float(of[at].mean()) for name, of in losses.items()}
            if "right" in losses:
                row["better"] = float((losses["right"][at] < losses["shuffled"][at]).mean())
            rows.append({"image_id": part.data.image_ids[picture], "hidden": asked.shape[1], **row})
    return pl.DataFrame(rows)


def _to(batch: Any, on: torch.device) -> Any:
    return batch._replace(
        **{name: value.to(on) for name, value in batch._asdict().items() if isinstance(value, torch.Tensor)}
    )


def _constant(model: VLJEPAConditioned, prepared: Prepared) -> torch.Tensor:
    """The mean target of every place over training pictures: what is known without looking."""
    part: Part = prepared.train
    on = next(model.parameters()).device
    rows = list(range(min(AVERAGED, len(part.data))))
    total: torch.Tensor | None = None
    for start in range(0, len(rows), BATCH):
        these = rows[start : start + BATCH]
        empty = torch.empty(len(these), 0, dtype=torch.long)
        batch = _to(assemble(part, these, empty, empty, [None] * len(these), prepared.colours), on)
        found = target_patches(model, batch, prepared.config).sum(dim=0, keepdim=True)
        total = found if total is None else total + found
    assert total is not None
    return total / len(rows)


def summary(frame: pl.DataFrame) -> dict[str, Any]:
    """Means over pictures with intervals, and what the right caption saves, picture by picture.

    Returns:
        The loss under every condition by name; with text also `shuffled_less_right` and `none_less_right` (above zero
        where the caption helps) and `better` (the share of hidden places); the unit is the picture. `explained`: the
        share of the constant guess's loss that is gone with the own caption (without text, without one),
        `explained_none` without one; comparable between losses and targets.
    """
    told: dict[str, Any] = {"pictures": len(frame), "hidden": int(frame["hidden"][0])}
    for name in ("right", "shuffled", "none", "constant", "better"):
        if name in frame.columns:
            told[name] = mean_interval(frame[name].to_numpy()).facts()
    if "right" in frame.columns:
        right = frame["right"].to_numpy()
        for name in ("shuffled", "none"):
            told[f"{name}_less_right"] = mean_interval(frame[name].to_numpy() - right).facts()
    best = told["right" if "right" in told else "none"]["mean"]
    told["explained"] = 1 - best / told["constant"]["mean"]
    told["explained_none"] = 1 - told["none"]["mean"] / told["constant"]["mean"]
    return told


def verdict(told: dict[str, Any], *, knows_none: bool) -> str:
    """In a sentence, whether the text helps; the data may say no.

    Args:
        told: of `summary`.
        knows_none: whether pictures without a caption occurred in training.
    """
    if "right" not in told:
        return "No text was used; whether it would help is for a run with text.use=true to say."
    gap, bare = told["shuffled_less_right"], told["none_less_right"]
    if gap["low"] > 0:
        said = "**The caption is used**: another picture's caption costs"
    elif gap["high"] < 0:
        said = "**The right caption is worse than another picture's**, which differs by"
    else:
        said = "**Not shown that the caption is used**: another picture's caption differs by"
    said += f" {gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}] a hidden patch. "
    size = f"{bare['mean']:+.4f} [{bare['low']:+.4f}, {bare['high']:+.4f}]"
    if bare["low"] > 0 and gap["low"] <= 0:
        said += f"Without a caption the loss is higher by {size}, but any caption does as well: "
        said += "what it says is not used."
    else:
        helps = "it helps" if bare["low"] > 0 else "it hurts" if bare["high"] < 0 else "help is not shown"
        said += f"Against no caption {helps}: {size}."
    if not knows_none:
        said += (
            " The model never saw a picture without a caption (text.drop=0), so that this last figure overstates the "
            "help; a run with text.use=false is the comparison."
        )
    return said
