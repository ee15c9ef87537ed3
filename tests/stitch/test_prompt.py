"""One builder of token ids for training, evaluating and asking."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.core.errors import UserError
from sutura.stitch.prompt import PROBES, PromptBuilder, PromptConfig, common_prefix
from tiny_models import CHAT, SPECIAL, tiny_tokenizer

QWEN = (
    "{% if messages[0].role != 'system' %}<|user|>system\nYou are a helpful assistant.<|eot|>\n{% endif %}"
    "{% for m in messages %}<|user|>{{ m.role }}\n{{ m.content }}<|eot|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|user|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|eot|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
TEMPLATES = {"chat": CHAT, "qwen": QWEN, "thinking": THINKING, "plain": None}

questions = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=30
).filter(lambda text: text.strip() and "<|" not in text)


def builder(chat: str | None, **config: Any) -> PromptBuilder:
    return PromptBuilder(tiny_tokenizer(chat), PromptConfig(**config))


@pytest.mark.parametrize("name", TEMPLATES)
def test_training_and_asking_begin_with_the_same_ids(name: str) -> None:
    """Fault: no chat template, answer and end of turn mismatched between training and asking."""
    prompt = builder(TEMPLATES[name])
    asked, learned = prompt.turn("a", "How many?"), prompt.turn("a", "How many?", "two")
    assert asked.prompt_ids == learned.prompt_ids
    assert asked.answer_ids == ()
    assert prompt.decode(learned.answer_ids) == "two"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chat", "<|user|>How many?<|assistant|>|two<|end|>"),
        (
            "qwen",
            "<|user|>system\nYou are a helpful assistant.<|eot|>\n<|user|>user\nHow many?<|eot|>\n"
            "<|user|>assistant\n|two<|eot|>",
        ),
        ("thinking", "<|user|>user\nHow many?<|eot|>\n<|user|>assistant\n<think>\n\n</think>\n\n|two<|eot|>"),
        ("plain", "Question: How many?\nAnswer:| two<|end|>"),
    ],
)
def test_the_text_behind_the_ids(name: str, expected: str) -> None:
    """The tokenizer's own template where it has one; answer and end of turn are what is supervised."""
    prompt = builder(TEMPLATES[name])
    turn = prompt.turn("a", " How many? ", "two")
    decode = prompt.tokenizer.decode
    assert f"{decode(turn.prompt_ids)}|{decode(turn.answer_ids)}" == expected


@pytest.mark.parametrize("name", ["chat", "qwen", "thinking"])
def test_the_answer_ends_as_the_template_ends_it(name: str) -> None:
    """The ids of prompt and answer are those of the conversation the template writes."""
    prompt = builder(TEMPLATES[name])
    talk = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "two"}]
    whole = prompt.tokenizer.apply_chat_template(talk, tokenize=False, enable_thinking=False)
    ids = prompt.tokenizer(whole, add_special_tokens=False)["input_ids"]
    turn = prompt.turn("a", "How many?", "two")
    ours = [*turn.prompt_ids, *turn.answer_ids]
    assert ours == ids[: len(ours)]
    assert prompt.tokenizer.decode(ids[len(ours) :]).strip() == ""


def test_every_stop_id_is_known() -> None:
    """Fault: one EOS id of several; end of turn, the tokenizer's EOS and the model's own all stop."""
    tokenizer = tiny_tokenizer(QWEN)
    prompt = PromptBuilder(tokenizer, extra_stop_ids=(77, 78))
    end, eot = tokenizer.convert_tokens_to_ids(["<|end|>", "<|eot|>"])
    assert end != eot
    assert prompt.stop_ids == {end, eot, 77, 78}
    assert prompt.turn("a", "q", "x").answer_ids[-1] == eot


def test_decode_stops_at_the_first_stop() -> None:
    prompt = builder(CHAT)
    ids = prompt.encode_text("red")
    assert prompt.decode([*ids, *prompt.turn("a", "q", "blue").answer_ids]) == "redblue"
    assert prompt.decode([*ids, min(prompt.stop_ids), *ids]) == "red"
    assert prompt.decode([min(prompt.stop_ids), *ids]) == ""


@pytest.mark.parametrize("name", TEMPLATES)
@settings(deadline=None, max_examples=25)
@given(question=questions)
def test_every_prompt_begins_with_the_head(name: str, question: str) -> None:
    """The head is shared by all questions, and never the whole of a prompt."""
    prompt = builder(TEMPLATES[name])
    ids = prompt.prompt_ids(question)
    assert ids[: len(prompt.head_ids)] == prompt.head_ids
    assert len(ids) > len(prompt.head_ids)


@pytest.mark.parametrize(
    ("name", "holds"), [("chat", "<|user|>"), ("qwen", "helpful assistant."), ("plain", "Question:")]
)
def test_the_head_holds_what_the_template_says_first(name: str, holds: str) -> None:
    prompt = builder(TEMPLATES[name])
    assert holds in prompt.tokenizer.decode(prompt.head_ids)


@settings(deadline=None, max_examples=25)
@given(question=questions, answer=questions)
def test_an_answer_is_never_cut(question: str, answer: str) -> None:
    """Fault: truncation after concatenation drops the answer."""
    prompt = builder(CHAT, max_tokens=1)
    turn = prompt.turn("a", question, answer)
    assert turn == builder(CHAT).turn("a", question, answer), "the limit is no knife"
    assert turn.answer_ids[-1] in prompt.stop_ids
    assert len(turn) == len(turn.prompt_ids) + len(turn.answer_ids)
    assert not prompt.fits(turn)


def test_a_turn_fits_up_to_the_limit() -> None:
    length = len(builder(CHAT).turn("a", "How many?", "two"))
    assert builder(CHAT, max_tokens=length).fits(builder(CHAT).turn("a", "How many?", "two"))
    assert not builder(CHAT, max_tokens=length - 1).fits(builder(CHAT).turn("a", "How many?", "two"))


@pytest.mark.parametrize("name", ["chat", "plain"])
def test_the_instruction_follows_the_question(name: str) -> None:
    prompt = builder(TEMPLATES[name], instruction="Answer in one word.")
    assert "How many? Answer in one word." in prompt.tokenizer.decode(prompt.prompt_ids("How many?"))


def test_plain_can_be_chosen_over_a_chat_template() -> None:
    prompt = builder(QWEN, template="plain")
    assert prompt.tokenizer.decode(prompt.prompt_ids("x?")) == "Question: x?\nAnswer:"


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    ],
)
def test_a_template_that_does_not_continue_is_refused(template: str) -> None:
    with pytest.raises(UserError, match=r"prompt\.template=plain"):
        builder(template)


def test_a_tokenizer_without_template_and_end_is_refused() -> None:
    tokenizer = tiny_tokenizer.__wrapped__(None)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="eos_token"):
        PromptBuilder(tokenizer)


def test_a_template_without_end_falls_back_to_eos() -> None:
    open_ended = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    prompt = builder(open_ended)
    assert prompt.turn("a", "q", "x").answer_ids[-1] == prompt.tokenizer.eos_token_id


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=4))
def test_common_prefix(sequences: list[list[int]]) -> None:
    prefix = common_prefix(sequences)
    assert all(tuple(s[: len(prefix)]) == prefix for s in sequences)
    longer = {tuple(s[: len(prefix) + 1]) for s in sequences}
    assert len(longer) > 1 or any(len(s) == len(prefix) for s in sequences)


def test_the_probes_begin_differently() -> None:
    assert len({probe[0] for probe in PROBES}) == len(PROBES)
    assert len(SPECIAL) == 5
