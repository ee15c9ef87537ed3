"""Where the projector's norm starts: at the identity, or so that every channel of the tokens has one size.

An encoder's tokens may be one large constant and a small rest in which pictures differ. LayerNorm works token by token
and leaves that as it is: of the normed tokens of the zoo's MAE 95 % of the energy is one vector that all pictures
share, of its CLIP's 18 %. A projector then has to find the small rest first, at the same steps and learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

import torch
from torch import Tensor, nn

from sutura.core.runtime import derive_seed
from sutura.stitch.layer_norm_mlp import LayerNormMlp

#: Pictures whose tokens are looked at, at most.
PICTURES = 512
#: Of them at a time.
BATCH = 64
#: Smallest deviation that is made one: what a channel that never changes has in noise is not blown up further.
LEAST = 1e-3


@torch.no_grad()
def standardise(projector: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the first norm's weight and bias so that its output has mean 0 and deviation 1, channel by channel.

    Only the start changes: architecture, parameters and file format are those of any other projector, and both are
    trained from there.

    Args:
        projector: with a `LayerNormMlp` that nothing trained stands before.
        batches: patches as the projector takes them, B N D.

    Raises:
        ValueError: no tokens.

    Source: starting from a batch's mean and deviation: Salimans and Kingma 2016, arXiv:1602.07868, section 3.
    Differs: applied to what a LayerNorm puts out, over pictures of the training data, before the first step.
    """
    norm = next(part for part in projector.modules() if isinstance(part, LayerNormMlp)).norm
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)
    seen: list[Tensor] = []
    hook = norm.register_forward_hook(lambda module, inputs, output: seen.append(output.double()))
    count, total, squares = 0, torch.zeros(0), torch.zeros(0)
    try:
        for batch in batches:
            projector(batch.to(norm.weight))
            tokens = seen.pop().flatten(0, -2)
            if not count:
                total, squares = torch.zeros_like(tokens[0]), torch.zeros_like(tokens[0])
            count += len(tokens)
            total, squares = total + tokens.sum(dim=0), squares + tokens.square().sum(dim=0)
    finally:
        hook.remove()
    if not count:
        raise ValueError("Standardising tokens needs at least one picture.")
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    rate = 1 / deviation.clamp_min(LEAST)
    norm.weight.copy_(rate)
    norm.bias.copy_(-mean * rate)


def some_patches(
    names: Sequence[str], patches: Callable[[Sequence[str]], Tensor], seed: int
) -> Iterator[Tensor]:
    """Patches of up to `PICTURES` pictures, drawn from the seed, a batch at a time."""
    chosen = sorted(set(names))
    if len(chosen) > PICTURES:
        chosen = sorted(Random(derive_seed(seed, "standardise")).sample(chosen, PICTURES))
    for first in range(0, len(chosen), BATCH):
        yield patches(chosen[first : first + BATCH])
