"""One run in several processes: which of them this is, and what they tell each other.

Started by `accelerate launch` or `torchrun`, every process runs the same program. What each does for itself is
shared out by its rank; files are written by the first one, and what it met is told to all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from sutura.core.errors import UserError

T = TypeVar("T")

#: Set by every launcher that speaks to torch.
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: Commands whose work is shared out over processes. Pretraining is not: contrastive losses compare all pairs of a
#: batch, and the feed of pictures gives a whole batch at once.
SHARED = ("compare", "stitch")
#: How long one process waits for another. A process that died is noticed by the launcher, which ends the rest;
#: this only ends a wait behind another run's lock that nobody ever gives up.
PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Args:
        rank: of this one, from 0.
        count: of all.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first process; the others wait, and do not do it.

        Raises:
            UserError: in every process, when the first one met it.
        """
        if not self.several:
            return work()
        import torch.distributed as dist

        told: list[Any] = [None, None]
        fault: UserError | None = None
        if self.first:
            try:
                told[0] = work()
            except UserError as error:
                fault, told[1] = error, str(error)
        dist.broadcast_object_list(told, src=0)
        if told[1] is not None:
            raise fault or UserError(told[1])
        return told[0]

    def gather(self, value: T) -> list[T]:
        """Everybody's value, in the order of ranks; small things that pickle."""
        if not self.several:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def all_or_none(self, work: Callable[[], T]) -> list[T]:
        """What `work` returns in each process.

        Raises:
            UserError: in every process, when one of them met it.
        """
        mine: tuple[T | None, str | None]
        try:
            mine = work(), None
        except UserError as error:
            if not self.several:
                raise
            mine = None, str(error)
        found = self.gather(mine)
        for rank, (_, fault) in enumerate(found):
            if fault is not None:
                raise UserError(f"Process {rank} of {self.count}: {fault}")
        return [value for value, _ in found]  # type: ignore[misc]


def launched() -> bool:
    """Whether a launcher started this process as one of several; looks at the environment only."""
    return all(name in os.environ for name in LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1


def share_out(words: Sequence[str]) -> None:
    """Refuse a command that several processes would only repeat; of those that go on, the first alone prints.

    Args:
        words: the command line, without the program's name.

    Raises:
        UserError: launched as several, and the command is none that shares its work out; or accelerate was asked
            for several and started one, as it does on the CPU.
    """
    if "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ and "RANK" not in os.environ:
        raise UserError(
            "accelerate was asked for several processes and its launcher for the CPU started one. Add --multi_gpu, "
            "which starts them with or without GPUs, or use torchrun (docs/scaling.md)."
        )
    if launched() and words and words[0] not in SHARED and "--help" not in words:
        raise UserError(
            f"`sutura {words[0]}` runs in one process, and {os.environ['WORLD_SIZE']} were started; those that "
            f"share their work out are {', '.join(SHARED)}. Start it without the launcher."
        )
    if launched() and os.environ["RANK"] != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process


def here() -> Processes:
    """This process, joined to the others of its run if it was launched as one of several.

    Raises:
        UserError: the launcher was told to shard or train in a way of its own.
    """
    import torch.distributed as dist

    if not dist.is_available():
        return Processes()
    if not dist.is_initialized():
        if not launched():
            return Processes()
        _join()
    return Processes(dist.get_rank(), dist.get_world_size())


def leave(code: int | None = None) -> None:
    """Part from the others, if this process ever joined them.

    Args:
        code: end the process here with this exit code, if it had joined. Gloo's threads may still hold tensors;
            freed by an interpreter that is going down, they abort a process whose work is done (seen once in some
            fifty runs; pytorch/pytorch#179291).
    """
    if "torch" not in sys.modules:
        return
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return
    dist.destroy_process_group()
    if code is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _join() -> None:
    import torch
    import torch.distributed as dist

    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise UserError(
                f"accelerate was told to use {name}; start it with --multi_gpu alone. "
                "A trunk that does not fit one GPU is shared out by engine.shard=fsdp."
            )
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available() and local < torch.cuda.device_count():
        torch.cuda.set_device(local)  # `cuda` means this one from here on
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
