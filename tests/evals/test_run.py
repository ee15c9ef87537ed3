"""Asking every question of a benchmark: one row an item, the ids of training, and the wrong picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sutura.data.samples import SetAside, VqaData
from sutura.encoders.config import EncoderConfig
from sutura.evals.answers import exact
from sutura.evals.ledger import check_ledger, read_ledger, write_ledger
from sutura.evals.run import Asked, EvaluateConfig, derangement, evaluate
from sutura.stitch.bundle import Stitch, StitchConfig
from sutura.stitch.language import LlmConfig, add_adapter
from sutura.stitch.model import StitchModel
from sutura.stitch.prompt import PromptBuilder, PromptConfig
from sutura.train.loop import fit
from sutura.train.optim import OptimConfig
from sutura.train.stitching import FeedConfig, StitchFeed, stitch_loss, to_rows
from tiny_models import (
    IMAGE_TOKENS,
    TinyEncoder,
    awaken,
    naive_answer,
    naive_nats,
    tiny_data,
    tiny_lm,
    tiny_patches,
    tiny_projector,
    tiny_tokenizer,
)

ASKED = Asked(run="r", encoder="tiny", seed=0, condition="picture", benchmark="bench")


def make(*, blind: bool = False, template: str | None = "default", max_tokens: int = 512) -> Stitch:
    tokenizer = tiny_tokenizer() if template == "default" else tiny_tokenizer(template)
    prompt = PromptBuilder(tokenizer, PromptConfig(max_tokens=max_tokens))
    lm = awaken(add_adapter(tiny_lm(), LlmConfig(rank=4, dropout=0.0), seed=0))
    model = StitchModel(lm, None if blind else tiny_projector())
    config = StitchConfig(encoder=None if blind else EncoderConfig(id="tiny"))
    facts = {} if blind else TinyEncoder().facts()
    stitch = Stitch(config, model.eval(), prompt, facts, "")
    if not blind:
        stitch.attach(TinyEncoder())  # type: ignore[arg-type]
    return stitch


def see(names: Sequence[str]) -> Tensor:
    return tiny_patches(40)[[int(name[1:]) for name in names]]


def ask(
    stitch: Stitch, data: VqaData, asked: Asked = ASKED, patches: Any = see, **config: Any
) -> list[dict[str, Any]]:
    options = EvaluateConfig(**{"max_new_tokens": 5, **config})
    return evaluate(
        stitch, data, asked, options, patches=None if stitch.blind else patches, set_aside=SetAside()
    )


def test_one_row_an_item(tmp_path: Path) -> None:
    """In the ledger's own form, each with the question's references and its picture."""
    data, stitch = tiny_data(), make()
    done: list[int] = []
    rows = evaluate(
        stitch,
        data,
        ASKED,
        EvaluateConfig(max_new_tokens=5),
        patches=see,
        set_aside=SetAside(),
        on_rows=done.append,
    )
    assert sorted(row["item_id"] for row in rows) == sorted(s.item_id for s in data.samples)
    assert sum(done) == len(data)
    samples = {s.item_id: s for s in data.samples}
    for row in rows:
        sample = samples[row["item_id"]]
        assert (row["image_id"], row["question"], row["references"]) == (
            sample.image_id,
            sample.question,
            list(sample.answers),
        )
        assert (row["run"], row["encoder"], row["condition"], row["likelihood"]) == (
            "r",
            "tiny",
            "picture",
            None,
        )
    write_ledger(tmp_path / "ledger.parquet", rows, {})
    assert len(read_ledger(tmp_path / "ledger.parquet")) == len(data)


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 256])
def test_predictions_are_those_of_one_question_alone(blind: bool, batch: int) -> None:
    """Whatever is decoded together, each answer is that of its own picture."""
    stitch, data = make(blind=blind), tiny_data()
    rows = {row["item_id"]: row for row in ask(stitch, data, batch=batch)}
    for sample in data.samples:
        visual = None if blind else stitch.model.project(see([sample.image_id])).detach()[0]
        turn = stitch.prompt.turn("", sample.question)
        ids = naive_answer(stitch.model, turn, visual, stitch.prompt.stop_ids, 5)
        row = rows[sample.item_id]
        assert row["prediction"] == stitch.prompt.decode(ids)
        assert row["stopped"] == (ids[-1] in stitch.prompt.stop_ids)


def test_empty_answers_are_counted_not_prevented() -> None:
    """Fault: at least three tokens forced after an empty-output bug."""
    stitch, data = make(), tiny_data()
    turn = stitch.prompt.turn("", data.samples[0].question)
    visual = stitch.model.project(see(["p0"])).detach()[0]
    first = naive_answer(stitch.model, turn, visual, frozenset(), 1)[0]
    stitch.prompt = PromptBuilder(tiny_tokenizer(), extra_stop_ids=(first,))
    rows = {row["item_id"]: row for row in ask(stitch, data)}
    assert (rows["p0/q0"]["prediction"], rows["p0/q0"]["empty"], rows["p0/q0"]["stopped"]) == ("", True, True)
    assert not all(row["empty"] for row in rows.values())


def test_too_long_questions_are_set_aside_and_counted() -> None:
    stitch = make(max_tokens=20)
    data = tiny_data([[("How many?", "two"), ("How many? " * 9, "two")]])
    aside = SetAside()
    rows = evaluate(stitch, data, ASKED, EvaluateConfig(), patches=see, set_aside=aside)
    assert [row["item_id"] for row in rows] == ["p0/q0"]
    assert aside.items == {"longer than prompt.max_tokens": ["p0/q1"]}


def test_a_picture_that_stands_in_the_data_twice_keeps_all_its_questions() -> None:
    data = tiny_data()
    first = data.pictures[2]
    halves = [
        type(first)(first.image_id, first.image, part) for part in (first.samples[:1], first.samples[1:])
    ]
    data.pictures[2:] = [*halves, halves[0]]
    rows = ask(make(), data)
    assert sorted(row["item_id"] for row in rows) == sorted({s.item_id for s in data.samples})
    check_ledger(
        pl.DataFrame(
            rows, schema_overrides={"numeric": pl.Float64, "vqa": pl.Float64, "likelihood": pl.Float64}
        )
    )


def test_words_stand_where_the_picture_would() -> None:
    stitch, data = make(blind=True), tiny_data()
    words = {p.image_id: f"a red cube and {i} lamps." for i, p in enumerate(data.pictures)}
    told = evaluate(
        stitch, data, ASKED, EvaluateConfig(max_new_tokens=5), patches=None, set_aside=SetAside(), words=words
    )
    for row in told:
        turn = stitch.prompt.turn("", row["question"])
        whole = type(turn)("", (*stitch.prompt.encode_text(words[row["image_id"]]), *turn.prompt_ids))
        ids = naive_answer(stitch.model, whole, None, stitch.prompt.stop_ids, 5)
        assert row["prediction"] == stitch.prompt.decode(ids)


def test_likelihood_picks_the_likeliest_of_a_closed_set() -> None:
    """As a second score: the prediction stays the decoded one."""
    stitch, data = make(), tiny_data()
    choices = ("red", "Two", "no", "chair", "five", "yes", "gray")
    rows = evaluate(
        stitch,
        data,
        ASKED,
        EvaluateConfig(max_new_tokens=5, likelihood=True),
        patches=see,
        set_aside=SetAside(),
        choices={"kind": choices},
    )
    plain = {row["item_id"]: row["prediction"] for row in ask(stitch, data)}
    for row in rows:
        visual = stitch.model.project(see([row["image_id"]])).detach()[0]
        nats = [
            float(naive_nats(stitch.model, stitch.prompt.turn("", row["question"], c), visual).detach().sum())
            for c in choices
        ]
        best = choices[nats.index(min(nats))]
        assert row["likelihood"] == exact(best, row["references"]), "scored as strictly as the headline"
        assert row["prediction"] == plain[row["item_id"]]


# One builder for train, evaluate and ask.


@pytest.fixture
def spy() -> Any:
    """Collects the token ids that a language model is given, sequence by sequence."""

    class Spy:
        def __init__(self) -> None:
            self.seen: list[list[int]] = []

        def on(self, stitch: Stitch) -> None:
            embedding = stitch.model.lm.get_input_embeddings()
            embedding.register_forward_hook(
                lambda module, inputs, output: self.seen.extend(inputs[0].tolist())
            )

        def take(self) -> list[list[int]]:
            taken, self.seen = self.seen, []
            return taken

    return Spy()


@pytest.mark.parametrize("template", ["default", None])
@pytest.mark.parametrize("blind", [False, True])
def test_train_evaluate_and_ask_give_the_same_ids(template: str | None, blind: bool, spy: Any) -> None:
    """Fault: answer and end of turn mismatched between training and asking; `<image>` as literal text."""
    from PIL import Image

    stitch = make(blind=blind, template=template)
    spy.on(stitch)
    data = tiny_data([[("What colour is the cube?", "red")]])
    rows = to_rows(data, stitch.prompt, learn=True, set_aside=SetAside())
    feed = StitchFeed(rows, FeedConfig(batch=1), stitch.prompt, seed=0, patches=None if blind else see)
    fit(stitch.model, stitch_loss, feed, OptimConfig(), seed=0, directory=None)
    (trained,) = spy.take()
    ask(stitch, data, max_new_tokens=1)
    (evaluated,) = spy.take()
    picture = None if blind else Image.new("RGB", (8, 8), "red")
    stitch.ask(picture, "What colour is the cube?", max_new_tokens=1)
    (asked,) = spy.take()
    answer = list(stitch.prompt.answer_ids("red"))
    assert evaluated == asked
    assert trained == [*evaluated, *answer]
    assert trained[-1] in stitch.prompt.stop_ids
    assert "image" not in stitch.prompt.tokenizer.decode(trained)


def test_the_picture_goes_before_the_text() -> None:
    stitch = make()
    sizes: list[int] = []
    stitch.model.lm.get_base_model().model.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append((args[0] if args else kwargs["hidden_states"]).shape[1]),
        with_kwargs=True,
    )
    data = tiny_data([[("How many?", "two")]])
    ask(stitch, data, max_new_tokens=1)
    assert sizes == [IMAGE_TOKENS + len(stitch.prompt.prompt_ids("How many?"))]


# The wrong picture.


@settings(deadline=None)
@given(count=st.integers(2, 60), seed=st.integers(0, 50))
def test_a_derangement_moves_every_picture(count: int, seed: int) -> None:
    names = [f"p{i}" for i in range(count)]
    wrong = derangement(names, seed)
    assert sorted(wrong) == sorted(wrong.values()) == sorted(names)
    assert all(name != other for name, other in wrong.items())
    assert derangement(names, seed) == wrong


def test_a_derangement_is_seeded_and_drawn() -> None:
    names = [f"p{i}" for i in range(40)]
    torch.manual_seed(0)
    assert derangement(names, 1) != derangement(names, 2)
    everywhere = {derangement(names[:3], seed)["p0"] for seed in range(20)}
    assert everywhere == {"p1", "p2"}


def test_one_picture_has_no_wrong_one() -> None:
    with pytest.raises(ValueError, match="needs two"):
        derangement(["p0"], 0)


def test_the_wrong_picture_changes_what_is_seen_and_nothing_else() -> None:
    """Fault: a score without the wrong-picture row beside it; here that row keeps question and cluster."""
    stitch, data = make(), tiny_data()
    wrong = derangement([p.image_id for p in data.pictures], 0)
    right = {row["item_id"]: row for row in ask(stitch, data)}
    asked = Asked("r", "tiny", 0, "wrong-picture", "bench")
    swapped = {
        row["item_id"]: row for row in ask(stitch, data, asked, lambda names: see([wrong[n] for n in names]))
    }
    assert right.keys() == swapped.keys()
    for item, row in swapped.items():
        for column in ("image_id", "question", "references"):
            assert row[column] == right[item][column]
        visual = stitch.model.project(see([wrong[row["image_id"]]])).detach()[0]
        ids = naive_answer(
            stitch.model, stitch.prompt.turn("", row["question"]), visual, stitch.prompt.stop_ids, 5
        )
        assert row["prediction"] == stitch.prompt.decode(ids)
    assert any(right[i]["prediction"] != swapped[i]["prediction"] for i in right)
