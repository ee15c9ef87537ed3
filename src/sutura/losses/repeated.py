"""InfoNCE where the same text stands behind many rows of a batch, as answers do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sutura.losses.contrastive import likeness


def repeated_text_loss(
    predicted: Float[Tensor, "batch dim"],
    text: Float[Tensor, "texts dim"],
    which: Int[Tensor, " batch"],
    log_scale: Float[Tensor, ""],
    right: Bool[Tensor, "batch texts"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of predictions and the different texts behind them.

    "yes" or "2" stands behind many rows of a batch. Told apart from itself it would push its own predictions
    away; here each different text takes part once, and rows with the same text are never each other's negatives:

    * each prediction picks its text among the batch's different texts;
    * each row's text picks the row's prediction among those of rows with another text;
    * what is right too (another answer to the same question about the same picture) is left out of both choices.

    Args:
        predicted: one embedding a row; normalised here.
        text: the different texts, one embedding each; normalised here.
        which: each row's text; every text stands behind at least one row.
        log_scale: log of the inverse temperature, unitless.
        right: texts that are right for a row; its own by default.

    Returns:
        Nats, mean over rows and over both directions; without repetitions `clip_loss` of the same rows.

    Raises:
        ValueError: fewer than two different texts, where there is nothing to tell apart.

    Source: Radford et al. 2021, arXiv:2103.00020, figure 3, for the symmetric form; Khosla et al. 2020,
        arXiv:2004.11362, section 3, for why rows of one class must not repel each other.
    Differs: VL-JEPA (arXiv:2512.10942) names bi-directional InfoNCE and does not say what becomes of equal answers.
        Computed in float32 whatever the inputs.
    """
    if len(text) < 2:
        raise ValueError(
            f"A contrastive loss needs at least two different texts; the {len(predicted)} rows of this batch have "
            f"{len(text)}."
        )
    logits = log_scale.float().exp() * likeness(predicted, text)  # rows × different texts
    mine = F.one_hot(which, len(text)).bool()
    right = mine if right is None else right | mine
    to_text = F.cross_entropy(logits.masked_fill(right & ~mine, float("-inf")), which)
    own = logits.gather(1, which[:, None])  # rows × 1
    rivals = logits.masked_fill(right, float("-inf"))[
        :, which
    ].T  # [i, j]: row i's text with row j's prediction
    to_prediction = torch.logsumexp(torch.cat([own, rivals], dim=1), dim=1) - own[:, 0]
    return (to_text + to_prediction.mean()) / 2
