"""The overlap check: planted duplicates are found, scenes that look alike are not."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from sutura.data.samples import BytesPicture, PictureTurns, Sample, VqaData, make_data
from sutura.data.vqa import load_vqa
from sutura.evals import lookalikes
from sutura.evals.contamination import overlap
from sutura.evals.lookalikes import exact_hash, perceptual_hash, picture_hashes


@pytest.fixture(scope="module")
def train() -> VqaData:
    return load_vqa({"split": "train", "limit": 300, "questions_per_picture": 3})


@pytest.fixture(scope="module")
def test() -> VqaData:
    return load_vqa({"split": "test", "limit": 120, "questions_per_picture": 3})


def encode(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def one(
    name: str, data: bytes, turns: Sequence[tuple[str, str]] = (("what is it?", "a cube"),)
) -> PictureTurns:
    picture = BytesPicture(data)
    samples = [Sample(picture, q, (a,), name, f"{name}/{k}") for k, (q, a) in enumerate(turns)]
    return PictureTurns(name, picture, tuple(samples))


def gathered(name: str, pictures: Sequence[PictureTurns]) -> VqaData:
    return make_data(name, name, pictures, content=[turns.image_id for turns in pictures])


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


COPIES = {
    "same pixels, another format": (lambda i: encode(i, "BMP"), "exact"),
    "JPEG 95": (lambda i: encode(i, "JPEG", quality=95), "near"),
    "JPEG 50": (lambda i: encode(i, "JPEG", quality=50), "near"),
    "half the size": (lambda i: encode(half(i)), "near"),
    "three times the size": (lambda i: encode(i.resize((192, 192), Image.Resampling.BILINEAR)), "near"),
    "stretched": (lambda i: encode(i.resize((96, 64))), "near"),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_planted_duplicate_is_found_among_scenes_that_look_alike(kind, train, test):
    """Fault: "held-out" benchmarks are the first rows of the training split; a planted duplicate is found."""
    copy, where = COPIES[kind]
    planted = [one(f"planted {n}", copy(train.pictures[n].image.open())) for n in (0, 7, 123)]
    found = overlap(train, gathered("planted", [*test.pictures[:20], *planted]))
    matches = {"exact": found.exact, "near": found.near}
    assert matches[where] == {f"planted {n}": (train.pictures[n].image_id,) for n in (0, 7, 123)}
    assert found.pictures == 3
    assert found.items == ("planted 0/0", "planted 7/0", "planted 123/0")


def test_distinct_scenes_are_no_duplicates_though_their_hashes_are_close(train, test):
    found = overlap(train, test)
    assert (found.exact, found.near, found.items) == ({}, {}, ())
    apart = np.bitwise_count(
        picture_hashes(test).perceptual[:, None] ^ picture_hashes(train).perceptual[None, :]
    )
    assert (apart <= lookalikes.HASH_BITS).any(), "the thumbnails had nothing to judge"


def test_a_benchmark_of_the_first_training_rows_is_exposed(train):
    """Fault: about two thirds of a benchmark's rows had been trained on."""
    benchmark = gathered("benchmark", train.pictures[:40])
    found = overlap(train, benchmark)
    assert len(found.exact) == 40
    assert set(found.items) == set(found.same_question) == set(found.same_answer)
    assert len(found.items) == len(benchmark)
    assert found.question_share == 1.0
    assert found.summary().startswith("40 of 40 pictures of benchmark/benchmark are in world/train")
    assert found.facts()["exact_pictures"] == 40


def test_questions_are_compared_on_the_shared_picture_only():
    rng = np.random.default_rng(0)
    shared, other, own = (
        encode(Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))) for _ in range(3)
    )
    trained = [
        one("t1", shared, [("How many Chairs?", "2"), ("What colour is it?", "red")]),
        one("t2", other, [("is it big?", "yes")]),
    ]
    asked = [
        ("how many  chairs", "2"),  # the same question and answer, typed otherwise
        ("what colour is it ?", "blue"),  # the same question, another answer
        ("is it big?", "yes"),  # asked in training, but about another picture
        ("is it new?", "no"),
    ]
    tested = [one("q", shared, asked), one("free", own, [("how many chairs?", "2")])]
    found = overlap(gathered("train", trained), gathered("test", tested))
    assert found.exact == {"q": ("t1",)}
    assert found.items == ("q/0", "q/1", "q/2", "q/3")
    assert found.same_question == ("q/0", "q/1")
    assert found.same_answer == ("q/0",)
    assert found.question_share == pytest.approx(4 / 5)


def test_pictures_that_cannot_be_opened_are_counted(test):
    found = overlap(
        gathered("train", [*test.pictures[:3], one("bad", b"nothing")]), gathered("test", [one("x", b"")])
    )
    assert found.unreadable == 2
    assert "2 unreadable pictures were not compared" in found.summary()


def test_hashes_are_kept_by_the_pictures_fingerprint(tmp_path, test, train, monkeypatch):
    first = overlap(train, test, directory=tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(f"pictures-v2-{data.pictures_fingerprint}.npz" for data in (train, test))

    def never(pictures):
        raise AssertionError("hashed again")

    monkeypatch.setattr(lookalikes, "_make", never)
    assert overlap(train, test, directory=tmp_path) == first


def test_damaged_hashes_are_made_again(tmp_path, test, capsys):
    made = picture_hashes(test, tmp_path)
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:500])
    again = picture_hashes(test, tmp_path)
    assert np.array_equal(again.perceptual, made.perceptual)
    assert "are damaged" in capsys.readouterr().err
    assert np.array_equal(picture_hashes(test, tmp_path).exact, made.exact)


def test_blocks_do_not_change_the_result(train, monkeypatch):
    planted = gathered(
        "planted", [one(str(n), encode(half(train.pictures[n].image.open()))) for n in range(25)]
    )
    whole = overlap(train, planted)
    monkeypatch.setattr(lookalikes, "_BLOCK", 700)
    monkeypatch.setattr(lookalikes, "_PAIRS", 3)
    assert overlap(train, planted) == whole
    assert len(whole.near) == 25


def test_hashes_tell_pictures_apart():
    rng = np.random.default_rng(1)
    images = [Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(2)]
    assert exact_hash(images[0]) != exact_hash(images[1])
    assert exact_hash(images[0]) != exact_hash(images[0].resize((8, 32)))
    wide, tall = Image.new("RGB", (4, 2)), Image.new("RGB", (2, 4))
    assert exact_hash(wide) != exact_hash(tall)
    bits = [f"{perceptual_hash(image):064b}" for image in images]
    assert all(24 <= text.count("1") <= 40 for text in bits), "about half the bits are above the median"
    assert bits[0] != bits[1]
