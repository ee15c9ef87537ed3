"""Lines for the person watching a run. What else a run says stands in `sutura.core.log`."""

from __future__ import annotations

import os

from rich.console import Console

from sutura.core.processes import launched
from sutura.core.secrets import hide

#: Of several processes of one run, the first speaks for all.
console = Console(stderr=True, highlight=False, quiet=launched() and os.environ["RANK"] != "0")


def say(message: str) -> None:
    """One line for the person watching; goes to stderr so that stdout stays data."""
    console.print(hide(message), markup=False)
