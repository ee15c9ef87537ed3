"""A comparison with the Hub at its side: finished cells taken from there, and sent there one by one."""

from __future__ import annotations

from pathlib import Path

from sutura.compare.config import CompareConfig
from sutura.compare.grid import Cell, cell_directory
from sutura.compare.run import run as compare
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
    if config.hub.push:
        team.from_first(lambda: ready(repository(config.hub.repo), private=config.hub.private))
    if from_hub is not None:
        team.from_first(lambda: take_cells(from_hub, Path(config.runs)))

    def send(cell: Cell) -> None:
        try:
            team.from_first(lambda: _push(cell_directory(Path(config.runs), cell), config, command))
        except UserError as error:
            say(f"{cell.label} was not sent: {error} It is tried again at the end.")

    path = compare(config, command=command, on_cell=send if config.hub.push else None)
    if config.hub.push:
        try:
            team.from_first(lambda: _push(path.parent, config, command))
        except UserError as error:
            raise UserError(
                f"{error} The report is at {path}; send it with `sutura push {path.parent}`."
            ) from None
    return path


def _push(path: Path, config: CompareConfig, command: str) -> None:
    hub = config.hub
    push(path, hub.repo, private=hub.private, thumbnails=hub.thumbnails, command=command)
