"""Questions about pictures from any source, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.core.registry import Registry
from sutura.data.cauldron import load_cauldron
from sutura.data.mixture import load_mixture
from sutura.data.published_files import load_clevr, load_cocoqa, load_nlvr
from sutura.data.rows import load_jsonl, load_parquet
from sutura.data.samples import VqaData
from sutura.data.sources import VqaSource
from sutura.data.world_vqa import load_world

__all__ = ["SOURCES", "VqaSource", "load_vqa"]

#: Name → what loads it. Another package adds its own by the entry-point group `sutura.data`.
SOURCES: Registry[Callable[[VqaSource], VqaData]] = Registry("data source", group="sutura.data")


def load_vqa(source: VqaSource | Mapping[str, Any]) -> VqaData:
    """Load one split of one set.

    Args:
        source: a section, or plain data for one.

    Raises:
        UserError: nothing there, columns that are not there, or nothing usable in it.
    """
    config = source if isinstance(source, VqaSource) else parse(VqaSource, source, where="the data source")
    if config.descriptions_per_picture and config.source != "world":
        raise UserError(
            f"descriptions_per_picture={config.descriptions_per_picture} belongs to the built-in world; "
            f"{config.label!r} comes from source {config.source!r}. Add its captions as questions of their own."
        )
    return SOURCES.get(config.source)(config)


SOURCES.add("world", load_world)
SOURCES.add("cauldron", load_cauldron)
SOURCES.add("parquet", load_parquet)
SOURCES.add("jsonl", load_jsonl)
SOURCES.add("clevr", load_clevr)
SOURCES.add("cocoqa", load_cocoqa)
SOURCES.add("nlvr", load_nlvr)
SOURCES.add("mixture", lambda source: load_mixture(source, load_vqa))
