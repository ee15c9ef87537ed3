"""`sutura jepa eval`: models on one set of pictures with captions, each tower run once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from pydantic import Field
from torch import Tensor

from sutura.core.checkpoint import write_json
from sutura.core.config import Section, apply_overrides, parse
from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.core.runtime import pick_device
from sutura.data.image_texts import ImageTexts
from sutura.encoders.text import TwoTower
from sutura.evals.joint import Named, load_joint, named
from sutura.evals.retrieval import STANDARD, Retrieval, retrieval
from sutura.evals.retrieval_report import markdown
from sutura.evals.seen_pictures import SeenInTest, read_seen, seen_in_test


class RetrievalConfig(Section):
    """How retrieval is scored.

    Args:
        split: of the data.
        protocols: see `retrieval`.
        in_batch: pictures of a batch, for `in-batch`.
        seed: of the order and captions of `in-batch`.
        size: side of the squares that pictures are cut to before a model's own transform; by default the side that
            the model takes.
        batch: pictures or texts that a tower is given at once.
        cache: keeps the squares.
    """

    split: str = "test"
    protocols: tuple[Literal["standard", "one-caption", "in-batch"], ...] = Field(
        default=(STANDARD,), min_length=1
    )
    in_batch: int = Field(default=8, ge=2)
    seed: int = 0
    size: int | None = Field(default=None, ge=8)
    batch: int = Field(default=64, ge=1)
    device: str = "auto"
    cache: str = "runs/cache"


@dataclass(frozen=True)
class Repeats:
    """What of a set no model can tell apart.

    Args:
        texts: captions whose wording stands at another picture too.
        pictures: with the same pixels as another.
    """

    texts: int
    pictures: int


@dataclass(frozen=True)
class Row:
    """A model's scores.

    Args:
        name: of the model.
        scores: one for each protocol.
        seconds: of the towers, and of the ranks.
        seen: its training pictures among the test pictures; None where they are not recorded.
        unseen: scores without those; empty where there are none.
    """

    name: str
    spec: str
    scores: tuple[Retrieval, ...]
    seconds: dict[str, float]
    seen: SeenInTest | None = None
    unseen: tuple[Retrieval, ...] = ()

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "model": self.name,
            "spec": self.spec,
            "scores": [one.facts() for one in self.scores],
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "training_pictures": self.seen.facts() if self.seen else None,
            "without_training_pictures": [one.facts() for one in self.unseen],
        }


@dataclass
class Result:
    """All that a table shows."""

    data: str
    about: str
    fingerprint: str
    repeats: Repeats
    rows: list[Row] = field(default_factory=list)


def retrieval_table(
    models: Sequence[str], data: str, overrides: Sequence[str] = (), *, out: Path | None = None
) -> str:
    """Score models on a set, and write a table.

    Args:
        models: as `load_joint` takes them; of a run that kept its start, that is scored too.
        data: `world`, or pictures with captions as `CaptionSource.path` takes them.
        overrides: `key=value` of RetrievalConfig, `data.key=value` of CaptionSource.
        out: receives the figures as JSON.

    Raises:
        UserError: no such model, data or split; a word that a closed vocabulary lacks; embeddings with NaN.
    """
    if out is not None and out.suffix != ".json":
        raise UserError(f"The figures are written as JSON; {out.name!r} does not end in .json.")
    values = apply_overrides({}, overrides)
    source = {"path": data, **(values.pop("data", None) or {})}
    config = parse(RetrievalConfig, values, where="the command")
    result = score_models(named(tuple(models)), source, config)
    if out is not None:
        facts = {"data": result.data, "about": result.about, "fingerprint": result.fingerprint}
        facts |= {"source": source, "config": config.resolved(), "repeats": vars(result.repeats)}
        write_json(out, {**facts, "models": [row.facts() for row in result.rows]})
    return markdown(result)


def score_models(models: Sequence[Named], source: dict[str, Any], config: RetrievalConfig) -> Result:
    """Embed and score one model after the other; the pictures are those of `source`."""
    device = pick_device(config.device)
    result: Result | None = None
    for one in models:
        tower = load_joint(one.spec)
        tower.model.to(device)
        data = _load(source, config, tower)
        if result is None:
            result = Result(data.name, data.about, data.fingerprint, repeats(data))
        seen = read_seen(one.run) if one.run is not None else None
        found = score(tower, data, config, one, None if seen is None else seen_in_test(seen, data))
        say(f"{one.name}: {', '.join(f'{name} {s:.1f} s' for name, s in found.seconds.items())}")
        result.rows.append(found)
        del tower
    assert result is not None, "the command asks for a model"
    return result


def _load(source: dict[str, Any], config: RetrievalConfig, tower: TwoTower) -> ImageTexts:
    """The set in squares of the side that the model takes; read from disk where it was made before."""
    from sutura.data.caption_source import CaptionSource, load_image_texts

    return load_image_texts(
        parse(CaptionSource, source, where="data"),
        split=config.split,
        side=config.size or tower.transform.size(),
        cache=Path(config.cache).expanduser(),
    )


def score(
    tower: TwoTower, data: ImageTexts, config: RetrievalConfig, model: Named, seen: SeenInTest | None = None
) -> Row:
    """Run both towers once, and score under every protocol."""
    start = time.perf_counter()
    images, texts, owner = embed(tower, data, config.batch)
    embedded = time.perf_counter()
    device = tower.device if tower.device.type == "cuda" else "cpu"  # others lack float64

    def scored(
        images: Float[Tensor, "pictures dim"], texts: Float[Tensor, "texts dim"], owner: Int[Tensor, " texts"]
    ) -> tuple[Retrieval, ...]:
        return tuple(
            retrieval(images, texts, owner, name, batch=config.in_batch, seed=config.seed, device=device)
            for name in config.protocols
        )

    scores, unseen = scored(images, texts, owner), ()
    if seen is not None and seen.rows:
        keep = np.setdiff1d(np.arange(len(data)), seen.rows)
        if len(keep) > 1:
            unseen = scored(*pick(images, texts, owner, torch.from_numpy(keep)))
    seconds = {"towers": embedded - start, "ranks": time.perf_counter() - embedded}
    return Row(model.name, model.spec, scores, seconds, seen, unseen)


def embed(
    tower: TwoTower, data: ImageTexts, batch: int = 64
) -> tuple[Float[Tensor, "pictures dim"], Float[Tensor, "texts dim"], Int[Tensor, " texts"]]:
    """Embeddings of all pictures and captions, and each caption's picture.

    Equal pictures and equal wordings are embedded once: another batch or padding would tell them apart by noise.
    """
    shown, of_picture = _different(data.content)
    pictures = [
        tower.encode_image(
            [Image.fromarray(np.asarray(p)) for p in data.pixels[np.array(shown[at : at + batch])]]
        )
        for at in range(0, len(shown), batch)
    ]
    wordings = [text for own in data.captions for text in own]
    said, of_text = _different(wordings)
    texts = [
        tower.encode_text([wordings[i] for i in said[at : at + batch]]) for at in range(0, len(said), batch)
    ]
    owner = [row for row, own in enumerate(data.captions) for _ in own]
    return torch.cat(pictures)[of_picture], torch.cat(texts)[of_text], torch.tensor(owner)


def _different(things: Sequence[str]) -> tuple[list[int], list[int]]:
    """First place of every different thing, and for each thing which of those it equals."""
    number: dict[str, int] = {}
    first = []
    for place, thing in enumerate(things):
        if thing not in number:
            number[thing] = len(first)
            first.append(place)
    return first, [number[thing] for thing in things]


def pick(
    images: Float[Tensor, "pictures dim"],
    texts: Float[Tensor, "texts dim"],
    owner: Int[Tensor, " texts"],
    keep: Int[Tensor, " kept"],
) -> tuple[Float[Tensor, "kept dim"], Float[Tensor, "left dim"], Int[Tensor, " left"]]:
    """Some of the pictures, in order, with their texts."""
    place = torch.full((len(images),), -1, dtype=torch.int64)
    place[keep] = torch.arange(len(keep))
    left = place[owner] >= 0
    return images[keep], texts[left], place[owner[left]]


def repeats(data: ImageTexts) -> Repeats:
    """Captions that several pictures share word for word, and pictures that are there twice."""
    at = Counter(text for own in data.captions for text in set(own))
    same = Counter(data.content)
    return Repeats(
        sum(at[text] > 1 for own in data.captions for text in own), sum(same[one] > 1 for one in data.content)
    )
