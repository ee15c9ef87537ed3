"""The folder of a run that is trained and scored once: begun, gone on with, finished, never written over."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sutura.core.checkpoint import read_json, write_json
from sutura.core.errors import UserError
from sutura.core.lock import locked
from sutura.core.log import say
from sutura.train.checkpointing import checkpoints_in

CONFIG, REPORT, PAGE = "config.json", "report.json", "report.md"


def run_once(
    folder: Path,
    work: Callable[[], None],
    *,
    fresh: bool,
    resume: bool,
    out: Path | None,
    stages: tuple[str, ...] = (),
) -> str:
    """Do a run's work, unless it is done; two programs that want the same run wait for each other.

    Args:
        folder: `<name>-<hash>`.
        work: trains, scores and leaves REPORT and PAGE, in this order last.
        fresh: remove what an unfinished run left.
        resume: refuse to begin anew.
        out: also write the figures there.
        stages: folders in it that hold checkpoints too.

    Returns:
        The report in Markdown, and where the run lies.

    Raises:
        UserError: `resume` without a checkpoint of these settings, or as the work raises.
    """
    with locked(
        folder.with_name(f".{folder.name}.lock"), on_wait=lambda: say(f"{folder} is being trained; waiting.")
    ):
        if (folder / REPORT).is_file():
            say(f"{folder} is finished; nothing to do.")
        else:
            begin(folder, fresh=fresh, resume=resume, stages=stages)
            work()
    if out is not None:
        write_json(out, read_json(folder / REPORT))
    return f"{(folder / PAGE).read_text(encoding='utf-8').rstrip()}\n\n{folder}"


def begin(folder: Path, *, fresh: bool, resume: bool, stages: tuple[str, ...] = ()) -> bool:
    """Whether there is a checkpoint to go on from; with `fresh`, whatever is there is removed.

    Raises:
        UserError: a finished run; `resume`, and no checkpoint of these settings.
    """
    if (folder / REPORT).is_file():
        raise UserError(
            f"{folder} is finished, and a finished run is never overwritten; change its name or its seed."
        )
    if fresh and folder.is_dir():
        shutil.rmtree(folder)
    unfinished = _begun(folder, stages)
    if resume and not unfinished:
        stem = folder.name.rpartition("-")[0]
        others = sorted(path.name for path in folder.parent.glob(f"{stem}-*") if _begun(path, stages))
        told = f"Runs of that name with other settings: {', '.join(others)}. " if others else ""
        raise UserError(
            f"There is no checkpoint of this run ({folder}) to resume. {told}A run is resumed with the settings it "
            "began with; leave --resume out to begin it."
        )
    return unfinished


def _begun(folder: Path, stages: tuple[str, ...]) -> bool:
    return any(checkpoints_in(place) for place in (folder, *(folder / stage for stage in stages)))


def write_settings(folder: Path, form: str, resolved: Mapping[str, Any], command: str) -> None:
    """What the run is, beside its weights."""
    settings = {"form": form, "config": resolved, "hash": folder.name.rpartition("-")[2], "command": command}
    write_json(folder / CONFIG, settings)
