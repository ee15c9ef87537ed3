import numpy as np
import pytest
import torch

from sutura.core.errors import UserError
from sutura.data.captions import CaptionedPictures, WordVocabulary
from sutura.nn.masking import MultiBlock
from sutura.train.picture_feed import PictureFeed, normalise

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
    masks = MultiBlock((8, 8), least_context=4) if supervision == "masks" else None
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
    with pytest.raises(UserError, match="needs a mask sampler"):
        PictureFeed(pictures(), passes=4, batch=4, seed=0, supervision="masks", mean=MEAN, std=STD)
