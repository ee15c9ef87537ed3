"""Two processes of one run, as a launcher would start them, that meet through a file and no port."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sutura.core.processes import leave


def run_two(worker: Path, folder: Path, *, timeout: float = 120) -> list[dict[str, Any]]:
    """Start `worker RANK FOLDER` twice; what each wrote with `answer`, by rank."""
    tests = Path(__file__).parent
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(
            [str(tests), str(tests.parent / "src"), os.environ.get("PYTHONPATH", "")]
        ),
    }
    running = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=timeout)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def answer(work: Callable[[int, Path], dict[str, Any]]) -> None:
    """The main part of a worker: join the other, do the work, leave what it returns.

    One that fails ends at once, and with it the other's wait, as under a launcher.
    """
    import torch.distributed as dist

    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    try:
        torch.save(work(rank, folder), folder / f"{rank}.pt")
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)
    leave(0)


def refused(work: Callable[[], Any]) -> str:
    """What a UserError said, or nothing."""
    from sutura.core.errors import UserError

    try:
        work()
    except UserError as error:
        return str(error)
    return ""
