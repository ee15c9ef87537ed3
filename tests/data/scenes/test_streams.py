"""Streams: what changes in words, what changes only in the picture, and nothing that was trained on."""

from __future__ import annotations

import numpy as np
import pytest

from sutura.core.errors import UserError
from sutura.data.scenes.render import object_numbers
from sutura.data.scenes.streams import OBJECTS, TRAINED_ON, make_stream, make_streams, state_texts
from sutura.data.scenes.world import bucket_of, drawn_object, in_order, make_scene, seeded, stands

STREAMS = make_streams(0, 12, 48)


def words(stream: object, frame: int) -> list[tuple[str, ...]]:
    return sorted(o[:4] for o in stream.frames[frame].objects)  # type: ignore[attr-defined]


def test_a_stream_is_a_function_of_seed_and_index() -> None:
    assert make_stream(0, 3, 48) == STREAMS[3]
    assert make_stream(1, 3, 48).frames != STREAMS[3].frames
    assert make_stream(0, 3, 20).frames == STREAMS[3].frames[:20]
    assert len({stream.name for stream in STREAMS}) == len(STREAMS)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda s: s.name)
def test_change_points_are_where_the_words_change(stream: object) -> None:
    s = STREAMS[STREAMS.index(stream)]  # type: ignore[arg-type]
    told = s.captions()
    for frame in range(1, len(s)):
        other = words(s, frame) != words(s, frame - 1)
        assert other == (frame in s.changes), frame
        assert (told[frame] != told[frame - 1]) == other
        for o in s.frames[frame].objects:  # what is said of a frame is true of it
            assert o.colour in told[frame]
    for frame in range(len(s)):
        assert sorted(told[frame].split()) == sorted(
            [word for o in s.frames[frame].objects for word in (*o[:4], ".")]
        )


def test_moves_change_the_picture_and_no_word() -> None:
    """Fault: a segmenter that cuts wherever pixels change would look right if every change were in words."""
    moves = [(s, e) for s in STREAMS for e in s.events if e.kind == "move"]
    assert len(moves) > 5
    for stream, event in moves:
        before, after = stream.frames[event.first - 1], stream.frames[event.last]
        assert sorted(o[:4] for o in before.objects) == sorted(o[:4] for o in after.objects)
        assert before.objects != after.objects
        assert event.last - event.first >= 2
        assert not set(range(event.first, event.last + 1)) & set(stream.changes)
    assert {e.kind for s in STREAMS for e in s.events} == {"appear", "leave", "move"}


def test_no_frame_shows_what_was_trained_on() -> None:
    for stream in STREAMS:
        for scene in stream.frames:
            assert bucket_of(scene.objects) not in TRAINED_ON
            assert OBJECTS[0] <= len(scene.objects) <= OBJECTS[1]
            assert scene.pose[:2] == stream.frames[0].pose[:2]
            assert scene.objects == in_order(scene.objects)


def test_every_frame_stands_as_a_scene_must() -> None:
    for stream in STREAMS:
        assert all(stands(scene.objects, scene.pose) for scene in stream.frames)
    scene = make_scene(0, "test", 5)
    assert stands(scene.objects, scene.pose)
    first = scene.objects[0]
    assert not stands((first, first), scene.pose)  # one inside the other
    assert not stands((first._replace(x=9.0),), scene.pose)  # out of the picture
    assert stands((drawn_object(seeded(0, "one"), scene.pose),), scene.pose)


def test_light_changes_every_picture_and_moves_nothing() -> None:
    """Fault: frames of one state that are equal bit for bit cut themselves, whatever the model sees in them."""
    stream = make_stream(0, 0, 16)
    pictures = stream.pictures(32, threads=1)
    assert pictures.shape == (16, 32, 32, 3)
    rests = 0
    for frame in range(1, 16):
        if stream.frames[frame].objects == stream.frames[frame - 1].objects:
            rests += 1
            places = [object_numbers(scene, 32) for scene in stream.frames[frame - 1 : frame + 1]]
            assert np.array_equal(*places)
    assert rests > 3
    assert len({picture.tobytes() for picture in pictures}) >= 15  # two lights may be as good as equal
    assert np.ptp([scene.pose.light for scene in stream.frames]) > 0.1


def test_candidates_are_every_state_once() -> None:
    texts = state_texts(STREAMS)
    assert len(texts) == len(set(texts)) >= sum(len(s.changes) + 1 for s in STREAMS) * 0.9


def test_one_frame_is_no_stream() -> None:
    with pytest.raises(UserError, match="nothing that could change"):
        make_stream(0, 0, 1)
