"""A stitch as one thing: build it, ask it, save it as one directory, load it whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sutura.core.checkpoint import (
    atomic_directory,
    load_strict,
    load_tensors,
    read_json,
    save_tensors,
    write_json,
)
from sutura.core.config import parse
from sutura.core.doctor import versions
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint, fingerprint_file
from sutura.core.runtime import pick_device
from sutura.stitch.config import StitchConfig
from sutura.stitch.conversation import Conversation
from sutura.stitch.folder import is_published
from sutura.stitch.generate import Answer, generate
from sutura.stitch.language import (
    add_adapter,
    embedding_size,
    load_adapter,
    load_language_model,
    load_tokenizer,
    place_of,
    save_adapter,
)
from sutura.stitch.model import StitchModel, describe_parts
from sutura.stitch.pack import Row
from sutura.stitch.projector import build_projector
from sutura.stitch.prompt import PromptBuilder
from sutura.stitch.published import load_published
from sutura.stitch.sampling import GREEDY, Sampling
from sutura.stitch.seal import seal

if TYPE_CHECKING:
    from PIL.Image import Image

    from sutura.encoders.base import VisionEncoder

    Shown = str | Path | bytes | Image | None

FORMAT = 1
#: The request put to a stitch that was trained without one of its own.
DESCRIBE = "Describe the picture."
STITCH, PROJECTOR, ADAPTER, LLM, ENCODER = (
    "stitch.json",
    "projector.safetensors",
    "adapter",
    "llm.safetensors",
    "encoder.safetensors",
)


@dataclass
class Stitch:
    """A stitched model with what it needs to be asked.

    Args:
        config: the parts and the seed they started from.
        model: projector and language model; the encoder too, once attached.
        prompt: builder of turns.
        encoder_facts: of the encoder it was built for (name, width, fingerprint, …); empty for a blind one.
        llm_fingerprint: of the language model before training: its weights, its tokenizer and template, its
            stop tokens.
        encoder: the frozen encoder; None until attached.
        encoder_trained: whether its weights were trained along, and so belong to what is saved.
        trained_with: `turns`, how the questions of a picture were laid out, and `description`, the request its
            descriptions answered or None; empty where that was not recorded.
        llm_revision: the language model's commit on the Hub; None for a local one.
    """

    config: StitchConfig
    model: StitchModel
    prompt: PromptBuilder
    encoder_facts: dict[str, Any]
    llm_fingerprint: str
    encoder: VisionEncoder | None = None
    encoder_trained: bool = False
    trained_with: dict[str, Any] = field(default_factory=dict)
    llm_revision: str | None = None

    @property
    def blind(self) -> bool:
        """Whether it takes no pictures."""
        return self.config.encoder is None

    @property
    def label(self) -> str:
        """For tables: the encoder's name, or `blind`."""
        return str(self.encoder_facts.get("name") or "blind")

    def attach(self, encoder: VisionEncoder, *, trained: bool = False) -> None:
        """Give the stitch its encoder.

        Raises:
            UserError: an encoder whose weights, transform or options are not those it was trained with.
        """
        expected = self.encoder_facts.get("fingerprint")
        if encoder.fingerprint != expected:
            raise UserError(
                f"The stitch was trained on encoder {self.encoder_facts.get('name')!r} with fingerprint "
                f"{expected}; {encoder.name!r} has {encoder.fingerprint}. Its weights, transform or "
                "options have changed."
            )
        self.encoder, self.encoder_trained = encoder, trained
        if trained:
            self.model.encoder = encoder

    def ask(
        self, image: Shown, question: str, *, max_new_tokens: int = 20, sampling: Sampling = GREEDY
    ) -> str:
        """The answer to one question about one picture.

        Args:
            image: a file, an http(s) URL, a file's bytes, or a PIL picture; None for a blind stitch.
            question: plain text.
            max_new_tokens: the answer is cut there at the latest.
            sampling: greedy by default.

        Raises:
            UserError: no question, no picture, or a picture that cannot be fetched or decoded.
        """
        return self.ask_all([(image, [question])], max_new_tokens=max_new_tokens, sampling=sampling)[0].text

    @property
    def description_question(self) -> str:
        """What `describe` asks: the request of its training where it learned descriptions, else a plain one."""
        return self.trained_with.get("description") or DESCRIBE

    def describe(self, image: Shown, *, max_new_tokens: int = 64, sampling: Sampling = GREEDY) -> str:
        """The picture in words: the answer to `description_question`."""
        return self.ask(image, self.description_question, max_new_tokens=max_new_tokens, sampling=sampling)

    def conversation(self, image: Shown, *, history: bool = False) -> Conversation:
        """Questions about one picture one after the other; what was read of the picture is kept.

        Args:
            image: as for `ask`; opened now, encoded with the first question.
            history: a question sees the earlier ones and their answers.

        Raises:
            UserError: no picture, or one that cannot be fetched or decoded.
        """
        from sutura.data.handed_picture import open_picture

        self.model.eval()
        if self.blind:
            return Conversation(self.model, self.prompt, None, history)
        self._check_seeing([image])
        opened = open_picture(image)  # type: ignore[arg-type]
        return Conversation(
            self.model, self.prompt, lambda: self.model.project(self._patches([opened])), history
        )

    @torch.inference_mode()
    def ask_all(
        self,
        asked: Sequence[tuple[Any, Sequence[str]]],
        *,
        max_new_tokens: int = 20,
        sampling: Sampling = GREEDY,
    ) -> list[Answer]:
        """Answers to several questions about each of several pictures, in order; each is encoded once."""
        rows = []
        for index, (_, questions) in enumerate(asked):
            for question in questions:
                if not question.strip():
                    raise UserError("The question is empty; ask something.")
            turns = tuple(self.prompt.turn(f"{index}/{i}", question) for i, question in enumerate(questions))
            for turn, question in zip(turns, questions, strict=True):
                if not self.prompt.fits(turn):
                    raise UserError(
                        f"The question beginning {question[:40]!r} is {len(turn)} tokens long; "
                        f"prompt.max_tokens is {self.config.prompt.max_tokens}."
                    )
            rows.append(Row(index, turns))
        self.model.eval()
        visual = None if self.blind else self.model.project(self._patches([image for image, _ in asked]))
        return generate(
            self.model, self.prompt, rows, visual, max_new_tokens=max_new_tokens, sampling=sampling
        )

    def _check_seeing(self, images: Sequence[Any]) -> VisionEncoder:
        if self.encoder is None:
            raise UserError("The stitch has no encoder attached; load it with load_stitch(dir).")
        if any(image is None for image in images):
            raise UserError("This stitch looks at pictures: give it one.")
        return self.encoder

    def _patches(self, images: Sequence[Any]) -> Tensor:
        from sutura.data.handed_picture import open_picture

        encoder = self._check_seeing(images)
        pixels = torch.stack([encoder.transform(open_picture(image)) for image in images])
        return encoder(pixels.to(self.model.device))

    def save(
        self,
        directory: Path,
        *,
        card: str = "",
        extra: Mapping[str, Any] | None = None,
        beside: Mapping[str, Path] | None = None,
    ) -> None:
        """Write the directory: stitch.json, projector, adapter (or the trained language model), card.

        Args:
            directory: must not be there yet.
            card: its README; facts alone by default.
            extra: further entries of stitch.json.
            beside: name → file to copy in, such as the record of the training data.

        Raises:
            UserError: the directory exists already.
        """
        from sutura import __version__

        with atomic_directory(directory) as folder:
            if self.model.projector is not None:
                save_tensors(folder / PROJECTOR, self.model.projector.state_dict())
            if self.config.llm.train == "lora":
                save_adapter(self.model.lm, folder / ADAPTER, self.config.llm)
            elif self.config.llm.train == "full":
                save_tensors(folder / LLM, self.model.lm.state_dict())
            if self.encoder_trained and self.encoder is not None:
                save_tensors(folder / ENCODER, self.encoder.state_dict())
            for name, source in (beside or {}).items():
                shutil.copyfile(source, folder / name)
            (folder / "README.md").write_text(card or self.card(), encoding="utf-8")
            written = sorted(p for p in folder.rglob("*") if p.is_file())
            content = {
                "format": FORMAT,
                "sutura": __version__,
                "versions": versions(),
                "config": self.config.resolved(),
                "encoder": self.encoder_facts,
                "llm_fingerprint": self.llm_fingerprint,
                "trained_with": self.trained_with,
                "llm_revision": self.llm_revision,
                **(extra or {}),
                "files": {p.relative_to(folder).as_posix(): fingerprint_file(p) for p in written},
                "optional": sorted(beside or {}),
            }
            write_json(folder / STITCH, {**content, "seal": seal(content)})

    def card(self) -> str:
        """Facts about the stitch, for its README."""
        facts = self.encoder_facts
        parts = "\n".join(
            f"| {name} | {frozen:,} | {trained:,} |" for name, frozen, trained in describe_parts(self.model)
        )
        eyes = (
            "none (blind)"
            if self.blind
            else f"`{facts.get('id')}`, licence {facts.get('licence') or 'unknown'}"
        )
        return (
            f"# Stitch: {facts.get('name') or 'blind'} → {self.config.llm.id}\n\n"
            f"Encoder: {eyes}. Language model: `{self.config.llm.id}`, training: {self.config.llm.train}. "
            f"Projector: {self.config.projector.kind}. Seed {self.config.seed}.\n\n"
            f"| part | frozen | trainable |\n|---|---|---|\n{parts}\n\n"
            'Load it with `sutura.load_stitch(directory).ask(image, "question")`.\n'
        )


def build_stitch(config: StitchConfig, encoder_facts: Mapping[str, Any] | None = None) -> Stitch:
    """A fresh stitch, ready to be trained. Same seed, same adapter, whatever the encoder.

    Args:
        config: the parts.
        encoder_facts: `VisionEncoder.facts()`; only the width is used for building. None for a blind stitch.

    Raises:
        UserError: an encoder without facts or the reverse.
    """
    if (config.encoder is None) != (encoder_facts is None):
        raise UserError("A stitch with an encoder needs its facts, a blind one has none.")
    _, commit = place_of(config.llm)
    llm = config.llm.model_copy(update={"revision": commit}) if commit else config.llm
    tokenizer = load_tokenizer(llm)
    lm, weights = load_language_model(llm)
    stops = lm.generation_config.eos_token_id if lm.generation_config is not None else None
    extra = [stops] if isinstance(stops, int) else list(stops or ())
    prompt = PromptBuilder(tokenizer, config.prompt, tuple(extra))
    vocabulary, width = embedding_size(lm)
    if len(tokenizer) > vocabulary:
        raise UserError(
            f"The tokenizer of {config.llm.id!r} has {len(tokenizer)} tokens, its model embeds {vocabulary}; "
            "they do not belong together."
        )
    projector = None
    if encoder_facts is not None:
        projector = build_projector(config.projector, encoder_facts["width"], width, seed=config.seed)
    model = StitchModel(add_adapter(lm, config.llm, seed=config.seed), projector)
    identity = fingerprint([weights, prompt.fingerprint()])
    return Stitch(config, model.eval(), prompt, dict(encoder_facts or {}), identity, llm_revision=commit)


def load_stitch(directory: str | Path, *, device: str = "auto", encoder: bool = True) -> Stitch:
    """A saved stitch, every file checked against the manifest before anything is built.

    Args:
        directory: as `Stitch.save` wrote it, or a folder of the earlier study that `stitch/published.py` names.
        device: where to run.
        encoder: load and attach the encoder too; without it the stitch answers from cached patches only.

    Raises:
        UserError: a file missing, changed or of another format, an encoder or language model that is not the
            one trained with, or weights that do not fit.
    """
    folder = Path(directory)
    if is_published(folder):
        return load_published(folder, build_stitch, device=device, encoder=encoder)
    if not (folder / STITCH).is_file():
        raise UserError(
            f"{folder} is no stitch: it holds no {STITCH}. Give the directory `sutura stitch` wrote."
        )
    manifest = read_json(folder / STITCH)
    if manifest.get("format") != FORMAT:
        raise UserError(f"{folder} has stitch format {manifest.get('format')}; this version reads {FORMAT}.")
    if manifest.get("seal") != seal(manifest):
        raise UserError(f"{folder / STITCH} is not as it was saved (its seal differs). Nothing was loaded.")
    for name, expected in manifest["files"].items():
        if not (folder / name).is_file():
            if name in manifest.get("optional", ()):
                continue  # taken out before the stitch was passed on
            raise UserError(f"{folder} is incomplete: {name} is missing. Nothing was loaded.")
        if fingerprint_file(folder / name) != expected and not name.endswith(".md"):
            raise UserError(
                f"{folder / name} is not the file that was saved (fingerprint differs). Nothing was loaded."
            )
    config = _pinned(parse(StitchConfig, manifest["config"], where=str(folder / STITCH)), manifest)
    stitch = build_stitch(config, manifest["encoder"] or None)
    if stitch.llm_fingerprint != manifest["llm_fingerprint"]:
        raise UserError(
            f"Language model {config.llm.id!r} has fingerprint {stitch.llm_fingerprint}; the stitch was "
            f"trained on {manifest['llm_fingerprint']}. Its weights, tokenizer, template or stop tokens changed; "
            "pin llm.revision or use the original."
        )
    if stitch.model.projector is not None:
        saved = load_tensors(folder / PROJECTOR)
        load_strict(stitch.model.projector, saved, "the projector")
        stitch.model.projector.to(next(iter(saved.values())).dtype)  # bfloat16 where it was trained in it
    if config.llm.train == "lora":
        load_adapter(stitch.model.lm, folder / ADAPTER)
    elif config.llm.train == "full":
        load_strict(stitch.model.lm, load_tensors(folder / LLM), "the language model")
    stitch.trained_with = dict(manifest.get("trained_with") or {})
    stitch.model.to(pick_device(device)).eval()
    if encoder and config.encoder is not None:
        _attach_saved(stitch, folder, trained=ENCODER in manifest["files"])
    return stitch


def _attach_saved(stitch: Stitch, folder: Path, *, trained: bool) -> None:
    from sutura.encoders import load_encoder

    assert stitch.config.encoder is not None
    encoder = load_encoder(stitch.config.encoder)
    stitch.attach(encoder, trained=trained)
    if trained:
        load_strict(encoder, load_tensors(folder / ENCODER), "the encoder")
    encoder.to(stitch.model.device)


def _pinned(config: StitchConfig, manifest: Mapping[str, Any]) -> StitchConfig:
    """The config with the commits that were trained on, where it names none itself: a branch may have moved since."""
    facts, changes = manifest["encoder"], {}
    if config.llm.revision is None and manifest.get("llm_revision"):
        changes["llm"] = config.llm.model_copy(update={"revision": manifest["llm_revision"]})
    row = config.encoder
    if row is not None and row.revision is None and facts.get("id") == row.id:
        changes["encoder"] = row.model_copy(update={"revision": facts.get("revision")})
    return config.model_copy(update=changes)
