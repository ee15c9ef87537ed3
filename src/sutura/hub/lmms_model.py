"""A stitch as one of lmms-eval's models: `python -m lmms_eval --model sutura --model_args pretrained=DIR`.

Nothing here needs lmms-eval to be imported; it finds `manifest` by the entry-point group `lmms_eval.models`, and asks
this module for `LmmsStitch`, which is built on its base class then.

Source: lmms_eval/api/model.py (class lmms), api/instance.py and models/registry_v2.py, lmms-eval 0.7.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sutura.core.errors import UserError

MODEL = "sutura"


def manifest() -> Any:
    """What lmms-eval registers: the model's name and where its class is."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

    return ModelManifest(model_id=MODEL, simple_class_path=f"{__name__}.LmmsStitch")


def __getattr__(name: str) -> Any:
    """`LmmsStitch`, made on first use, since its base class is lmms-eval's."""
    if name != "LmmsStitch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            "lmms-eval is not installed here. It pins much, so give it a virtual environment of its own, with sutura "
            "in it: `pip install lmms-eval sutura`."
        ) from None
    members = {"__doc__": StitchAnswers.__doc__, "is_simple": True}
    found = globals()[name] = type(name, (StitchAnswers, lmms), members)
    return found


class StitchAnswers:
    """A saved stitch that answers lmms-eval's requests, several at once.

    Args:
        pretrained: the folder of a stitch.
        device: where it runs; `auto` takes a GPU where there is one.
        batch_size: requests answered together.
        max_new_tokens: of an answer, where the task does not say.
        max_batch_size: accepted and not used.

    Raises:
        UserError: no stitch at the place, or an unknown argument.
    """

    def __init__(
        self,
        pretrained: str = "",
        device: str = "auto",
        batch_size: int | str = 8,
        max_new_tokens: int = 20,
        max_batch_size: int | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            raise UserError(
                f"The model takes no {', '.join(unknown)}; it takes pretrained, device, batch_size and max_new_tokens."
            )
        if not pretrained:
            raise UserError("Name the stitch: --model_args pretrained=DIR.")
        from sutura.stitch.bundle import load_stitch

        self.stitch = load_stitch(pretrained, device=device)
        self.batch = max(1, int(batch_size)) if str(batch_size).isdigit() else 8
        self.max_new_tokens = max_new_tokens
        self.task_dict: dict[str, Any] = getattr(self, "task_dict", {})

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The greedy answer to every request, cut at the task's `until` texts.

        Args:
            requests: with `args` = (prompt, generation arguments, doc → pictures, doc's id, task, split).

        Raises:
            UserError: sampling asked for, or a doc with several pictures or none.
        """
        answers = [""] * len(requests)
        by_length: dict[int, list[int]] = {}
        for place, request in enumerate(requests):
            told = request.args[1]
            if told.get("do_sample") and float(told.get("temperature") or 0) > 0:
                raise UserError("A stitch is scored greedily; set do_sample: false in the task.")
            by_length.setdefault(int(told.get("max_new_tokens") or self.max_new_tokens), []).append(place)
        for most, places in by_length.items():
            for start in range(0, len(places), self.batch):
                part = places[start : start + self.batch]
                asked = []
                for prompt, _, visual, doc_id, task, split in (requests[place].args for place in part):
                    asked.append((self._picture(visual, doc_id, task, split), [_plain(prompt)]))
                found = self.stitch.ask_all(asked, max_new_tokens=most)
                for place, answer in zip(part, found, strict=True):
                    ends = requests[place].args[1].get("until") or ()
                    answers[place] = _cut(answer.text, [ends] if isinstance(ends, str) else ends)
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Nats of every continuation, and whether greedy decoding would give it.

        Args:
            requests: with `args` = (prompt, continuation or doc → continuation, doc → pictures, doc's id, task, split).

        Differs: the end of the turn belongs to the continuation, as it does in training.
        """
        import torch

        from sutura.stitch.generate import generate, log_likelihoods
        from sutura.stitch.pack import Row

        found = []
        prompt_of, model = self.stitch.prompt, self.stitch.model
        for request in requests:
            prompt, continuation, visual, doc_id, task, split = request.args
            said = (
                continuation
                if isinstance(continuation, str)
                else continuation(self._doc(doc_id, task, split))
            )
            turn = prompt_of.turn("", _plain(prompt), str(said))
            picture = self._picture(visual, doc_id, task, split)
            with torch.inference_mode():
                seen = None if self.stitch.blind else model.project(self.stitch._patches([picture]))
            row = Row(0, (turn,))
            ((nats,),) = log_likelihoods(model, prompt_of, [row], seen)
            (greedy,) = generate(model, prompt_of, [row], seen, max_new_tokens=len(turn.answer_ids))
            found.append((-nats, greedy.stopped and greedy.text == prompt_of.decode(turn.answer_ids)))
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered. Raises UserError."""
        raise UserError(
            "Tasks of several rounds are not offered for stitches; choose tasks of one question each."
        )

    def _doc(self, doc_id: Any, task: str, split: str) -> Any:
        return self.task_dict[task][split][doc_id]

    def _picture(self, visual: Callable[[Any], Any], doc_id: Any, task: str, split: str) -> Any:
        """The one picture of a document; None for a blind stitch, whatever the document shows."""
        if self.stitch.blind:
            return None
        pictures = list(visual(self._doc(doc_id, task, split)) or ())
        if len(pictures) != 1:
            raise UserError(
                f"Document {doc_id} of {task} shows {len(pictures)} pictures, and a stitch is given one. Choose tasks "
                "with one picture a question."
            )
        return pictures[0]


def _plain(prompt: str) -> str:
    """The prompt without marks for pictures, which a stitch puts first by itself."""
    return prompt.replace("<image>", "").strip()


def _cut(text: str, ends: Sequence[str]) -> str:
    for end in ends:
        if end:
            text = text.split(end)[0]
    return text.strip()
