"""Does a freshly trained encoder know anything: a linear probe on its averaged patches, and its rank."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.data.captions import CaptionedPictures
from sutura.losses.collapse import collapse_measures
from sutura.models.vit import ViT
from sutura.train.picture_feed import normalise


@dataclass(frozen=True)
class ProbeScore:
    """Mean average precision over labels, of pictures the probe was not fitted on.

    Args:
        score: between the base rate (knows nothing) and 1.
        low, high: 95 % interval over pictures, by bootstrap; one encoder, one seed.
        base_rate: mean share of pictures that carry a label; what constant features score.
        fitted, scored: pictures.
        labels: with at least one picture in both parts.
    """

    score: float
    low: float
    high: float
    base_rate: float
    fitted: int
    scored: int
    labels: int

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@torch.no_grad()
def averaged_patches(
    encoder: ViT, data: CaptionedPictures, mean: tuple[float, ...], std: tuple[float, ...], batch: int = 256
) -> Float[Tensor, "pictures width"]:
    """The mean of the last block's patches, picture by picture; the encoder's mode comes back as it was."""
    training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    size = (encoder.image_size, encoder.image_size)

    def pixels(start: int) -> Tensor:
        made = normalise(data.pixels[start : start + batch], mean, std).to(device)
        return made if made.shape[2:] == size else F.interpolate(made, size, mode="bilinear", antialias=True)

    rows = [encoder(pixels(start))[1]["patches"].mean(dim=1).cpu() for start in range(0, len(data), batch)]
    encoder.train(training)
    return torch.cat(rows)


def linear_probe(
    features: Float[Tensor, "pictures width"],
    labels: Float[Tensor, "pictures labels"],
    fitted: int,
    ridge: float = 1e-2,
    resamples: int = 200,
) -> ProbeScore:
    """Fit ridge regression on the first pictures, score average precision on the rest.

    Args:
        features: of all pictures; standardised by the fitted part.
        labels: 0 or 1.
        fitted: pictures to fit on.
        ridge: times the number of fitted pictures is added to the normal equations; fixed, not swept.
        resamples: of the bootstrap.
    """
    if not 0 < fitted < len(features):
        raise UserError(f"{fitted} of {len(features)} pictures to fit on leaves none on one side.")
    keep = (labels[:fitted].sum(0) > 0) & (labels[fitted:].sum(0) > 0)
    if not bool(keep.any()):
        raise UserError("No label occurs both among the pictures fitted on and among those scored.")
    labels, x = labels[:, keep].double(), features.double()
    x = (x - x[:fitted].mean(0)) / x[:fitted].std(0).clamp_min(1e-8)
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    normal = x[:fitted].T @ x[:fitted] + ridge * fitted * torch.eye(x.shape[1], dtype=x.dtype)
    scores = (x[fitted:] @ torch.linalg.solve(normal, x[:fitted].T @ labels[:fitted])).numpy()
    truth = labels[fitted:].numpy() > 0.5

    draws = torch.randint(len(truth), (resamples, len(truth)), generator=generator(0, "bootstrap")).numpy()
    spread = [mean_average_precision(scores[draw], truth[draw]) for draw in draws]
    low, high = np.nanquantile(spread, [0.025, 0.975])
    return ProbeScore(
        mean_average_precision(scores, truth),
        float(low),
        float(high),
        float(truth.mean()),
        fitted,
        len(truth),
        int(keep.sum()),
    )


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision of each column with a positive, averaged; tied scores count as found together.

    Args:
        scores: items by labels, higher is likelier.
        truth: of the same shape, booleans.
    """
    found = []
    for score, true in zip(scores.T, truth.T, strict=True):
        if not true.any():
            continue
        order = np.argsort(-score, kind="stable")
        hits = true[order].cumsum()
        last = np.append(np.diff(score[order]) != 0, True)  # the last item of each run of equal scores
        precision, recall = hits[last] / (np.flatnonzero(last) + 1), hits[last] / hits[-1]
        found.append(float((np.diff(recall, prepend=0.0) * precision).sum()))
    return float(np.mean(found)) if found else float("nan")


def rank_facts(features: Float[Tensor, "pictures width"]) -> dict[str, float]:
    """Collapse measures of the averaged patches, as a card and the metrics hold them."""
    return {name: round(value, 4) for name, value in collapse_measures(features).items()}
