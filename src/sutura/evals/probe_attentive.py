"""The attentive probe: one learned query looks over all patches, and a linear classifier reads what it sees."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sutura.core.config import parse
from sutura.core.runtime import generator, seeded
from sutura.evals.probe_config import AttentiveConfig
from sutura.evals.probe_features import Features
from sutura.evals.probe_scores import plain_score
from sutura.train.config import OptimConfig
from sutura.train.loop import fit


class AttentiveProbe(nn.Module):
    """Cross-attention from one query to the patches, then a linear layer.

    Args:
        width: of the patches.
        classes: how many.
        heads: divides the width.

    Source: Chen et al. 2022, arXiv:2202.03026, section 4 ("attentive probing"); V-JEPA, Bardes et al. 2024,
    arXiv:2404.08471, section 4.
    Differs: no output projection, MLP or residual behind the attention; the classifier reads it directly.
    """

    def __init__(self, width: int, classes: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} is not a multiple of heads={heads}.")
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.empty(1, heads, 1, width // heads).normal_())
        self.key_value = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, classes)

    def forward(self, patches: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        batch, tokens, width = patches.shape
        pairs = self.key_value(self.norm(patches)).view(batch, tokens, 2, self.heads, width // self.heads)
        keys, values = pairs.permute(2, 0, 3, 1, 4)  # each B H N D/H
        query = self.query.expand(batch, -1, -1, -1)
        seen = F.scaled_dot_product_attention(query, keys, values)  # B H 1 D/H
        return self.head(seen.flatten(1))


class Batch(NamedTuple):
    """Patches with their labels."""

    patches: Tensor
    labels: Tensor


class FeatureFeed:
    """Seeded shuffles of cached features, cut into steps; the last of a pass may be smaller.

    Args:
        features: what to learn from.
        epochs: passes.
        batch: pictures a step.
        seed: of the order.
    """

    def __init__(self, features: Features, *, epochs: int, batch: int, seed: int) -> None:
        self.features, self.batch, self.seed = features, min(batch, len(features)), seed
        self.each = -(-len(features) // self.batch)
        self.steps = epochs * self.each

    def micro_batches(self, step: int) -> list[Batch]:
        """The one batch of a step."""
        epoch, place = divmod(step, self.each)
        order = torch.randperm(len(self.features), generator=generator(self.seed, "order", epoch))
        index = order[place * self.batch : (place + 1) * self.batch].tolist()
        labels = torch.from_numpy(self.features.labels[index])
        return [Batch(self.features.patches(index), labels)]


def objective(model: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
    """Cross entropy, or (multi-label) the binary one summed over classes; mean over pictures, in nats."""
    logits = model(batch.patches)
    if batch.labels.ndim == 1:
        return F.cross_entropy(logits, batch.labels), {}
    return F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum") / len(logits), {}


def train_attentive(
    features: Features, classes: int, config: AttentiveConfig, *, lr: float, weight_decay: float, **run: Any
) -> AttentiveProbe:
    """One probe, trained by the project's loop.

    Args:
        run: seed and device.
    """
    with seeded(run["seed"], "attentive"):
        model = AttentiveProbe(features.width, classes, config.heads or default_heads(features.width))
    feed = FeatureFeed(features, epochs=config.epochs, batch=config.batch, seed=run["seed"])
    warmup = min(feed.each, feed.steps // 10)
    moves = {"lr": lr, "weight_decay": weight_decay, "schedule": "cosine", "warmup": warmup}
    optim = parse(OptimConfig, moves, where="the attentive probe")
    fit(model, objective, feed, optim, seed=run["seed"], directory=None, device=run["device"])
    return model


@torch.no_grad()
def attentive_scores(
    model: AttentiveProbe, features: Features, batch: int = 256
) -> Float[np.ndarray, "pictures classes"]:
    """Logits of every picture."""
    device = next(model.parameters()).device
    chunks = range(0, len(features), batch)
    rows = [
        model(features.patches(range(at, min(at + batch, len(features)))).to(device)).cpu() for at in chunks
    ]
    return torch.cat(rows).float().numpy()


def attentive_probe(
    fit_on: Features, select: Features, test: Features, classes: int, config: AttentiveConfig, **run: Any
) -> tuple[Float[np.ndarray, "pictures classes"], dict[str, Any]]:
    """Choose learning rate and weight decay on `select`, train again on both parts, score `test`.

    Returns:
        Test scores, and what was chosen with the selection score of every place of the grid.
    """
    grid: dict[tuple[float, float], float] = {}
    for lr in config.lrs:
        for decay in config.weight_decays:
            model = train_attentive(fit_on, classes, config, lr=lr, weight_decay=decay, **run)
            grid[lr, decay] = plain_score(attentive_scores(model, select), select.labels)
    lr, decay = max(grid, key=lambda place: grid[place])
    final = train_attentive(fit_on + select, classes, config, lr=lr, weight_decay=decay, **run)
    swept = {f"lr {a:g}, weight decay {b:g}": round(score, 4) for (a, b), score in grid.items()}
    return attentive_scores(final, test), {"lr": lr, "weight_decay": decay, "selection": swept}


def default_heads(width: int) -> int:
    """One head for every 64 channels, or the nearest smaller number that divides the width."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
