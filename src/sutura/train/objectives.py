"""What a model is trained for: one short function a method, (model, batch, step) -> (loss, named metrics)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sutura.losses.contrastive import clip_loss
from sutura.losses.prediction import latent_smooth_l1
from sutura.models.clip import CLIP
from sutura.models.ijepa import IJEPA
from sutura.models.vit import Classifier
from sutura.train.picture_feed import PictureBatch

Outcome = tuple[Float[Tensor, ""], dict[str, "float | Tensor"]]


def supervised(model: Classifier, batch: PictureBatch, step: int) -> Outcome:
    """Which labels does the picture carry: one yes/no question a label.

    Returns:
        Binary cross-entropy in nats, mean over labels and pictures; the share of labels called right.
    """
    logits, _ = model(batch.pixels)
    labels = batch.labels
    assert labels is not None
    assert labels.shape == logits.shape
    loss = F.binary_cross_entropy_with_logits(logits.float(), labels)
    return loss, {"label_accuracy": ((logits > 0) == (labels > 0.5)).float().mean()}


def supervised_single(model: Classifier, batch: PictureBatch, step: int) -> Outcome:
    """Which one label does the picture carry.

    Returns:
        Cross-entropy in nats, mean over pictures; the share of pictures called right.
    """
    logits, _ = model(batch.pixels)
    assert batch.labels is not None
    assert batch.labels.ndim == 1
    loss = F.cross_entropy(logits.float(), batch.labels)
    return loss, {"accuracy": (logits.argmax(dim=1) == batch.labels).float().mean()}


def clip(model: CLIP, batch: PictureBatch, step: int) -> Outcome:
    """Which text of the batch belongs to the picture, and which picture to the text.

    Returns:
        Symmetric InfoNCE in nats; the share of pictures that rank their own text strictly first, the scale.
    """
    image, text, log_scale = model(batch.pixels, batch.words)
    loss = clip_loss(image, text, log_scale)
    with torch.no_grad():
        likeness = F.normalize(image.float(), dim=1) @ F.normalize(text.float(), dim=1).T
        others = likeness.masked_fill(
            torch.eye(len(likeness), dtype=torch.bool, device=likeness.device), -2.0
        )
        first = (likeness.diagonal() > others.max(dim=1).values).float().mean()
    return loss, {"picture_to_text": first, "scale": log_scale.detach().exp()}


def ijepa(model: IJEPA, batch: PictureBatch, step: int) -> Outcome:
    """What are the latents of the hidden rectangles.

    Returns:
        Smooth L1 distance; the share of the targets' variance that the guesses explain: 0 for a constant
        guess, and near 0 while nothing is learned.
    """
    guesses, targets = model(batch.pixels, batch.context, batch.targets)
    with torch.no_grad():
        flat = targets.flatten(0, -2)
        left = (guesses.float().flatten(0, -2) - flat).square().sum()
        explained = 1 - left / (flat - flat.mean(dim=0)).square().sum().clamp_min(1e-12)
    return latent_smooth_l1(guesses, targets), {"explained": explained}
