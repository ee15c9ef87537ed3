"""How many pictures with captions a run reads, and how long captions are; nothing is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from sutura.compare.plan_config import PlanSettings
from sutura.data.caption_source import CaptionSource
from sutura.data.scenes.describe import captions
from sutura.data.scenes.world import make_scene

_KARPATHY = "Karpathy's splits, their published counts"
_COCO = "COCO's published counts"
RESTVAL = 30_504
#: File of captions → split → pictures; all have five captions a picture or a few more.
KNOWN: dict[str, tuple[str, dict[str, int]]] = {
    "dataset_coco.json": (_KARPATHY, {"train": 82_783, "val": 5_000, "test": 5_000}),
    "dataset_flickr30k.json": (_KARPATHY, {"train": 29_000, "val": 1_014, "test": 1_000}),
    "captions_train2017.json": (_COCO, {"train": 118_287}),
    "captions_val2017.json": (_COCO, {"val": 5_000}),
    "captions_train2014.json": (_COCO, {"train": 82_783}),
    "captions_val2014.json": (_COCO, {"val": 40_504}),
}
#: Tokens of the longest caption of a batch, where nothing is known of them.
TOKENS = 24
#: Different words of the captions, where nothing is known of them.
WORDS = 10_000
_SAMPLE = 200


@dataclass(frozen=True)
class CaptionSizes:
    """Pictures with captions.

    Args:
        pictures: None where neither the config nor a table says.
        captions: of one picture.
        tokens: of the longest caption of a batch.
        source: where the numbers come from.
    """

    pictures: int | None
    captions: int
    tokens: int
    source: str

    def told(self) -> str:
        """In words."""
        count = (
            "unknown pictures (plan.pictures=…)" if self.pictures is None else f"{self.pictures:,} pictures"
        )
        return f"{count} with {self.captions} captions each, up to {self.tokens} tokens ({self.source})"


def caption_sizes(source: CaptionSource, split: str, most: int, assumed: PlanSettings) -> CaptionSizes:
    """Sizes of a split.

    Args:
        source: of the captions.
        split: that is read.
        most: tokens that the text tower takes.
        assumed: what the user says beside the config.
    """
    tokens = min(assumed.question_tokens or TOKENS, most)
    each = source.captions_each or 5
    if source.path == "world":
        words = max(len(text.split()) for text in world_captions(each)) + 1
        tokens = min(assumed.question_tokens or words, most)
        whole = assumed.pictures or source.limit or 1_000
        return CaptionSizes(_least(whole, source.limit), each, tokens, "the built-in world")
    file = PurePath(source.files.get(split, source.path)).name
    told, counts = KNOWN.get(file, ("", {}))
    whole = assumed.pictures or counts.get(split)
    if whole is not None and source.restval and file == "dataset_coco.json" and split == "train":
        whole += 0 if assumed.pictures else RESTVAL
    if assumed.pictures:
        told = "as given"
    pictures = _least(whole, source.limit)
    known = told or ("the config's limit" if pictures is not None else "nothing is known of this set")
    return CaptionSizes(pictures, each, tokens, f"{known}; token counts assumed")


def world_captions(each: int = 5) -> list[str]:
    """Captions of some scenes of the built-in world; no picture is drawn."""
    return [text for i in range(_SAMPLE) for text in captions(make_scene(0, "pretrain", i), 0, each)]


def vocabulary(source: CaptionSource, most: int) -> list[str]:
    """Words that stand for those of the captions: the world's own, else so many as are assumed."""
    if source.path == "world":
        return world_captions()
    return [f"word{i}" for i in range(min(WORDS, most))]


def _least(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return min(known) if known else None
