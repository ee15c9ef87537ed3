"""A comparison on disk, and a browser to look at its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browser import Tab, browser
from compare_on_disk import make_comparison


@pytest.fixture(scope="session")
def comparison() -> Callable[..., Path]:
    """Makes a comparison's directory under a folder of runs."""
    return make_comparison


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """One browser for all tests; whatever it asks of a network goes to a proxy that nobody answers."""
    with browser(tmp_path_factory.mktemp("profile"), "--proxy-server=127.0.0.1:9") as found:
        yield found
