"""What scripts that write a page of docs/results share: which encoders are meant, and how a page is left."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sutura.core.checkpoint import write_json
from sutura.core.config import preset_names
from sutura.core.doctor import commit, machine
from sutura.train.zoo import LANGUAGE_MODEL


def zoo_encoders() -> list[str]:
    """Ids of all encoders of the zoo."""
    names = [name.split("/")[-1] for name in preset_names("zoo")]
    return [f"zoo:{name}" for name in names if name != LANGUAGE_MODEL]


def leave(
    out: Path,
    saved: dict[str, Any],
    page: Callable[[Path, Mapping[str, Any]], str],
    *,
    script: str,
    words: Sequence[str] | None,
    began: float,
) -> None:
    """Write the figures as JSON and the page beside it, with command, machine, date, commit and time in `about`."""
    given = sys.argv[1:] if words is None else words
    saved["about"] |= {
        "command": shlex.join(["python", f"benchmarks/{script}", *given]),
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    figures = out.with_suffix(".json")
    write_json(figures, saved)
    out.write_text(page(figures, saved), encoding="utf-8")
    print(f"{out}, {saved['about']['seconds']} s")
