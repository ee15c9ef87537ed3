"""A comparison with the Hub at its side in several processes: one of them speaks with the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from two_processes import run_two


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_two(Path(__file__).with_name("run_worker.py"), tmp_path_factory.mktemp("hub"))


def test_the_first_process_alone_speaks_with_the_hub(two: list[dict[str, Any]]) -> None:
    """Fault: every process takes cells into one folder, and sends every cell."""
    assert two[0]["asked"] == ["ready me/toy", "take me/other", "push cells", "push runs"]
    assert two[1]["asked"] == []
    assert two[0]["path"] == two[1]["path"]


def test_what_the_hub_refuses_is_told_to_all(two: list[dict[str, Any]]) -> None:
    """Fault: one process stops, the others wait for it."""
    for told in two:
        assert "may not be written to" in told["refused at once"]
        assert told["went on"], "a cell that could not be sent stops nothing"
        assert "was not to be sent" in told["refused at the end"]
