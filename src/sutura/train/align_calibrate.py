"""Where SigLIP's scale and bias begin when the embeddings are aligned already."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sutura.core.log import say
from sutura.data.image_texts import ImageTexts
from sutura.losses.contrastive import likeness
from sutura.models.vljepa_align import LEAST_SCALE, MOST_SCALE
from sutura.train.align_build import Built
from sutura.train.align_config import AlignConfig
from sutura.train.align_look import embed_ids, embed_pictures
from sutura.train.align_texts import Texts, described

#: Steps of L-BFGS; two numbers need a few. Decimals that are kept: rounding differs between machines, and the name of a
#: run hangs on its first weights.
STEPS, DECIMALS = 100, 3


def calibrated(
    image: Float[Tensor, "pairs dim"],
    text: Float[Tensor, "pairs dim"],
    positives: Bool[Tensor, "pairs pairs"],
    batch: int,
    log_scale: float,
) -> tuple[float, float]:
    """The log of the scale, and the bias, that fit embeddings as they are.

    Embeddings of a CLIP lie in a cone, where the cosine of a wrong pair is far above 0. Under SigLIP's usual start
    nearly every pair is taken for right, and the first steps tear apart what was aligned, to mend two numbers.

    Args:
        image: embeddings of held-out pictures.
        text: one text a picture.
        positives: which picture a text describes, beside its own.
        batch: pairs that a step compares with each other: the share of wrong pairs decides where the bias lies.
        log_scale: where the search begins.

    Returns:
        Those with the least sigmoid loss over whole batches of that size (all pairs, where there are fewer), the scale
        in the range the model holds it in.

    Source: Zhai et al. 2023, arXiv:2303.15343, section 3.2, for a bias at the share of positives before the first step.
    Differs: fitted to the embeddings, where the paper starts from random ones and takes 10 and -10.
    """
    # A rest would count as much as a whole batch, and has another share of wrong pairs.
    whole = max(1, len(image) // batch)
    groups = [slice(at * batch, (at + 1) * batch) for at in range(whole)]
    pairs = [(likeness(image[p], text[p]).double(), positives[p, p]) for p in groups]
    scale = torch.tensor(float(log_scale), dtype=torch.float64, requires_grad=True)
    # At the mean logit every pair is as likely as not; the fit goes down from there.
    bias = torch.tensor(-float(log_scale), dtype=torch.float64, requires_grad=True)
    _least(pairs, scale, bias, [scale, bias])
    with torch.no_grad():
        scale.clamp_(math.log(LEAST_SCALE), math.log(MOST_SCALE))
    _least(pairs, scale, bias, [bias])  # the one that goes with the scale as it is held
    return round(float(scale.detach()), DECIMALS), round(float(bias.detach()), DECIMALS)


def _least(
    pairs: Sequence[tuple[Tensor, Tensor]], scale: Tensor, bias: Tensor, moving: Sequence[Tensor]
) -> None:
    """Move `moving` to where the sigmoid loss of some batches' cosines is least; in float64, to the bottom."""
    search = torch.optim.LBFGS(
        moving, max_iter=STEPS, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        each = []
        for cosines, right in pairs:
            logits = scale.exp() * cosines + bias
            each.append(-F.logsigmoid(torch.where(right, logits, -logits)).sum() / len(cosines))
        total = torch.stack(each).mean()
        total.backward()
        return total

    with torch.enable_grad():
        search.step(loss)


@torch.no_grad()
def calibrate(config: AlignConfig, built: Built, held: ImageTexts, texts: Texts) -> None:
    """Fit a model's scale and bias to pairs that are neither trained on nor scored; its embeddings stay as they are."""
    model = built.training.model.eval()
    device = model.log_scale.device
    image = embed_pictures(model.encode_image, held, built.mean, built.std, device)
    first = np.asarray(texts.own[:, 0])
    text = embed_ids(model.encode_text, texts.rows(first), device)
    right = described(torch.from_numpy(np.array(texts.own)), torch.from_numpy(first))
    assert model.bias is not None
    scale, bias = calibrated(image, text, right, config.compared(), float(model.log_scale))
    model.log_scale.fill_(scale)
    model.bias.fill_(bias)
    say(
        f"{config.name}: SigLIP begins with a scale of {math.exp(scale):.2f} and a bias of {bias:.2f}, fitted to "
        f"{len(held):,} held-out pairs, since the towers were trained by another loss (loss.calibrate)."
    )
    if len(held) < config.compared():
        say(
            f"{config.name}: a step compares {config.compared():,} pairs, more than there were to fit to "
            "(data.look_limit): the bias begins a little high."
        )
