"""How the world's language model starts and what it is taught from."""

from __future__ import annotations

import pytest
import torch

from sutura.data.scenes import RETELL, make_scene
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import IGNORE, Row, pack
from sutura.stitch.prompt import PromptBuilder
from sutura.train.stitching import StitchBatch
from sutura.train.world_lm import (
    WorldLmConfig,
    WorldTextFeed,
    build_language_model,
    build_tokenizer,
    reading_loss,
    trunk_by_muon,
)
from sutura.train.world_maps import MapStage, maps_of

CONFIG = WorldLmConfig(steps=20, retold=10, scenes=4, width=64, depth=2, heads=4, mlp_width=64)


@pytest.fixture(scope="module")
def prompt() -> PromptBuilder:
    return PromptBuilder(build_tokenizer(CONFIG.vocabulary))


def texts(batch: StitchBatch, prompt: PromptBuilder) -> list[list[str]]:
    """The turns of each row, as text."""
    packed = batch.packed
    rows = []
    for ids, segments in zip(packed.input_ids, packed.segments, strict=True):
        rows.append([prompt.tokenizer.decode(ids[segments == n]) for n in range(1, int(segments.max()) + 1)])
    return rows


def test_questions_come_after_the_scenes_were_told_again(prompt):
    feed = WorldTextFeed(CONFIG, prompt)
    for row in texts(feed.micro_batches(9)[0], prompt):
        assert len(row) == 4
        assert all(turn.startswith(" " + RETELL) for turn in row)
        assert len(set(row)) > 1
    later = texts(feed.micro_batches(10)[0], prompt)
    assert all([turn.startswith(" " + RETELL) for turn in row][-2:] == [False, True] for row in later)
    assert max(map(len, later)) > 6


def test_a_step_is_a_function_of_its_number(prompt):
    one, again = WorldTextFeed(CONFIG, prompt), WorldTextFeed(CONFIG, prompt)
    again.micro_batches(3)
    for step in (2, 12):
        a, b = one.micro_batches(step)[0].packed, again.micro_batches(step)[0].packed
        assert torch.equal(a.input_ids, b.input_ids)
    assert one.micro_batches(2)[0].packed.input_ids.shape != one.micro_batches(12)[0].packed.input_ids.shape


def test_every_other_step_of_a_later_stage_shows_maps(prompt):
    config = CONFIG.model_copy(
        update={"maps": (MapStage(steps=4), MapStage(sides=(4, 8), steps=6, doubtful=True))}
    )
    feed = WorldTextFeed(config, prompt, stage=1)
    assert feed.steps == 4
    words, maps = feed.micro_batches(0)[0], feed.micro_batches(1)[0]
    assert words.patches is None
    scenes = [make_scene(0, "text-train", i, min_objects=1) for i in range(21 * 4, 22 * 4)]
    assert torch.equal(maps.patches, maps_of(scenes, 4))
    assert (words.packed.segments == 0).sum() > (maps.packed.segments == 0).sum()
    for turns in texts(maps, prompt):
        assert not any(character.isdigit() for character in turns[-1])
    last = WorldTextFeed(config, prompt, stage=2)
    assert last.steps == 6
    assert [last.micro_batches(step)[0].patches.shape[1] for step in (1, 3, 5)] == [16, 64, 16]
    scenes = [make_scene(0, "text-train", i, min_objects=1) for i in range(25 * 4, 26 * 4)]
    assert torch.equal(last.micro_batches(1)[0].patches, maps_of(scenes, 4, config.seed))


def test_the_stages_are_named_apart():
    """What a stage left is kept when only a later one changes."""
    other = CONFIG.model_copy(update={"maps": (CONFIG.maps[0], MapStage(steps=7))})
    assert [other.stage(n) == CONFIG.stage(n) for n in range(3)] == [True, True, False]
    assert other.hash() != CONFIG.hash()
    assert CONFIG.model_copy(update={"retold": 11}).stage(0) != CONFIG.stage(0)


def test_the_loss_hears_whole_turns_but_their_first_word(prompt):
    """Against the model run on each turn alone."""
    model = StitchModel(build_language_model(CONFIG, prompt.tokenizer), None).eval()
    scene = prompt.encode_text("small red metal cube 3 5 .")
    asked = [("what colour is the cube?", "red"), ("how many things are there?", "1")]
    turns = [prompt.turn(str(i), q, a) for i, (q, a) in enumerate(asked)]
    packed = pack([Row(0, tuple(turns), scene)], head_ids=prompt.head_ids, pad_id=min(prompt.stop_ids))
    loss, parts = reading_loss(0.3)(model, StitchBatch(packed, packed.supervised), 0)

    answers, questions = [], []
    for turn in turns:
        ids = torch.tensor([[*scene, *turn.prompt_ids, *turn.answer_ids]])
        nats = torch.nn.functional.cross_entropy(
            model.lm(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none"
        )
        behind = len(turn.answer_ids)
        answers += nats[-behind:].tolist()
        questions += nats[len(scene) + len(prompt.head_ids) : -behind].tolist()
    assert parts["answers"].item() == pytest.approx(sum(answers) / len(answers), abs=1e-5)
    assert parts["questions"].item() == pytest.approx(sum(questions) / len(questions), abs=1e-5)
    assert loss.item() == pytest.approx(parts["answers"].item() + 0.3 * parts["questions"].item(), abs=1e-5)
    assert int((packed.labels != IGNORE).sum()) == len(answers)


def test_the_first_heads_look_one_two_and_three_tokens_back(prompt):
    model = build_language_model(CONFIG.model_copy(update={"look_back": 4.0}), prompt.tokenizer)
    model.set_attn_implementation("eager")
    ids = torch.randint(0, len(prompt.tokenizer), (1, 40), generator=torch.Generator().manual_seed(0))
    looks = model(input_ids=ids, output_attentions=True).attentions[0][0]
    for head, back in enumerate((1, 2, 3)):
        found = looks[head, 10:].argmax(-1) == torch.arange(10, 40) - back
        assert found.float().mean() > 0.9, (head, back)
    assert looks[3, 10:].max() < 0.5, "the fourth head is left as it was drawn"


def test_muon_has_the_layers_matrices_and_nothing_else(prompt):
    model = StitchModel(build_language_model(CONFIG, prompt.tokenizer), None)
    trunk, rest = trunk_by_muon(2.0)(model)
    weights = dict(model.named_parameters())
    assert trunk.muon
    assert not rest.muon
    assert trunk.lr_scale == 2.0
    assert {weights[name].ndim for name in trunk.parameters} == {2}
    assert len(trunk.parameters) == 7 * CONFIG.depth
    assert sorted([*trunk.parameters, *rest.parameters]) == sorted(weights)
    assert any("embed" in name for name in rest.parameters)


def test_scenes_for_reading_go_down_to_one_object(prompt):
    first = {len(make_scene(0, "text-train", index, min_objects=1).objects) for index in range(60)}
    assert first == set(range(1, 7))
