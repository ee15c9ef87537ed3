import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.nn.masking import (
    BlockMask,
    MultiBlock,
    RandomMask,
    RectangleMask,
    gather_patches,
    hidden_from_keep,
)


def rows_of(seed: int, rows: int, columns: int, targets: int, batch: int):
    masks = MultiBlock(
        (rows, columns), targets=targets, target_scale=(0.1, 0.25), context_aspect=(0.5, 2.0), least_context=4
    )
    return masks.sample(batch, torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(6, 10),
    columns=st.integers(6, 10),
    targets=st.integers(1, 4),
    batch=st.integers(1, 5),
)
def test_targets_are_rectangles_that_the_context_never_touches(seed, rows, columns, targets, batch):
    """Fault: "random block" in the text, random patches in the code; context and targets disjoint."""
    context, blocks = rows_of(seed, rows, columns, targets, batch)
    assert context.shape[0] == batch
    assert context.shape[1] >= 4
    assert blocks.shape[:2] == (targets, batch)
    for picture in range(batch):
        seen = set(context[picture].tolist())
        assert len(seen) == context.shape[1]
        assert seen <= set(range(rows * columns))
        for block in blocks[:, picture].tolist():
            assert not seen & set(block)
            down, across = {i // columns for i in block}, {i % columns for i in block}
            assert len(down) == max(down) - min(down) + 1
            assert len(across) == max(across) - min(across) + 1
            assert len(block) == len(set(block)) == len(down) * len(across)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_targets_area_and_shape_lie_in_the_ranges_asked_for(seed):
    masks = MultiBlock((8, 8), target_scale=(0.06, 0.2))
    block = masks.sample(1, torch.Generator().manual_seed(seed))[1][0, 0]
    height, width = len(torch.unique(block // 8)), len(torch.unique(block % 8))
    assert 0.06 * 64 <= height * width <= 0.2 * 64
    assert 0.75 <= height / width <= 1.5


def test_masks_are_a_function_of_the_generator():
    first, again, other = rows_of(1, 8, 8, 4, 6), rows_of(1, 8, 8, 4, 6), rows_of(2, 8, 8, 4, 6)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert first[1].shape != other[1].shape or not torch.equal(first[1], other[1])
    assert len({tuple(row) for row in first[1][0].tolist()}) > 1  # each picture has places of its own


def test_targets_may_overlap_each_other():
    """As in the paper: only the context is kept apart."""
    _, blocks = MultiBlock((8, 8)).sample(64, torch.Generator().manual_seed(0))
    shared = [
        set(blocks[a, picture].tolist()) & set(blocks[b, picture].tolist())
        for picture in range(64)
        for a, b in ((0, 1), (2, 3))
    ]
    assert any(shared)
    assert not all(shared)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 10),
    columns=st.integers(2, 10),
    ratio=st.floats(0.2, 0.8),
    batch=st.integers(1, 5),
)
def test_a_random_mask_hides_an_exact_number_and_keeps_the_rest(seed, rows, columns, ratio, batch):
    """Fault: the mask that is named is not the mask that runs."""
    patches = rows * columns
    keep, hidden = RandomMask((rows, columns), ratio).sample(batch, torch.Generator().manual_seed(seed))
    assert hidden.shape == (batch, patches)
    assert hidden.sum(dim=1).tolist() == [round(ratio * patches)] * batch
    for picture in range(batch):
        assert keep[picture].tolist() == (~hidden[picture]).nonzero().flatten().tolist()
    assert torch.equal(hidden_from_keep(keep.flip(1), patches), hidden)


def test_a_random_mask_favours_no_place():
    _, hidden = RandomMask((4, 4)).sample(4000, torch.Generator().manual_seed(0))
    share = hidden.float().mean(dim=0)
    assert float((share - 0.75).abs().max()) < 0.03


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 12),
    columns=st.integers(2, 12),
    ratio=st.floats(0.2, 0.8),
    least=st.integers(1, 20),
    batch=st.integers(1, 5),
)
def test_a_block_mask_hides_an_exact_number_in_every_picture(seed, rows, columns, ratio, least, batch):
    masks = BlockMask((rows, columns), ratio, least)
    hidden = masks.sample(batch, torch.Generator().manual_seed(seed))
    assert hidden.shape == (batch, rows * columns)
    assert hidden.sum(dim=1).tolist() == [round(ratio * rows * columns)] * batch
    assert torch.equal(hidden, masks.sample(batch, torch.Generator().manual_seed(seed)))


def neighbours_hidden_too(hidden: torch.Tensor, rows: int, columns: int) -> float:
    """Of pairs of patches side by side, one of which is hidden, the share where both are."""
    grid = hidden.view(-1, rows, columns)
    left, right = grid[:, :, :-1], grid[:, :, 1:]
    return float((left & right).sum() / (left | right).sum())


def test_a_block_mask_is_made_of_blocks():
    """Fault: "random block" in the text, random patches in the code."""
    blocks = BlockMask((14, 14)).sample(200, torch.Generator().manual_seed(0))
    scattered = RandomMask((14, 14), 0.4).sample(200, torch.Generator().manual_seed(0))[1]
    assert neighbours_hidden_too(scattered, 14, 14) == pytest.approx(0.25, abs=0.02)
    assert neighbours_hidden_too(blocks, 14, 14) > 0.6
    assert len({tuple(row) for row in blocks.tolist()}) == 200
    share = blocks.float().mean(dim=0)
    assert 0.02 < float(share.min()) < float(share.max()) < 0.7  # corners less often than the middle


def test_a_rectangle_lies_within_its_area_and_aspect():
    masks = BlockMask((14, 14), least=16)
    left = torch.full((500,), 78)
    drawn = masks._rectangles(left, torch.Generator().manual_seed(0)).view(500, 14, 14)
    heights, widths = drawn.any(dim=2).sum(dim=1), drawn.any(dim=1).sum(dim=1)
    assert torch.equal(heights * widths, drawn.flatten(1).sum(dim=1))
    assert 12 <= int((heights * widths).min()) <= 20  # 16, rounded to whole patches in each direction
    assert int((heights * widths).max()) <= 90
    assert float((heights / widths).log().abs().max()) < 1.7  # 1 / 0.3 is 1.2, before rounding
    assert float((heights > widths).float().mean()) == pytest.approx(0.45, abs=0.1)


@pytest.mark.parametrize("make", [RandomMask, BlockMask, RectangleMask])
@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.99, 1.0, 1.5])
def test_masks_that_hide_all_or_nothing_are_refused(make, ratio):
    with pytest.raises(ValueError, match="some must be hidden and some seen"):
        make((4, 4), ratio)


def test_targets_that_leave_no_context_are_refused():
    greedy = MultiBlock((8, 8), targets=8, target_scale=(0.9, 1.0), target_aspect=(1.0, 1.0))
    with pytest.raises(ValueError, match="fewer than 10 of"):
        greedy.sample(2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"No rectangle of whole patches on a grid of 6×7 has target_scale"):
        MultiBlock((6, 7))


def test_gather_takes_each_pictures_own_patches():
    patches = torch.arange(12.0).view(2, 3, 2)
    picked = gather_patches(patches, torch.tensor([[2, 0], [1, 1]]))
    assert torch.equal(picked, torch.stack([patches[0, [2, 0]], patches[1, [1, 1]]]))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 12),
    columns=st.integers(2, 12),
    ratio=st.floats(0.2, 0.9),
    batch=st.integers(1, 5),
)
def test_rectangles_hide_an_exact_number_and_the_context_is_all_the_rest(seed, rows, columns, ratio, batch):
    """Fault: "random block" in the text, random patches in the code; context and targets disjoint."""
    patches = rows * columns
    if not 0 < round(ratio * patches) < patches:
        return
    masks = RectangleMask((rows, columns), ratio)
    context, masked = masks.sample(batch, torch.Generator().manual_seed(seed))
    assert masked.shape == (batch, round(ratio * patches))
    for picture in range(batch):
        mine, others = context[picture].tolist(), masked[picture].tolist()
        assert mine == sorted(mine)
        assert others == sorted(others)
        assert sorted(mine + others) == list(range(patches))
    again = masks.sample(batch, torch.Generator().manual_seed(seed))
    assert torch.equal(context, again[0])
    assert torch.equal(masked, again[1])


def test_hidden_rectangles_are_rectangles_over_a_patch_that_was_seen():
    masks = RectangleMask((14, 14))
    hidden = torch.zeros(500, 196, dtype=torch.bool)
    hidden[:, :100] = True
    drawn = masks._rectangles(hidden, torch.Generator().manual_seed(0))
    assert bool((drawn & ~hidden).any(dim=1).all())
    grid = drawn.view(500, 14, 14)
    heights, widths = grid.any(dim=2).sum(dim=1), grid.any(dim=1).sum(dim=1)
    assert torch.equal(heights * widths, drawn.sum(dim=1))
    assert int((heights * widths).max()) <= 49  # 29 to 39, sides rounded
    whole = ~(grid[:, 0].any(1) | grid[:, -1].any(1) | grid[:, :, 0].any(1) | grid[:, :, -1].any(1))
    assert 50 < int(whole.sum()) < 450  # the others may be cut off at the edge
    heights, widths = heights[whole], widths[whole]
    assert int((heights * widths).min()) >= 25
    assert 0.6 < float((heights / widths).min()) < float((heights / widths).max()) < 1.8

    context, masked = masks.sample(200, torch.Generator().manual_seed(0))
    whole = hidden_from_keep(context, 196)
    scattered = RandomMask((14, 14), 0.75).sample(200, torch.Generator().manual_seed(0))[1]
    assert neighbours_hidden_too(whole, 14, 14) > neighbours_hidden_too(scattered, 14, 14) + 0.1
    assert masked.shape == (200, 147)
    share = whole.float().mean(dim=0)
    assert 0.3 < float(share.min()) < float(share.max()) < 0.92
    assert len({tuple(row) for row in masked.tolist()}) == 200


def test_ranges_of_rectangles_that_are_none_are_refused():
    for bad in ({"scale": (0.2, 0.1)}, {"scale": (0.0, 0.1)}, {"aspect": (1.5, 0.7)}):
        with pytest.raises(ValueError, match="must be a range"):
            RectangleMask((4, 4), **bad)
