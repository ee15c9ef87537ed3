"""The pictures of a pretraining run: those to train on, and those the encoder is looked at with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.core.runtime import cpu_count
from sutura.data.captions import CaptionedPictures, captioned_scenes
from sutura.data.pictures import Need, load_pictures
from sutura.train.methods import Method
from sutura.train.pretrain_config import PretrainConfig

_NEEDS: dict[str, tuple[Need, ...]] = {"labels": ("label",), "captions": ("caption",), "none": ()}
#: Pictures between two lines about progress.
_SAID = 4096


def pretraining_pictures(
    config: PretrainConfig, method: Method
) -> tuple[CaptionedPictures, CaptionedPictures]:
    """Training pictures, and those of the check.

    Raises:
        UserError: pictures, labels or captions that the objective needs are not there, or too few of them.
    """
    if config.check.watched > config.check.fitted + config.check.scored:
        raise UserError(
            f"check.watched={config.check.watched} is more than the "
            f"{config.check.fitted + config.check.scored} pictures of the check."
        )
    train, check = _world(config) if on_world(config) else _own(config, method)
    if len(train) < config.batch:
        raise UserError(
            f"batch={config.batch} is more than the {len(train)} pictures there are: a picture would stand in "
            "a batch twice. Take a smaller batch, or more pictures."
        )
    return train, check


def on_world(config: PretrainConfig) -> bool:
    """Whether the pictures are the built-in world's. Raises UserError when there are none at the path."""
    return config.pictures.source.found() == "world"


def _world(config: PretrainConfig) -> tuple[CaptionedPictures, CaptionedPictures]:
    p, c = config.pictures, config.check
    parts = [
        captioned_scenes(
            Path(p.cache),
            split=split,
            count=count,
            size=config.vit.image_size,
            captions_each=p.captions,
            seed=p.seed,
            threads=cpu_count(),
            on_progress=_progress(f"Drew {{}} of {count} pictures of the split {split!r}."),
        )
        for split, count in (("pretrain", p.count), ("select", c.fitted + c.scored))
    ]
    return parts[0], parts[1]


def _own(config: PretrainConfig, method: Method) -> tuple[CaptionedPictures, CaptionedPictures]:
    p = config.pictures

    def on_progress(done: int, total: int) -> None:
        if done % _SAID == 0 or done == total:
            say(f"Read {done:,} of {total:,} pictures of {p.source.path}.")

    return load_pictures(
        p.source,
        needs=_NEEDS[method.supervision],
        side=config.vit.image_size,
        least=config.vit.patch_size,
        captions=p.captions,
        check=config.check.fitted + config.check.scored,
        cache=Path(p.cache),
        on_progress=on_progress,
    )


def _progress(sentence: str) -> Callable[[int], None]:
    drawn = 0

    def report(more: int) -> None:
        nonlocal drawn
        drawn += more
        if drawn % _SAID < more:
            say(sentence.format(drawn))

    return report
