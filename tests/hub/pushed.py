"""A comparison whose checkpoints come from the stand-in and whose results go there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hub.checkpoints import save_parts
from hub.instead import instead_of_the_hub
from hub.stand_in import TOKEN, Fault, StandIn
from sutura.cli import main
from sutura.core.checkpoint import read_json
from sutura.stitch.bundle import STITCH

WANDB = "wandb0planted0key0000000000000000000000"
SETTINGS = {
    "name": "toy",
    "encoders": [{"id": "hf:org/vit", "name": "vit"}, {"id": "hf:org/clip", "name": "clip"}],
    "llm": {"id": "org/lm", "rank": 4},
    "data": {
        "train": {"source": "world", "split": "train", "limit": 8, "questions_per_picture": 2},
        "test": [{"benchmark": "world/test", "data": {"limit": 4, "questions_per_picture": 2}}],
    },
    "feed": {"batch": 8, "micro_batch": 8},
    "optim": {"lr": 0.003, "warmup": 1},
    "evaluate": {"max_new_tokens": 3},
    "controls": {"untrained": None, "text_ceiling": False},
    "seeds": [0],
    "hub": {"push": True, "repo": "me/toy"},
}


@dataclass
class Pushed:
    """A comparison that was run with hub.push, and where it lies."""

    hub: StandIn
    home: Path
    said: str

    @property
    def runs(self) -> Path:
        return self.home / "runs"


def sutura(*arguments: str) -> int:
    """The program itself, in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sutura", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
    return int(left.value.code or 0)


@contextmanager
def run_and_sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    """A run until the block ends: the keys come from `.env`, the checkpoints from the stand-in."""
    home = tmp_path_factory.mktemp("home")
    parts = save_parts(tmp_path_factory.mktemp("parts"))
    with instead_of_the_hub(tmp_path_factory.mktemp("hf")) as hub, pytest.MonkeyPatch.context() as patch:
        for name in ("vit", "clip", "lm"):
            hub.repo(f"org/{name}", parts[name])
        patch.chdir(home)
        for name in ("HF_TOKEN", "WANDB_API_KEY"):
            patch.setenv(name, "")  # taken away again at the end, whatever `.env` sets
        (home / ".env").write_text(f"HF_TOKEN={TOKEN}\nWANDB_API_KEY={WANDB}\n")
        (home / "toy.yaml").write_text(yaml.safe_dump(SETTINGS))
        hub.faults.append(
            Fault("POST /api/models/me/toy/commit", times=1, status=500)
        )  # one cell is refused at first
        log = home / "said.txt"
        with log.open("w") as said:
            from sutura.core.log import console

            # Not through `console.file`: what it gives is today's stderr, and setting it would keep that for good.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(console, "_file", said)
                assert sutura("compare", "--preset", "toy.yaml") == 0
        yield Pushed(hub, home, log.read_text())


def stitch_of(pushed: Pushed, name: str) -> Path:
    found = {read_json(p / STITCH)["encoder"].get("name"): p for p in pushed.runs.glob("cells/*/stitch")}
    return found[name]
