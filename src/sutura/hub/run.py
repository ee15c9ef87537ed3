"""Runs with the Hub at their side: finished cells taken from there, and sent there one by one."""

from __future__ import annotations

from pathlib import Path

from sutura.compare.config import CompareConfig
from sutura.compare.grid import STITCH_FOLDER, Cell, cell_directory
from sutura.compare.run import run as compare
from sutura.compare.single import train_one
from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.core.processes import here
from sutura.hub.pull import take_cells
from sutura.hub.push import push, ready, repository


def run(config: CompareConfig, *, command: str = "", from_hub: str | None = None) -> Path:
    """A comparison from its config to its report, as `sutura.compare.run.run` runs it.

    With `hub.push`, every cell is sent when it is finished, and the whole with its card at the end. A cell that
    could not be sent is told and stops nothing. Of several processes the first alone speaks with the Hub.

    Args:
        config: of the comparison.
        command: for the report and the cards.
        from_hub: a repository whose finished cells are taken first.

    Raises:
        UserError: before anything is trained, where the repository may not be written to.
    """
    team = here()
    _ready(config)
    if from_hub is not None:
        team.from_first(lambda: take_cells(from_hub, Path(config.runs)))

    def send(cell: Cell) -> None:
        try:
            team.from_first(lambda: _push(cell_directory(Path(config.runs), cell), config, command))
        except UserError as error:
            say(f"{cell.label} was not sent: {error} It is tried again at the end.")

    path = compare(config, command=command, on_cell=send if config.hub.push else None)
    if config.hub.push:
        _send(path.parent, config, command, f"The report is at {path}")
    return path


def run_one(
    config: CompareConfig, encoder: str, *, seed: int = 0, out: Path | None = None, command: str = ""
) -> Path:
    """One encoder's stitch, as `sutura.compare.single.train_one` trains it; with `hub.push` its cell is sent.

    Args:
        config, encoder, seed, out: as for `train_one`.
        command: for the card.

    Raises:
        UserError: before anything is trained, where the repository may not be written to; after it, where the
            Hub did not take the cell.
    """

    def send(cell: Cell) -> None:
        place = cell_directory(Path(config.runs), cell)
        _send(place, config, command, f"The stitch is at {out or place / STITCH_FOLDER}")

    _ready(config)
    return train_one(config, encoder, seed=seed, out=out, on_cell=send if config.hub.push else None)


def _ready(config: CompareConfig) -> None:
    """The repository that results go to, made and open for writing."""
    if config.hub.push:
        here().from_first(lambda: ready(repository(config.hub.repo), private=config.hub.private))


def _send(path: Path, config: CompareConfig, command: str, kept: str) -> None:
    """What is whole, at the end; a refusal says where it lies and how it is sent later."""
    try:
        here().from_first(lambda: _push(path, config, command))
    except UserError as error:
        raise UserError(f"{error} {kept}; send it with `sutura push {path}`.") from None


def _push(path: Path, config: CompareConfig, command: str) -> None:
    hub = config.hub
    push(path, hub.repo, private=hub.private, thumbnails=hub.thumbnails, command=command)
