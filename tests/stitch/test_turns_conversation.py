"""Conversations: every turn reads the turns before it, as an ordinary causal run over the whole text does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stitch.test_conversation import VANISHING
from stitch.test_prompt import TEMPLATES
from sutura.core.errors import UserError
from sutura.stitch.language import LlmConfig, add_adapter
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Row, pack, split_turns
from sutura.stitch.prompt import PromptBuilder, PromptConfig, Turn
from tiny_models import (
    CHAT,
    KINDS,
    awaken,
    learn_rows,
    naive_logits,
    naive_nats,
    tiny_lm,
    tiny_patches,
    tiny_projector,
    tiny_tokenizer,
)

TOLD = [("a", "What is it?", "a chair"), ("b", "Which colour?", "red"), ("c", "How many?", "two")]


def build(kind: str, *, blind: bool = False) -> StitchModel:
    lm = awaken(add_adapter(tiny_lm(kind, seed=1), LlmConfig(rank=4), seed=0))
    return StitchModel(lm, None if blind else tiny_projector()).eval()


def ids_of(turns: tuple[Turn, ...]) -> list[int]:
    return [token for turn in turns for token in (*turn.prompt_ids, *turn.answer_ids)]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_turns_laid_one_behind_the_other_are_the_conversation(name: str) -> None:
    tokenizer = tiny_tokenizer(TEMPLATES[name])
    text = tokenizer.decode(ids_of(PromptBuilder(tokenizer).conversation(TOLD[:2])))
    if name in ("chat", "qwen"):
        messages = [
            {"role": role, "content": words}
            for _, question, answer in TOLD[:2]
            for role, words in (("user", question), ("assistant", answer))
        ]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False)
        assert rendered.removesuffix("\n") == text
    elif name == "plain":
        assert text == (
            "Question: What is it?\nAnswer: a chair<|end|>\nQuestion: Which colour?\nAnswer: red<|end|>"
        )
    else:  # every answer is asked for in the same way, thinking or not
        ask = "<|user|>assistant\n<think>\n\n</think>\n\n"
        assert text == (
            f"<|user|>user\nWhat is it?<|eot|>\n{ask}a chair<|eot|>\n"
            f"<|user|>user\nWhich colour?<|eot|>\n{ask}red<|eot|>"
        )


@pytest.mark.parametrize("instruction", ["", "Answer in one word."])
@pytest.mark.parametrize("name", [*TEMPLATES, "vanishing", "published"])
def test_asking_with_a_history_gives_the_ids_of_training(name: str, instruction: str) -> None:
    """Fault: the template rendered over the whole conversation leaves out what training put before earlier answers."""
    chat = VANISHING if name == "vanishing" else TEMPLATES.get(name)
    template = "published" if name == "published" else "auto"
    prompt = PromptBuilder(tiny_tokenizer(chat), PromptConfig(template=template, instruction=instruction))
    trained = prompt.conversation(TOLD)
    for asked in range(len(TOLD)):
        history = [(question, answer) for _, question, answer in TOLD[:asked]]
        before = ids_of(trained[:asked])
        assert prompt.conversation_ids(history, TOLD[asked][1]) == (*before, *trained[asked].prompt_ids)


def test_the_first_turn_is_that_of_an_ordinary_question() -> None:
    prompt = PromptBuilder(tiny_tokenizer(), PromptConfig(instruction="Answer in one word."))
    assert prompt.conversation(TOLD)[0] == prompt.turn(*TOLD[0])
    assert "Answer in one word." in prompt.tokenizer.decode(prompt.conversation(TOLD)[1].prompt_ids)
    assert prompt.next_turn("b", "Which colour?").answer_ids == ()


def test_a_template_without_room_for_a_second_question_is_refused() -> None:
    alone = CHAT.replace("for m in messages", "for m in messages[:2]")
    with pytest.raises(UserError, match="second question"):
        PromptBuilder(tiny_tokenizer(alone)).conversation(TOLD)


def causal_nats(model: StitchModel, turns: tuple[Turn, ...], visual: Tensor | None) -> Tensor:
    """The whole conversation as one sequence, without our packing: no mask, no positions of ours."""
    ids = ids_of(turns)
    logits = naive_logits(model.lm, ids, visual)
    found, start = [], 0
    for turn in turns:
        first = start + len(turn.prompt_ids)
        start = first + len(turn.answer_ids)
        found.append(
            F.cross_entropy(logits[first - 1 : start - 1], torch.tensor(ids[first:start]), reduction="none")
        )
    return torch.cat(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blind", [False, True])
@torch.no_grad()
def test_a_conversation_equals_an_ordinary_causal_run(kind: str, blind: bool, prompt: PromptBuilder) -> None:
    """Beside rows of other kinds in one batch, uneven on purpose: their turns stay isolated."""
    model, patches = build(kind, blind=blind), tiny_patches(2)
    visual = None if blind else model.project(patches)
    talk = Row(0, prompt.conversation(TOLD), conversation=True)
    short = Row(1, prompt.conversation(TOLD[:2]), conversation=True)
    questions = replace(learn_rows(prompt)[2], picture=1)
    packed = pack([talk, questions, short], head_ids=prompt.head_ids, pad_id=min(prompt.stop_ids))
    nats, places = model(packed, visual)
    see = (lambda picture: None) if visual is None else (lambda picture: visual[picture])
    for number, row in ((0, talk), (2, short)):
        torch.testing.assert_close(
            nats[places[:, 0] == number],
            causal_nats(model, row.turns, see(row.picture)),
            atol=2e-5,
            rtol=1e-5,
        )
    alone = torch.cat([naive_nats(model, turn, see(1)) for turn in questions.turns])
    torch.testing.assert_close(nats[places[:, 0] == 1], alone, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_history_is_read_and_the_future_is_not(prompt: PromptBuilder) -> None:
    model = build("qwen2", blind=True)

    def nats(told: list[tuple[str, str, str]], *, conversation: bool = True) -> Tensor:
        row = Row(0, prompt.conversation(told), conversation=conversation)
        return model(pack([row], head_ids=prompt.head_ids, pad_id=min(prompt.stop_ids)), None)[0]

    lengths = [len(turn.answer_ids) for turn in prompt.conversation(TOLD)]
    whole = nats(TOLD)
    other_end = nats([*TOLD[:2], ("c", "How many?", "five")])
    other_start = nats([("a", "What is it?", "a table"), *TOLD[1:]])
    kept = sum(lengths[:2])
    torch.testing.assert_close(whole[:kept], other_end[:kept], atol=1e-5, rtol=0)
    assert float((whole[-lengths[2] :] - other_start[-lengths[2] :]).abs().max()) > 0.01
    # Planted: the same turns isolated from each other, as questions are.
    assert float((whole - nats(TOLD, conversation=False))[lengths[0] :].abs().max()) > 0.01


def test_modes_keep_a_conversation_whole(prompt: PromptBuilder) -> None:
    talk = Row(0, prompt.conversation(TOLD), conversation=True)
    assert all(split_turns(talk, mode) == [talk] for mode in ("shared", "separate", "conversation"))
    assert [len(row.turns) for row in split_turns(talk, "first")] == [1]
    with pytest.raises(UserError, match="built as one"):
        split_turns(Row(0, talk.turns), "conversation")
