"""Ranks against the full matrix worked out by hand, in chunks of every shape, and with ties everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.core.errors import UserError
from sutura.evals.ranks import Ranks, found_by_chance, on_grid, ranks


def by_hand(images: torch.Tensor, texts: torch.Tensor, owner: torch.Tensor) -> tuple[list[list[int]], ...]:
    """(above, tied, right) of every query, from whole numbers in Python, picture → text and text → picture."""
    a, b = on_grid(images).tolist(), on_grid(texts).tolist()
    similar = [[sum(x * y for x, y in zip(p, t, strict=True)) for t in b] for p in a]
    own = owner.tolist()
    of_images, of_texts = [], []
    for p, row in enumerate(similar):
        best = max(s for s, o in zip(row, own, strict=True) if o == p)
        wrong = [s for s, o in zip(row, own, strict=True) if o != p]
        right = sum(s == best for s, o in zip(row, own, strict=True) if o == p)
        of_images.append([sum(s > best for s in wrong), wrong.count(best), right])
    for t, o in enumerate(own):
        wrong = [similar[p][t] for p in range(len(a)) if p != o]
        of_texts.append([sum(s > similar[o][t] for s in wrong), wrong.count(similar[o][t]), 1])
    return of_images, of_texts


def as_lists(found: Ranks) -> list[list[int]]:
    return np.stack([found.above, found.tied, found.right], axis=1).tolist()


def drawn(seed: int, pictures: int, most: int, dim: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random embeddings, a third of which are copies of others, captions in no order."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(pictures), rng.integers(1, most + 1, pictures))
    rng.shuffle(owner)
    images = rng.standard_normal((pictures, dim)).astype(np.float32)
    texts = images[owner] + 2 * rng.standard_normal((len(owner), dim)).astype(np.float32)
    images[rng.integers(0, pictures, pictures // 3)] = images[rng.integers(0, pictures, pictures // 3)]
    texts[rng.integers(0, len(owner), len(owner) // 3)] = texts[rng.integers(0, len(owner), len(owner) // 3)]
    return torch.from_numpy(images), torch.from_numpy(texts.astype(np.float32)), torch.from_numpy(owner)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 17), st.integers(1, 5), st.integers(1, 19), st.integers(1, 23))
def test_any_chunks_give_the_ranks_of_the_whole_matrix(
    seed: int, pictures: int, dim: int, texts_at_once: int, images_at_once: int
) -> None:
    given_ = drawn(seed, pictures, 4, dim)
    found = ranks(*given_, chunk=(texts_at_once, images_at_once))
    assert tuple(map(as_lists, found)) == by_hand(*given_)


def test_copies_tie_exactly_whatever_their_place_and_the_chunks() -> None:
    """Fault: the last bit of a product depends on the chunk's shape, so equal embeddings are told apart."""
    rng = np.random.default_rng(0)
    base = torch.from_numpy(rng.standard_normal((7, 193)).astype(np.float32))
    images = base.repeat(41, 1)  # 287 pictures, seven kinds
    noisy = torch.from_numpy(rng.standard_normal(base.shape).astype(np.float32))
    texts = (base + noisy).repeat(41, 1)
    owner = torch.arange(len(images))
    for chunk in ((1024, 4096), (1, 287), (100, 33), (287, 1)):
        to_text, to_image = ranks(images, texts, owner, chunk=chunk)
        for found in (to_text, to_image):
            assert (found.tied % 41 == 40).all()
            assert (found.above % 41 == 0).all()


def test_a_longer_vector_is_the_same_direction() -> None:
    images, texts, owner = drawn(3, 11, 3, 6)
    scaled = ranks(images * 4, texts * 0.5, owner)
    assert [as_lists(x) for x in scaled] == [as_lists(x) for x in ranks(images, texts, owner)]


@pytest.mark.parametrize("value", [1.0, 0.0], ids=["constant", "zero"])
def test_a_constant_model_comes_last_in_every_rank(value: float) -> None:
    """Fault: only strictly better items are counted, so that constant embeddings are first everywhere."""
    owner = torch.arange(6).repeat_interleave(3)
    to_text, to_image = ranks(torch.full((6, 5), value), torch.full((18, 5), value), owner)
    assert to_image.against.tolist() == [6] * 18
    assert to_text.against.tolist() == [1 + 15] * 6
    assert to_text.right.tolist() == [3] * 6
    assert to_text.found_by_lot(4) == pytest.approx([1 - (15 * 14 * 13 * 12) / (18 * 17 * 16 * 15)] * 6)
    assert to_image.found_by_lot(2) == pytest.approx([2 / 6] * 18)


def test_ties_by_lot_are_the_mean_over_all_orders() -> None:
    """One better item, two equal wrong ones, two right ones: orders of the four that tie, counted."""
    from itertools import permutations

    found = Ranks(np.array([1]), np.array([2]), np.array([2]))
    for k in range(7):
        hits = [any(order[: max(0, k - 1)]) for order in permutations((True, True, False, False))]
        assert found.found_by_lot(k)[0] == pytest.approx(np.mean(hits))
    assert [float(found.found(k)[0]) for k in (3, 4)] == [0.0, 1.0]


def test_chance_is_that_of_draws() -> None:
    rng = np.random.default_rng(0)
    drawn_ones = np.mean([rng.permutation(12)[:4].min() < 3 for _ in range(20_000)])
    chance = found_by_chance(np.array([12, 12, 12]), np.array([3, 3, 12]), 4)
    assert chance[0] == pytest.approx(drawn_ones, abs=0.01)
    assert chance[2] == 1.0
    assert found_by_chance(np.array([5]), np.array([2]), 4) == 1.0  # only three are wrong


def test_the_rounding_leaves_products_exact() -> None:
    """Every partial sum of a product of two rounded vectors is a whole number under 2**53."""
    rng = np.random.default_rng(0)
    x = on_grid(torch.from_numpy(rng.standard_normal((50, 4096)))).double()
    assert float((x.norm(dim=1) ** 2).max()) < 2**53
    product = (x[:1] @ x.T)[0].tolist()
    assert product == [sum(int(a) * int(b) for a, b in zip(x[0], row, strict=True)) for row in x[:, :]]
    cosine = torch.tensor(product) / 2**52
    assert torch.nn.functional.cosine_similarity(x[:1], x) == pytest.approx(cosine, abs=1e-7)


def test_what_has_no_ranks_is_refused() -> None:
    images, texts, owner = drawn(0, 5, 2, 4)
    for bad in (float("nan"), float("inf")):
        harmed = texts.clone()
        harmed[2, 1] = bad
        with pytest.raises(
            UserError, match=r"1 of \d+ text embeddings are not finite \(the first is row 2\)"
        ):
            ranks(images, harmed, owner)
    with pytest.raises(UserError, match="in 4 dimensions and texts in 3"):
        ranks(images, texts[:, :3], owner)
    with pytest.raises(UserError, match=r"1 of 6 pictures have no text \(the first is row 5\)"):
        ranks(torch.cat([images, images[:1]]), texts, owner)
    with pytest.raises(UserError, match="belongs to picture 4, and there are 3"):
        ranks(images[:3], texts, owner.sort(descending=True).values)
    with pytest.raises(UserError, match="needs pictures and texts"):
        ranks(images[:0], texts[:0], owner[:0])
