"""What a model is trained for: one short function a method, (model, batch, step) -> (loss, named metrics)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sutura.losses.contrastive import clip_loss, likeness, sigmoid_loss
from sutura.losses.prediction import cosine_loss, latent_l2, latent_smooth_l1, masked_pixel_loss
from sutura.models.clip import CLIP
from sutura.models.ijepa import IJEPA
from sutura.models.mae import MAE
from sutura.models.siglip import SigLIP
from sutura.models.vit import Classifier
from sutura.train.picture_feed import PictureBatch

if TYPE_CHECKING:
    from sutura.train.two_stage import TwoStage

Outcome = tuple[Float[Tensor, ""], dict[str, "float | Tensor"]]
Named = TypeVar("Named", bound=Callable[..., Any])


def whole_batch(objective: Named) -> Named:
    """Mark an objective that compares all pairs of a step's batch: it trains in one process only.

    `losses/large_batch.py` has both contrastive losses over several processes; the feed of pictures would have to
    be shared out for them, pair by pair.
    """
    objective.whole_batch = True  # type: ignore[attr-defined]
    return objective


def supervised(
    model: Classifier, batch: PictureBatch, step: int, smoothing: float = 0.0, mixup: float = 0.0
) -> Outcome:
    """Which labels does the picture carry: one yes/no question a label, or one choice among classes.

    Args:
        smoothing: share of the weight of a label that goes to all classes alike; of a yes or no, to the other
            answer and itself.
        mixup: of the Beta distribution that a picture is mixed with another of the batch by; drawn from
            torch's global generator, which the loop seeds for each step.

    Returns:
        Cross-entropy in nats, mean over pictures (and labels); the share of labels, or of pictures, called
        right, under mixup against the heavier part's.

    Source: smoothing: Szegedy et al. 2016, arXiv:1512.00567, section 7; mixup: Zhang et al. 2018,
        arXiv:1710.09412, section 2.
    """
    labels = batch.labels
    assert labels is not None
    share, pixels, others = 1.0, batch.pixels, labels
    if mixup > 0:
        share = float(torch.distributions.Beta(mixup, mixup).sample())
        share = max(share, 1 - share)
        order = torch.randperm(len(labels)).to(labels.device)
        pixels, others = share * pixels + (1 - share) * pixels[order], labels[order]
    logits = model(pixels)[0].float()
    if labels.ndim == 1:
        losses = [F.cross_entropy(logits, wanted, label_smoothing=smoothing) for wanted in (labels, others)]
        right = (logits.argmax(dim=1) == labels).float().mean()
        return share * losses[0] + (1 - share) * losses[1], {"accuracy": right}
    assert labels.shape == logits.shape
    wanted = share * labels + (1 - share) * others
    loss = F.binary_cross_entropy_with_logits(logits, wanted * (1 - smoothing) + smoothing / 2)
    return loss, {"label_accuracy": ((logits > 0) == (labels > 0.5)).float().mean()}


@whole_batch
def clip(model: CLIP, batch: PictureBatch, step: int) -> Outcome:
    """Which text of the batch belongs to the picture, and which picture to the text.

    Returns:
        Symmetric InfoNCE in nats; the share of pictures that rank their own text strictly first, the scale.
    """
    image, text, log_scale = model(batch.pixels, batch.words)
    loss = clip_loss(image, text, log_scale)
    return loss, {"picture_to_text": _own_text_first(image, text), "scale": log_scale.detach().exp()}


@whole_batch
def siglip(model: SigLIP, batch: PictureBatch, step: int) -> Outcome:
    """Does this text belong to this picture: one yes/no question a pair.

    A text that describes several pictures of the batch belongs to each of them.

    Returns:
        Sigmoid loss in nats, summed over texts, mean over pictures; the share of pictures that rank their own
        text strictly first, the scale, the bias.
    """
    image, text, log_scale, bias = model(batch.pixels, batch.words)
    loss = sigmoid_loss(image, text, log_scale, bias, batch.positives)
    return loss, {
        "picture_to_text": _own_text_first(image, text),
        "scale": log_scale.detach().exp(),
        "bias": bias.detach(),
    }


@torch.no_grad()
def _own_text_first(image: Float[Tensor, "batch dim"], text: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Share of pictures whose own text is nearer than every other of the batch; a tie is no success."""
    cosines = likeness(image, text)
    own = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    return (cosines.diagonal() > cosines.masked_fill(own, -2.0).max(dim=1).values).float().mean()


def mae(model: MAE, batch: PictureBatch, step: int) -> Outcome:
    """What are the pixels of the hidden patches.

    Returns:
        Squared error of the hidden patches' pixels, each patch in units of its own spread; the share of it
        that the prediction takes away from the patch's own mean colour: 0 for a flat patch.
    """
    assert batch.hidden is not None
    prediction, _ = model(batch.pixels, batch.keep)
    loss = masked_pixel_loss(prediction, batch.pixels, batch.hidden, model.encoder.patch_size)
    with torch.no_grad():
        flat = masked_pixel_loss(
            torch.zeros_like(prediction), batch.pixels, batch.hidden, model.encoder.patch_size
        )
    return loss, {"explained": 1 - loss.detach() / flat.clamp_min(1e-12)}


@whole_batch
def eva(model: TwoStage, batch: PictureBatch, step: int) -> Outcome:
    """First what a teacher says of the hidden patches, then which text belongs to which picture.

    Returns:
        Until the switch: the cosine loss to the teacher's patches, or without a teacher `mae`'s loss of
        pixels. From the switch on: as `clip`.
    """
    if step >= model.switch:
        loss, metrics = clip(model.contrastive, batch, step)
        return loss, {"stage": 2.0, **metrics}
    assert batch.hidden is not None
    prediction, _ = model.masked(batch.pixels, batch.hidden)
    if model.teacher is None:
        patch_size = model.masked.encoder.patch_size
        return masked_pixel_loss(prediction, batch.pixels, batch.hidden, patch_size), {"stage": 1.0}
    return cosine_loss(prediction, model.teacher(batch.pixels), batch.hidden), {"stage": 1.0}


def ijepa(model: IJEPA, batch: PictureBatch, step: int, distance: str = "smooth_l1") -> Outcome:
    """What are the latents of the hidden patches.

    Args:
        distance: `smooth_l1`, or `l2`, the mean squared one.

    Returns:
        Distance to the targets; the share of the targets' variance that the guesses explain: 0 for a constant
        guess, and near 0 while nothing is learned.
    """
    guesses, targets = model(batch.pixels, batch.context, batch.targets)
    with torch.no_grad():
        flat = targets.flatten(0, -2)
        left = (guesses.float().flatten(0, -2) - flat).square().sum()
        explained = 1 - left / (flat - flat.mean(dim=0)).square().sum().clamp_min(1e-12)
    loss = latent_l2(guesses, targets) if distance == "l2" else latent_smooth_l1(guesses, targets)
    return loss, {"explained": explained}
