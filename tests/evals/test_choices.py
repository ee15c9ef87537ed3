"""Multiple choice by likelihood: length rules and rotations, against one option at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from sutura.data.samples import SetAside, VqaData
from sutura.evals import choices as module
from sutura.evals.answers import exact
from sutura.evals.choices import ASK, lettered, rotations
from sutura.evals.config import EvaluateConfig
from sutura.evals.run import Asked, evaluate
from sutura.stitch.bundle import Stitch, StitchConfig
from sutura.stitch.prompt import PromptBuilder, PromptConfig
from tiny_models import naive_nats, see, tiny_data, tiny_stitch, tiny_tokenizer

OPTIONS = ("red", "a chair", "two small gray metal chairs", "no")


def stitch(max_tokens: int = 512) -> Stitch:
    prompt = PromptBuilder(tiny_tokenizer(), PromptConfig(max_tokens=max_tokens))
    return Stitch(StitchConfig(encoder=None), tiny_stitch().eval(), prompt, {}, "")


def choice_data(options: Sequence[str] = OPTIONS) -> VqaData:
    data = tiny_data([[("What is left?", "a chair"), ("What colour?", "red")], [("Is it gray?", "no")]])
    pictures = [
        replace(p, samples=tuple(replace(s, choices=tuple(options)) for s in p.samples))
        for p in data.pictures
    ]
    return replace(data, pictures=pictures)


def ask(own: Stitch, data: VqaData, likelihood: Any = "rotated") -> dict[str, dict[str, Any]]:
    rows = evaluate(
        own,
        data,
        Asked("r", "tiny", 0, "picture", "bench"),
        EvaluateConfig(max_new_tokens=2, likelihood=likelihood),
        patches=see,
        set_aside=SetAside(),
    )
    return {row["item_id"]: row for row in rows}


def nats_of(own: Stitch, image_id: str, question: str, answer: str) -> list[float]:
    visual: Tensor = own.model.project(see([image_id])).detach()[0]
    return naive_nats(own.model, own.prompt.turn("", question, answer), visual).detach().tolist()


def best(values: Sequence[float]) -> str:
    return OPTIONS[list(values).index(min(values))]


def test_each_length_rule_picks_what_one_option_at_a_time_would() -> None:
    own, data = stitch(), choice_data()
    rows = ask(own, data, likelihood=True)
    picked = set()
    for sample in data.samples:
        nats = [nats_of(own, sample.image_id, sample.question, option) for option in OPTIONS]
        due = {
            "likelihood": best([sum(n) for n in nats]),
            "likelihood_token": best([sum(n) / len(n) for n in nats]),
            "likelihood_byte": best([sum(n) / len(o.encode()) for n, o in zip(nats, OPTIONS, strict=True)]),
        }
        row = rows[sample.item_id]
        assert {name: row[name] for name in due} == {
            name: exact(option, sample.answers) for name, option in due.items()
        }
        assert row["rotated"] is None
        picked.add((due["likelihood"], due["likelihood_token"]))
    assert any(a != b for a, b in picked), "the rules must differ somewhere, or this shows nothing"


def test_rotations_are_scored_as_they_would_be_one_by_one() -> None:
    own, data = stitch(), choice_data()
    rows = ask(own, data)
    for sample in data.samples:
        right = []
        for start in range(len(OPTIONS)):
            order = OPTIONS[start:] + OPTIONS[:start]
            question = f"{sample.question}\nA. {order[0]}\nB. {order[1]}\nC. {order[2]}\nD. {order[3]}\n{ASK}"
            nats = [sum(nats_of(own, sample.image_id, question, letter)) for letter in "ABCD"]
            right.append(exact(order[nats.index(min(nats))], sample.answers))
        assert rows[sample.item_id]["rotated"] == pytest.approx(sum(right) / 4)
        assert rows[sample.item_id]["circular"] == float(all(right))


def test_a_liking_for_the_first_letter_is_worth_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: options always in one order, so that a model that says A scores by where the right one stands."""

    def likes_a(model: Any, prompt: Any, rows: Any, visual: Any) -> list[list[float]]:
        letter_a = prompt.answer_ids("A")
        return [[0.0 if turn.answer_ids == letter_a else -5.0 for turn in row.turns] for row in rows]

    monkeypatch.setattr(module, "log_likelihoods", likes_a)
    rows = ask(stitch(), choice_data())
    assert {(row["rotated"], row["circular"]) for row in rows.values()} == {(0.25, 0.0)}


def test_what_knows_the_answer_has_both_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    own = stitch()

    def knows(model: Any, prompt: Any, rows: Any, visual: Any) -> list[list[float]]:
        found = []
        for row in rows:
            values = []
            for turn in row.turns:
                text = prompt.decode(turn.prompt_ids)
                said = prompt.decode(turn.answer_ids)
                right = f"{said}. a chair" in text.replace("\n", " ") if len(said) == 1 else said == "a chair"
                values.append(0.0 if right else -9.0)
            found.append(values)
        return found

    monkeypatch.setattr(module, "log_likelihoods", knows)
    row = ask(own, choice_data())["p0/q0"]
    assert (row["likelihood"], row["rotated"], row["circular"]) == (1.0, 1.0, 1.0)


def test_prompts_that_do_not_fit_leave_the_score_out() -> None:
    rows = ask(stitch(max_tokens=30), choice_data())
    assert all(row["rotated"] is None and row["likelihood"] is not None for row in rows.values())


def test_closed_sets_of_a_question_type_are_not_rotated() -> None:
    own, data = stitch(), tiny_data()
    rows = evaluate(
        own,
        data,
        Asked("r", "tiny", 0, "picture", "bench"),
        EvaluateConfig(max_new_tokens=1, likelihood="rotated"),
        patches=see,
        set_aside=SetAside(),
        choices={"kind": OPTIONS},
    )
    assert all(row["rotated"] is None and row["likelihood_byte"] is not None for row in rows)


def test_options_are_listed_under_letters() -> None:
    assert lettered("Which?", ["x", "y"]) == f"Which?\nA. x\nB. y\n{ASK}"
    assert rotations("abc") == [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")]
