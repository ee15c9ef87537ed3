"""Recall against clip_benchmark's, collapsed models, protocols by hand, and intervals against the bootstrap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sutura.core.errors import UserError
from sutura.evals.retrieval import (
    IN_BATCH,
    ONE_CAPTION,
    Direction,
    chance_median,
    first_texts,
    influence,
    interval,
    retrieval,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "clip_benchmark_recall.json").read_text())


def drawn(
    pictures: int, fewest: int, most: int, width: int, noise: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The embeddings of benchmarks/retrieval_references.py, from the same seed."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((pictures, width))
    owner = np.repeat(np.arange(pictures), rng.integers(fewest, most + 1, pictures))
    texts = rng.standard_normal((len(owner), width))
    texts = images[owner] + noise * texts if noise else texts
    return torch.from_numpy(images).float(), torch.from_numpy(texts).float(), torch.from_numpy(owner)


def shares(way: Direction) -> list[float]:
    return [recall.share for recall in way.recalls]


@pytest.mark.parametrize("name", GOLDEN["cases"])
def test_recall_equals_clip_benchmarks(name: str) -> None:
    golden = GOLDEN["cases"][name]
    found = retrieval(*drawn(*golden["made_of"]), ks=GOLDEN["k"], chunk=(37, 11))
    assert shares(found.image_to_text) == pytest.approx(golden["image_to_text"], abs=1e-6)
    assert shares(found.text_to_image) == pytest.approx(golden["text_to_image"], abs=1e-6)
    assert found.rsum == pytest.approx(100 * sum(golden["image_to_text"] + golden["text_to_image"]), abs=1e-3)


def test_constant_embeddings_score_nothing_where_clip_benchmark_depends_on_the_order() -> None:
    """All ties are lost. By lot it is exactly chance. clip_benchmark takes what top-k happens to give."""
    owner = torch.arange(20).repeat_interleave(5)
    found = retrieval(torch.ones(20, 4), torch.ones(100, 4), owner)
    for way in (found.image_to_text, found.text_to_image):
        assert shares(way) == [0.0] * 3
        assert way.tied == way.queries
        for recall in way.recalls:
            assert recall.by_lot == pytest.approx(recall.chance)
    assert found.rsum == 0
    assert (found.text_to_image.median_rank, found.image_to_text.median_rank) == (20, 96)
    golden = GOLDEN["constant embeddings, 20 pictures with five captions"]
    assert sum(golden["image_to_text"] + golden["text_to_image"]) > 0


def test_a_collapsed_model_with_noise_scores_chance() -> None:
    rng = torch.Generator().manual_seed(0)
    images = 1 + 1e-3 * torch.randn(400, 16, generator=rng)
    texts = 1 + 1e-3 * torch.randn(2000, 16, generator=rng)
    found = retrieval(images, texts, torch.arange(400).repeat_interleave(5))
    for recall in (*found.image_to_text.recalls, *found.text_to_image.recalls):
        assert recall.share == pytest.approx(
            recall.chance, abs=0.015
        )  # all captions share their few neighbours
    assert found.rsum == pytest.approx(found.rsum_chance, abs=4)
    assert found.text_to_image.tied == 0


def test_a_perfect_model_and_what_chance_is() -> None:
    images = torch.eye(12)
    owner = torch.arange(12).repeat_interleave(2)
    found = retrieval(images, images[owner], owner)
    assert (found.rsum, found.image_to_text.median_rank, found.text_to_image.mean_rank) == (600, 1, 1)
    to_text, to_image = found.image_to_text.recalls, found.text_to_image.recalls
    assert [r.chance for r in to_image] == pytest.approx([1 / 12, 5 / 12, 10 / 12])
    assert to_text[0].chance == pytest.approx(2 / 24)
    assert to_text[1].chance == pytest.approx(1 - (19 * 18) / (24 * 23))
    assert all(r.high == 1 and 0.7 < r.low < 1 for r in (*to_text, *to_image))


def test_the_best_caption_of_a_picture_counts_and_every_text_has_one_picture() -> None:
    """Two pictures; one of the first's captions lies on the second picture."""
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.1, 1.0]])
    owner = torch.tensor([0, 0, 1])
    found = retrieval(images, texts, owner, ks=(1,))
    assert shares(found.image_to_text) == [0.5]  # of the second picture, the first's caption is above its own
    assert shares(found.text_to_image) == pytest.approx([2 / 3])
    one = retrieval(images, texts, owner, ONE_CAPTION, ks=(1,))
    assert (one.texts, one.pictures) == (2, 2)
    assert (shares(one.image_to_text), shares(one.text_to_image)) == ([0.0], [0.5])


def test_one_caption_is_the_first_in_any_order_of_texts() -> None:
    assert first_texts(torch.tensor([2, 0, 2, 1, 0, 1])).tolist() == [1, 3, 0]
    images, texts, owner = drawn(30, 1, 5, 8, 1.5, 0)
    starts = first_texts(owner)
    mixed = torch.cat(
        [starts.flip(0), torch.tensor([i for i in range(len(owner)) if i not in set(starts.tolist())])]
    )
    one = retrieval(images, texts, owner, ONE_CAPTION)
    assert one == retrieval(images, texts[mixed], owner[mixed], ONE_CAPTION)
    alone = retrieval(images, texts[starts], torch.arange(30))
    assert shares(alone.image_to_text) == shares(one.image_to_text)


def test_in_batch_is_many_small_galleries_and_far_easier() -> None:
    images, texts, owner = drawn(203, 2, 4, 12, 2.5, 4)
    found = retrieval(images, texts, owner, IN_BATCH, batch=8, seed=1)
    assert (found.pictures, found.texts, found.batch) == (200, 200, 8)
    for way in (found.image_to_text, found.text_to_image):
        assert [(r.k, r.chance) for r in way.recalls] == [(1, pytest.approx(1 / 8))]
        assert (way.items, way.queries) == (8, 200)
    whole = retrieval(images, texts, owner)
    assert shares(found.image_to_text)[0] > shares(whole.image_to_text)[0] + 0.2
    assert found == retrieval(images, texts, owner, IN_BATCH, batch=8, seed=1)
    assert found != retrieval(images, texts, owner, IN_BATCH, batch=8, seed=2)
    everything = retrieval(images, texts, owner, IN_BATCH, batch=203)
    assert everything.pictures == 203
    with pytest.raises(UserError, match="Batches of 300 of 203 pictures"):
        retrieval(images, texts, owner, IN_BATCH, batch=300)
    with pytest.raises(UserError, match="'one' is not one of standard, one-caption, in-batch"):
        retrieval(images, texts, owner, "one")


def test_a_constant_model_scores_nothing_in_batches_too() -> None:
    found = retrieval(torch.ones(32, 4), torch.ones(32, 4), torch.arange(32), IN_BATCH, batch=8)
    recall = found.image_to_text.recalls[0]
    assert (recall.share, recall.by_lot, recall.chance) == (0, pytest.approx(1 / 8), pytest.approx(1 / 8))


def bootstrap(hits: np.ndarray, owner: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """95 % of the mean over texts when pictures are drawn anew with all their texts."""
    sums, sizes = np.bincount(owner, hits), np.bincount(owner)
    draws = rng.integers(0, len(sums), (4000, len(sums)))
    low, high = np.quantile(sums[draws].sum(1) / sizes[draws].sum(1), [0.025, 0.975])
    return float(low), float(high)


def test_intervals_keep_the_captions_of_a_picture_together() -> None:
    """Against the bootstrap over pictures; five captions that agree are one draw, not five."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(300), rng.integers(3, 6, 300))
    skill = rng.beta(0.5, 0.7, 300)
    hits = (rng.random(len(owner)) < skill[owner]).astype(float)
    low, high = interval(float(hits.mean()), influence(hits, owner))
    assert (low, high) == pytest.approx(bootstrap(hits, owner, rng), abs=0.008)
    agreeing = (skill > 0.5).astype(float)
    together = interval(agreeing.mean(), influence(agreeing[owner], owner))
    alone = interval(agreeing.mean(), influence(agreeing, np.arange(300)))
    assert together[1] - together[0] == pytest.approx(alone[1] - alone[0], rel=0.1)
    wrongly = interval(float(agreeing[owner].mean()), influence(agreeing[owner], np.arange(len(owner))))
    assert wrongly[1] - wrongly[0] < 0.6 * (together[1] - together[0])


def test_intervals_without_spread() -> None:
    low, high = interval(0.0, np.zeros(50))
    assert (low, round(high, 3)) == (0, 0.071)
    assert interval(0.4, np.zeros(1)) == (0, 1)


def test_the_sum_of_recalls_is_never_certain() -> None:
    """Fault: 600 [600, 600] of ten pictures."""
    found = retrieval(torch.eye(20), torch.eye(20), torch.arange(20))
    assert found.rsum == found.rsum_high == 600
    assert 400 < found.rsum_low < 580


def test_the_sum_of_recalls_has_the_bootstraps_interval() -> None:
    images, texts, owner = drawn(150, 5, 5, 16, 2.5, 5)
    found = retrieval(images, texts, owner)
    similar = torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T
    top_texts, top_images = similar.topk(10, dim=1).indices, similar.T.topk(10, dim=1).indices
    moved = np.zeros(150)
    for k in (1, 5, 10):
        moved += (owner[top_texts[:, :k]] == torch.arange(150)[:, None]).any(1).numpy()
        per_text = (top_images[:, :k] == owner[:, None]).any(1).double().numpy()
        moved += np.bincount(owner, per_text) / 5
    assert found.rsum == pytest.approx(100 * moved.mean())
    draws = np.random.default_rng(0).integers(0, 150, (4000, 150))
    low, high = np.quantile(100 * moved[draws].mean(1), [0.025, 0.975])
    assert (found.rsum_low, found.rsum_high) == pytest.approx((low, high), abs=1.5)


@pytest.mark.parametrize("right", [[1, 1, 1], [5, 5], [1, 5, 9, 2]])
def test_the_median_rank_of_chance(right: list[int]) -> None:
    rng = np.random.default_rng(0)
    ranked = [1 + np.argmax(rng.permutation(100) < r) for r in right for _ in range(3000)]
    assert chance_median(100, np.array(right)) == pytest.approx(np.median(ranked), abs=2)


def test_what_is_written_is_plain_data() -> None:
    facts: dict[str, Any] = retrieval(*drawn(10, 1, 2, 4, 1.0, 0)).facts()
    read = json.loads(json.dumps(facts))
    assert read["text_to_image"]["recalls"] == list(facts["text_to_image"]["recalls"])
    assert set(facts["image_to_text"]["recalls"][0]) == {"k", "share", "low", "high", "chance", "by_lot"}
