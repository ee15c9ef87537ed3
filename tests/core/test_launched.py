"""The launchers that the documents name start processes that find each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
LAUNCHERS = {
    "accelerate": ["accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"],
    "torchrun": ["torchrun", "--standalone", "--nproc-per-node", "2"],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_launched_processes_meet(launcher: str, tmp_path: Path, root: Path) -> None:
    """On the CPU, through gloo; accelerate, started inside, sees the same two."""
    program, *options = LAUNCHERS[launcher]
    worker = Path(__file__).with_name("launched_worker.py")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(root / "src"),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    environment["CUDA_VISIBLE_DEVICES"] = ""
    result = subprocess.run(
        [str(BIN / program), *options, str(worker), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == [
        "0 2 0 2 3.0 False",
        "1 2 1 2 3.0 True",
    ]
