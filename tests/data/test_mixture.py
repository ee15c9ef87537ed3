"""Mixtures: shares, order, ids."""

from __future__ import annotations

from collections import Counter

import pytest

from sutura.core.errors import UserError
from sutura.data.mixture import interleave
from sutura.data.vqa import load_vqa


def world(name: str, limit: int, **options):
    return {"name": name, "limit": limit, "questions_per_picture": 2, "image_size": 16, **options}


def mixture(*parts, **options):
    return load_vqa({"source": "mixture", "name": "both", "parts": list(parts), **options})


def test_weights_are_shares_of_pictures():
    order = interleave([4000, 4000], (3.0, 1.0), seed=1, stop="first_exhausted")
    share = Counter(part for part, _ in order)[0] / len(order)
    assert abs(share - 0.75) < 0.02
    head = Counter(part for part, _ in order[:400])[0] / 400
    assert abs(head - 0.75) < 0.08, "the shares hold from the start on, not at the end only"
    assert len(set(order)) == len(order), "no picture twice before its part is used up"


def test_the_draw_is_seeded():
    draws = [interleave([50, 80], (1.0, 1.0), seed=s, stop="first_exhausted") for s in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_without_weights_every_picture_comes_once():
    data = mixture(world("a", 12), world("b", 30, seed=1))
    assert len(data.pictures) == 42
    assert len({turns.image_id for turns in data.pictures}) == 42
    first = [turns.samples[0].item_id[0] for turns in data.pictures[:20]]
    assert {"a", "b"} == set(first), "parts are mixed, not chained"


def test_a_part_is_not_represented_by_its_head():
    """Stopping at the shorter part must not mean the first rows of the longer one."""
    order = interleave([10, 1000], (1.0, 1.0), seed=0, stop="first_exhausted")
    assert max(index for part, index in order if part == 1) > 100


def test_repeating_repeats_whole_pictures_with_their_items():
    data = mixture(world("a", 3), world("b", 12, seed=1), weights=[0.5, 0.5], stop="all_exhausted")
    times = Counter(turns.image_id for turns in data.pictures)
    assert len(times) == len(data.distinct_pictures) == 15
    assert max(times.values()) > 1
    for turns in data.pictures:
        assert all(sample.item_id.split(":")[0] in ("a", "b") for sample in turns.samples)


def test_the_same_mixture_has_the_same_fingerprint():
    parts = world("a", 6), world("b", 6, seed=1)
    prints = [mixture(*parts, weights=[2, 1], seed=s).fingerprint for s in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    assert len(mixture(*parts, limit=4).pictures) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": []}, "has no parts"),
        ({"parts": [world("a", 2), world("a", 3)]}, "two parts called 'a'"),
        ({"parts": [world("a", 2), world("b", 3)], "weights": [1.0]}, "one positive weight a part"),
        ({"parts": [world("a", 2), world("b", 3)], "weights": [1.0, 0.0]}, "one positive weight a part"),
        ({"parts": [world("a", 2)], "part": "fit"}, "belong to its parts"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        load_vqa({"source": "mixture", **options})
