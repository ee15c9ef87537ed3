"""The seal of a stitch's manifest: whatever was changed by hand since it was saved is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sutura.core.hashing import fingerprint


def seal(manifest: Mapping[str, Any]) -> str:
    """Fingerprint of a manifest. Where the parts lie may change; what they are has its own fingerprints."""
    config = dict(manifest.get("config") or {})
    for part in ("encoder", "llm"):
        config[part] = {key: value for key, value in (config.get(part) or {}).items() if key != "id"}
    return fingerprint({**{key: value for key, value in manifest.items() if key != "seal"}, "config": config})
