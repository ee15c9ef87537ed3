"""What the world's language model is shown in place of a description."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sutura.data.scenes import ATTRIBUTES, make_scene, spread
from sutura.stitch.model import StitchModel
from sutura.stitch.prompt import PromptBuilder
from sutura.train.world_lm import WorldLmConfig, build_language_model, build_tokenizer
from sutura.train.world_maps import WORDS, certain_map, doubtful_map, map_tokens, maps_of, word_ids

CONFIG = WorldLmConfig(width=64, depth=2, heads=4, mlp_width=64)
SCENES = [make_scene(0, "text-train", index, min_objects=1) for index in range(60)]


@pytest.fixture(scope="module")
def prompt() -> PromptBuilder:
    return PromptBuilder(build_tokenizer(CONFIG.vocabulary))


def test_a_certain_cell_is_the_mean_of_its_words(prompt):
    model = StitchModel(build_language_model(CONFIG, prompt.tokenizer), None)
    scene = SCENES[5]
    tokens = map_tokens(model, maps_of([scene], 4), word_ids(prompt))[0]
    table = model.lm.get_input_embeddings().weight
    for words, token in zip(spread(scene, 4), tokens, strict=True):
        ids = list(prompt.encode_text(" ".join(words or ".")))
        torch.testing.assert_close(token, table[ids].mean(dim=0))


@pytest.mark.parametrize("side", [4, 8])
def test_cells_hold_shares_that_sum_to_one(side):
    for maps in (maps_of(SCENES, side), maps_of(SCENES, side, 0)):
        assert maps.shape == (len(SCENES), side * side, len(WORDS))
        assert maps.min() >= 0
        torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:2]))


def test_doubts_are_drawn_from_seed_and_scene_alone():
    whole = maps_of(SCENES, 8, 3)
    assert torch.equal(maps_of(SCENES[7:9], 8, 3), whole[7:9])
    assert not torch.equal(maps_of(SCENES[7:9], 8, 4), whole[7:9])


def test_an_object_lies_where_the_description_says():
    """A single object's blot is heaviest in the cell of its column and row."""
    single = [scene for scene in SCENES if len(scene.objects) == 1]
    assert len(single) > 5
    for scene in single:
        held = 1 - certain_blots(scene).reshape(8, 8, -1)[..., 0]
        down, across = np.unravel_index(held.argmax(), held.shape)
        assert (across, 7 - down) == (scene.objects[0].column, scene.objects[0].row)


def certain_blots(scene):
    """The first draw for the scene that comes out certain."""
    for seed in range(100):
        draw = np.random.default_rng(seed)
        if draw.random() < 0.25:
            return doubtful_map(scene, 8, np.random.default_rng(seed))
    raise AssertionError("a quarter of the draws is certain")


def test_words_are_right_more_often_than_by_chance_and_not_always():
    """Per attribute: the likeliest word of an object's heaviest cell, over single objects."""
    singles = [make_scene(0, "text-train", i, min_objects=1, max_objects=1) for i in range(300)]
    maps = maps_of(singles, 4, 0).numpy()
    for name, values in ATTRIBUTES.items():
        first = WORDS.index(values[0])
        right = []
        for scene, cells in zip(singles, maps, strict=True):
            cell = cells[cells[:, 0].argmin()]
            guess = values[cell[first : first + len(values)].argmax()]
            right.append(guess == getattr(scene.objects[0], name))
        assert 1 / len(values) + 0.15 < np.mean(right) < 0.98, name


def test_the_certain_map_has_no_word_but_the_scenes():
    for scene in SCENES:
        shown = {word for word, share in zip(WORDS, certain_map(scene, 4).sum(0), strict=True) if share > 0}
        said = {value for o in scene.objects for value in (o.size, o.colour, o.material, o.shape)}
        assert shown - {"."} == said
