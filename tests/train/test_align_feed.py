"""What a step is fed with: a function of (seed, step) that does not depend on how the step is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sutura.core.errors import UserError
from sutura.encoders.text_tokenizer import WordTokenizer
from sutura.train.align_cache import tower_rows
from sutura.train.align_config import AugmentConfig, Phase, ViewsConfig
from sutura.train.align_texts import described, tokenise
from sutura.train.align_views import global_view, local_views, recolour
from sutura.train.picture_feed import Ahead
from tiny_align import PATCH, SIDE, pictures, texts_of, tiny_feed, tiny_plan

ALL = AugmentConfig(crop=(0.3, 1.0), flip=True, jitter=0.8, grayscale=0.3, erase=0.5)


def same(one, other) -> bool:
    return all(
        (a is None and b is None) or (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b)
        for a, b in zip(one, other, strict=True)
    )


def test_a_step_is_a_function_of_seed_and_step(tmp_path):
    views = ViewsConfig(local=2, size=8)
    feeds = [tiny_feed(tmp_path, augment=ALL, views=views) for _ in range(2)]
    for step in (3, 0, 3):
        torch.manual_seed(step * 7)  # a global generator reaches nothing
        assert same(feeds[0].micro_batches(step)[0], feeds[1].micro_batches(step)[0])
    assert not torch.equal(feeds[0].micro_batches(0)[0].pixels, feeds[0].micro_batches(1)[0].pixels)
    other = tiny_feed(tmp_path, augment=ALL, views=views, seed=1)
    assert not torch.equal(feeds[0].micro_batches(0)[0].pixels, other.micro_batches(0)[0].pixels)


def test_batches_made_ahead_are_the_same(tmp_path):
    feed = tiny_feed(tmp_path, augment=ALL)
    with Ahead(feed) as ahead:
        for step in range(3):
            assert same(ahead.micro_batches(step)[0], feed.micro_batches(step)[0])


def test_how_a_step_is_cut_changes_nothing_in_it(tmp_path):
    whole = tiny_feed(tmp_path, augment=ALL, batch=8).micro_batches(2)[0]
    parts = tiny_feed(tmp_path, augment=ALL, batch=8, micro_batch=3).micro_batches(2)
    assert [len(part.ids) for part in parts] == [3, 3, 2]
    assert sum(part.share for part in parts) == pytest.approx(1.0)
    for name in ("pixels", "words", "context", "target", "own", "text"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


def test_no_micro_batch_is_a_single_pair(tmp_path):
    assert tiny_feed(tmp_path, batch=9, micro_batch=4).sizes() == [4, 5]
    assert tiny_feed(tmp_path, batch=8, micro_batch=8).sizes() == [8]


def test_every_picture_is_seen_once_an_epoch_and_captions_change(tmp_path):
    feed = tiny_feed(tmp_path, count=12, batch=6)
    seen = [i for step in (0, 1) for i in feed.indices(step)]
    assert sorted(seen) == list(range(12))
    texts = {}
    for step in range(6):
        batch = feed.micro_batches(step)[0]
        for i, text in zip(batch.ids, batch.text.tolist(), strict=True):
            assert text in feed.texts.own[i]
            texts.setdefault(i, set()).add(text)
    assert any(len(found) == 2 for found in texts.values()), "a caption is drawn anew each epoch"


def test_masks_are_exact_and_only_where_something_is_predicted(tmp_path):
    planned = tiny_plan([Phase(share=0.5), Phase(alpha=0.1)])
    feed = tiny_feed(tmp_path, planned)
    assert feed.micro_batches(0)[0].context is None
    batch = feed.micro_batches(3)[0]
    patches = (SIDE // PATCH) ** 2
    assert batch.target.shape == (8, round(0.75 * patches))
    both = torch.cat([batch.context, batch.target], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(patches).expand(8, -1))


def test_equal_texts_and_other_captions_of_a_picture_are_no_negatives(tmp_path):
    data = pictures(9)  # picture 8 is described as picture 0
    texts, _ = texts_of(data, tmp_path)
    own = torch.from_numpy(texts.own.astype("int64"))
    found = described(own[[0, 1, 8]], own[[0, 1, 8], 1])
    assert found.tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_texts_that_are_too_long_are_cut_counted_and_said(tmp_path, capsys):
    data = pictures(4)
    tokenizer = WordTokenizer.of([one for own in data.captions for one in own], length=4)
    texts = tokenise(data, tokenizer, tmp_path)
    assert texts.cut == 4
    assert texts.ids.shape[1] == 4
    assert bool((texts.ids[:, :4] == tokenizer.end_id).any(axis=1).all()), "a text keeps its end"
    assert "4 of 8 captions" in capsys.readouterr().err.replace("\n", " ")
    assert tokenise(data, tokenizer, tmp_path).cut == 4, "from disk too"


def test_texts_that_are_equal_once_cut_are_one_text(tmp_path):
    """Fault: texts are told apart as strings, and held against each other as the same ids."""
    data = pictures(8)  # "the left half is red" and "the left half is green" begin alike
    tokenizer = WordTokenizer.of([one for own in data.captions for one in own], length=4)
    texts = tokenise(data, tokenizer, tmp_path)
    assert len(texts.ids) == 8 + 2
    assert len({tuple(row) for row in texts.ids.tolist()}) == len(texts.ids)
    own = torch.from_numpy(texts.own.astype("int64"))
    assert described(own[:4], own[:4, 1]).all(), "all four say of the left half what the tower can read"
    assert not described(own[:4], own[4:, 1]).any()
    for row, captions in enumerate(data.captions):
        for column, caption in enumerate(captions):
            ids = tokenizer([caption])[0]
            assert torch.equal(texts.rows(texts.own[row, column : column + 1])[0], ids)


def test_a_tokenizer_that_ends_no_text_is_refused(tmp_path):
    """Fault: a text without its end counts as one token long."""

    class Endless(WordTokenizer):
        def _ids(self, texts):
            return [row[:-1] for row in super()._ids(texts)]

    data = pictures(4)
    vocabulary = WordTokenizer.of([one for own in data.captions for one in own], length=8).vocabulary
    with pytest.raises(UserError, match=r"no end of text .* behind 8 of 8 captions, such as 'red left'"):
        tokenise(data, Endless(vocabulary, 8), tmp_path)


def test_pictures_smaller_than_the_view_are_refused(tmp_path):
    with pytest.raises(UserError, match="Pictures of 8 pixels"):
        tiny_feed(tmp_path, side=8)


def test_a_frozen_towers_rows_stand_for_its_input_until_it_trains(tmp_path):
    def tower(which):
        return torch.from_numpy(which).float()[:, None] * torch.ones(3)

    rows = tower_rows(tower, 12, tmp_path, ["a"], batch=5)
    again = tower_rows(lambda which: 1 / 0, 12, tmp_path, ["a"], batch=5)
    assert torch.equal(again.take(np.arange(12)), rows.take(np.arange(12)))
    feed = tiny_feed(tmp_path, tiny_plan([Phase(share=0.5), Phase()]), image_rows=(rows, 3))
    batch = feed.micro_batches(0)[0]
    assert batch.pixels is None
    assert batch.image_features[:, 0].tolist() == batch.ids
    assert feed.micro_batches(3)[0].image_features is None
    assert feed.micro_batches(3)[0].pixels is not None


def test_views_keep_what_they_should():
    rng = np.random.default_rng(0)
    data = torch.from_numpy(pictures(6, 24).pixels)
    plain = global_view(data, 24, AugmentConfig(), rng)
    assert torch.equal(plain, data.permute(0, 3, 1, 2).float() / 255)
    assert local_views(data, ViewsConfig(local=3, size=8), AugmentConfig(), rng).shape == (6, 3, 3, 8, 8)
    gray = recolour(plain, AugmentConfig(grayscale=1.0), rng)
    assert torch.allclose(gray[:, 0], gray[:, 1])
    assert torch.allclose(gray[:, 1], gray[:, 2])
    jittered = recolour(plain, AugmentConfig(jitter=1.0), rng)
    assert float(jittered.min()) >= 0
    assert float(jittered.max()) <= 1
    assert not torch.allclose(jittered, plain, atol=0.02)
    with pytest.raises(ValueError, match="not both"):
        AugmentConfig(shift=2, crop=(0.5, 1.0))


def test_erased_rectangles_are_the_mean_colour(tmp_path):
    batch = tiny_feed(tmp_path, augment=AugmentConfig(erase=1.0)).micro_batches(0)[0]
    gone = (batch.pixels == 0).all(dim=1).flatten(1).float().mean(dim=1)
    assert bool((gone > 0.01).all())
    assert bool((gone < 0.45).all())
