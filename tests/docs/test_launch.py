"""The launch that docs/scaling.md shows for the CPU trains what one process trains; in the slow ring."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from docs.documents import ROOT, blocks, without_launcher
from sutura.core.log import read_metrics

SMALL = (
    "feed.batch=24 feed.micro_batch=6 feed.epochs=1 controls.wrong_picture=false data.overlap=false "
    "evaluate.max_new_tokens=2"
)


def shown() -> list[str]:
    lines = [line for block in blocks(ROOT / "docs" / "scaling.md") for line in block.text.splitlines()]
    (line,) = [line for line in lines if line.startswith("torchrun") and "engine.device=cpu" in line]
    return [*shlex.split(line), *shlex.split(SMALL)]


@pytest.mark.slow
@pytest.mark.usefixtures("zoo")
def test_the_documents_launch_equals_one_process(tmp_path: Path) -> None:
    words = shown()
    alone = [sys.executable, "-m", "sutura.cli", *without_launcher(words)[1:]]
    together = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "src"),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    curves = {}
    for name, command in (("one", alone), ("two", together), ("sharded", [*together, "engine.shard=fsdp"])):
        result = subprocess.run(
            [*command, f"runs={name}"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert len(result.stdout.splitlines()) == 1, "every process printed its own result"
        (metrics,) = (tmp_path / name / "cells").glob("*/metrics.jsonl")
        curves[name] = [row["loss"] for row in read_metrics(metrics)]
    assert len(curves["one"]) >= 3
    assert curves["two"] == pytest.approx(curves["one"], rel=1e-4)
    assert curves["sharded"] == pytest.approx(curves["two"], rel=1e-6)
