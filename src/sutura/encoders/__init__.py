"""Other people's models behind one contract: pictures to patches. No torch until a name is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "EncoderConfig": "sutura.encoders.config",
    "TransformConfig": "sutura.encoders.config",
    "VisionEncoder": "sutura.encoders.base",
    "load_encoder": "sutura.encoders.loaders",
    "catalog_table": "sutura.encoders.catalog",
    "cached_features": "sutura.encoders.cache",
    "estimate_bytes": "sutura.encoders.cache",
}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'sutura.encoders' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_PUBLIC)
