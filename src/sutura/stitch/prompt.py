"""One prompt for training, evaluation and asking: token ids of a question and of its answer.

The picture's tokens come first, then the tokenizer's chat template with the question as the user's turn.
Everything the template puts before the question is the same for every question, so it belongs to the prefix
that the questions about one picture share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.stitch.config import PromptConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBES = (
    *("What colour is it", "how many 7 things", "(Zebra?)", "é"),
    *(letter for letter in ascii_letters + digits if letter not in "Wh"),
)
"""Questions that begin differently; what their prompts have in common is the template's head.

A byte-pair tokenizer may draw the space before a question into the first token of some words and not of
others; with every letter among the probes such a space is no part of the head.
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """Token ids of a question, and of its answer with its end of turn (empty when it is to be generated)."""

    item_id: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


@dataclass(frozen=True)
class PromptBuilder:
    """Builds turns with one tokenizer. The stop tokens are every id that ends an answer.

    `vocabulary` is one above the largest id that is a token: language models embed more rows than that, to fill up.

    Args:
        tokenizer: a transformers tokenizer.
        config: see PromptConfig.
        extra_stop_ids: end-of-sequence ids of the language model's generation config.

    Raises:
        UserError: a tokenizer without chat template and without end-of-sequence token, or a chat template
            that does not show the answer after the prompt.
    """

    tokenizer: PreTrainedTokenizerBase
    config: PromptConfig = field(default_factory=PromptConfig)
    extra_stop_ids: Sequence[int] = ()
    stop_ids: frozenset[int] = field(init=False, repr=False, compare=False)
    head_ids: tuple[int, ...] = field(init=False, repr=False, compare=False)
    vocabulary: int = field(init=False, repr=False, compare=False)
    _end_ids: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _chat: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._set("_chat", self.config.template == "auto" and bool(self.tokenizer.chat_template))
        if not self._chat and self.tokenizer.eos_token_id is None:
            raise UserError(
                f"Tokenizer {type(self.tokenizer).__name__} has neither a chat template nor an "
                "end-of-sequence token, so an answer could never end. Set eos_token on the tokenizer and "
                "save it again."
            )
        self._set("vocabulary", max(self.tokenizer.get_vocab().values()) + 1)
        self._set("_end_ids", self._find_end())
        self._set("stop_ids", frozenset({self._end_ids[-1], *self.extra_stop_ids, *self._eos()}))
        self._set("head_ids", common_prefix([self.prompt_ids(probe) for probe in PROBES]))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def turn(self, item_id: str, question: str, answer: str | None = None) -> Turn:
        """Ids of a question, with its answer when there is one to learn."""
        answer_ids = () if answer is None else self.answer_ids(answer)
        return Turn(item_id, self.prompt_ids(question), answer_ids)

    def next_turn(self, item_id: str, question: str, answer: str | None = None) -> Turn:
        """As `turn`, for a question that follows an answered turn in a conversation.

        Its ids go on where that answer's end left off, so that the turns of a conversation, laid one behind the
        other, are the conversation.

        Raises:
            UserError: a chat template that does not take a second question after an answer.
        """
        answer_ids = () if answer is None else self.answer_ids(answer)
        return Turn(item_id, self._encode(self._continued(self._instructed(question))), answer_ids)

    def conversation(self, turns: Sequence[tuple[str, str, str | None]]) -> tuple[Turn, ...]:
        """(item id, question, answer) in order as the turns of one conversation."""
        return tuple((self.next_turn if place else self.turn)(*turn) for place, turn in enumerate(turns))

    def _continued(self, text: str) -> str:
        """What stands between the end of an answer and the beginning of the next one."""
        if self.config.template == "published":
            return f"\n{text}"
        if not self._chat:
            return f"\nQuestion: {text}\nAnswer:"
        end = str(self.tokenizer.decode(list(self._end_ids)))
        told = [{"role": "user", "content": PROBES[0]}, {"role": "assistant", "content": PROBES[1]}]
        whole = self._render([*told, {"role": "user", "content": text}], generation=True)
        _, found, after = whole.partition(PROBES[1] + end)
        if not found or text not in after:
            raise UserError(
                "The chat template does not show a second question after an answer, so a conversation cannot be "
                "built with it. Train with prompt.template=plain or other turns, or ask without --history."
            )
        return after

    def fingerprint(self) -> str:
        """Of all that decides which ids a question becomes and where an answer ends."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        words = backend.to_str() if backend is not None else sorted(self.tokenizer.get_vocab().items())
        template = self.tokenizer.chat_template if self._chat else None
        return fingerprint(
            [words, template, sorted(self.stop_ids), list(self.head_ids), self.config.resolved()]
        )

    def fits(self, turn: Turn) -> bool:
        """Whether the turn is within max_tokens. Answers are never cut, so what does not fit is set aside."""
        return len(turn) <= self.config.max_tokens

    def prompt_ids(self, question: str) -> tuple[int, ...]:
        """Ids from the template's first token to the one after which the answer begins."""
        if not self._chat:
            return self._plain(question)
        message = {"role": "user", "content": self._instructed(question)}
        return self._encode(self._render([message], generation=True))

    def conversation_ids(self, history: Sequence[tuple[str, str]], question: str) -> tuple[int, ...]:
        """The same behind earlier questions and their answers, oldest first, as `conversation` has them in training.

        A chat template rendered over all of it may say something else: some leave out of earlier answers what stands
        before the newest one, such as empty thoughts.

        Raises:
            UserError: as `next_turn`.
        """
        asked = [*(("", earlier, answer) for earlier, answer in history), ("", question, None)]
        turns = self.conversation(asked)
        return tuple(token for turn in turns for token in (*turn.prompt_ids, *turn.answer_ids))

    def _instructed(self, question: str) -> str:
        return f"{question.strip()} {self.config.instruction}".strip()

    def _plain(self, question: str) -> tuple[int, ...]:
        text = self._instructed(question)
        if self.config.template == "published":
            return self._encode(f"<image>\n{text}")
        return self._encode(f"Question: {text}\nAnswer:")

    def answer_ids(self, answer: str) -> tuple[int, ...]:
        """Ids of the answer and of the token that ends the turn."""
        text = answer.strip()
        if not self._chat and self.config.template != "published":
            text = " " + text
        return (*self._encode(text), *self._end_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, up to the first stop token."""
        kept: list[int] = []
        for token in ids:
            if token in self.stop_ids:
                break
            kept.append(token)
        return str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Ids of plain text, for a description that stands where the picture would."""
        return self._encode(text)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, messages: list[dict[str, str]], *, generation: bool) -> str:
        # Templates with a thinking mode are asked for the direct answer; others ignore the argument.
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generation, enable_thinking=False
        )
        return str(text)

    def _eos(self) -> tuple[int, ...]:
        """The tokenizer's own end-of-sequence id, where it has one."""
        eos: Any = self.tokenizer.eos_token_id
        return () if eos is None else (int(eos),)

    def _find_end(self) -> tuple[int, ...]:
        """Ids that close an answer: what the template writes after it, up to its first special token."""
        if not self._chat:
            return self._eos()
        asked = [{"role": "user", "content": PROBES[0]}]
        prompt = self._render(asked, generation=True)
        whole = self._render([*asked, {"role": "assistant", "content": PROBES[1]}], generation=False)
        if not whole.startswith(prompt) or not whole[len(prompt) :].startswith(PROBES[1]):
            raise UserError(
                "The chat template does not continue a prompt with the assistant's words, so training and "
                "asking would see different ids. Use prompt.template=plain for this language model."
            )
        ids = self._encode(whole[len(prompt) + len(PROBES[1]) :])
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        for position, token in enumerate(ids):
            if token in special:
                return ids[: position + 1]
        if not self._eos():
            raise UserError(
                "The chat template writes no special token after an answer and the tokenizer has no eos."
            )
        return self._eos()


def common_prefix(sequences: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The ids that all sequences begin with."""
    shortest = min(sequences, key=len)
    for position, token in enumerate(shortest):
        if any(sequence[position] != token for sequence in sequences):
            return tuple(shortest[:position])
    return tuple(shortest)
