"""A stitch as one directory: all of it loads, with the same answers, or nothing does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import sutura.encoders
from sutura.core.errors import UserError
from sutura.encoders.config import EncoderConfig
from sutura.stitch.bundle import Stitch, StitchConfig, build_stitch, load_stitch
from sutura.stitch.language import LlmConfig
from sutura.stitch.prompt import PromptConfig
from sutura.stitch.sampling import Sampling
from tiny_models import TinyEncoder, awaken, save_language_model, tiny_patches

QUESTIONS = ("What colour is the cube?", "How many spheres are there?", "Is it yellow?")


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_language_model(tmp_path_factory.mktemp("lm") / "lm")


@pytest.fixture(autouse=True)
def _encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tiny:SEED` is the one encoder there is."""

    def load(config: EncoderConfig) -> TinyEncoder:
        return TinyEncoder(int(config.id.partition(":")[2]))

    monkeypatch.setattr(sutura.encoders, "load_encoder", load, raising=False)


def make(lm: str, *, blind: bool = False, trained: bool = False, **llm: Any) -> Stitch:
    encoder = None if blind else TinyEncoder(0)
    config = StitchConfig(
        encoder=None if blind else EncoderConfig(id="tiny:0"),
        llm=LlmConfig(id=lm, **{"rank": 4, **llm}),
        prompt=PromptConfig(instruction="Answer in one word."),
        seed=3,
    )
    stitch = build_stitch(config, encoder.facts() if encoder else None)
    awaken(stitch.model)
    if config.llm.train == "full":
        with torch.no_grad():
            for parameter in stitch.model.lm.parameters():
                parameter.mul_(1.1)
    if encoder is not None:
        stitch.attach(encoder, trained=trained)  # type: ignore[arg-type]
    return stitch


def picture(shade: int = 0) -> Image.Image:
    return Image.frombytes("RGB", (8, 8), bytes((i * 37 + shade) % 256 for i in range(192)))


def answers(stitch: Stitch, image: Image.Image | None) -> list[str]:
    return [a.text for a in stitch.ask_all([(image, QUESTIONS)], max_new_tokens=6)]


@pytest.mark.parametrize(
    ("changes", "files"),
    [
        ({}, {"projector.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"}),
        ({"blind": True}, {"adapter/adapter_model.safetensors", "adapter/adapter_config.json"}),
        ({"train": "none"}, {"projector.safetensors"}),
        ({"train": "full"}, {"projector.safetensors", "llm.safetensors"}),
        (
            {"trained": True},
            {
                "projector.safetensors",
                "encoder.safetensors",
                "adapter/adapter_model.safetensors",
                "adapter/adapter_config.json",
            },
        ),
    ],
)
def test_round_trip(changes: dict[str, Any], files: set[str], lm: str, tmp_path: Path) -> None:
    """The same logits to the bit, and saved again the same files: nothing is lost on the way."""
    stitch = make(lm, **changes)
    if changes.get("trained"):
        with torch.no_grad():
            stitch.encoder.patch.weight.add_(0.5)  # type: ignore[union-attr]
    image = None if stitch.blind else picture()
    stitch.save(tmp_path / "a", extra={"cell": "abc"})
    found = {p.relative_to(tmp_path / "a").as_posix() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert found == files | {"stitch.json", "README.md"}
    again = load_stitch(tmp_path / "a", device="cpu")
    assert answers(again, image) == answers(stitch, image)
    ours, theirs = stitch.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any(module.training for module in again.model.modules())
    again.save(tmp_path / "b", extra={"cell": "abc"})
    assert json.loads((tmp_path / "b/stitch.json").read_text()) == json.loads(
        (tmp_path / "a/stitch.json").read_text()
    )


def test_ask_is_one_question_of_ask_all(lm: str) -> None:
    stitch = make(lm)
    together = answers(stitch, picture())
    assert [stitch.ask(picture(), q, max_new_tokens=6) for q in QUESTIONS] == together
    two = stitch.ask_all([(picture(9), QUESTIONS[:1]), (picture(), QUESTIONS)], max_new_tokens=6)
    assert [a.text for a in two[1:]] == together


def test_what_cannot_be_asked(lm: str) -> None:
    stitch = make(lm)
    for question in ("", "  "):
        with pytest.raises(UserError, match="empty"):
            stitch.ask(picture(), question)
    with pytest.raises(UserError, match="looks at pictures"):
        stitch.ask(None, "How many?")
    with pytest.raises(UserError, match=r"max_tokens is 512"):
        stitch.ask(picture(), "many " * 600)
    with pytest.raises(UserError, match="whole PNG"):
        stitch.ask(b"no picture", "How many?")
    with pytest.raises(UserError, match="no encoder attached"):
        build_stitch(stitch.config, stitch.encoder_facts).ask(picture(), "How many?")


def test_describe_puts_the_request_of_its_training(lm: str, tmp_path: Path) -> None:
    stitch, options = make(lm), {"max_new_tokens": 6}
    assert stitch.description_question == "Describe the picture."
    assert stitch.describe(picture(), **options) == stitch.ask(picture(), "Describe the picture.", **options)
    stitch.trained_with = {"turns": "shared", "description": "what is there?"}
    stitch.save(tmp_path / "a")
    again = load_stitch(tmp_path / "a", device="cpu")
    assert again.trained_with == stitch.trained_with
    assert again.describe(picture(), **options) == stitch.ask(picture(), "what is there?", **options)


def test_a_conversation_answers_as_ask_does(lm: str) -> None:
    """With the picture encoded once, and opened before anything is asked."""
    stitch, sampling = make(lm), Sampling(1.2, top_p=0.9, seed=1)
    calls: list[int] = []
    stitch.encoder.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    talk = stitch.conversation(picture())
    said = [talk.ask(q, max_new_tokens=6).text for q in QUESTIONS]
    assert len(calls) == 1
    assert said == answers(stitch, picture())
    drawn = [talk.ask(q, max_new_tokens=6, sampling=sampling).text for q in QUESTIONS]
    assert drawn == [stitch.ask(picture(), q, max_new_tokens=6, sampling=sampling) for q in QUESTIONS]
    blind = make(lm, blind=True)
    assert blind.conversation(None).ask(QUESTIONS[0], max_new_tokens=6).text == answers(blind, None)[0]
    with pytest.raises(UserError, match="looks at pictures"):
        stitch.conversation(None)
    with pytest.raises(UserError, match="whole PNG"):
        stitch.conversation(b"no picture")
    with pytest.raises(UserError, match="no encoder attached"):
        build_stitch(stitch.config, stitch.encoder_facts).conversation(picture())


def test_a_picture_may_be_a_url(lm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stitch = make(lm)
    with pytest.raises(UserError, match=r"127\.0\.0\.1, which is loopback"):
        stitch.ask("http://127.0.0.1/x.png", "How many?")
    monkeypatch.setattr("sutura.data.remote_image.fetch_picture", lambda url: picture(len(url)))
    url = "https://pictures.test/x.png"
    assert stitch.ask(url, "How many?") == stitch.ask(picture(len(url)), "How many?")


def test_same_seed_same_adapter_whatever_the_encoder(lm: str) -> None:
    """Fault: two rows of a comparison that differ in more than the encoder."""
    config = make(lm).config
    facts = TinyEncoder(0).facts()
    narrow = build_stitch(config, facts).model
    wide = build_stitch(config, {**facts, "width": 20}).model
    blind = build_stitch(config.model_copy(update={"encoder": None})).model
    for other in (wide, blind):
        a, b = narrow.lm.state_dict(), other.lm.state_dict()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(narrow.projector.fc2.weight, wide.projector.fc2.weight)  # type: ignore[union-attr]
    reseeded = build_stitch(config.model_copy(update={"seed": 4}), facts).model
    assert not torch.equal(narrow.projector.fc2.weight, reseeded.projector.fc2.weight)  # type: ignore[union-attr]


@pytest.fixture
def saved(lm: str, tmp_path: Path) -> Path:
    make(lm).save(tmp_path / "stitch")
    return tmp_path / "stitch"


@pytest.mark.parametrize(
    "name", ["projector.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"]
)
def test_a_missing_file_stops_the_load(name: str, saved: Path) -> None:
    """Fault: a missing adapter is a warning."""
    (saved / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        load_stitch(saved)


@pytest.mark.parametrize(
    "name", ["projector.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"]
)
def test_an_altered_file_stops_the_load(name: str, saved: Path) -> None:
    data = bytearray((saved / name).read_bytes())
    data[-3] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(UserError, match="not the file that was saved"):
        load_stitch(saved)


def test_the_card_may_be_edited(saved: Path) -> None:
    (saved / "README.md").write_text("# my own words")
    load_stitch(saved, device="cpu")


def edit(saved: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((saved / "stitch.json").read_text())
    change(manifest)
    (saved / "stitch.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["config"]["llm"].update(alpha=64),
        lambda m: m["config"]["prompt"].update(instruction=""),
        lambda m: m["encoder"].update(fingerprint="tiny-1"),
        lambda m: m.pop("files"),
        lambda m: m.pop("config"),
        lambda m: m.pop("seal"),
    ],
)
def test_an_edited_manifest_stops_the_load(change: Callable[[dict[str, Any]], Any], saved: Path) -> None:
    """The manifest says how the weights are to be used: another scale of the adapter is another model."""
    edit(saved, change)
    with pytest.raises(UserError, match="not as it was saved"):
        load_stitch(saved)


def test_a_moved_language_model_may_be_named_anew(saved: Path, lm: str, tmp_path: Path) -> None:
    shutil.copytree(lm, tmp_path / "elsewhere")
    edit(saved, lambda m: m["config"]["llm"].update(id=str(tmp_path / "elsewhere")))
    load_stitch(saved, device="cpu")


def test_another_language_model_stops_the_load(saved: Path, tmp_path: Path) -> None:
    other = save_language_model(tmp_path / "other", seed=1)
    edit(saved, lambda m: m["config"]["llm"].update(id=other))
    with pytest.raises(UserError, match="trained on"):
        load_stitch(saved)


def test_another_encoder_stops_the_load(saved: Path) -> None:
    """Fault: encoder facts keyed by type while the model is free; here its fingerprint decides."""
    edit(saved, lambda m: m["config"]["encoder"].update(id="tiny:1"))
    with pytest.raises(UserError, match=r"tiny-0.*tiny-1"):
        load_stitch(saved)
    load_stitch(saved, device="cpu", encoder=False)


def test_weights_that_do_not_fit_stop_the_load(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the manifest would agree: strict loading is a check of its own."""
    monkeypatch.setattr("sutura.stitch.bundle.fingerprint_file", lambda path: "same")
    edit(saved, lambda m: m.update(files=dict.fromkeys(m["files"], "same")))
    monkeypatch.setattr("sutura.stitch.bundle.seal", lambda manifest: manifest.get("seal"))
    tensors = load_file(saved / "projector.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "fc2.bias"}, saved / "projector.safetensors")
    with pytest.raises(UserError, match=r"projector do not fit: 1 missing \(fc2\.bias\)"):
        load_stitch(saved)


def test_no_stitch_and_other_formats(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(UserError, match="is no stitch"):
        load_stitch(tmp_path)
    edit(saved, lambda m: m.update(format=99))
    with pytest.raises(UserError, match="format 99"):
        load_stitch(saved)
    (saved / "stitch.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_stitch(saved)


def test_a_stitch_is_never_overwritten(saved: Path, lm: str) -> None:
    with pytest.raises(UserError, match="never overwritten"):
        make(lm).save(saved)


def test_safetensors_only(saved: Path) -> None:
    assert {p.suffix for p in saved.rglob("*") if p.is_file()} == {".safetensors", ".json", ".md"}


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(lm: str, tmp_path: Path) -> None:
    shutil.copytree(lm, tmp_path / "lm")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lm")
    tokenizer.add_tokens([f"<extra{i}>" for i in range(40)])
    tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(UserError, match="do not belong together"):
        make(str(tmp_path / "lm"))


def test_every_stop_token_of_the_generation_config_is_known(lm: str, tmp_path: Path) -> None:
    """Fault: one EOS id of the several a language model has."""
    shutil.copytree(lm, tmp_path / "lm")
    path = tmp_path / "lm/generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [0, 33, 34]}))
    assert make(str(tmp_path / "lm")).prompt.stop_ids == {0, 33, 34}


def test_facts_and_encoder_go_together(lm: str) -> None:
    stitch = make(lm)
    with pytest.raises(UserError, match="needs its facts"):
        build_stitch(stitch.config)
    with pytest.raises(UserError, match="needs its facts"):
        build_stitch(stitch.config.model_copy(update={"encoder": None}), stitch.encoder_facts)


def test_a_blind_stitch_has_no_projector(lm: str) -> None:
    stitch = make(lm, blind=True)
    assert stitch.model.projector is None
    with pytest.raises(UserError, match="blind"):
        stitch.model.project(tiny_patches(1))


def test_the_card_states_what_trains(saved: Path) -> None:
    card = (saved / "README.md").read_text()
    assert "| projector | 0 | " in card
    assert "licence unknown" in card
    assert "seed 3" in card.lower()
