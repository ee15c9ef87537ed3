"""The most memory a piece of work held: of that work alone where the system can forget what came before."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

_FORGET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True)
class PeakMemory:
    """The peak of this process's resident memory since `watch()`.

    Args:
        whose: "cell" when the peak before was forgotten; "process" where the system cannot do that, and the
            figure is an upper bound.
    """

    whose: str

    @classmethod
    def watch(cls) -> PeakMemory:
        """Forget the peak so far (Linux) and count from here."""
        try:
            _FORGET.write_text("5")  # resets VmHWM, see proc(5)
        except OSError:
            return cls("process")
        return cls("cell" if _high_water() is not None else "process")

    def megabytes(self) -> int:
        """Peak in MB of 2²⁰ bytes; what the process held already at the beginning is part of it."""
        kilobytes = _high_water() if self.whose == "cell" else None
        if kilobytes is None:
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            kilobytes = most // 1024 if sys.platform == "darwin" else most
        return round(kilobytes / 1024)


def _high_water() -> int | None:
    """VmHWM in kB; None where there is no such line."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) if found else None
