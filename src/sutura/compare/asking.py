"""`sutura ask` and `sutura describe`: one or several stitches, one question, a conversation, or a file of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sutura.core.errors import UserError

if TYPE_CHECKING:
    from sutura.stitch.bundle import Stitch
    from sutura.stitch.conversation import Conversation, Reply

COMMANDS = ":image PATH-OR-URL  another picture · :reset  forget the conversation · :quit  leave"


@dataclass(frozen=True)
class Options:
    """What the command line says beside the stitches, the picture and the question.

    Args:
        interactive: go on asking; commands begin with a colon.
        history: a question sees the earlier ones and their answers.
        as_json: one JSON object an answer.
        device: where to run.
        max_new_tokens: of one answer; None for 20, and 64 for a description.
        temperature, top_p, top_k, seed: see `Sampling`.
    """

    interactive: bool = False
    history: bool = False
    as_json: bool = False
    device: str = "auto"
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None


def ask(
    stitches: Sequence[Path],
    question: str | None,
    image: str | None,
    options: Options,
    *,
    batch: Path | None = None,
    images: Path | None = None,
    out: Path | None = None,
) -> None:
    """Put a question, or go on asking, or answer a file of questions; answers go to stdout, the rest to stderr.

    Raises:
        UserError: nothing asked, or options that do not go together, before anything is loaded.
    """
    _check(question, image, options, batch, images, out)
    if batch is not None:
        assert images is not None
        assert out is not None
        _answer_file(stitches, options, batch, images, out)
        return
    panel = Panel(stitches, options)
    panel.look_at(image)
    if question is not None and question.strip():
        panel.put(question)
    if options.interactive:
        _converse(panel)


def describe(stitches: Sequence[Path], image: str | None, options: Options) -> None:
    """Ask every stitch for the picture in words: by the request it learned, else in plain English."""
    panel = Panel(stitches, options)
    panel.look_at(image)
    panel.put(None)


def _check(
    question: str | None,
    image: str | None,
    options: Options,
    batch: Path | None,
    images: Path | None,
    out: Path | None,
) -> None:
    if batch is not None:
        single = {"a question": question, "--image": image, "--interactive": options.interactive}
        single |= {"--history": options.history, "--json": options.as_json}
        if given := [name for name, value in single.items() if value]:
            raise UserError(f"--batch takes its questions from a file; leave out {', '.join(given)}.")
        if images is None or out is None:
            raise UserError(
                "--batch needs --images, the folder of the pictures, and --out, where the answers go."
            )
        return
    if images is not None or out is not None:
        raise UserError("--images and --out belong to --batch, a CSV of questions; one picture is --image.")
    if options.history and not options.interactive:
        raise UserError("--history is for a conversation; add --interactive.")
    if not (question or "").strip() and not options.interactive:
        raise UserError("Nothing was asked; give a question, or --interactive. `sutura describe` needs none.")


class Panel:
    """Stitches that are asked side by side about the same picture, which is opened once.

    Args:
        stitches: directories.
        options: see Options.
    """

    def __init__(self, stitches: Sequence[Path], options: Options) -> None:
        from sutura.stitch.sampling import Sampling

        self.options = options
        self.sampling = Sampling(options.temperature, options.top_p, options.top_k, options.seed)
        self.stitches = _load(stitches, options.device)
        self.talks: dict[str, Conversation] = {}
        self.image: str | None = None
        if options.history:
            self._say_training()

    def look_at(self, image: str | None) -> None:
        """Begin about a picture, which seeing stitches need before their first question."""
        from sutura.data.handed_picture import open_picture

        sees = [name for name, stitch in self.stitches.items() if not stitch.blind]
        if sees and image is None and not self.options.interactive:
            raise UserError(f"{sees[0]} looks at pictures: give --image, a file or an http(s) URL.")
        opened = open_picture(image) if sees and image is not None else None
        self.image = image
        self.talks = {
            name: stitch.conversation(opened, history=self.options.history)
            for name, stitch in self.stitches.items()
            if stitch.blind or opened is not None
        }

    def put(self, question: str | None) -> None:
        """Ask all; None asks each for a description."""
        if len(self.talks) < len(self.stitches):
            raise UserError("There is no picture yet; name one with :image PATH-OR-URL.")
        most = self.options.max_new_tokens or (64 if question is None else 20)
        answers = []
        for name, talk in self.talks.items():
            asked = question or self.stitches[name].description_question
            reply = talk.ask(asked, max_new_tokens=most, sampling=self.sampling)
            answers.append((name, asked, reply))
            if self.options.as_json:
                print(json.dumps(self._record(name, asked, reply)), flush=True)
        if not self.options.as_json:
            self._show(question, answers)

    def reset(self) -> None:
        """Forget questions and answers."""
        for talk in self.talks.values():
            talk.reset()

    def _record(self, name: str, asked: str, reply: Reply) -> dict[str, object]:
        return {
            "stitch": name,
            "encoder": self.stitches[name].label,
            "image": self.image,
            "question": asked,
            "answer": reply.text,
            "cut": not reply.stopped,
            "tokens": reply.tokens,
            "read_tokens": reply.read,
            "first_token_s": round(reply.first_token, 4),
            "total_s": round(reply.seconds, 4),
        }

    def _show(self, question: str | None, answers: Sequence[tuple[str, str, Reply]]) -> None:
        from sutura.core.tables import show

        if question is None:
            for asked in dict.fromkeys(asked for _, asked, _ in answers):
                _note(f"asked: {asked}")
        if len(answers) == 1:
            print(answers[0][2].text, flush=True)
            return
        rows = []
        for name, _, reply in answers:
            rows.append(
                {
                    "stitch": name,
                    "encoder": self.stitches[name].label,
                    "answer": reply.text + ("" if reply.stopped else " …"),
                    "tokens": reply.tokens,
                    "first token, ms": f"{1000 * reply.first_token:.0f}",
                    "total, ms": f"{1000 * reply.seconds:.0f}",
                }
            )
        show(rows, title=question or "description")

    def _say_training(self) -> None:
        for name, stitch in self.stitches.items():
            turns = stitch.trained_with.get("turns")
            known = f"was trained with turns={turns}" if turns else "does not say how it was trained"
            if turns != "conversation":
                _note(
                    f"{name} {known}; with --history it reads earlier answers, which its training did not show it."
                )


def _load(folders: Sequence[Path], device: str) -> dict[str, Stitch]:
    from sutura.stitch.bundle import load_stitch

    names = list(map(str, folders))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--stitch {twice[0]} is given twice; once is enough.")
    return {name: load_stitch(name, device=device) for name in names}


def _converse(panel: Panel) -> None:
    """Read questions and commands from stdin until it ends; a mistake is told, and the conversation goes on."""
    _note(COMMANDS)
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        word, _, rest = line.strip().partition(" ")
        if not line or word in (":quit", ":q"):
            return
        try:
            if word == ":image":
                if not rest.strip():
                    raise UserError(":image needs a file or an http(s) URL.")
                panel.look_at(rest.strip())
            elif word == ":reset":
                panel.reset()
            elif word.startswith(":"):
                raise UserError(f"There is no command {word}. {COMMANDS}")
            elif word:
                panel.put(line.strip())
        except UserError as error:
            _note(f"sutura: {error}")


def _answer_file(stitches: Sequence[Path], options: Options, batch: Path, images: Path, out: Path) -> None:
    from sutura.compare.ask_batch import answer_file
    from sutura.stitch.sampling import Sampling

    sampling = Sampling(options.temperature, options.top_p, options.top_k, options.seed)
    done = answer_file(
        _load(stitches, options.device),
        batch,
        images,
        out,
        max_new_tokens=options.max_new_tokens or 20,
        sampling=sampling,
    )
    print(f"{out}: {done.rows:,} answers", flush=True)
    if done.listed is not None:
        _note(f"set aside: {done.set_aside.summary()}; all of them are listed in {done.listed}")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
