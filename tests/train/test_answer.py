"""Training the answer form: whose negatives are whose, what trains how fast, and runs that go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sutura.core.config import load_config, parse, read_preset
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_tensors
from sutura.data.samples import SetAside, VqaData
from sutura.losses.contrastive import sigmoid_loss
from sutura.train.answer import AnswerModel, answer_loss, build_answer_model, fit_answer, groups
from sutura.train.answer_config import AnswerConfig
from sutura.train.answer_feed import AnswerFeed, AnswerTokens, padded, to_asked
from sutura.train.config import FeedConfig
from sutura.train.stitching import StitchFeed, to_rows
from tiny_models import ENCODER_WIDTH, many_questions, save_language_model, see, tiny_data, tiny_tokenizer


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_language_model(tmp_path_factory.mktemp("lm"))


def settings(lm: str, **more: Any) -> AnswerConfig:
    values: dict[str, Any] = {
        "name": "tiny",
        "encoder": "zoo:clip",
        "predictor": {"id": lm, "layers": 2},
        "text": {"id": lm},
        "dim": 16,
        "train": {"limit": 4},
        "test": {"split": "test", "limit": 4},
        "feed": {"batch": 8, "micro_batch": 8, "epochs": 2},
        "optim": {"lr": 0.003, "schedule": "constant"},
        "checkpoint_every": 0,
    }
    return parse(AnswerConfig, {**values, **more})


def asked(built: AnswerModel, data: VqaData | None = None) -> list[Any]:
    return to_asked(data or many_questions(), built.prompt, built.answers, SetAside())


def feed_of(built: AnswerModel, config: AnswerConfig, **more: Any) -> AnswerFeed:
    return AnswerFeed(
        asked(built, more.get("data")),
        config.feed,
        seed=config.seed,
        features=see,
        pad_ids=(built.pad_id, built.answers.pad_id),
    )


def test_the_order_is_a_stitchs(lm: str) -> None:
    """Fault: a comparison in which one side saw other questions, or the same in another order."""
    config = settings(lm)
    built = build_answer_model(config, ENCODER_WIDTH)
    ours = feed_of(built, config)
    rows = to_rows(many_questions(), built.prompt, learn=True, set_aside=SetAside())
    theirs = StitchFeed(rows, config.feed, built.prompt, seed=config.seed, patches=see)
    assert ours.steps == theirs.steps
    assert ours.answers == theirs.answers
    for step in range(ours.steps):
        (batch,) = ours.micro_batches(step)
        parts = list(theirs.micro_batches(step))
        items = [name for part in parts for row in part.packed.item_ids for name in row]
        assert len(items) == len(batch.which)
        seen = [
            value for part in parts if part.patches is not None for value in part.patches.flatten().tolist()
        ]
        assert batch.features is not None
        assert set(seen) == set(batch.features.flatten().tolist())


def test_equal_answers_are_one_text_of_the_step(lm: str) -> None:
    config = settings(lm, feed={"batch": 5, "epochs": 1})
    built = build_answer_model(config, ENCODER_WIDTH)
    data = tiny_data([[("a?", "yes"), ("b?", "no"), ("c?", "yes")], [("d?", "yes"), ("e?", "two")]])
    (batch,) = feed_of(built, config, data=data).micro_batches(0)
    assert len(batch.answers.ids) == 3
    same = batch.which[:, None] == batch.which[None, :]
    assert int(same.sum()) == 3 * 3 + 1 + 1
    assert sorted(batch.picture.tolist()) == [0, 0, 0, 1, 1] or sorted(batch.picture.tolist()) == [
        0,
        0,
        1,
        1,
        1,
    ]


def test_two_answers_to_one_question_are_both_right(lm: str) -> None:
    config = settings(lm, feed={"batch": 5, "epochs": 1})
    built = build_answer_model(config, ENCODER_WIDTH)
    told = [("what is there?", "a chair"), ("what is there?", "the table"), ("how many?", "2")]
    data = tiny_data([told, [("what is there?", "a door"), ("how many?", "2")]])
    (batch,) = feed_of(built, config, data=data).micro_batches(0)
    for row in range(5):
        assert batch.right[row, batch.which[row]]
    assert sorted(batch.right.sum(dim=1).tolist()) == [1, 1, 1, 2, 2]


def test_answers_missing_or_too_long_are_set_aside(lm: str) -> None:
    built = build_answer_model(settings(lm, text={"id": lm, "max_tokens": 6}), ENCODER_WIDTH)
    data = tiny_data([[("a?", "yes"), ("b?", "  "), ("c?", "word " * 20)], [("d?", "")]])
    aside = SetAside()
    kept = to_asked(data, built.prompt, built.answers, aside)
    assert [len(p.asked) for p in kept] == [1]
    assert aside.counts == {"no answer": 2, "answer longer than text.max_tokens, or of no token": 1}
    with pytest.raises(UserError, match="no question with an answer that can be used: 1 no answer"):
        to_asked(tiny_data([[("d?", "")]]), built.prompt, built.answers, SetAside())


def test_a_step_with_nothing_to_tell_apart_is_refused(lm: str) -> None:
    built = build_answer_model(settings(lm), ENCODER_WIDTH)
    data = tiny_data([[("a?", "yes")], [("b?", "yes")], [("c?", "yes")], [("d?", "yes")]])
    with pytest.raises(UserError, match="2 of 2 steps have fewer than two different answers"):
        AnswerFeed(asked(built, data), FeedConfig(batch=2), seed=0, features=see, pad_ids=(0, 0))
    with pytest.raises(UserError, match=r"feed.batch=1: answers are told apart within a step"):
        settings(lm, feed={"batch": 1})
    with pytest.raises(UserError, match=r"turns=conversation"):
        settings(lm, feed={"turns": "conversation", "batch": 8})


def test_it_learns_a_handful(lm: str, tmp_path: Path) -> None:
    config = settings(lm, feed={"batch": 40, "micro_batch": 40, "epochs": 40})
    built = build_answer_model(config, ENCODER_WIDTH)
    before = {name: p.detach().clone() for name, p in built.model.named_parameters()}
    rows: list[dict[str, Any]] = []
    result, feed = fit_answer(
        built, config, asked(built), see, tmp_path / "run", on_step=lambda done, row: rows.append(row)
    )
    assert result.steps == feed.steps > 10
    assert rows[-1]["own_answer"] == 1.0
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"]
    assert rows[0]["different_answers"] == 6.0

    def moved(prefix: str) -> float:
        found = [
            (p.detach() - before[n]).abs().max()
            for n, p in built.model.named_parameters()
            if n.startswith(prefix)
        ]
        return float(torch.stack(found).max())

    assert moved("query_embed.") == 0.0
    assert 0.0 < moved("text.") < 0.3 * moved("text_head.")
    assert moved("trunk.") > 0.0
    assert moved("projector.") > 0.0


def test_the_text_encoder_has_its_own_rate(lm: str) -> None:
    model = build_answer_model(settings(lm), ENCODER_WIDTH).model
    found = {group.name: group for group in groups(model, 0.05, 0.5)}
    assert {name: group.lr_scale for name, group in found.items()} == {
        "heads": 1.0,
        "text": 0.05,
        "trunk": 0.5,
    }
    assert all(name.startswith("text.") for name in found["text"].parameters)
    assert all(name.startswith("trunk.") for name in found["trunk"].parameters)
    assert {"text_head.weight", "head.weight", "log_scale"} <= set(found["heads"].parameters)
    frozen = build_answer_model(settings(lm, text={"id": lm, "lr_scale": 0}), ENCODER_WIDTH)
    assert [group.name for group in groups(frozen.model, 0.0)] == ["heads", "trunk"]
    assert frozen.parts()["text"][1] == 0
    assert frozen.parts()["query_embed"][1] == 0


def test_a_resumed_run_is_the_uninterrupted_one(lm: str, tmp_path: Path) -> None:
    whole, halves = settings(lm, checkpoint_every=2), settings(lm, checkpoint_every=2)

    def run(directory: Path, stop: int | None = None) -> str:
        built = build_answer_model(whole, ENCODER_WIDTH)

        def on_step(done: int, row: dict[str, Any]) -> None:
            if done == stop:
                raise KeyboardInterrupt

        fit_answer(built, halves, asked(built), see, directory, run="r", on_step=on_step)
        return fingerprint_tensors(built.model.state_dict())

    expected = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stop=5)
    assert run(tmp_path / "b") == expected
    built = build_answer_model(whole, ENCODER_WIDTH)
    with pytest.raises(UserError, match="belongs to another run"):
        fit_answer(built, whole, asked(built), see, tmp_path / "b", run="another config")


def test_features_of_another_encoder_are_refused(lm: str) -> None:
    config = settings(lm)
    built = build_answer_model(config, ENCODER_WIDTH + 1)
    with pytest.raises(UserError, match="12 wide and the projector takes 13"):
        fit_answer(built, config, asked(built), see, None)


def test_the_sigmoid_loss_says_yes_to_equal_answers(lm: str) -> None:
    config = settings(lm, loss={"kind": "sigmoid", "bias": -3.0})
    built = build_answer_model(config, ENCODER_WIDTH)
    (batch,) = feed_of(built, config).micro_batches(0)
    loss, _ = answer_loss(built.model, batch, 0)
    assert batch.features is not None
    predicted, _ = built.model.predict(batch.features[batch.picture], *batch.query)
    text = built.model.encode_text(*batch.answers)[batch.which]
    assert built.model.bias is not None
    scale, bias = built.model.log_scale, built.model.bias
    positives = batch.which[:, None] == batch.which[None, :]
    assert int(positives.sum()) > len(batch.which)
    torch.testing.assert_close(loss, sigmoid_loss(predicted, text, scale, bias, positives))
    assert not torch.allclose(loss, sigmoid_loss(predicted, text, scale, bias))


def test_equal_seeds_begin_alike_and_the_start_can_be_random(lm: str) -> None:
    config = settings(lm)
    first, again = (fingerprint_tensors(build_answer_model(config, 12).model.state_dict()) for _ in range(2))
    assert first == again
    other = build_answer_model(settings(lm, predictor={"id": lm, "layers": 2, "random": True}), 12)
    assert fingerprint_tensors(other.model.state_dict()) != first


def test_a_text_that_is_empty_or_too_long_is_no_candidate() -> None:
    tokens = AnswerTokens(tiny_tokenizer(), 5)
    with pytest.raises(UserError, match="A text is empty"):
        tokens.encode(["red", " "])
    with pytest.raises(UserError, match=r"text.max_tokens is 5"):
        tokens.encode(["red", "a chair, the table, two lamps and a door. " * 3])
    ids, real = padded([(1, 2), (3,)], 9)
    assert ids.tolist() == [[1, 2], [3, 9]]
    assert real.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("preset", ["jepa/answer-tiny", "jepa/answer-paper"])
def test_presets_are_whole(preset: str) -> None:
    values = read_preset(preset)
    assert values.pop("form") == "answer"
    config = parse(AnswerConfig, values)
    assert config.text.lr_scale == 0.05
    with pytest.raises(UserError, match="optmi: unknown key"):
        parse(AnswerConfig, {**values, "optmi": {}})
    if preset.endswith("paper"):
        assert (config.predictor.layers, config.dim, config.prompt.max_tokens) == (8, 1536, 512)
        assert config.loss.kind == "infonce"


def test_load_config_is_not_fooled_by_the_form() -> None:
    with pytest.raises(UserError, match="form: unknown key"):
        load_config(AnswerConfig, "jepa/answer-tiny")
