"""The overlap check: planted duplicates are found, scenes that look alike are not."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from sutura.data.samples import BytesPicture, PictureTurns, Sample, VqaData, make_data
from sutura.data.vqa import load_vqa
from sutura.evals import altered, lookalikes
from sutura.evals.contamination import overlap
from sutura.evals.lookalikes import exact_hash, perceptual_hash, picture_hashes

PHOTOGRAPHS = Path(__file__).parents[2] / "../shared/data/coco338/images"


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
    assert found.summary().startswith("40 of 40 pictures (100.0%) of benchmark/benchmark are in world/train")
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
        gathered("train", [*test.pictures[:3], one("bad", b"nothing")]),
        gathered("test", [test.pictures[9], one("x", b"")]),
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


def blank_scenes(count: int) -> list[Image.Image]:
    """Pictures of soft coloured spots, each different: something to align, and nothing to render."""
    images = []
    for draw in range(count):
        rng = np.random.default_rng([7, draw])
        coarse = rng.integers(0, 255, (7, 9, 3), dtype=np.uint8)
        fine = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        big = [Image.fromarray(each).resize((160, 120), Image.Resampling.BICUBIC) for each in (coarse, fine)]
        images.append(Image.blend(*big, 0.3))
    return images


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    w, h = image.size
    return image.crop((round(left * w), round(top * h), round((1 - right) * w), round((1 - bottom) * h)))


ALTERED = {
    "mirrored": (ImageOps.mirror, "mirrored"),
    "mirrored, JPEG": (
        lambda i: Image.open(io.BytesIO(encode(ImageOps.mirror(i), "JPEG", quality=70))),
        "mirrored",
    ),
    "cropped 10 %": (lambda i: cut(i, 0.1, 0.1, 0.1, 0.1), "cropped"),
    "cropped at one side": (lambda i: cut(i, 0.1, 0, 0, 0), "cropped"),
    "cropped in a corner": (lambda i: cut(i, 0, 0.1, 0.08, 0), "cropped"),
    "grey": (lambda i: i.convert("L").convert("RGB"), "grey"),
    "grey, cropped, mirrored": (
        lambda i: cut(ImageOps.mirror(i).convert("L"), 0.06, 0, 0.03, 0.1),
        "mirrored, cropped, grey",
    ),
    "recoloured": (
        lambda i: ImageEnhance.Contrast(ImageEnhance.Brightness(i).enhance(0.6)).enhance(0.6),
        "recoloured",
    ),
}


@pytest.mark.parametrize("kind", ALTERED)
@pytest.mark.parametrize("copied", ["test", "train"])
def test_altered_copies_are_found_in_both_directions(kind, copied):
    """Fault: a leak that a flip, a crop or a colour change hides. Each alteration by itself must be found."""
    alter, how = ALTERED[kind]
    images = blank_scenes(40)
    plain = gathered("plain", [one(f"p{n}", encode(i)) for n, i in enumerate(images)])
    changed = gathered("changed", [one(f"c{n}", encode(alter(images[n]))) for n in range(0, 40, 2)])
    found = overlap(*((plain, changed) if copied == "test" else (changed, plain)))
    got = {(pair.test, pair.train): pair.how for pair in found.pairs()}
    ours, theirs = ("c", "p") if copied == "test" else ("p", "c")
    assert set(got) == {(f"{ours}{n}", f"{theirs}{n}") for n in range(0, 40, 2)}
    assert set(got.values()) <= {how, "re-encoded"}
    if kind != "recoloured":  # a slight change of colour may still look re-encoded
        assert set(found.kinds()) == {how}
    assert len(found.items) == 20


def test_what_is_told_of_altered_copies():
    images = blank_scenes(12)
    plain = gathered("plain", [one(f"p{n}", encode(i)) for n, i in enumerate(images)])
    mirrored = [one(f"m{n}", encode(ImageOps.mirror(images[n]))) for n in range(3)]
    same = [one("other name", encode(images[5])), one("p6", encode(images[6]))]
    found = overlap(plain, gathered("test", [*mirrored, *same]))
    assert (
        "2 with the same pixels; 1 of these under another name, 0 re-encoded or resized, 3 altered: 3 mirrored"
        in (found.summary())
    )
    assert "(100.0%)" in found.summary()
    facts = found.facts()
    assert (facts["altered_pictures"], facts["altered"], facts["renamed_pictures"]) == (3, {"mirrored": 3}, 1)
    assert facts["answer_share"] == 1.0
    assert found.pairs()[0] == ("other name", "p5", "same pixels")


def test_scenes_of_the_world_are_not_called_altered_copies_of_each_other(train, test):
    """Their looks are close enough for it, and no scene is in two splits; it is said that they were not compared."""
    found = overlap(train, test)
    assert found.altered == {}
    assert (
        "cropped and recoloured copies were not looked for: scenes of the built-in world" in found.summary()
    )


def test_a_mirrored_scene_among_other_pictures_is_found(train):
    planted = gathered("planted", [one("m", encode(ImageOps.mirror(train.pictures[9].image.open())))])
    found = overlap(train, planted)
    assert (train.pictures[9].image_id, "mirrored") in found.altered["m"]


def test_plain_pictures_are_no_copies_of_each_other():
    plain = [Image.new("RGB", (40, 40), (n, n, n)) for n in range(0, 250, 60)]
    a = gathered("a", [one(f"a{n}", encode(i)) for n, i in enumerate(plain)])
    b = gathered("b", [one("b", encode(Image.new("RGB", (40, 40), (200, 30, 30))))])
    assert overlap(a, b).altered == {}


def test_blocks_and_pairs_do_not_change_what_is_altered(monkeypatch):
    images = blank_scenes(30)
    plain = gathered("plain", [one(f"p{n}", encode(i)) for n, i in enumerate(images)])
    changed = gathered(
        "changed", [one(f"c{n}", encode(cut(i, 0.07, 0.02, 0, 0.05))) for n, i in enumerate(images)]
    )
    whole = overlap(plain, changed).altered
    monkeypatch.setattr(altered, "_ROWS", 7)
    monkeypatch.setattr(altered, "_COLUMNS", 11)
    monkeypatch.setattr(altered, "_PAIRS", 3)
    assert overlap(plain, changed).altered == whole
    assert len(whole) == 30


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="../shared/data/coco338 is not here")
def test_planted_leaks_among_photographs_are_found_and_nothing_else():
    """A sample of the table in docs/contamination.md: lower bounds of recall for each alteration."""
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[:96]
    images = [Image.open(file).convert("RGB") for file in files]
    train = gathered("train", [one(f"t{n}", encode(i)) for n, i in enumerate(images[:72])])
    rng = np.random.default_rng(3)
    kinds = {
        "mirrored": ImageOps.mirror,
        "cropped": lambda i: cut(i, *rng.uniform(0, 0.1, 4)),
        "grey": lambda i: i.convert("L").convert("RGB"),
        "mirrored, cropped": lambda i: cut(ImageOps.mirror(i), *rng.uniform(0.03, 0.1, 4)),
    }
    planted = [
        one(f"{how}/{n}", encode(alter(images[n]), "JPEG", quality=80))
        for how, alter in kinds.items()
        for n in range(0, 72, 4)
    ]
    fresh = [one(f"fresh/{n}", encode(i)) for n, i in enumerate(images[72:])]
    found = overlap(train, gathered("test", [*planted, *fresh]))
    wrong = [pair for pair in found.pairs() if pair.test.rpartition("/")[2] != pair.train[1:]]
    assert wrong == []
    for how in kinds:
        assert sum(name.startswith(f"{how}/") for name in (*found.altered, *found.near)) >= 17, how


def test_a_set_without_a_readable_picture_is_not_called_clean(train: VqaData) -> None:
    """Fault: "no picture of it is in the training set", of a set of which no picture could be opened."""
    broken = gathered("broken", [one("gone", b"not a picture")])
    for seen, asked in ((train, broken), (broken, train)):
        said = overlap(seen, asked).summary()
        assert said.startswith(
            "No picture of broken/broken could be read, so nothing was compared (1 unreadable"
        )
        assert "is not known" in said
