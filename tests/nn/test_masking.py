import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.nn.masking import MultiBlock, gather_patches


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
