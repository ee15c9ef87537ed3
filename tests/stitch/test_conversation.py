"""What is kept of a picture and a conversation, against reading everything again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sutura.stitch.model as stitch_model
from sutura.core.errors import UserError
from sutura.stitch.config import PromptConfig
from sutura.stitch.conversation import Conversation, Reply
from sutura.stitch.generate import generate
from sutura.stitch.language import LlmConfig, add_adapter
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Row
from sutura.stitch.prompt import PromptBuilder, Turn
from sutura.stitch.sampling import GREEDY, Sampling
from tiny_models import (
    CHAT,
    IMAGE_TOKENS,
    KINDS,
    awaken,
    naive_answer,
    tiny_lm,
    tiny_patches,
    tiny_projector,
    tiny_tokenizer,
)

QUESTIONS = (
    "What colour is the large cube?",
    "What colour is the large sphere?",
    "How many?",
    "What colour is the large cube?",
    "Is there a small metal cylinder?",
)
MOST = 6
#: A template with a system's words in front, so that there is a head beyond the first token.
SYSTEM = "{{ '<|user|>' }}Answer: " + CHAT
#: Words before the newest answer that are gone from earlier ones, as Qwen3's empty thoughts are.
VANISHING = CHAT.replace("|>{{", "|>{% if m.role == 'assistant' and loop.last %}the {% endif %}{{").replace(
    "%}<|assistant|>{%", "%}<|assistant|>the {%"
)


def build(kind: str = "qwen2", attention: str = "", *, blind: bool = False) -> StitchModel:
    lm = awaken(add_adapter(tiny_lm(kind, attention=attention, seed=1), LlmConfig(rank=4), seed=0))
    return StitchModel(lm, None if blind else tiny_projector()).eval()


def picture(model: StitchModel) -> Tensor:
    return model.project(tiny_patches(1)).detach()


def converse(model: StitchModel, prompt: PromptBuilder, *, history: bool = False) -> Conversation:
    return Conversation(model, prompt, (lambda: picture(model)) if model.projector else None, history)


def from_scratch(
    model: StitchModel, prompt: PromptBuilder, ids: tuple[int, ...], sampling: Sampling = GREEDY
) -> str:
    visual = picture(model) if model.projector else None
    row = Row(0, (Turn("alone", ids),))
    return generate(model, prompt, [row], visual, max_new_tokens=MOST, sampling=sampling)[0].text


class Spy:
    """Records how many tokens every call of the language model reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lengths: list[int] = []
        original = stitch_model.StitchModel.decode

        def decode(model: StitchModel, spliced: Any, *args: Any, **options: Any) -> Tensor:
            self.lengths.append(spliced.embeddings.shape[1])
            return original(model, spliced, *args, **options)

        monkeypatch.setattr(stitch_model.StitchModel, "decode", decode)


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize(("kind", "attention"), [*((kind, "") for kind in KINDS), ("qwen2", "eager")])
def test_kept_equals_from_scratch(
    kind: str, attention: str, blind: bool, history: bool, prompt: PromptBuilder
) -> None:
    """With and without earlier turns, for a question that begins as the last one did and one asked before."""
    model = build(kind, attention, blind=blind)
    talk, said = converse(model, prompt, history=history), []
    for question in QUESTIONS:
        before = list(talk.turns) if history else []
        reply = talk.ask(question, max_new_tokens=MOST)
        ids = prompt.conversation_ids(before, question)
        assert reply.text == from_scratch(model, prompt, ids)
        visual = None if blind else picture(model)[0]
        slow = naive_answer(model, Turn("slow", ids), visual, prompt.stop_ids, MOST)
        assert (reply.text, reply.tokens) == (prompt.decode(slow), len(slow))
        assert reply.stopped == (slow[-1] in prompt.stop_ids)
        said.append(reply.text)
    assert talk.turns == list(zip(QUESTIONS, said, strict=True))
    if history:
        assert said[0] != said[3], "the earlier turns should have mattered"
    else:
        assert said[0] == said[3]


@pytest.mark.parametrize("template", [SYSTEM, VANISHING, None], ids=["system", "vanishing", "plain"])
def test_other_templates(template: str | None) -> None:
    """Fault: a history that is only ever appended to, while its template writes earlier turns otherwise."""
    model, prompt = build(), PromptBuilder(tiny_tokenizer(template))
    talk = converse(model, prompt, history=True)
    for question in QUESTIONS[:3]:
        before = list(talk.turns)
        reply = talk.ask(question, max_new_tokens=MOST)
        assert reply.text == from_scratch(model, prompt, prompt.conversation_ids(before, question))


def test_a_follow_up_reads_its_own_tokens_only(
    prompt: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: the picture read, or encoded, again for every question."""
    model, seen, spy = build(), [], Spy(monkeypatch)

    def see() -> Tensor:
        seen.append(1)
        return picture(model)

    talk = Conversation(model, prompt, see)
    assert seen == []
    first = talk.ask(QUESTIONS[0], max_new_tokens=3)
    whole = IMAGE_TOKENS + len(prompt.prompt_ids(QUESTIONS[0]))
    assert (first.read, spy.lengths) == (whole, [whole, 1, 1])
    spy.lengths.clear()
    second = talk.ask(QUESTIONS[4], max_new_tokens=2)
    own = len(prompt.prompt_ids(QUESTIONS[4])) - len(prompt.head_ids)
    assert second.read <= own < whole
    assert spy.lengths == [second.read, 1]
    assert talk.ask(QUESTIONS[4], max_new_tokens=2).read == 1
    assert seen == [1]


def test_with_history_a_follow_up_reads_what_is_new(prompt: PromptBuilder) -> None:
    model = build()
    talk = converse(model, prompt, history=True)
    talk.ask(QUESTIONS[0], max_new_tokens=MOST)
    reply = talk.ask(QUESTIONS[2], max_new_tokens=MOST)
    everything = IMAGE_TOKENS + len(prompt.conversation_ids(talk.turns[:1], QUESTIONS[2]))
    assert reply.read <= everything - IMAGE_TOKENS - len(prompt.prompt_ids(QUESTIONS[0]))


def test_by_default_no_question_sees_another(prompt: PromptBuilder) -> None:
    model = build()
    talk = converse(model, prompt)
    alone = {q: converse(model, prompt).ask(q, max_new_tokens=MOST).text for q in QUESTIONS}
    assert [talk.ask(q, max_new_tokens=MOST).text for q in QUESTIONS] == [alone[q] for q in QUESTIONS]


def test_reset_forgets_the_turns_and_keeps_the_picture(prompt: PromptBuilder) -> None:
    model = build()
    talk = converse(model, prompt, history=True)
    fresh = talk.ask(QUESTIONS[0], max_new_tokens=MOST)
    talk.ask(QUESTIONS[2], max_new_tokens=MOST)
    talk.reset()
    again = talk.ask(QUESTIONS[0], max_new_tokens=MOST)
    assert (again.text, talk.turns) == (fresh.text, [(QUESTIONS[0], fresh.text)])
    assert again.read < IMAGE_TOKENS


@pytest.mark.parametrize("broken", ["crop", "position"])
def test_what_is_kept_wrongly_is_noticed(
    broken: str, prompt: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The equality above is sharp: a cache not cut back, or tokens at the wrong place, change answers."""
    from transformers import DynamicCache

    model = build()
    right = [from_scratch(model, prompt, prompt.prompt_ids(q)) for q in QUESTIONS]
    if broken == "crop":
        original = DynamicCache.crop
        monkeypatch.setattr(DynamicCache, "crop", lambda cache, n: original(cache, min(n + 1, 0)))
    else:
        text = Conversation._text
        monkeypatch.setattr(Conversation, "_text", lambda talk, ids, at: text(talk, ids, max(at - 1, 0)))
    talk = converse(model, prompt)
    assert [talk.ask(q, max_new_tokens=MOST).text for q in QUESTIONS] != right


def test_a_question_that_was_cut_off_does_no_harm(
    prompt: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: Ctrl-C between two tokens leaves a cache and a list of ids that do not belong together."""
    model = build()
    talk = converse(model, prompt)
    talk.ask(QUESTIONS[0], max_new_tokens=MOST)

    def stop(*_: Any, **__: Any) -> Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StitchModel, "decode", stop)
        with pytest.raises(KeyboardInterrupt):
            talk.ask(QUESTIONS[4], max_new_tokens=MOST)
    reply = talk.ask(QUESTIONS[4], max_new_tokens=MOST)
    assert reply.text == from_scratch(model, prompt, prompt.prompt_ids(QUESTIONS[4]))
    assert len(talk.turns) == 2


def test_drawn_answers_are_those_of_generate(prompt: PromptBuilder) -> None:
    model, sampling = build(), Sampling(1.3, top_k=50, seed=5)
    talk = converse(model, prompt)
    for question in QUESTIONS[:3]:
        reply = talk.ask(question, max_new_tokens=MOST, sampling=sampling)
        assert reply.text == from_scratch(model, prompt, prompt.prompt_ids(question), sampling)


def test_time_to_the_first_token_is_part_of_the_whole(prompt: PromptBuilder) -> None:
    reply: Reply = converse(build(), prompt).ask(QUESTIONS[0], max_new_tokens=MOST)
    assert 0 < reply.first_token <= reply.seconds


def test_what_cannot_be_asked(prompt: PromptBuilder) -> None:
    talk = converse(build(), prompt, history=True)
    with pytest.raises(UserError, match="empty"):
        talk.ask("  ")
    with pytest.raises(UserError, match="max_new_tokens=0"):
        talk.ask("How many?", max_new_tokens=0)
    short = PromptBuilder(tiny_tokenizer(), PromptConfig(max_tokens=40))
    talk = converse(build(), short, history=True)
    with pytest.raises(UserError, match="Ask a shorter one"):
        talk.ask("many " * 60)
    talk.ask("How many?", max_new_tokens=4)
    talk.ask("How many?", max_new_tokens=4)
    with pytest.raises(UserError, match=r"conversation with 2 earlier questions.*reset"):
        talk.ask("How many of the large yellow cubes?", max_new_tokens=4)
    talk.reset()
    assert talk.ask("How many?", max_new_tokens=4)


def test_a_history_of_nothing_is_the_training_prompt(prompt: PromptBuilder) -> None:
    for builder in (prompt, PromptBuilder(tiny_tokenizer(None))):
        learned = builder.turn("x", QUESTIONS[0], "red")
        assert builder.conversation_ids((), QUESTIONS[0]) == learned.prompt_ids
        later = builder.conversation_ids([(QUESTIONS[0], "red")], QUESTIONS[1])
        assert later[: len(learned)] == (*learned.prompt_ids, *learned.answer_ids)


def test_no_gradient_is_kept(prompt: PromptBuilder) -> None:
    talk = converse(build(), prompt)
    talk.ask(QUESTIONS[0], max_new_tokens=2)
    assert not any(layer.keys.requires_grad for layer in talk._cache.layers)
    assert torch.is_inference(talk._cache.layers[0].keys)
