"""Bytes and seconds for people."""

from __future__ import annotations

_GB = 10**9


def gigabytes(size: float) -> str:
    """Bytes in GB of 10⁹, without the unit."""
    return f"{size / _GB:,.3f}" if size < 10 * _GB else f"{size / _GB:,.1f}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours for people."""
    if seconds is None:
        return "not known"
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
