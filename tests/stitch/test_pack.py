"""Rows as tensors: who sees whom, positions, labels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.core.errors import UserError
from sutura.stitch.pack import IGNORE, PADDING, Row, additive, attention_mask, pack, split_turns
from sutura.stitch.prompt import Turn

HEAD = (1, 2)
words = st.lists(st.integers(10, 99), min_size=1, max_size=5)


@st.composite
def many_rows(draw: st.DrawFn) -> list[Row]:
    """One to three pictures with one to four turns of any length."""
    rows = []
    for picture in range(draw(st.integers(1, 3))):
        turns = [
            Turn(f"{picture}/{i}", (*HEAD, *draw(words), 3), (*draw(words), 4))
            for i in range(draw(st.integers(1, 4)))
        ]
        rows.append(Row(picture, tuple(turns), tuple(draw(st.lists(st.integers(200, 209), max_size=3)))))
    return rows


@settings(deadline=None, max_examples=25)
@given(rows=many_rows())
def test_every_turn_can_be_read_back(rows: list[Row]) -> None:
    """Prefix and own segment are, in order, the sequence the turn would be alone; labels are its answer."""
    packed = pack(rows, head_ids=HEAD, pad_id=0)
    for r, row in enumerate(rows):
        shared = packed.segments[r] == 0
        for number, turn in enumerate(row.turns, start=1):
            own = packed.segments[r] == number
            seen = shared | own
            whole = [*row.prefix_ids, *turn.prompt_ids, *turn.answer_ids]
            assert packed.input_ids[r][seen].tolist() == whole
            assert packed.positions[r][seen].tolist() == list(range(len(whole)))
            labels = packed.labels[r][own]
            assert labels[labels != IGNORE].tolist() == list(turn.answer_ids)
            assert int(packed.last[r, number - 1]) == int(own.nonzero()[-1])
        assert bool((packed.labels[r][shared] == IGNORE).all())
    assert packed.supervised == sum(len(t.answer_ids) for row in rows for t in row.turns)
    assert packed.item_ids == tuple(tuple(t.item_id for t in row.turns) for row in rows)


@settings(deadline=None, max_examples=25)
@given(rows=many_rows())
def test_the_mask_is_what_the_docstring_says(rows: list[Row]) -> None:
    """Token by token: the shared prefix, the earlier tokens of one's own turn, oneself, and nothing else."""
    packed = pack(rows, head_ids=HEAD, pad_id=0)
    mask = attention_mask(packed.segments, packed.segments)
    length = packed.segments.shape[1]
    for r in range(len(rows)):
        kinds = packed.segments[r].tolist()
        expected = [
            [k == q or (k < q and kinds[k] != PADDING and kinds[k] in (0, kinds[q])) for k in range(length)]
            for q in range(length)
        ]
        assert mask[r, 0].tolist() == expected


@settings(deadline=None, max_examples=25)
@given(rows=many_rows(), cut=st.integers(1, 8))
def test_a_mask_behind_a_cache_is_the_rest_of_the_whole_mask(rows: list[Row], cut: int) -> None:
    segments = pack(rows, head_ids=HEAD, pad_id=0).segments
    past = min(cut, segments.shape[1] - 1)
    whole = attention_mask(segments, segments)
    assert torch.equal(attention_mask(segments[:, past:], segments, past=past), whole[:, :, past:])


def test_additive_is_nothing_or_minus_the_largest_number() -> None:
    """Fault: a boolean mask handed to attention that adds it."""
    mask = torch.tensor([[[[True, False]]]])
    for dtype in (torch.float32, torch.bfloat16):
        assert additive(mask, dtype).tolist() == [[[[0.0, torch.finfo(dtype).min]]]]


def test_split_turns() -> None:
    row = Row(5, tuple(Turn(str(i), (*HEAD, 9), (4,)) for i in range(3)), (7,))
    assert split_turns(row, "shared") == [row]
    assert split_turns(row, "first") == [Row(5, row.turns[:1], (7,))]
    assert split_turns(row, "separate") == [Row(5, (turn,), (7,)) for turn in row.turns]


def test_nothing_to_pack_is_an_error() -> None:
    for rows in ([], [Row(0, ())]):
        with pytest.raises(UserError, match="nothing to pack"):
            pack(rows, head_ids=HEAD, pad_id=0)


def test_a_head_that_turns_do_not_share_is_not_shared() -> None:
    """A builder's head is a promise; packing keeps to what the ids really have in common."""
    rows = [Row(0, (Turn("a", (1, 5, 6), (4,)), Turn("b", (1, 7), (4,))))]
    assert (pack(rows, head_ids=(1, 5), pad_id=0).segments == 0).sum() == 1
