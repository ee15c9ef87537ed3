"""One optimizer step shared out over processes: who takes which micro-batch, and how gradients become one.

Gradients are summed by hand after a process's last micro-batch, not by DistributedDataParallel. That one averages,
expects every process to run backward equally often, and hooks the model's forward alone, while an objective here
calls parts of it. What trains is small (projector and adapter), so one sum a step costs little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_tensors
from sutura.core.processes import Processes

#: Elements summed in one message; 128 MB of float32.
BUCKET = 32 * 1024 * 1024


def share(count: int, team: Processes, *, even: bool = False) -> Iterator[tuple[int, bool]]:
    """This process's micro-batches by index, and whether each counts.

    Args:
        count: micro-batches of the step.
        team: processes; rank r takes r, r + size, r + 2 · size, …
        even: every process runs equally many. Sharded weights are gathered by all at once, so a process that has
            no micro-batch left runs the first one again, without counting it.
    """
    rounds = -(-count // team.count)
    for turn in range(rounds):
        index = turn * team.count + team.rank
        if index < count:
            yield index, True
        elif even:
            yield 0, False


@torch.no_grad()
def sum_gradients(parameters: Sequence[nn.Parameter], team: Processes) -> None:
    """Every gradient becomes the sum over processes; one that no process has stays None.

    A process without a micro-batch in this step takes part with zeros.
    """
    if not team.several:
        return
    import torch.distributed as dist

    for bucket in _buckets(parameters):
        device = bucket[0].device
        has = torch.tensor([p.grad is not None for p in bucket], dtype=torch.float32, device=device)
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).float().flatten() for p in bucket]
        flat = torch.cat([*parts, has])
        dist.all_reduce(flat)
        *sums, had = flat.split([p.numel() for p in bucket] + [len(bucket)])
        for parameter, total, some in zip(bucket, sums, had.tolist(), strict=True):
            parameter.grad = total.view_as(parameter).to(parameter.dtype, copy=True) if some else None


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    held = 0
    for parameter in parameters:
        if bucket and held + parameter.numel() > BUCKET:
            yield bucket
            bucket, held = [], 0
        bucket.append(parameter)
        held += parameter.numel()
    if bucket:
        yield bucket


def join_rows(row: Mapping[str, Any], counts: Mapping[str, float], team: Processes) -> dict[str, Any]:
    """A step's values over all processes, the same in each: the loss is a sum, metrics are means.

    Args:
        row: of this process; `grad_norm` is of the summed gradients already.
        counts: micro-batches behind each metric, by their weight.
        team: the processes.
    """
    everyone = team.gather((dict(row), dict(counts)))
    joined: dict[str, Any] = {
        "loss": sum(theirs["loss"] for theirs, _ in everyone),
        "grad_norm": everyone[0][0]["grad_norm"],
    }
    for name in dict.fromkeys(name for _, theirs in everyone for name in theirs):
        known = [(theirs[name], number[name]) for theirs, number in everyone if name in number]
        joined[name] = sum(mean * number for mean, number in known) / sum(number for _, number in known)
    return joined


def check_team(
    model: nn.Module, objective: Any, team: Processes, *, moves_frozen: bool, sharded: bool
) -> None:
    """Refuse what would train something else in several processes than in one.

    Raises:
        UserError: an objective whose loss compares all pairs of a step, a batch norm that trains, or a moving
            average of a sharded model.
    """
    if not team.several:
        return
    if getattr(getattr(objective, "func", objective), "whole_batch", False):
        name = getattr(getattr(objective, "func", objective), "__name__", "this")
        raise UserError(
            f"Objective {name!r} compares all pairs of a step's batch, so a step cannot be shared out over "
            f"{team.count} processes; start one process."
        )
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise UserError(
                f"{name} is a batch norm that trains: each of {team.count} processes would see its own "
                "pictures' statistics. Freeze it (encoder.train=none), or start one process."
            )
    if sharded and moves_frozen:
        raise UserError("A moving average cannot follow a sharded model; set engine.shard=none.")


def check_start(trainable: Mapping[str, Tensor], about: Sequence[Any], team: Processes) -> None:
    """Every process starts at the same place from the same weights.

    Raises:
        UserError: they do not, for one because they do not see the same disk.
    """
    if not team.several:
        return
    found = team.gather([*about, fingerprint_tensors(dict(trainable))])
    for rank, theirs in enumerate(found):
        if theirs != found[0]:
            raise UserError(
                f"Process {rank} would start from another place or other weights than process 0 ({theirs} and "
                f"{found[0]}). All processes need the same config, seed and directory; across machines the "
                "directory has to be on a disk that all of them see."
            )


def is_sharded(model: nn.Module) -> bool:
    """Whether some weight lies in pieces, one on each process."""
    if not torch.distributed.is_available():
        return False
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in model.parameters())
