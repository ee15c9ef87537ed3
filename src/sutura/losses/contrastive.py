"""Pictures against texts within a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Negatives(NamedTuple):
    """Embeddings from elsewhere that a batch is told apart from, such as a queue's.

    Args:
        images: kept × dim; a text is told apart from them.
        texts: kept × dim; a picture is told apart from them.
        same: batch × kept, true where a kept pair shows the picture of a row: neither its picture nor its text counts
            as a negative there. None where all are of other pictures.
    """

    images: Tensor
    texts: Tensor
    same: Tensor | None = None


def clip_loss(
    image: Float[Tensor, "batch dim"],
    text: Float[Tensor, "batch dim"],
    log_scale: Float[Tensor, ""],
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of image and text embeddings.

    Each picture picks its text among all texts of the batch, each text its picture; the two
    cross-entropies are averaged.

    Args:
        image: one embedding a picture; normalised here.
        text: row i describes picture i; every other row counts as wrong for it.
        log_scale: log of the inverse temperature, unitless.
        smoothing: share of a row's weight that goes to all its candidates alike, as in torch's cross-entropy.

    Returns:
        Nats, mean over the batch and over both directions; log(batch) for embeddings that tell nothing.

    Raises:
        ValueError: fewer than two pairs, where there is nothing to tell apart; a smoothing outside of [0, 1).

    Source: Radford et al. 2021, arXiv:2103.00020, figure 3; equal to open_clip's ClipLoss
        on normalised inputs.
    Differs: computed in float32 whatever the inputs, under autocast too.
    """
    at_least_two_pairs(len(image))
    logits = log_scale.float().exp() * likeness(image, text)  # pictures × texts
    return (_own(logits, smoothing) + _own(logits.T, smoothing)) / 2


def clip_loss_beyond(
    image: Float[Tensor, "batch dim"],
    text: Float[Tensor, "batch dim"],
    log_scale: Float[Tensor, ""],
    negatives: Negatives | None = None,
    smoothing: float = 0.0,
    same: Bool[Tensor, "batch batch"] | None = None,
) -> Float[Tensor, ""]:
    """`clip_loss` where the batch is told apart from more pictures and texts than its own, or from fewer.

    Args:
        image: one embedding a picture; normalised here.
        text: row i describes picture i.
        log_scale: log of the inverse temperature, unitless.
        negatives: further candidates, none of which is right; they get no gradient.
        smoothing: as in `clip_loss`.
        same: rows that show the same picture: neither of them counts as a negative of the other.

    Returns:
        Nats; log(batch + kept) for embeddings that tell nothing.

    Raises:
        ValueError: as `clip_loss`.

    Source: He et al. 2020, arXiv:1911.05722, section 3.1, for a queue of negatives.
    """
    at_least_two_pairs(len(image))
    scale = log_scale.float().exp()
    logits = scale * likeness(image, text)  # pictures × texts
    to_texts, to_images = logits, logits.T
    if negatives is not None:
        to_texts = torch.cat([to_texts, scale * likeness(image, negatives.texts.detach())], dim=1)
        to_images = torch.cat([to_images, scale * likeness(text, negatives.images.detach())], dim=1)
    out = _left_out(len(image), negatives, same)
    return (_own(to_texts, smoothing, out) + _own(to_images, smoothing, out)) / 2


def _left_out(
    batch: int, negatives: Negatives | None, same: Bool[Tensor, "batch batch"] | None
) -> Bool[Tensor, "batch candidates"] | None:
    """Where a candidate is of the row's own picture and not the row itself; None where there is none."""
    kept = None if negatives is None else negatives.same
    if same is None:
        return None if kept is None else F.pad(kept, (batch, 0), value=False)
    within = same & ~torch.eye(batch, dtype=torch.bool, device=same.device)
    if negatives is None:
        return within
    return (
        F.pad(within, (0, len(negatives.images)), value=False)
        if kept is None
        else torch.cat([within, kept], 1)
    )


def _own(
    logits: Float[Tensor, "rows candidates"],
    smoothing: float,
    out: Bool[Tensor, "rows candidates"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of row i for candidate i among those that are not left `out`."""
    _share(smoothing)
    own = torch.arange(len(logits), device=logits.device)
    if out is None:
        return F.cross_entropy(logits, own, label_smoothing=smoothing)
    logs = logits.masked_fill(out, float("-inf")).log_softmax(dim=1)
    evenly = logs.masked_fill(out, 0.0).sum(dim=1) / (~out).sum(dim=1)
    return -((1 - smoothing) * logs[own, own] + smoothing * evenly).mean()


def sigmoid_loss(
    image: Float[Tensor, "batch dim"],
    text: Float[Tensor, "batch dim"],
    log_scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    positives: Bool[Tensor, "batch batch"] | None = None,
    smoothing: float = 0.0,
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
        smoothing: the wanted answer is 1 - smoothing / 2 for a pair that belongs together and smoothing / 2 for any
            other, instead of 1 and 0.

    Returns:
        Nats: summed over texts, mean over pictures.

    Raises:
        ValueError: fewer than two pairs, where there is nothing to deny; a smoothing outside of [0, 1).

    Source: Zhai et al. 2023, arXiv:2303.15343, section 3.2, algorithm 1; equal to open_clip's SigLipLoss and
        to the loss of transformers' SiglipModel on normalised inputs. Several texts a picture: section 3.2's
        labels z, which need not be a diagonal.
    Differs: computed in float32 whatever the inputs, under autocast too.
    """
    at_least_two_pairs(len(image))
    logits = log_scale.float().exp() * likeness(image, text) + bias.float()  # pictures × texts
    if positives is None:
        positives = torch.eye(len(image), dtype=torch.bool, device=image.device)
    _share(smoothing)
    right = -F.logsigmoid(torch.where(positives, logits, -logits)).sum()
    if not smoothing:
        return right / len(image)
    wrong = -F.logsigmoid(torch.where(positives, -logits, logits)).sum()
    return ((1 - smoothing / 2) * right + smoothing / 2 * wrong) / len(image)


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


def _share(smoothing: float) -> None:
    if not 0 <= smoothing < 1:
        raise ValueError(
            f"smoothing={smoothing} is no share of the weight that can be given away; 0 to below 1."
        )


def at_least_two_pairs(count: int) -> None:
    """Raises ValueError for a batch in which there is nothing to tell apart."""
    if count < 2:
        raise ValueError(f"A contrastive loss needs at least two pairs, the batch holds {count}.")
