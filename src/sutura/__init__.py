"""Sutura: which frozen vision encoder gives a language model the best eyes, and how sure are we?

The names below load on first use, so that `import sutura` takes no time and no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load_encoder": "sutura.encoders",
    "load_stitch": "sutura.stitch.bundle",
    "Stitch": "sutura.stitch.bundle",
    "Sampling": "sutura.stitch.sampling",
    "compare": "sutura.compare",
    "CompareConfig": "sutura.compare.config",
    "probe": "sutura.evals.probe",
    "UserError": "sutura.core.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'sutura' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
