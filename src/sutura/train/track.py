"""Trackers beside metrics.jsonl: wandb, TensorBoard, trackio, MLflow and whatever else accelerate knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.core.processes import here
from sutura.core.registry import suggest
from sutura.core.secrets import masked
from sutura.train.config import TrackConfig

#: How each tracker calls the name of one run within a project.
_RUN_NAME = {"wandb": "name", "trackio": "name", "mlflow": "run_name"}
#: Where the package to install is called otherwise than the tracker.
_PACKAGE = {"comet_ml": "comet-ml"}

Log = Callable[[int, Mapping[str, Any]], None]
"""Told (steps done, the step's values)."""


def check_trackers(names: Sequence[str]) -> None:
    """Told before anything is loaded or trained.

    Raises:
        UserError: accelerate knows no such tracker, or its package is not installed.
    """
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    shipped = {str(kind.value) for kind in LoggerType} - {"all"}
    for name in names:
        if name not in shipped and name not in LOGGER_TYPE_TO_CLASS:
            known = sorted(shipped | set(LOGGER_TYPE_TO_CLASS))
            raise UserError(f"track.to names {name!r}, which is no tracker. {suggest(name, known)}")
        if name in shipped and name not in {str(kind.value) for kind in get_available_trackers()}:
            raise UserError(
                f"track.to names {name!r}, and its package is not installed: pip install "
                f"{_PACKAGE.get(name, name)}, or leave it out (metrics.jsonl is written in any case)."
            )


@contextmanager
def tracked(config: TrackConfig, *, run: str, directory: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """A function that sends a step's values to the trackers named; in the first process only.

    One that loses its disk or its network while training is told once and left out: the run is worth more, and
    metrics.jsonl has it all.

    Args:
        config: which trackers.
        run: the run's name in them.
        directory: for those that write files.
        settings: of the run, shown beside it; secrets are masked.

    Raises:
        UserError: one of them is unknown, not installed, does not start, or fails in another way later.
    """
    trackers: list[Any] = []
    try:
        here().from_first(lambda: trackers.extend(_started(config, run, directory, settings)))

        def log(done: int, row: Mapping[str, Any]) -> None:
            for tracker in list(trackers):
                try:
                    tracker.log(_numbers(row), step=done)
                except OSError as error:
                    trackers.remove(tracker)
                    say(f"Tracker {tracker.name!r} failed at step {done} and is left out from here: {error}")
                except Exception as error:
                    raise UserError(
                        f"Tracker {tracker.name!r} failed at step {done}: {error}. Leave it out of track.to and run "
                        "the same command; metrics.jsonl is written in any case."
                    ) from error

        yield log
    finally:
        for tracker in trackers:
            try:
                tracker.finish()
            except OSError as error:
                say(f"Tracker {tracker.name!r} could not be closed: {error}")


def _started(config: TrackConfig, run: str, directory: Path, settings: Mapping[str, Any]) -> list[Any]:
    if not config.to:
        return []
    check_trackers(config.to)
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    directory.mkdir(parents=True, exist_ok=True)
    AcceleratorState._reset_state(reset_partial_state=True)  # of an earlier run in this process
    accelerator = Accelerator(cpu=True, log_with=list(config.to), project_dir=directory)
    names = {name: {_RUN_NAME[name]: run} for name in config.to if name in _RUN_NAME}
    try:
        accelerator.init_trackers(config.project, config=flat(masked(settings)), init_kwargs=names)
    except Exception as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"A tracker of track.to={list(config.to)} could not be started: {told[0]} "
            "Log in to it, or leave it out (metrics.jsonl is written in any case)."
        ) from error
    return list(accelerator.trackers)


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, str | int | float | bool]:
    """Nested settings as `section.key`, each a number or a text: all that every tracker takes."""
    found: dict[str, str | int | float | bool] = {}
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        else:
            found[name] = value if isinstance(value, str | int | float | bool) else str(value)
    return found


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """What can be drawn as a curve."""
    flattened = flat({key: value for key, value in row.items() if value is not None})
    return {
        key.replace(".", "/"): value for key, value in flattened.items() if isinstance(value, int | float)
    }
