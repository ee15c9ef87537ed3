"""Checkpoints of a run: whole or absent, and a resumed run continues with the same bits."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sutura.core.checkpoint import atomic_directory, load_tensors, read_json, save_tensors, write_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint, fingerprint_file, fingerprint_tensors
from sutura.core.log import say
from sutura.core.processes import Processes
from sutura.train.muon import MuonAdamW

KEPT = 2
WEIGHTS, STATE, POSITION = "weights.safetensors", "optimizer.safetensors", "position.json"
_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Position:
    """How far a run is. No random state is kept: order and dropout are functions of (seed, step)."""

    step: int = 0
    seconds: float = 0.0
    bad_batches: int = 0


def checkpoints_in(directory: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    if not directory.is_dir():
        return []
    found = [(int(m[1]), p) for p in directory.iterdir() if (m := _NAME.fullmatch(p.name)) and p.is_dir()]
    return [path for _, path in sorted(found)]


@contextmanager
def disk_errors(what: str, advice: str) -> Iterator[None]:
    """Turn a full or failing disk into one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"{what} could not be written: {error}. {advice}") from error


class Checkpoints:
    """Writes and reads what a run changes: weights that train, other tensors that moved, optimizer state.

    Args:
        directory: the run's; each checkpoint is a folder `checkpoint-<steps done>` in it.
        model: in its first state, before anything is trained or restored; buffers, and frozen weights when
            `watch_frozen`, are compared with this state to find those that moved.
        trainable: weights that train, by name.
        optimizer: its groups carry `names` beside `params`.
        identity: what must be equal for a resume to make sense (seed, steps, config hash).
        watch_frozen: something other than the optimizer may change frozen weights (a moving average).
        team: processes of the run; the first one writes, all read.
    """

    def __init__(
        self,
        directory: Path,
        model: nn.Module,
        trainable: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer | MuonAdamW,
        identity: Mapping[str, Any],
        *,
        watch_frozen: bool,
        team: Processes | None = None,
    ) -> None:
        self.directory = directory
        self.trainable = dict(trainable)
        self.optimizer = optimizer
        self.identity = dict(identity)
        self.team = team or Processes()
        self.watched: dict[str, Tensor] = dict(model.named_buffers())
        if watch_frozen:
            self.watched |= {n: p for n, p in model.named_parameters() if n not in self.trainable}
        self.first = {name: _digest(tensor) for name, tensor in self.watched.items()}
        self.index = {
            name: i
            for i, name in enumerate(name for group in optimizer.param_groups for name in group["names"])
        }

    def save(self, position: Position) -> Path:
        """Write a checkpoint and drop all but the newest two.

        Raises:
            UserError: the disk is full or failed, told in every process; earlier checkpoints stay as they are.
        """
        return self.team.from_first(lambda: self._save(position))

    def _save(self, position: Position) -> Path:
        moved = {n: t for n, t in self.watched.items() if _digest(t) != self.first[n]}
        state = {
            f"{name}::{key}": value
            for name, parameter in self.trainable.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        path = self.directory / f"checkpoint-{position.step}"
        advice = "Earlier checkpoints are whole; free some space and resume."
        with disk_errors(f"{path.name} in {self.directory}", advice), atomic_directory(path) as temporary:
            save_tensors(temporary / WEIGHTS, {**self.trainable, **moved})
            save_tensors(temporary / STATE, state)
            meta = {
                **asdict(position),
                "identity": self.identity,
                "torch": torch.__version__,
                "moved": sorted(moved),
                "files": {name: fingerprint_file(temporary / name) for name in (WEIGHTS, STATE)},
            }
            write_json(temporary / POSITION, {**meta, "fingerprint": fingerprint(meta)})
        for old in checkpoints_in(self.directory)[:-KEPT]:
            doomed = old.rename(old.with_name(f".{old.name}.old"))
            shutil.rmtree(doomed)
        return path

    def restore(self) -> Position:
        """Load the newest checkpoint whole.

        Raises:
            UserError: there is none, one of its files is missing or damaged, or it belongs to another run.
        """
        found = checkpoints_in(self.directory)
        if not found:
            raise UserError(f"There is no checkpoint in {self.directory}; start the run without resume.")
        path = found[-1]
        meta = read_json(path / POSITION)
        if not isinstance(meta, dict) or meta.pop("fingerprint", None) != fingerprint(meta):
            raise UserError(
                f"{path / POSITION} is damaged; remove {path.name} to resume from an earlier one."
            )
        self._same_run(path, meta)
        for name, expected in meta["files"].items():
            if not (path / name).is_file():
                raise UserError(
                    f"{path / name} is missing; remove {path.name} to resume from an earlier one."
                )
            if fingerprint_file(path / name) != expected:
                raise UserError(
                    f"{path / name} is damaged; remove {path.name} to resume from an earlier one."
                )
        self._restore_weights(path, load_tensors(path / WEIGHTS), meta["moved"])
        self._restore_state(path, load_tensors(path / STATE))
        if self.team.first:
            for left in self.directory.glob(".checkpoint-*"):
                shutil.rmtree(left)
        return Position(meta["step"], meta["seconds"], meta["bad_batches"])

    def _same_run(self, path: Path, meta: Mapping[str, Any]) -> None:
        theirs = meta["identity"]
        differ = [k for k in sorted({*theirs, *self.identity}) if theirs.get(k) != self.identity.get(k)]
        if differ:
            told = "; ".join(
                f"{k}: checkpoint {theirs.get(k)!r}, now {self.identity.get(k)!r}" for k in differ
            )
            raise UserError(
                f"{path} belongs to another run ({told}); resume with the settings it began with."
            )
        if meta["torch"] != torch.__version__:
            say(f"{path.name} is from torch {meta['torch']}, this is {torch.__version__}: bits may differ.")

    def _restore_weights(self, path: Path, tensors: Mapping[str, Tensor], moved: list[str]) -> None:
        places = {**self.trainable, **{n: self.watched[n] for n in moved if n in self.watched}}
        wrong = sorted(places.keys() ^ tensors.keys())
        wrong += [n for n in places.keys() & tensors.keys() if places[n].shape != tensors[n].shape]
        if wrong:
            raise UserError(f"{path / WEIGHTS} does not fit this model: {', '.join(wrong[:4])}.")
        with torch.no_grad():
            for name, place in places.items():
                place.copy_(tensors[name])

    def _restore_state(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for full, tensor in tensors.items():
            name, _, key = full.rpartition("::")
            if name not in self.index:
                raise UserError(f"{path / STATE} holds state for {name!r}, which does not train here.")
            state.setdefault(self.index[name], {})[key] = tensor
        whole = self.optimizer.state_dict()
        whole["state"] = state
        self.optimizer.load_state_dict(whole)


def _digest(tensor: Tensor) -> str:
    return fingerprint_tensors({"": tensor})
