import numpy as np
import pytest

from sutura.core.errors import UserError
from sutura.data.captions import WordVocabulary, captioned_scenes
from sutura.data.scenes import captions, labels, make_scene, render


def drawn(directory, **changes):
    asked = {"split": "pretrain", "count": 3, "size": 16, "captions_each": 2, "seed": 5}
    return captioned_scenes(directory, **asked | changes)


def test_pictures_labels_and_captions_belong_together(tmp_path):
    data = drawn(tmp_path)
    assert len(data) == 3
    for i in range(3):
        scene = make_scene(5, "pretrain", i)
        assert np.array_equal(data.pixels[i], render(scene, 16))
        assert np.array_equal(data.labels[i], labels(scene))
        for ids, text in zip(data.words[i], captions(scene, 5, 2), strict=True):
            said = data.vocabulary.decode(ids.tolist())
            assert said.replace(" ", "") == text.replace(" ", "")


def test_pictures_are_drawn_once_and_stay_on_disk(tmp_path, monkeypatch):
    first = drawn(tmp_path)
    assert isinstance(first.pixels, np.memmap)
    monkeypatch.setattr("sutura.data.captions.render_many", None)  # a second drawing would call it
    again = drawn(tmp_path)
    assert np.array_equal(first.pixels, again.pixels)
    assert first.fingerprint == again.fingerprint
    assert again.vocabulary == first.vocabulary


def test_other_pictures_have_another_name(tmp_path):
    names = {
        drawn(tmp_path, **change).fingerprint
        for change in ({}, {"seed": 6}, {"count": 2}, {"split": "select"})
    }
    assert len(names) == 4


def test_drawing_that_is_stopped_leaves_nothing(tmp_path):
    def stop(drawn: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path, on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_words_end_and_are_padded():
    vocabulary = WordVocabulary.of(["a red cube, and a sphere.", "Red"])
    ids = vocabulary.encode(["red cube.", "a sphere and a cube"])
    assert vocabulary.words[:2] == ("<pad>", "<end>")
    assert (ids[0] == vocabulary.end_id).tolist() == [False, False, False, True, False, False]
    assert vocabulary.decode(ids[0].tolist()) == "red cube ."
    assert vocabulary.decode(ids[1].tolist()) == "a sphere and a cube"
    with pytest.raises(UserError, match=r"'blue' in 'a blue cube' is not one of the vocabulary's 9 words"):
        vocabulary.encode(["a blue cube"])
