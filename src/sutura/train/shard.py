"""A frozen trunk in pieces, one on each process, for one that does not fit a single GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from sutura.core.errors import UserError
from sutura.core.processes import Processes, here

if TYPE_CHECKING:
    import torch

    from sutura.stitch.model import StitchModel


def check_several(team: Processes) -> None:
    """Refuse to lay anything over a single process.

    Raises:
        UserError: this is one.
    """
    if not team.several:
        raise UserError(
            "engine.shard=fsdp lays a trunk over several processes, and this is one: start it with accelerate "
            "launch or torchrun (docs/scaling.md), or set engine.shard=none."
        )


def shard_frozen(model: StitchModel, device: torch.device) -> int:
    """Lay the frozen weights of every block in pieces over the processes; the others stay whole everywhere.

    Each block is put together again just before it runs, forward and backward, and taken apart behind. What
    trains (projector, adapter, an encoder trained along) stays whole, so that checkpoints and saved stitches hold
    full tensors; embeddings, head and norms outside the blocks stay whole too, since the stitch calls them from
    outside of the trunk's forward. Blocks go to the device one by one.

    Args:
        model: on the CPU, or on the device already.
        device: of this process.

    Returns:
        Weights that lie in pieces from now on, counted whole.

    Raises:
        UserError: a single process, or a trunk without blocks or whose blocks share weights.

    Source: torch.distributed.fsdp.fully_shard (FSDP2).
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    check_several(here())
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    sharded = _shard_blocks(_blocks_of(model.lm), mesh, "the language model")
    encoder: Any = model.encoder
    if encoder is not None and not any(p.requires_grad for p in encoder.parameters()):
        sharded += _shard_blocks(list(encoder.trunk.blocks()), mesh, f"encoder {encoder.name!r}")
    return sharded


def _blocks_of(lm: nn.Module) -> list[nn.Module]:
    """The layers of a language model: of its module lists, the one with the most weights."""
    lists = [module for module in lm.modules() if isinstance(module, nn.ModuleList)]
    largest = max(lists, key=lambda one: sum(p.numel() for p in one.parameters()), default=nn.ModuleList())
    return list(largest)


def _shard_blocks(blocks: list[nn.Module], mesh: Any, what: str) -> int:
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not blocks:
        raise UserError(f"{what} has no list of blocks to lay over processes; set engine.shard=none.")
    seen: set[int] = set()
    for block in blocks:
        ids = {id(p) for p in block.parameters()}
        if ids & seen:
            raise UserError(f"Blocks of {what} share weights; set engine.shard=none.")
        seen |= ids
    count = 0
    for block in blocks:
        whole = {p for p in block.parameters() if p.requires_grad}
        frozen = [p for p in block.parameters() if not p.requires_grad]
        if frozen and not isinstance(block, FSDPModule):  # an encoder that an earlier cell used is in pieces
            fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
        count += sum(p.numel() for p in frozen)
    return count
