"""`align`: what is trained, and the loss of a step: α·prediction + β·contrastive + γ·variance + δ·hardest negative.

Negatives are used by the contrastive and the hardest-negative term, never by the prediction and the variance term.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sutura.losses.collapse import variance_loss
from sutura.losses.contrastive import Negatives, clip_loss, clip_loss_beyond, sigmoid_loss
from sutura.losses.queue import NegativeQueue
from sutura.losses.ranking import hardest_negative_loss
from sutura.models.momentum import MomentumTowers
from sutura.models.vljepa_align import AlignVLJEPA
from sutura.train.align_config import LossConfig, Part, ViewsConfig
from sutura.train.align_feed import AlignBatch
from sutura.train.align_phases import Plan
from sutura.train.align_texts import described
from sutura.train.objectives import Outcome

#: Where the parts of an `AlignTraining` lie: prefix of a weight's name → part. The rest never trains.
PLACES: dict[str, Part] = {
    "model.context_encoder": "vision",
    "model.text": "text",
    "model.predictor": "predictor",
    "model.image_head": "image_head",
    "model.text_head": "text_head",
    "model.log_scale": "scale",
    "model.bias": "scale",
}


class AlignTraining(nn.Module):
    """The model and what a run keeps beside it, so that a checkpoint holds all of it.

    Args:
        model: that is trained.
        momentum: its towers' moving average; a queue needs it.
        queue: of the average's embeddings.
    """

    def __init__(
        self, model: AlignVLJEPA, momentum: MomentumTowers | None = None, queue: NegativeQueue | None = None
    ) -> None:
        super().__init__()
        if queue is not None and momentum is None:
            raise ValueError("A queue holds embeddings of the moving average; there is none.")
        self.model, self.momentum, self.queue = model, momentum, queue
        self.pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def remember(self) -> None:
        """Put the keys of the step that has ended into the queue: called for steps that moved the weights only."""
        if self.queue is not None:
            for image, text, ids in self.pending:
                self.queue.push(image, text, ids)
        self.pending = []


class Embedded(NamedTuple):
    """What the heads gave, before any normalising.

    Args:
        image: of the global views.
        text: of the texts.
        views: of the local views, one after another for each picture.
    """

    image: Float[Tensor, "batch dim"]
    text: Float[Tensor, "batch dim"]
    views: Float[Tensor, "batch views dim"] | None = None


def embed(model: AlignVLJEPA, batch: AlignBatch) -> Embedded:
    """Through the towers, or from what a frozen tower gave before, through the heads."""
    if batch.image_features is not None:
        image = model.image_head(batch.image_features)
    else:
        assert batch.pixels is not None
        image = model.encode_image(batch.pixels)
    if batch.text_features is not None:
        text = model.text_head(batch.text_features)
    else:
        assert batch.words is not None
        text = model.encode_text(batch.words)
    views = None
    if batch.views is not None:
        views = model.encode_image(batch.views.flatten(0, 1)).unflatten(0, batch.views.shape[:2])
    return Embedded(image, text, views)


class AlignObjective:
    """Loss of one micro-batch, as the loop calls it; the pairs of other micro-batches are not seen.

    Args:
        plan: weights of the terms at each step.
        loss: their settings.
        views: the weight of local views.
        gradient_every: steps between two measurements of every term's gradient norm; 0 for none.
    """

    whole_batch = True
    __name__ = "align"

    def __init__(self, plan: Plan, loss: LossConfig, views: ViewsConfig, gradient_every: int = 0) -> None:
        self.plan, self.loss, self.views, self.gradient_every = plan, loss, views, gradient_every

    def __call__(self, training: AlignTraining, batch: AlignBatch, step: int) -> Outcome:
        """Nats and squared distances, weighted; metrics of every term."""
        weights = self.plan.at(step).weights()
        found = embed(training.model, batch)
        terms = self.compare(training, found, described(batch.own, batch.text), batch.ids, weights)
        metrics: dict[str, float | Tensor] = {}
        if weights["prediction"]:
            terms["prediction"], metrics = predict(training.model, batch)
        self.keys(training, batch)
        loss = weighted(terms, weights)
        metrics |= accounts(terms, weights)
        if self.measures(step):
            metrics |= gradient_norms(training, terms, weights)
        metrics |= scales(training.model)
        return loss * batch.share, metrics

    def measures(self, step: int) -> bool:
        """Whether gradient norms are taken at a step."""
        return bool(self.gradient_every) and step % self.gradient_every == 0

    def compare(
        self,
        training: AlignTraining,
        found: Embedded,
        positives: Bool[Tensor, "batch batch"],
        ids: Sequence[int],
        weights: Mapping[str, float],
    ) -> dict[str, Tensor]:
        """The terms that compare the pairs at hand with each other, before their weights.

        A step that begins in one shuffle of the pictures and ends in the next may hold a picture twice.
        """
        terms: dict[str, Tensor] = {}
        if weights["contrastive"]:
            numbers = torch.tensor(ids, device=found.image.device)
            same = numbers[:, None] == numbers if len({*ids}) < len(ids) else None
            kept = training.queue.negatives(numbers) if training.queue is not None else None
            contrast = partial(
                self._contrast, training.model, text=found.text, positives=positives, same=same
            )
            terms["contrastive"] = contrast(found.image, kept=kept)
            if found.views is not None:
                local = [contrast(view, kept=None) for view in found.views.unbind(1)]
                share = self.views.weight
                terms["contrastive"] = (1 - share) * terms["contrastive"] + share * torch.stack(local).mean()
        if weights["variance"]:
            terms["variance"] = (variance_loss(found.image) + variance_loss(found.text)) / 2
        if weights["hard_negative"]:
            terms["hard_negative"] = hardest_negative_loss(
                found.image, found.text, self.loss.margin, positives
            )
        return terms

    def _contrast(
        self,
        model: AlignVLJEPA,
        image: Tensor,
        text: Tensor,
        positives: Tensor,
        same: Tensor | None,
        kept: Negatives | None,
    ) -> Tensor:
        if self.loss.contrastive == "infonce":
            if kept is None and same is None:
                return clip_loss(image, text, model.log_scale, self.loss.smoothing)
            return clip_loss_beyond(image, text, model.log_scale, kept, self.loss.smoothing, same)
        assert model.bias is not None
        return sigmoid_loss(image, text, model.log_scale, model.bias, positives, self.loss.smoothing)

    def keys(self, training: AlignTraining, batch: AlignBatch) -> None:
        """Embeddings by the moving average, for the queue, once the step has moved the weights."""
        if training.queue is None or training.momentum is None:
            return
        assert batch.pixels is not None
        assert batch.words is not None
        image, text = training.momentum.keys(batch.pixels, batch.words)
        training.pending.append((image, text, torch.tensor(batch.ids, device=image.device)))


def predict(model: AlignVLJEPA, batch: AlignBatch) -> tuple[Float[Tensor, ""], dict[str, float | Tensor]]:
    """Squared distance to the target encoder's hidden patches, mean over patches and width; and the share of those
    targets' variance over the batch that the guesses explain, 0 for a constant guess."""
    assert batch.pixels is not None
    assert batch.context is not None
    assert batch.target is not None
    guesses, wanted = model.predict(batch.pixels, batch.context, batch.target)
    loss = F.mse_loss(guesses.float(), wanted.float())
    with torch.no_grad():
        flat = wanted.float().flatten(0, 1)
        spread = (flat - flat.mean(dim=0)).square().mean()
    return loss, {"explained": 1 - loss.detach() / spread.clamp_min(1e-12)}


def weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Float[Tensor, ""]:
    """The sum that is trained."""
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


def accounts(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, float | Tensor]:
    """Of every term its value, its weight, and the share of the loss that it makes."""
    total = weighted(terms, weights).detach()
    found: dict[str, float | Tensor] = {}
    for name, value in terms.items():
        found[name] = value.detach()
        found[f"{name}_weight"] = weights[name]
        found[f"{name}_share"] = weights[name] * value.detach() / torch.where(total == 0, 1, total)
    return found


def scales(model: AlignVLJEPA) -> dict[str, float | Tensor]:
    """Inverse temperature and bias as they stand."""
    found: dict[str, float | Tensor] = {"scale": model.log_scale.detach().exp()}
    if model.bias is not None:
        found["bias"] = model.bias.detach().clone()
    return found


def gradient_norms(
    training: nn.Module, terms: Mapping[str, Tensor], weights: Mapping[str, float]
) -> dict[str, float | Tensor]:
    """Norm of every weighted term's own gradient over all weights that train now; one backward a term."""
    moving = [weight for weight in training.parameters() if weight.requires_grad]
    return {
        f"{name}_gradient": norm(
            torch.autograd.grad(weights[name] * value, moving, retain_graph=True, allow_unused=True)
        )
        for name, value in terms.items()
        if value.requires_grad
    }


def norm(gradients: Sequence[Tensor | None]) -> Float[Tensor, ""]:
    """Of all of them as one vector."""
    found = [one.float().square().sum() for one in gradients if one is not None]
    return torch.stack(found).sum().sqrt() if found else torch.zeros(())
