from dataclasses import replace

import numpy as np
import pytest
import torch

from sutura.core.errors import UserError
from sutura.data.captions import CaptionedPictures, WordVocabulary
from sutura.nn.masking import MultiBlock
from sutura.train.picture_feed import Ahead, PictureFeed, normalise

MEAN, STD = (0.7, 0.6, 0.5), (0.1, 0.2, 0.3)


def pictures(count: int = 10, size: int = 8) -> CaptionedPictures:
    rng = np.random.default_rng(0)
    vocabulary = WordVocabulary.of(["one two three four"])
    texts = [text for _ in range(count) for text in ("one two", "three four one")]
    return CaptionedPictures(
        rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        rng.integers(0, 2, (count, 5)).astype(np.float32),
        vocabulary.encode(texts).reshape(count, 2, -1),
        vocabulary,
        "test",
    )


def feed(supervision: str = "labels", **changes) -> PictureFeed:
    masks = None
    if supervision == "masks":
        supervision, blocks = "none", MultiBlock((8, 8), least_context=4)

        def masks(batch, generator):
            return dict(zip(("context", "targets"), blocks.sample(batch, generator), strict=True))

    asked = {"passes": 24, "batch": 4, "seed": 3, "mean": MEAN, "std": STD, "shift": 2}
    return PictureFeed(pictures(), supervision=supervision, masks=masks, **asked | changes)


def test_every_objective_sees_the_same_pictures_in_the_same_order_and_crop():
    """Encoders that are compared differ in the objective and in nothing else."""
    feeds = [feed(supervision) for supervision in ("labels", "captions", "masks")]
    for step in range(6):
        first, *others = (f.micro_batches(step)[0] for f in feeds)
        for other in others:
            assert other.ids == first.ids
            assert torch.equal(other.pixels, first.pixels)


def test_supervision_brings_its_own_kind_and_no_other():
    data = pictures()
    labels = feed("labels").micro_batches(0)[0]
    assert torch.equal(labels.labels, torch.from_numpy(data.labels[labels.ids]))
    assert (labels.words, labels.context, labels.targets) == (None, None, None)
    words = feed("captions").micro_batches(0)[0]
    assert words.labels is None
    for ids, picture in zip(words.words.tolist(), words.ids, strict=True):
        assert data.vocabulary.decode(ids) in {"one two", "three four one"}, picture
    masks = feed("masks").micro_batches(0)[0]
    assert masks.labels is None
    assert masks.words is None
    assert masks.targets.shape[:2] == (4, 4)


def test_batches_are_a_function_of_seed_and_step():
    """Fault: the seed is in the config and never read; order differs between encoders."""
    for supervision in ("labels", "captions", "masks"):
        first, again, other = feed(supervision), feed(supervision), feed(supervision, seed=4)
        again.micro_batches(0)  # what was asked before does not matter
        a, b, c = (f.micro_batches(3)[0] for f in (first, again, other))
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        assert not torch.equal(a.pixels, c.pixels)


def test_each_pass_over_the_pictures_shows_each_once():
    plan = feed(passes=40)
    seen = [i for step in range(plan.steps) for i in plan.indices(step)]
    assert plan.steps == 10
    for start in range(0, 40, 10):
        assert sorted(seen[start : start + 10]) == list(range(10))
    assert seen[:10] != seen[10:20]


def test_a_moved_picture_is_the_picture_moved():
    data, batch = pictures(), feed(shift=2).micro_batches(1)[0]
    for pixels, index in zip(batch.pixels, batch.ids, strict=True):
        whole = normalise(data.pixels[index][None], MEAN, STD)
        padded = torch.nn.functional.pad(whole, (2, 2, 2, 2), mode="replicate")[0]
        moves = [padded[:, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
        assert any(torch.equal(pixels, move) for move in moves)
    still = feed(shift=0).micro_batches(1)[0]
    assert torch.equal(still.pixels, normalise(data.pixels[still.ids], MEAN, STD))


def test_normalise_scales_each_colour_by_its_own_constants():
    pixels = normalise(np.full((1, 2, 2, 3), 255, np.uint8), MEAN, STD)
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([3.0, 2.0, 5 / 3]))


def test_budgets_that_are_no_whole_batches_are_refused():
    with pytest.raises(UserError, match="passes=25 is not a multiple of batch=4"):
        feed(passes=25)


def test_a_text_that_several_pictures_have_is_no_negative_of_theirs():
    """Fault: a batch's duplicate captions and a picture's other captions counted as negatives."""
    data = pictures(4)
    texts = ["one two", "three", "three", "four", "two", "one two", "one", "four four"]
    words = data.vocabulary.encode(texts).reshape(4, 2, -1)
    plan = PictureFeed(
        replace(data, words=words),
        passes=40, batch=4, seed=3, supervision="captions", mean=MEAN, std=STD,
    )  # fmt: skip
    seen = set()
    for step in range(10):
        batch = plan.micro_batches(step)[0]
        said = [data.vocabulary.decode(ids) for ids in batch.words.tolist()]
        for i, picture in enumerate(batch.ids):
            own = texts[2 * picture : 2 * picture + 2]
            assert batch.positives[i].tolist() == [text in own for text in said]
        seen.add(int(batch.positives.sum()))
    assert max(seen) > 4  # it did happen that two pictures shared a text


def test_a_picture_twice_in_a_batch_is_no_negative_of_itself():
    plan = PictureFeed(pictures(3), passes=12, batch=4, seed=3, supervision="captions", mean=MEAN, std=STD)
    batch = plan.micro_batches(0)[0]
    (twice,) = {i for i in batch.ids if batch.ids.count(i) == 2}
    a, b = (place for place, i in enumerate(batch.ids) if i == twice)
    assert batch.positives[a, b]
    assert batch.positives[b, a]


def test_a_batch_made_ahead_is_the_same_batch():
    plan = feed("captions")
    with Ahead(feed("captions")) as ahead:
        for step in (0, 1, 2, 5, 3):  # also out of order, as after a resume
            for x, y in zip(plan.micro_batches(step)[0], ahead.micro_batches(step)[0], strict=True):
                assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        assert ahead.steps == plan.steps


def test_crops_are_parts_of_the_picture_and_the_whole_is_the_whole():
    plan = feed(crop=(1.0, 1.0), size=8)
    batch = plan.micro_batches(0)[0]
    # the whole area at an aspect that is drawn: a square is cut at most at one side
    assert batch.pixels.shape == (4, 3, 8, 8)
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[:, None], (64, 64))
    ramps = replace(pictures(), pixels=np.stack([np.stack([ramp, ramp.T, ramp], -1)] * 10))
    plan = PictureFeed(
        ramps, passes=40, batch=4, seed=1, supervision="none",
        mean=(0, 0, 0), std=(1, 1, 1), size=16, crop=(0.25, 0.5),
    )  # fmt: skip
    spans = []
    for step in range(10):
        pixels = plan.micro_batches(step)[0].pixels * 255 / 4
        heights = pixels[:, 0, -1, 0] - pixels[:, 0, 0, 0]
        widths = pixels[:, 1, 0, -1] - pixels[:, 1, 0, 0]
        assert (heights > 0).all()
        assert (widths > 0).all()  # nothing is turned over
        spans += ((heights * widths) / (15 / 16) ** 2 / 64**2).tolist()
    assert 0.2 < min(spans) < 0.3
    assert 0.42 < max(spans) < 0.55
    with pytest.raises(UserError, match="no range of shares"):
        feed(crop=(0.0, 1.0), size=8)


def test_a_flip_mirrors_about_half_of_the_pictures_and_leaves_the_others():
    data = pictures()
    plan = feed(flip=True, shift=0, passes=80)
    mirrored = 0
    for step in range(plan.steps):
        batch = plan.micro_batches(step)[0]
        whole = normalise(data.pixels[batch.ids], MEAN, STD)
        for got, was in zip(batch.pixels, whole, strict=True):
            assert torch.equal(got, was) or torch.equal(got, was.flip(2))
            mirrored += torch.equal(got, was.flip(2))
    assert 25 < mirrored < 55


def test_stored_squares_may_be_larger_than_what_the_encoder_takes():
    data = pictures()
    batch = feed(size=4, shift=2).micro_batches(0)[0]
    for pixels, index in zip(batch.pixels, batch.ids, strict=True):
        whole = normalise(data.pixels[index][None], MEAN, STD)[0]
        windows = [whole[:, y : y + 4, x : x + 4] for y in range(5) for x in range(5)]
        assert any(torch.equal(pixels, window) for window in windows)


def test_pictures_held_on_a_device_give_the_same_batches(monkeypatch):
    """The fast path of a GPU, on the CPU's own memory: every draw, window, crop and mirror stays where it was."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**6, 10**6))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, device, **rest: empty(*size, **rest))
    for changes in ({}, {"size": 6, "flip": True}, {"crop": (0.3, 0.9), "size": 6, "flip": True}):
        plain, held = feed(**changes), feed(**changes)
        assert held.hold_on(torch.device("cuda"))
        for step in (0, 1, 5):
            assert torch.equal(plain.micro_batches(step)[0].pixels, held.micro_batches(step)[0].pixels)


def test_pictures_are_not_held_on_a_cpu_nor_where_they_are_too_many(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * 8 * 8 * 3, 10**6))
    assert not feed().hold_on(torch.device("cuda"))  # a quarter of the free memory at most
    assert not feed().hold_on(torch.device("cpu"))


@pytest.mark.gpu
def test_pictures_held_on_a_gpu_give_the_same_batches():
    plain, held = feed(flip=True), feed(flip=True)
    assert held.hold_on(torch.device("cuda"))
    theirs = held.micro_batches(2)[0].pixels
    assert theirs.device.type == "cuda"
    assert torch.allclose(plain.micro_batches(2)[0].pixels, theirs.cpu(), atol=1e-6)
