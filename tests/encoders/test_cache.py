"""Features on disk: equal to live ones, whole or absent, and keyed by what they depend on."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sutura.core.errors import UserError
from sutura.data.samples import BadPicture, PictureTurns, SetAside
from sutura.encoders import cache, cached_features, estimate_bytes, load_encoder


class Made:
    """A picture from a number; a broken one for a negative number. Counts how often it is opened."""

    def __init__(self, number: int) -> None:
        self.number, self.opened = number, 0

    def open(self) -> Image.Image:
        self.opened += 1
        if self.number < 0:
            raise BadPicture("truncated")
        rng = np.random.default_rng(self.number)
        return Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))


def make_turns(*numbers: int) -> list[PictureTurns]:
    return [PictureTurns(f"p{number}", Made(number), ()) for number in numbers]


@pytest.fixture
def encoder(checkpoint: Any) -> Any:
    return load_encoder(str(checkpoint("clip")), tokens=4)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("float16", 2e-3), ("bfloat16", 2e-2)])
@torch.no_grad()
def test_cached_equals_live(encoder: Any, tmp_path: Path, dtype: str, tolerance: float) -> None:
    turns = make_turns(*range(7))
    store = cached_features(encoder, turns, tmp_path, data_fingerprint="d", batch_size=3, dtype=dtype)
    order = [5, 0, 6, 5]
    rows = store.rows([f"p{i}" for i in order])
    live = encoder(torch.stack([encoder.transform(turns[i].image.open()) for i in order]))
    assert rows.dtype == getattr(torch, dtype)
    torch.testing.assert_close(rows.float(), live, atol=max(tolerance, 1e-5), rtol=tolerance)
    assert (store.num_tokens, store.width, len(store)) == (4, 32, 7)
    size = (store.directory / cache.ROWS).stat().st_size
    assert size == estimate_bytes(7, 4, 32, dtype) == 7 * 4 * 32 * (4 if dtype == "float32" else 2)


def test_a_picture_is_encoded_once_and_never_again(encoder: Any, tmp_path: Path) -> None:
    turns = make_turns(1, 2, 1)
    first = cached_features(encoder, turns, tmp_path, data_fingerprint="d")
    assert first.image_ids == ("p1", "p2")
    again = make_turns(1, 2)
    second = cached_features(encoder, again, tmp_path, data_fingerprint="d")
    assert second.fingerprint == first.fingerprint
    assert all(turns.image.opened == 0 for turns in again)  # type: ignore[attr-defined]


def test_the_key_is_encoder_data_and_precision(encoder: Any, checkpoint: Any, tmp_path: Path) -> None:
    turns = make_turns(1)
    other = load_encoder(str(checkpoint("clip")), tokens=4, layer=-2)
    stores = [
        cached_features(encoder, turns, tmp_path, data_fingerprint="d"),
        cached_features(encoder, turns, tmp_path, data_fingerprint="e"),
        cached_features(encoder, turns, tmp_path, data_fingerprint="d", dtype="float32"),
        cached_features(other, turns, tmp_path, data_fingerprint="d"),
    ]
    assert len({store.fingerprint for store in stores}) == 4
    assert len({store.directory for store in stores}) == 4


def test_unreadable_pictures_are_counted_and_never_zero_rows(encoder: Any, tmp_path: Path) -> None:
    for _ in range(2):  # computed, then read back: the tally is the same
        tally = SetAside()
        turns = make_turns(1, -1, 2, -2)
        store = cached_features(encoder, turns, tmp_path, data_fingerprint="d", batch_size=2, set_aside=tally)
        assert store.image_ids == ("p1", "p2")
        assert "p-1" not in store
        assert tally.items == {"unreadable picture: truncated": ["p-1", "p-2"]}
        with pytest.raises(UserError, match=r"p-1.*truncated"):
            store.rows(["p1", "p-1"])
        assert (store.rows(["p1", "p2"]).abs().sum((1, 2)) > 0).all()


def test_a_run_that_is_killed_leaves_nothing_that_is_read(encoder: Any, tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_features(
            encoder, make_turns(*range(8)), tmp_path, data_fingerprint="d", batch_size=2, on_progress=stop
        )
    assert list(tmp_path.iterdir()) == []
    store = cached_features(encoder, make_turns(*range(8)), tmp_path, data_fingerprint="d")
    assert len(store) == 8


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: Any) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def open_full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = real(self, mode, *args, **kwargs)
        return Full(file) if self.name == cache.ROWS and "w" in mode else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(UserError, match=r"disk is full.*MB.*--no-feature-cache"):
        cached_features(encoder, make_turns(1), tmp_path, data_fingerprint="d")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_before_anything_is_computed(
    encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import namedtuple

    monkeypatch.setattr(
        cache.shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(10, 9, 1)
    )
    turns = make_turns(1)
    with pytest.raises(UserError, match="disk is full"):
        cached_features(encoder, turns, tmp_path, data_fingerprint="d")
    assert turns[0].image.opened == 0  # type: ignore[attr-defined]


def test_a_file_cut_short_is_not_read(encoder: Any, tmp_path: Path) -> None:
    store = cached_features(encoder, make_turns(1, 2), tmp_path, data_fingerprint="d")
    path = store.directory / cache.ROWS
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"should hold .* bytes"):
        cached_features(encoder, make_turns(1, 2), tmp_path, data_fingerprint="d")


def test_features_too_large_for_the_precision_are_refused(encoder: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        encoder.trunk.blocks()[-1].mlp.fc2.bias.add_(1e6)
    with pytest.raises(UserError, match=r"float16.*bfloat16"):
        cached_features(encoder, make_turns(1), tmp_path, data_fingerprint="d")
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_trains_has_no_features_to_keep(encoder: Any, tmp_path: Path) -> None:
    encoder.unfreeze(1)
    with pytest.raises(UserError, match="being trained"):
        cached_features(encoder, make_turns(1), tmp_path, data_fingerprint="d")


def test_a_store_travels_between_processes(encoder: Any, tmp_path: Path) -> None:
    store = cached_features(encoder, make_turns(1, 2), tmp_path, data_fingerprint="d")
    before = store.rows(["p2"])
    packed = pickle.dumps(store)
    assert len(packed) < 10_000, "the features stay on disk"
    assert torch.equal(pickle.loads(packed).rows(["p2"]), before)


def test_no_pictures_give_an_empty_store(encoder: Any, tmp_path: Path) -> None:
    store = cached_features(encoder, [], tmp_path, data_fingerprint="d")
    assert (len(store), store.image_ids) == (0, ())
    assert store.rows([]).shape == (0, 4, 32)
