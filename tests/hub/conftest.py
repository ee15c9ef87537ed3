"""Fixtures: the stand-in in the Hub's place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.instead import instead_of_the_hub
from hub.stand_in import TOKEN, StandIn


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[StandIn]:
    """A stand-in; nobody is logged in."""
    with instead_of_the_hub(tmp_path / "hf") as made:
        yield made


@pytest.fixture
def logged_in(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A stand-in to whose account the environment has the token."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub
