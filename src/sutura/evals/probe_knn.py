"""Nearest neighbours by cosine: no weight is trained, so it asks whether like pictures lie together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sutura.data.classes import Labels

_BLOCK = 50_000_000
"""Cosines held at a time."""


def vote(
    queries: Float[Tensor, "queries width"],
    bank: Float[Tensor, "bank width"],
    labels: Labels,
    classes: int,
    ks: Sequence[int],
    temperature: float,
) -> dict[int, Float[np.ndarray, "queries classes"]]:
    """Share of the k nearest pictures' votes that each class gets, for every k.

    Args:
        queries: features of the pictures asked about; of any length.
        bank: features of the labelled pictures.
        labels: of the bank.
        classes: how many there are.
        ks: neighbours, each at most the size of the bank.
        temperature: a vote weighs exp(cosine / temperature).

    Returns:
        k → shares, which sum to 1 for a single-label set.

    Source: Caron et al. 2021, arXiv:2104.14294, appendix F.1; the weighting is Wu et al. 2018,
    arXiv:1805.01978, section 3.4.
    Differs: votes are divided by their sum, which changes no winner and makes pictures comparable (average
    precision ranks pictures).
    """
    queries, bank = F.normalize(queries.float(), dim=1), F.normalize(bank.float(), dim=1)
    shown = torch.from_numpy(labels).to(bank.device)
    shown = F.one_hot(shown, classes).float() if shown.ndim == 1 else shown.float()
    out: dict[int, list[Tensor]] = {k: [] for k in ks}
    for block in queries.split(max(1, _BLOCK // len(bank))):
        cosine, near = (block @ bank.T).topk(max(ks), dim=1)  # queries K
        weight = ((cosine - cosine[:, :1]) / temperature).exp()
        for k in ks:
            votes = (weight[:, :k, None] * shown[near[:, :k]]).sum(dim=1)
            out[k].append(votes / weight[:, :k].sum(dim=1, keepdim=True))
    return {k: torch.cat(parts).cpu().numpy() for k, parts in out.items()}
