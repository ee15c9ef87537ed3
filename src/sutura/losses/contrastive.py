"""Pictures against texts within a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def clip_loss(
    image: Float[Tensor, "batch dim"],
    text: Float[Tensor, "batch dim"],
    log_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of image and text embeddings.

    Each picture picks its text among all texts of the batch, each text its picture; the two
    cross-entropies are averaged.

    Args:
        image: one embedding a picture; normalised here.
        text: row i describes picture i; every other row counts as wrong for it.
        log_scale: log of the inverse temperature, unitless.

    Returns:
        Nats, mean over the batch and over both directions; log(batch) for embeddings that tell nothing.

    Raises:
        ValueError: fewer than two pairs, where there is nothing to tell apart.

    Source: Radford et al. 2021, arXiv:2103.00020, figure 3; equal to open_clip's ClipLoss
        on normalised inputs.
    Differs: computed in float32 whatever the inputs, under autocast too.
    """
    at_least_two_pairs(len(image))
    logits = log_scale.float().exp() * likeness(image, text)  # pictures × texts
    diagonal = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2


def sigmoid_loss(
    image: Float[Tensor, "batch dim"],
    text: Float[Tensor, "batch dim"],
    log_scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    positives: Bool[Tensor, "batch batch"] | None = None,
) -> Float[Tensor, ""]:
    """Pairwise sigmoid loss of image and text embeddings.

    Every picture with every text is a yes/no question of its own, so that nothing is normalised over the
    batch, and a picture may have several texts to say yes to.

    Args:
        image: one embedding a picture; normalised here.
        text: row i describes picture i.
        log_scale: log of the inverse temperature, unitless; starts at log 10.
        bias: added to every logit; starts at -10 because nearly all pairs are to be denied.
        positives: picture i belongs to text j, as the blocks of `Pairs` say; by default i to i only.

    Returns:
        Nats: summed over texts, mean over pictures.

    Raises:
        ValueError: fewer than two pairs, where there is nothing to deny.

    Source: Zhai et al. 2023, arXiv:2303.15343, section 3.2, algorithm 1; equal to open_clip's SigLipLoss and
        to the loss of transformers' SiglipModel on normalised inputs. Several texts a picture: section 3.2's
        labels z, which need not be a diagonal.
    Differs: computed in float32 whatever the inputs, under autocast too.
    """
    at_least_two_pairs(len(image))
    logits = log_scale.float().exp() * likeness(image, text) + bias.float()  # pictures × texts
    if positives is None:
        positives = torch.eye(len(image), dtype=torch.bool, device=image.device)
    return -F.logsigmoid(torch.where(positives, logits, -logits)).sum() / len(image)


class Pairs:
    """Which texts of a batch describe which pictures, answered for a part of them at a time.

    A text describes a picture when some pair of the batch holds that picture with those words: its own text,
    the same words in another row, or another caption of the same picture wherever it stands. None of these
    may count as a negative.

    Args:
        words: token ids of each pair's text; texts are the same when all ids are, padding included.
        pictures: a number for each pair's picture, the same for the same picture.
    """

    def __init__(self, words: Int[Tensor, "batch length"], pictures: Int[Tensor, "batch"]) -> None:
        self.text = torch.unique(words, dim=0, return_inverse=True)[1]
        self.picture = torch.unique(pictures, return_inverse=True)[1]
        self.known = torch.unique(self._key(self.picture, self.text))  # ascending

    def block(self, rows: slice, columns: slice) -> Bool[Tensor, "pictures texts"]:
        """True where the picture of a row is described by the text of a column."""
        key = self._key(self.picture[rows, None], self.text[None, columns])
        where = torch.searchsorted(self.known, key).clamp_max(len(self.known) - 1)
        return self.known[where] == key

    def _key(self, picture: Tensor, text: Tensor) -> Tensor:
        return picture * len(self.text) + text


def likeness(
    image: Float[Tensor, "pictures dim"], text: Float[Tensor, "texts dim"]
) -> Float[Tensor, "pictures texts"]:
    """Cosines in float32, which autocast would else take in half precision: at a scale of 100 a cosine's
    rounding to bfloat16 moves a logit by up to 0.2."""
    with torch.autocast(image.device.type, enabled=False):
        return F.normalize(image.float(), dim=1) @ F.normalize(text.float(), dim=1).T


def at_least_two_pairs(count: int) -> None:
    """Raises ValueError for a batch in which there is nothing to tell apart."""
    if count < 2:
        raise ValueError(f"A contrastive loss needs at least two pairs, the batch holds {count}.")
