"""Questions about one picture, one after the other: what the language model has read of it is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sutura.core.errors import UserError
from sutura.stitch.model import Spliced, StitchModel
from sutura.stitch.prompt import PromptBuilder, common_prefix
from sutura.stitch.sampling import GREEDY, Chooser, Sampling


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and what it took.

    Args:
        text: the answer.
        stopped: False when it was cut at the length limit.
        tokens: of the answer, its end-of-turn token included.
        read: tokens the language model had to read before the first of these, picture tokens included.
        first_token: seconds from the question to the answer's first token. The first question about a picture
            includes encoding it.
        seconds: from the question to the answer's end.
    """

    text: str
    stopped: bool
    tokens: int
    read: int
    first_token: float
    seconds: float


@dataclass
class Conversation:
    """Asks one model about one picture. The picture is encoded, and its tokens read, once.

    Keys and values of all that was read are kept. A question reads on from where its ids part from those, which is at
    the end of the picture and the template's head at the earliest; so the answer is that of a question asked alone.

    Args:
        model: in eval mode.
        prompt: the builder of turns.
        see: gives the picture's tokens, projected, as (1 M width); None for a blind model. Called once, by the first
            question.
        history: whether a question sees the earlier ones and their answers. By default each is asked alone, as in
            training.
    """

    model: StitchModel
    prompt: PromptBuilder
    see: Callable[[], Tensor] | None
    history: bool = False
    turns: list[tuple[str, str]] = field(default_factory=list)
    _visual: Tensor | None = field(default=None, repr=False)
    _cache: Any = field(default=None, repr=False)
    _known: list[int] = field(default_factory=list, repr=False)

    def reset(self) -> None:
        """Forget questions and answers; the picture stays read."""
        self.turns.clear()

    @torch.inference_mode()
    def ask(self, question: str, *, max_new_tokens: int = 20, sampling: Sampling = GREEDY) -> Reply:
        """The answer to the next question.

        Raises:
            UserError: an empty question, one that is too long, or a conversation that has become so.
        """
        began = time.perf_counter()
        ids = self._ids(question, max_new_tokens)
        chooser = Chooser(sampling, [ids])
        try:
            spliced = self._rest(ids)
            read = spliced.embeddings.shape[1]
            said = [self._next(spliced, chooser)]
            first = time.perf_counter() - began
            while said[-1] not in self.prompt.stop_ids and len(said) < max_new_tokens:
                spliced = self._text(said[-1:], self._length)
                self._known.append(said[-1])
                said.append(self._next(spliced, chooser))
        except BaseException:
            self._cache, self._known = None, []  # cut off between the two, they would not be of one length
            raise
        text = self.prompt.decode(said)
        self.turns.append((question, text))
        stopped = said[-1] in self.prompt.stop_ids
        return Reply(text, stopped, len(said), read, first, time.perf_counter() - began)

    def _ids(self, question: str, new: int) -> tuple[int, ...]:
        if not question.strip():
            raise UserError("The question is empty; ask something.")
        if new < 1:
            raise UserError(f"max_new_tokens={new}: an answer needs at least one.")
        before = self.turns if self.history else []
        ids = self.prompt.conversation_ids(before, question)
        most = self.prompt.config.max_tokens
        if len(ids) > most:
            what = f"The conversation with {len(before)} earlier questions" if before else "The question"
            raise UserError(
                f"{what}, up to the one beginning {question[:40]!r}, is {len(ids)} tokens long; prompt.max_tokens is "
                f"{most}. {'Forget the earlier ones (reset).' if before else 'Ask a shorter one.'}"
            )
        return ids

    @property
    def _length(self) -> int:
        """Tokens in the cache."""
        return len(self._known) + (0 if self._visual is None else self._visual.shape[1])

    def _rest(self, ids: Sequence[int]) -> Spliced:
        """What of the prompt has not been read yet; with the picture before it, the first time."""
        if self._cache is None:
            from transformers import DynamicCache

            if self._visual is None and self.see is not None:
                self._visual = self.see()
            self._cache = DynamicCache()
            self._known = list(ids)
            text = self._text(ids, 0 if self._visual is None else self._visual.shape[1])
            if self._visual is None:
                return text
            whole = torch.cat([self._visual.to(text.embeddings.dtype), text.embeddings], dim=1)
            count = whole.shape[1]
            row = torch.arange(count, device=whole.device)[None]
            return Spliced(whole, torch.zeros_like(row), row, 0)
        same = min(len(common_prefix([self._known, ids])), len(ids) - 1)  # one token at least has to be read
        if same < len(self._known):
            self._cache.crop(same - len(self._known))
            self._known = self._known[:same]
        text = self._text(ids[same:], self._length)
        self._known += ids[same:]
        return text

    def _text(self, ids: Sequence[int], start: int) -> Spliced:
        """Tokens of text as a row that begins at a position."""
        row = torch.tensor([list(ids)], device=self.model.device)
        positions = torch.arange(start, start + len(ids), device=row.device)[None]
        return Spliced(self.model.lm.get_input_embeddings()(row), torch.zeros_like(row), positions, 0)

    def _next(self, spliced: Spliced, chooser: Chooser) -> int:
        """Read tokens, and choose the one that follows."""
        count = spliced.embeddings.shape[1]
        row = torch.zeros(1, dtype=torch.long, device=self.model.device)
        past = self._cache.get_seq_length()
        segments = spliced.segments.new_zeros(1, past) if past else None
        logits = self.model.decode(spliced, row, row + count - 1, self._cache, past=segments)
        return int(chooser.choose(logits[:, : self.prompt.vocabulary]))
