"""Streams cut by their embeddings, decoded once a segment, beside uniform decoding."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from sutura.core.errors import UserError
from sutura.evals.selective_decoding import (
    WAYS,
    Watched,
    curve,
    decoded,
    f1,
    in_time,
    nearest_text,
    needed,
    quality,
    random_segments,
    summary,
    uniform_segments,
    ward_segments,
    whole,
)

WORDS = ("red cube", "blue sphere", "green cylinder", "gray thing")
TABLE = np.eye(4)


def planted(lengths: tuple[int, ...], noise: float = 0.05, seed: int = 0) -> Watched:
    """A stream whose states last so long; state k looks like text k."""
    states = np.repeat(np.arange(len(lengths)), lengths)
    rng = np.random.default_rng(seed)
    rows = TABLE[states % 4] + noise * rng.normal(size=(len(states), 4))
    cuts = tuple(np.cumsum(lengths)[:-1].tolist())
    return Watched(
        rows / np.linalg.norm(rows, axis=1, keepdims=True), tuple(WORDS[s % 4] for s in states), cuts
    )


def test_ward_finds_the_planted_changes() -> None:
    stream = planted((3, 11, 2, 8))
    segments = ward_segments(stream.embeddings, 4)
    assert tuple(np.flatnonzero(np.diff(segments)) + 1) == stream.changes


def test_segments_are_runs_of_frames_even_when_a_state_comes_back() -> None:
    """Fault: without the chain, frames of equal states far apart fall into one cluster."""
    stream = planted((4, 4, 4, 4, 4, 4))  # state 0 and 1 come back at the end
    segments = ward_segments(stream.embeddings, 6)
    assert segments.tolist() == np.repeat(np.arange(6), 4).tolist()
    for count in range(1, 25):
        found = ward_segments(stream.embeddings, count)
        assert sorted(set(found.tolist())) == list(range(count))
        assert (np.diff(found) >= 0).all()
        assert (np.diff(found) <= 1).all()


def test_numbers_of_segments() -> None:
    stream = planted((3, 3))
    assert ward_segments(stream.embeddings, 1).tolist() == [0] * 6
    assert ward_segments(stream.embeddings, 9).tolist() == list(range(6))
    with pytest.raises(UserError, match="0 segments"):
        ward_segments(stream.embeddings, 0)
    assert uniform_segments(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert uniform_segments(4, 9).tolist() == [0, 1, 2, 3]
    drawn = random_segments(10, 4, np.random.default_rng(0))
    assert sorted(set(drawn.tolist())) == [0, 1, 2, 3]
    assert in_time(np.array([2, 2, 0, 0, 1])).tolist() == [0, 0, 1, 1, 2]


def test_a_missing_scikit_learn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(UserError, match="scikit-learn, which is not installed"):
        ward_segments(planted((3, 3)).embeddings, 2)


def test_a_segment_is_decoded_once() -> None:
    stream, calls = planted((5, 5)), []

    def decode(rows: np.ndarray) -> list[str]:
        calls.append(len(rows))
        return nearest_text(WORDS, TABLE)(rows)

    told = decoded(stream.embeddings, uniform_segments(10, 2), decode, mean=True)
    assert calls == [2]
    assert told == list(stream.truth)
    assert quality(told, stream.truth) == 1.0
    assert quality(["red cube"] * 10, stream.truth) == 0.5
    with pytest.raises(UserError, match="no candidate text"):
        nearest_text([], TABLE[:0])


def test_quality_counts_whole_things_in_any_order() -> None:
    """Fault: word by word, any two scenes of this world agree by seven words in ten."""
    true = "small red metal cube . large blue rubber sphere ."
    assert f1("sphere rubber blue large . metal small cube red .", true) == 1.0
    assert f1("large red metal cube . large blue rubber sphere .", true) == 0.5
    assert f1("small red metal cube .", true) == pytest.approx(2 / 3)
    assert f1("small red metal cube . small red metal cube .", true) == 0.5
    assert f1("large blue rubber cube . small red metal sphere .", true) == 0.0
    assert f1("", true) == 0.0
    assert whole("sphere rubber blue large . metal small cube red .", true) == 1.0
    assert whole("small red metal cube .", true) == whole(f"{true} small red metal cube .", true) == 0.0
    assert quality([true, "small red metal cube ."], [true, true], f1) == pytest.approx(5 / 6)


def test_selective_decoding_needs_fewer_where_states_last_unequally_long() -> None:
    streams = [planted((2, 17, 3, 10), seed=i) for i in range(6)]
    found = curve(streams, nearest_text(WORDS, TABLE), (1, 2, 4, 8, 16, 32, 64))
    assert found["decodes"] == [1, 2, 4, 8, 16, 32]
    told = summary(found, 4)
    place = told["decodes"].index(4)
    assert told["ways"]["selective"]["mean"][place] == 1.0
    assert told["ways"]["uniform"]["mean"][place] < 0.95
    assert told["uniform needs"] > 1.5
    json.dumps(
        told, allow_nan=False
    )  # Fault: an infinity where uniform decoding never gets there, which is no JSON
    assert told["gain, interval"][0] > 0
    assert told["true changes"] == {"quality": 1.0, "decodes": 4.0}
    for way in WAYS:  # all frames decoded one by one: every way says the same
        assert told["ways"][way]["mean"][-1] == told["ways"]["uniform"]["mean"][-1] == 1.0


def test_embeddings_that_say_nothing_gain_nothing() -> None:
    """Fault: a gain that comes from the way of cutting and not from what the model saw."""
    streams = []
    for i in range(8):
        blind = np.random.default_rng(100 + i).normal(size=(32, 4))
        streams.append(Watched(blind, planted((2, 17, 3, 10)).truth, (2, 19, 22)))
    told = summary(curve(streams, nearest_text(WORDS, TABLE), (4, 8, 32)), 4)
    assert told["gain, interval"][0] <= 0.05


def test_needed_lies_between_two_numbers() -> None:
    assert needed(np.array([0.2, 0.6]), [1, 3], 0.4) == pytest.approx(2.0)
    assert needed(np.array([0.2, 0.6]), [1, 3], 0.1) == 1.0
    assert needed(np.array([0.2, 0.6]), [1, 3], 0.7) == float("inf")


def test_no_stream_is_refused() -> None:
    with pytest.raises(UserError, match="no stream"):
        curve([], nearest_text(WORDS, TABLE), (1,))
