"""Tasks of a trained answer model: everything is a nearest text, and nothing of the test answers is a candidate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.data.samples import SetAside, make_data
from sutura.data.scenes import HELD_OUT, LABELS
from sutura.evals.answer_tasks import (
    answer_rows,
    candidate_answers,
    classify,
    embed_texts,
    nearest,
    predict,
    share,
    world_classes,
)
from sutura.train.answer import AnswerModel, build_answer_model, fit_answer
from sutura.train.answer_config import AnswerConfig
from sutura.train.answer_feed import to_asked
from tiny_models import ENCODER_WIDTH, many_questions, save_language_model, see, tiny_data

NAMES = {"run": "r", "encoder": "tiny", "seed": 0, "benchmark": "tiny/train"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> AnswerModel:
    """A model that knows the answers of `many_questions` by heart."""
    lm = save_language_model(tmp_path_factory.mktemp("lm"))
    config = parse(
        AnswerConfig,
        {
            "name": "tiny",
            "encoder": "zoo:clip",
            "predictor": {"id": lm, "layers": 2},
            "text": {"id": lm},
            "dim": 16,
            "train": {},
            "test": {},
            "feed": {"batch": 40, "epochs": 40},
            "optim": {"lr": 0.003, "schedule": "constant"},
        },
    )
    built = build_answer_model(config, ENCODER_WIDTH)
    pictures = to_asked(many_questions(), built.prompt, built.answers, SetAside())
    fit_answer(built, config, pictures, see, None)
    return built


def test_candidates_are_frequent_training_answers() -> None:
    data = tiny_data(
        [
            [("a?", "Yes"), ("b?", "yes"), ("c?", "yes"), ("g?", "yes.")],
            [("d?", "two"), ("e?", "2"), ("f?", "rare")],
        ]
    )
    assert candidate_answers(data.samples) == ("yes", "2")
    assert candidate_answers(data.samples, least=1) == ("yes", "2", "rare")
    assert candidate_answers(data.samples, most=1, least=1) == ("yes",)
    with pytest.raises(UserError, match="1 training answers occur at least 4 times"):
        candidate_answers(data.samples, least=4)


def test_learned_questions_are_answered_and_swapped_pictures_are_not(trained: AnswerModel) -> None:
    data = many_questions()
    candidates = candidate_answers(data.samples)
    right = answer_rows(trained, data, candidates, see, condition="picture", **NAMES)  # type: ignore[arg-type]
    assert sum(row["exact"] for row in right) == len(right) == len(data)
    assert {row["condition"] for row in right} == {"picture"}
    names = [p.image_id for p in data.pictures]
    swap = dict(zip(names, names[1:] + names[:1], strict=True))
    wrong = answer_rows(
        trained,
        data,
        candidates,
        see,
        condition="wrong-picture",
        wrong=swap,
        **NAMES,  # type: ignore[arg-type]
    )
    assert [row["image_id"] for row in wrong] == [row["image_id"] for row in right]
    assert sum(row["exact"] for row in wrong) < len(wrong)


def test_a_question_with_choices_is_answered_among_them(trained: AnswerModel) -> None:
    data = many_questions(4)
    first = data.pictures[0]
    chosen = tuple(replace(s, choices=("zebra", "giraffe")) for s in first.samples)
    offered = make_data(
        "tiny", "train", [replace(first, samples=chosen), *data.pictures[1:]], content=["a"] * 4
    )
    rows = answer_rows(trained, offered, ("red", "green"), see, condition="picture", **NAMES)  # type: ignore[arg-type]
    own = {s.item_id for s in chosen}
    assert all((row["prediction"] in ("zebra", "giraffe")) == (row["item_id"] in own) for row in rows)


def test_rows_do_not_depend_on_what_they_are_batched_with(trained: AnswerModel) -> None:
    asked = [(s.image_id, s.question) for s in many_questions().samples]
    whole = predict(trained, see, asked)
    torch.testing.assert_close(
        whole, torch.cat([predict(trained, see, [one]) for one in asked]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(whole, predict(trained, see, asked, batch=5), atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(len(whole)))


def test_labels_become_classes_without_training(trained: AnswerModel) -> None:
    data = many_questions()
    question = "How many 0 in 3?"
    truth = next(s.answers[0] for s in data.samples if s.question == question)
    classes = [["no"], [truth], ["a chair"]]
    assert classify(trained, see, ["p3"], question, classes).tolist() == [1]
    flipped = [classes[1], classes[0], classes[2]]
    assert classify(trained, see, ["p3"], question, flipped).tolist() == [0]
    with pytest.raises(UserError, match="as many texts as every other"):
        classify(trained, see, ["p3"], question, [["a"], ["b", "c"]])
    with pytest.raises(UserError, match="as many texts as every other"):
        classify(trained, see, ["p3"], question, [])


def test_nothing_to_ask_or_to_choose_from_is_said(trained: AnswerModel) -> None:
    with pytest.raises(UserError, match="no candidate text"):
        embed_texts(trained, [])
    with pytest.raises(UserError, match="Nothing is asked"):
        predict(trained, see, [])
    with pytest.raises(UserError, match="A query is empty"):
        predict(trained, see, [("p0", " ")])
    with pytest.raises(UserError, match=r"prompt.max_tokens is 512"):
        predict(trained, see, [("p0", "How many? " * 400)])


def test_the_nearest_is_by_cosine() -> None:
    table = torch.eye(3)
    assert nearest(torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.1, 0.1]]), table).tolist() == [1, 0]


def test_shares_have_intervals_over_pictures() -> None:
    clustered = share([1.0] * 50 + [0.0] * 50, ["a"] * 50 + ["b"] * 50)
    spread = share([1.0] * 50 + [0.0] * 50, [str(i) for i in range(100)])
    assert clustered.mean == spread.mean == 0.5
    assert clustered.high - clustered.low == pytest.approx(1.0)
    assert 0.15 < spread.high - spread.low < 0.25
    assert (spread.n, spread.clusters, clustered.clusters) == (100, 100, 2)
    assert spread.cell().startswith("50.0 [")
    with pytest.raises(UserError, match="nothing to average"):
        share([], [])


def test_the_worlds_classes_are_its_labels() -> None:
    texts, held_out = world_classes()
    assert len(texts) == len(LABELS) == 24
    assert sum(held_out) == len(HELD_OUT) == 4
    assert texts[0][0] == f"small {LABELS[0][1]} rubber {LABELS[0][0]} ."
