"""Weights under other names and shapes, in both directions, every key accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Move:
    """Some tensors of ours that are some tensors of theirs.

    Args:
        ours: our names.
        theirs: their names.
        to_ours: their tensors, in the order of the names, to ours.
        to_theirs: the other way.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    to_ours: Callable[..., Sequence[Tensor]] = lambda *tensors: tensors
    to_theirs: Callable[..., Sequence[Tensor]] = lambda *tensors: tensors


class KeyMap:
    """A state dict of ours for a module of theirs, and back.

    Args:
        moves: how the tensors correspond.
        left_out: beginnings or ends of their names that have no place here, and are not made on the way back.
    """

    def __init__(self, moves: Iterable[Move], left_out: Sequence[str] = ()) -> None:
        self.moves, self.left_out = tuple(moves), tuple(left_out)

    def ours(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their state dict under our names. Raises ValueError when a key is missing or left over."""
        kept = {
            name: tensor
            for name, tensor in theirs.items()
            if not name.startswith(self.left_out) and not name.endswith(self.left_out)
        }
        return _moved(kept, ((move.theirs, move.ours, move.to_ours) for move in self.moves))

    def theirs(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our state dict under their names. Raises ValueError when a key is missing or left over."""
        return _moved(ours, ((move.ours, move.theirs, move.to_theirs) for move in self.moves))

    def under(self, ours: str, theirs: str) -> list[Move]:
        """The moves for the same module inside a larger one, whose names begin so."""
        return [
            replace(
                move,
                ours=tuple(ours + name for name in move.ours),
                theirs=tuple(theirs + name for name in move.theirs),
            )
            for move in self.moves
        ]


def _moved(
    source: Mapping[str, Tensor],
    moves: Iterable[tuple[tuple[str, ...], tuple[str, ...], Callable[..., Sequence[Tensor]]]],
) -> dict[str, Tensor]:
    rest, done = dict(source), {}
    for names, new_names, change in moves:
        for name in names:
            if name not in rest:
                raise ValueError(f"{name!r} is missing from the weights ({len(rest)} keys left).")
        made = change(*(rest.pop(name) for name in names))
        done |= dict(zip(new_names, made, strict=True))
    if rest:
        raise ValueError(f"{len(rest)} weights have no place here: {', '.join(sorted(rest)[:4])} …")
    return done


def same(ours: str, theirs: str, *kinds: str) -> list[Move]:
    """Tensors that differ in name only; with kinds, one for each `.kind` of both names."""
    endings = [f".{kind}" for kind in kinds] or [""]
    return [Move((ours + end,), (theirs + end,)) for end in endings]


def layer(ours: str, theirs: str) -> list[Move]:
    """A linear map or norm: its weight and its bias."""
    return same(ours, theirs, "weight", "bias")


def scalar(ours: str, theirs: str) -> Move:
    """One number, kept without axes here and in a row of one there."""
    return Move((ours,), (theirs,), lambda row: (row.reshape(()),), lambda number: (number.reshape(1),))


def transposed(ours: str, theirs: str) -> Move:
    """A matrix that they multiply from the other side."""
    return Move((ours,), (theirs,), lambda m: (m.T.contiguous(),), lambda m: (m.T.contiguous(),))


def convolution(ours: str, theirs: str, patch_size: int, bias: bool) -> list[Move]:
    """A patch embedding: a matrix here, a convolution's weight there."""
    weight = Move(
        (f"{ours}.weight",),
        (f"{theirs}.weight",),
        lambda w: (w.flatten(1),),
        lambda w: (w.view(len(w), -1, patch_size, patch_size),),
    )
    return [weight, *(same(ours, theirs, "bias") if bias else [])]


def fused(ours: str, theirs: Sequence[str]) -> list[Move]:
    """Several linear maps of theirs that are one here, their rows one above the other."""
    return [
        Move(
            (f"{ours}.{kind}",),
            tuple(f"{name}.{kind}" for name in theirs),
            lambda *parts: (torch.cat(parts),),
            lambda whole: [part.clone() for part in whole.chunk(len(theirs))],
        )
        for kind in ("weight", "bias")
    ]


def prefix_and_positions(
    tokens: Sequence[str], table: str, counts: Sequence[int], placed: bool = True, flat: bool = False
) -> Move:
    """Prefix tokens and positions; where theirs have positions of their own, these are part of a token here.

    Args:
        tokens: their names of the prefix tokens, in the order of the sequence.
        table: their name of the table of positions.
        counts: how many tokens each name holds.
        placed: whether the table holds the prefix tokens' positions too; on the way back these become zero.
        flat: whether their tensors have no leading axis of one, and a single token none for its count.
    """
    prefix = sum(counts)

    def to_ours(*tensors: Tensor) -> list[Tensor]:
        width = tensors[-1].shape[-1]
        places = tensors[-1].reshape(1, -1, width)
        if not prefix:
            return [places]
        row = torch.cat([token.reshape(1, -1, width) for token in tensors[:-1]], dim=1)
        if row.shape[1] != prefix:
            raise ValueError(f"{row.shape[1]} prefix tokens in the weights, expected {prefix}.")
        return [row + places[:, :prefix], places[:, prefix:]] if placed else [row, places]

    def to_theirs(*tensors: Tensor) -> list[Tensor]:
        places = tensors[-1]
        parts = tensors[0].split(list(counts), dim=1) if prefix else ()
        if prefix and placed:
            places = torch.cat([torch.zeros_like(tensors[0]), places], dim=1)
        if flat:
            return [*(part.reshape(-1) for part in parts), places[0]]
        return [*parts, places]

    return Move(("prefix", "positions") if prefix else ("positions",), (*tokens, table), to_ours, to_theirs)


def fixed_table(theirs: str, table: Float[Tensor, "1 patches width"], prefix: int) -> Move:
    """A table of theirs that is computed here and no weight; prefix tokens stand at zero in it.

    Raises:
        ValueError: on the way here, when theirs holds other numbers.
    """
    whole = torch.cat([table.new_zeros(1, prefix, table.shape[2]), table], dim=1)

    def check(found: Tensor) -> Sequence[Tensor]:
        if found.shape != whole.shape or not torch.allclose(found.float().cpu(), whole, atol=1e-4):
            raise ValueError(f"{theirs!r} is not the fixed sine-cosine table of this model's grid and width.")
        return ()

    return Move((), (theirs,), check, lambda: (whole.clone(),))
