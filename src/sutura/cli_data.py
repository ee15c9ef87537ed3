"""`sutura data`: fetch and check sets of pictures with texts. Parses, calls one function, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(no_args_is_help=True, help="Sets of pictures with texts: fetch, check, list.")
