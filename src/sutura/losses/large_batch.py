"""The contrastive losses for a batch too large for one matrix, or spread over processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from sutura.losses.contrastive import Pairs, at_least_two_pairs, likeness

Columns = Callable[[int, int], Tensor]
"""For the texts from a first to before a last: which rows' pictures they describe."""


def sigmoid_loss_chunked(
    image: Float[Tensor, "batch dim"],
    text: Float[Tensor, "batch dim"],
    log_scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    positives: Bool[Tensor, "batch batch"] | Pairs | None = None,
    chunk: int = 1024,
) -> Float[Tensor, ""]:
    """`sigmoid_loss` over some texts at a time, value and gradients alike.

    No pair depends on another, so the gradient of a chunk is known once its logits are: it is taken in the
    forward pass and only sums are kept. Memory grows with batch × chunk, not with batch × batch.

    Args:
        image: one embedding a picture.
        text: row i describes picture i.
        log_scale: log of the inverse temperature.
        bias: added to every logit.
        positives: a mask of the whole batch, or `Pairs`, which makes it as it is needed.
        chunk: texts at a time; the last chunk may be smaller.

    Returns:
        Nats: summed over texts, mean over pictures.

    Source: Zhai et al. 2023, arXiv:2303.15343, section 3.3, where the chunks lie on different devices.
    """
    at_least_two_pairs(len(image))
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be 1 or more.")
    columns = _columns(positives, 0, len(image), image.device)
    return _sigmoid_sum(image, text, log_scale, bias, columns, chunk) / len(image)


def sigmoid_loss_distributed(
    image: Float[Tensor, "local dim"],
    text: Float[Tensor, "local dim"],
    log_scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    words: Int[Tensor, "local length"] | None = None,
    pictures: Int[Tensor, "local"] | None = None,
    chunk: int = 1024,
    group: dist.ProcessGroup | None = None,
) -> Float[Tensor, ""]:
    """This process's share of `sigmoid_loss` over the batches of all processes.

    Texts are gathered with their gradients, pictures stay where they are. The mean of the shares is the loss
    of the whole batch, and as DistributedDataParallel averages gradients, weights get that batch's gradient.
    Processes may hold different numbers of pairs.

    Args:
        image: embeddings of this process's pictures.
        text: embeddings of its texts.
        log_scale: log of the inverse temperature.
        bias: added to every logit.
        words: token ids of the texts, equally long everywhere; with `pictures`, tells duplicates apart.
        pictures: numbers of the pictures, the same for the same picture in any process.
        chunk: texts at a time.
        group: of the processes; by default all.

    Source: Zhai et al. 2023, arXiv:2303.15343, section 3.3.
    Differs: texts are gathered whole, which are few numbers beside the logits; the paper passes them around.
    """
    if (words is None) is not (pictures is None):
        raise ValueError("Duplicates are told apart by words and pictures together; one of them is missing.")
    texts, first = gather_rows(text, group)
    at_least_two_pairs(len(texts))
    pairs = None
    if words is not None and pictures is not None:
        pairs = Pairs(gather_rows(words, group)[0], gather_rows(pictures[:, None], group)[0][:, 0])
    columns = _columns(pairs, first, len(image), image.device)
    total = _sigmoid_sum(image, texts, log_scale, bias, columns, chunk)
    return total * dist.get_world_size(group) / len(texts)


def clip_loss_distributed(
    image: Float[Tensor, "local dim"],
    text: Float[Tensor, "local dim"],
    log_scale: Float[Tensor, ""],
    group: dist.ProcessGroup | None = None,
) -> Float[Tensor, ""]:
    """This process's share of `clip_loss` over the batches of all processes, as in the sigmoid form.

    Source: Radford et al. 2021, arXiv:2103.00020, section 2.5: each process computes only the likenesses
        that its own pairs need.
    """
    images, first = gather_rows(image, group)
    texts, _ = gather_rows(text, group)
    at_least_two_pairs(len(texts))
    own = torch.arange(first, first + len(image), device=image.device)
    scale = log_scale.float().exp()
    total = sum(
        F.cross_entropy(scale * likeness(mine, every), own, reduction="sum")
        for mine, every in ((image, texts), (text, images))
    )
    return torch.as_tensor(total) / 2 * dist.get_world_size(group) / len(texts)


def gather_rows(rows: Tensor, group: dist.ProcessGroup | None = None) -> tuple[Tensor, int]:
    """The rows of all processes in the order of their ranks, with gradients, and where one's own begin.

    Raises:
        ValueError: rows of one process are longer than those of another; in every process alike.
    """
    world, rank = dist.get_world_size(group), dist.get_rank(group)
    mine = torch.tensor(rows.shape, device=rows.device)
    shapes = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(shapes, mine, group=group)
    counts, widths = zip(*(shape.tolist() for shape in shapes), strict=True)
    if len(set(widths)) > 1:
        raise ValueError(f"Processes hold rows of different lengths, {list(widths)}; pad them to one.")
    gathered = _Gather.apply(rows, list(counts), rank, group)
    return gathered, sum(counts[:rank])


class _Gather(torch.autograd.Function):
    """All processes' rows, padded on the way where counts differ; backward sums what all want of mine."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, counts: list[int], rank: int, group: dist.ProcessGroup | None
    ) -> Tensor:
        ctx.group, ctx.own = group, slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        padded = F.pad(rows, (0, 0, 0, max(counts) - len(rows))).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, None, None, None]:
        wanted = gradient.clone()
        dist.all_reduce(wanted, group=ctx.group)
        return wanted[ctx.own], None, None, None


def _columns(positives: Tensor | Pairs | None, first: int, count: int, device: torch.device) -> Columns:
    """The labels of `count` pictures from `first` on, for texts from a start to a stop."""
    if isinstance(positives, Pairs):
        return lambda start, stop: positives.block(slice(first, first + count), slice(start, stop))
    if positives is not None:
        return lambda start, stop: positives[:, start:stop]
    rows = torch.arange(first, first + count, device=device)[:, None]
    return lambda start, stop: rows == torch.arange(start, stop, device=device)


def _sigmoid_sum(
    image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor, columns: Columns, chunk: int
) -> Tensor:
    return _SigmoidSum.apply(
        F.normalize(image.float(), dim=1),
        F.normalize(text.float(), dim=1),
        log_scale.float().exp(),
        bias.float(),
        columns,
        chunk,
    )


class _SigmoidSum(torch.autograd.Function):
    """The sum over all pairs, with its gradients gathered chunk by chunk in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, columns: Columns, chunk: int
    ) -> Tensor:
        total = image.new_zeros(())
        to_image, to_text = torch.zeros_like(image), torch.zeros_like(text)
        to_scale, to_bias = torch.zeros_like(scale), torch.zeros_like(bias)
        with torch.autocast(image.device.type, enabled=False):
            for start in range(0, len(text), chunk):
                stop = min(start + chunk, len(text))
                part = text[start:stop]
                cosine = image @ part.T  # pictures × chunk
                logits = cosine * scale + bias
                yes = columns(start, stop)
                wrong = torch.where(yes, -logits, logits)
                total += F.softplus(wrong).sum()
                if any(ctx.needs_input_grad):
                    slope = torch.where(yes, -1.0, 1.0) * torch.sigmoid(wrong)
                    to_image += scale * (slope @ part)
                    to_text[start:stop] = scale * (slope.T @ image)
                    to_scale += (slope * cosine).sum()
                    to_bias += slope.sum()
        ctx.save_for_backward(to_image, to_text, to_scale, to_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        return *(gradient * kept for kept in ctx.saved_tensors), None, None
