"""Pictures of the items: found again where the benchmark's data is, and made small."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from sutura.compare.report_page.items import Item
from sutura.core.errors import UserError
from sutura.data.images import BadPicture
from sutura.data.places import hub_path
from sutura.data.samples import Picture, VqaData
from sutura.data.vqa import load_vqa
from sutura.data.world_vqa import QUESTIONS, ScenePicture, scene_turns
from sutura.evals.benchmarks import get_benchmark

#: Longest side in pixels and WebP quality, tried in this order until all thumbnails fit.
SIZES = ((192, 75), (160, 65), (128, 55), (96, 45), (64, 40))

_SCENE = re.compile(r"world/(\w+)/(\d+)/(\d+)(?:/(\d+)-(\d+))?(?:@(\d+))?")


@dataclass(frozen=True)
class Pictures:
    """Finds pictures by benchmark and item.

    A picture is taken only where the data asks the ledger's question with the ledger's answers under the item's name:
    data that changed since shows nothing rather than another picture.

    Args:
        tests: benchmark → the data entry of its comparison's config (`data.test`).
        loaded: benchmark → data that is at hand already.
    """

    tests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    loaded: Mapping[str, VqaData] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any], loaded: Mapping[str, VqaData] | None = None) -> Pictures:
        """From a comparison's resolved config, and its data where that is at hand."""
        entries = (config.get("data") or {}).get("test") or ()
        return cls({str(entry["benchmark"]): entry for entry in entries}, loaded or {})

    def find(self, benchmark: str, items: Sequence[Item]) -> tuple[dict[str, Picture], str]:
        """Item's name → its picture, and a sentence on what is missing, empty where nothing is."""
        if not items:
            return {}, ""
        try:
            found = self._find(benchmark, items)
        except UserError as error:
            return {}, f"The pictures of {benchmark} are not shown: {error}"
        missing = len(items) - len(found)
        if not missing:
            return found, ""
        return found, (
            f"{missing} of {len(items)} pictures of {benchmark} are not shown: the data found now does not ask these "
            "questions with these answers."
        )

    def _find(self, benchmark: str, items: Sequence[Item]) -> dict[str, Picture]:
        if benchmark in self.loaded:
            return _looked_up(self.loaded[benchmark], items)
        if benchmark not in self.tests:
            raise UserError("the comparison's config does not say where its data lies.")
        entry = self.tests[benchmark]
        row = get_benchmark(benchmark, entry.get("data"), allow_training=bool(entry.get("allow_training")))
        if row.data.get("source") == "world":
            count = int(row.data.get("questions_per_picture") or QUESTIONS)
            return {item.item_id: scene for item in items if (scene := _scene(item, count)) is not None}
        _refuse_download(row.data)
        return _looked_up(load_vqa({**row.data, "verify": False}), items)


def _refuse_download(data: Mapping[str, Any]) -> None:
    """A report downloads nothing. Raises UserError for a set of the Hub that `datasets` has not on disk."""
    for part in data.get("parts") or ():
        _refuse_download(part)
    given = data.get("path") or ()
    paths = [given] if isinstance(given, str) else list(given)
    names = [name for path in paths if (name := hub_path(path)).startswith("hf:")]
    for name in (name.removeprefix("hf:") for name in names):
        if data.get("stream") is not None or not _on_disk(name):
            raise UserError(
                f"{name} lies on the Hub and its rows are not in this machine's cache; a report downloads nothing."
            )


def _on_disk(name: str) -> bool:
    """Whether `datasets` has prepared a set of the Hub before; it keeps it in a folder of much the same name."""
    from datasets import config

    wanted = re.sub(r"\W|_", "", name).lower()
    folders = Path(config.HF_DATASETS_CACHE)
    return folders.is_dir() and any(re.sub(r"\W|_", "", f.name).lower() == wanted for f in folders.iterdir())


def _looked_up(data: VqaData, items: Sequence[Item]) -> dict[str, Picture]:
    from sutura.compare.report_page.items import clip

    wanted = {item.item_id: item for item in items}
    found: dict[str, Picture] = {}
    for turns in data.pictures:
        for sample in turns.samples:
            item = wanted.get(sample.item_id)
            if item is None or item.image_id != turns.image_id:
                continue
            answers = tuple(dict.fromkeys(map(clip, sample.answers)))
            if clip(sample.question) == item.question and answers == item.references:
                found[sample.item_id] = turns.image
    return found


def _scene(item: Item, count: int) -> Picture | None:
    """A scene is drawn anew from its name alone; its questions tell whether it is the same."""
    match = _SCENE.fullmatch(item.image_id)
    if match is None:
        return None
    split, seed, index, low, high, size = match.groups()
    options = {"min_objects": int(low), "max_objects": int(high)} if low else {}
    picture = ScenePicture(int(seed), split, int(index), int(size or 64), **options)
    try:
        asked = {sample.item_id: sample for sample in scene_turns(picture, count).samples}
    except (UserError, ValueError, KeyError):
        return None
    sample = asked.get(item.item_id)
    same = sample is not None and (sample.question, sample.answers) == (item.question, item.references)
    return picture if same else None


def thumbnails(found: Mapping[Any, Picture], budget: int) -> dict[Any, str]:
    """Small pictures as data URIs, together at most `budget` characters.

    The largest of SIZES at which all fit is taken; where even the smallest does not, the last ones are left out.
    """
    opened: dict[Any, Image.Image] = {}
    for name, picture in found.items():
        try:
            image = picture.open()
        except (BadPicture, UserError, OSError):
            continue
        image.thumbnail((SIZES[0][0], SIZES[0][0]), Image.Resampling.LANCZOS)
        opened[name] = image
    small: dict[Any, str] = {}
    for side, quality in SIZES:
        small = {name: _encoded(image, side, quality) for name, image in opened.items()}
        if sum(map(len, small.values())) <= budget:
            return small
    used = 0
    kept = {}
    for name, text in small.items():
        used += len(text)
        if used <= budget:
            kept[name] = text
    return kept


def _encoded(image: Image.Image, side: int, quality: int) -> str:
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
