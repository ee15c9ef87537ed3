"""The earlier study's folders as stitches: whole or not at all, with their own prompt, from disk and from the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hub.checkpoints import save_parts, save_published
from hub.stand_in import StandIn
from sutura.compare.asking import Options, describe
from sutura.compare.single import evaluate_saved
from sutura.core.errors import UserError
from sutura.encoders import load_encoder
from sutura.evals.config import EvaluateConfig
from sutura.evals.ledger import read_ledger
from sutura.hub.pull import given, pull, stitches_of
from sutura.stitch.bundle import DESCRIBE, load_stitch


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture
def published(parts: dict[str, Path], tmp_path: Path) -> Path:
    return save_published(tmp_path / "vit", str(parts["vit"]), str(parts["lm"]))


def picture() -> Image.Image:
    return Image.effect_noise((40, 40), 90).convert("RGB")


def test_it_answers_as_a_plain_loop_over_its_own_files_does(published: Path, parts: dict[str, Path]) -> None:
    """Written with transformers and peft alone: encoder's last_hidden_state without its class token, projector, the
    literal prompt, greedy until the end token."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, ViTModel

    stitch = load_stitch(published, device="cpu")
    shown = picture()
    assert stitch.encoder is not None
    pixels = stitch.encoder.transform(shown)[None]
    tokenizer: Any = AutoTokenizer.from_pretrained(parts["lm"])
    lm: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(parts["lm"]), str(published / "lora_adapter")
    ).eval()
    weights = torch.load(published / "projector.pt", weights_only=True)
    with torch.inference_mode():
        patches = ViTModel.from_pretrained(parts["vit"]).eval()(pixels).last_hidden_state[:, 1:]
        normed = torch.nn.functional.layer_norm(
            patches, patches.shape[-1:], weights["norm.weight"], weights["norm.bias"]
        )
        hidden = torch.nn.functional.gelu(normed @ weights["fc1.weight"].T + weights["fc1.bias"])
        visual = hidden @ weights["fc2.weight"].T + weights["fc2.bias"]
        ids = tokenizer("<image>\nHow many?", add_special_tokens=False)["input_ids"]
        said: list[int] = []
        for _ in range(6):
            text = lm.get_input_embeddings()(torch.tensor([[*ids, *said]]))
            said.append(int(lm(inputs_embeds=torch.cat([visual, text], dim=1)).logits[0, -1].argmax()))
            if said[-1] in stitch.prompt.stop_ids:
                break
    assert stitch.ask(shown, "How many?", max_new_tokens=6) == stitch.prompt.decode(said)
    assert stitch.prompt.prompt_ids("How many?") == tuple(ids)


def test_clip_is_read_before_its_last_norm_and_a_vit_behind_it(
    parts: dict[str, Path], tmp_path: Path
) -> None:
    for kind, norm in (("clip", False), ("vit", True)):
        folder = save_published(tmp_path / kind, str(parts[kind]), str(parts["lm"]), kind=kind)
        stitch = load_stitch(folder, device="cpu")
        assert stitch.encoder_facts["final_norm"] is norm
        assert stitch.label == kind


def spoil_keys(folder: Path) -> None:
    weights = torch.load(folder / "projector.pt", weights_only=True)
    weights["fc3.weight"] = weights.pop("fc1.weight")
    torch.save(weights, folder / "projector.pt")


def spoil_pickle(folder: Path) -> None:
    torch.save({"norm.weight": Path("a class that is not a tensor")}, folder / "projector.pt")


def spoil_adapter(folder: Path) -> None:
    path = folder / "lora_adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dora": True}))


def say_of_adapter(**entries: Any) -> Any:
    def spoil(folder: Path) -> None:
        path = folder / "lora_adapter" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return spoil


def spoil_stream(folder: Path) -> None:
    """A pickle that takes from an empty stack: reading it ends in an IndexError."""
    (folder / "projector.pt").write_bytes(b"\x80\x02R.")


def spoil_weights(folder: Path) -> None:
    (folder / "lora_adapter" / "adapter_model.safetensors").unlink()


def spoil_config(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_keys, "1 missing .fc1.weight.*1 not of this model .fc3.weight"),
        (spoil_pickle, "more than tensors, or is damaged; such a file could run code, so nothing was loaded"),
        (spoil_adapter, "no plain LoRA .use_dora=True"),
        (say_of_adapter(r=None), "does not say r and lora_alpha as numbers"),
        (say_of_adapter(init_lora_weights="pissa_niter_16"), "changes the language model too"),
        (say_of_adapter(target_modules=".*q_proj"), "a pattern and no list of names"),
        (say_of_adapter(alora_invocation_tokens=[1, 2]), "no plain LoRA .alora_invocation_tokens"),
        (spoil_stream, "more than tensors, or is damaged"),
        (lambda folder: (folder / "config.json").write_text("[]"), "holds no table of settings"),
        (spoil_weights, "is missing; weights are read from safetensors"),
        (spoil_config, "says no encoder_model_id"),
    ],
)
def test_what_is_not_whole_is_not_loaded(published: Path, spoil: Any, said: str) -> None:
    """Faults: a missing adapter is a warning; a projector's file runs code when it is opened."""
    spoil(published)
    with pytest.raises(UserError, match=said):
        load_stitch(published, device="cpu")


def test_it_is_scored_by_our_protocol_and_comes_from_the_hub(
    hub: StandIn, parts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("vit", "clip", "lm"):
        hub.repo(f"org/{name}", parts[name])
    root = tmp_path / "root"
    for kind in ("vit", "clip"):
        save_published(root / kind, f"org/{kind}", "org/lm", kind=kind)
    repo = hub.repo("org/earlier", root)
    with pytest.raises(UserError, match=r"no stitch of encoder 'clp'\. Did you mean 'clip'"):
        stitches_of("org/earlier", "clp")
    (chosen,) = stitches_of("org/earlier", "clip")
    assert not hub.asked("/resolve/" + repo.refs["main"] + "/vit/lora_adapter/adapter_model")
    stitch = load_stitch(chosen, device="cpu")
    assert stitch.llm_revision == hub.repos["model", "org/lm"].refs["main"]
    assert stitch.encoder_facts["revision"] == hub.repos["model", "org/clip"].refs["main"]
    assert load_encoder("hf:org/clip").fingerprint == stitch.encoder_facts["fingerprint"]
    assert pull("org/earlier", tmp_path / "here", encoder="vit") == [tmp_path / "here" / "vit"]
    table = evaluate_saved(
        [chosen, tmp_path / "here" / "vit"],
        "world/test",
        ["limit=2", "questions_per_picture=2"],
        out=tmp_path / "ledger.parquet",
        config=EvaluateConfig(max_new_tokens=3),
    )
    assert set(read_ledger(tmp_path / "ledger.parquet")["encoder"]) == {"clip", "vit"}
    assert "could not be checked" in table, "what they were trained on is not known, and that is said"
    assert {path.name for path in given([root], None)} == {"vit", "clip"}
    assert given(None, "org/earlier", "org/clip") == [chosen]
    assert given([root], "org/earlier", "clip") == [root / "clip", chosen]
    for name in ("clip", "org/clip"):
        told = evaluate_saved(
            [root],
            "world/test",
            ["limit=2", "questions_per_picture=2"],
            encoder=name,
            max_samples=1,
            config=EvaluateConfig(max_new_tokens=3),
        )
        assert "| clip |" in told
        assert "| vit |" not in told
    shown = tmp_path / "photo.png"
    picture().save(shown)
    capsys.readouterr()
    describe([chosen, root / "vit"], str(shown), Options(device="cpu", max_new_tokens=3, as_json=True))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["encoder"], row["question"]) for row in rows] == [("clip", DESCRIBE), ("vit", DESCRIBE)]


def test_a_folder_called_snapshots_keeps_its_name(hub: StandIn, published: Path, tmp_path: Path) -> None:
    """Fault: the place of a stitch in its repository is looked for behind a folder of the repository itself."""
    root = tmp_path / "root"
    for name in ("one", "two"):
        shutil.copytree(published, root / "snapshots" / "deep" / name)
    hub.repo("org/deep", root)
    written = pull("org/deep", tmp_path / "here")
    assert written == [tmp_path / "here" / "snapshots" / "deep" / name for name in ("one", "two")]
