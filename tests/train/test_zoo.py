"""The shipped weights are what their cards say, and can be built again by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from sutura.core.config import load_config, preset_names
from sutura.core.errors import UserError
from sutura.core.log import read_metrics
from sutura.encoders import catalog, load_encoder
from sutura.encoders.text import load_two_tower
from sutura.models.clip import CLIP, TextTransformer
from sutura.models.vit import ViT
from sutura.models.zoo_format import load_zoo_vit, save_zoo_vit
from sutura.stitch.language import LlmConfig, load_language_model, load_tokenizer
from sutura.stitch.model import StitchModel
from sutura.stitch.prompt import PromptBuilder
from sutura.train import zoo
from sutura.train.optim import OptimConfig
from sutura.train.world_lm import WorldLmConfig, reading_accuracy, train_world_lm

MEMBERS = tuple(name for name in preset_names("zoo") if name != zoo.LANGUAGE_MODEL)


def test_every_preset_of_the_zoo_is_shipped_and_listed() -> None:
    listed = {row["id"] for row in zoo.zoo_table()}
    assert listed == {f"zoo:{name}" for name in preset_names("zoo")}


def test_the_language_model_reads_descriptions() -> None:
    """Well above the 41 % that the question alone gives; the card has the figure on more scenes."""
    config = LlmConfig(id="zoo:world-lm", train="none")
    lm, _ = load_language_model(config)
    prompt = PromptBuilder(load_tokenizer(config))
    for side, least in ((None, 0.92), (4, 0.85), (8, 0.83)):
        scores = reading_accuracy(StitchModel(lm, None).eval(), prompt, WorldLmConfig(), 100, side)
        assert scores["all"] > least
        assert scores["query_colour"] > 0.95


def test_a_saved_tokenizer_cuts_text_as_it_did_in_training() -> None:
    """AutoTokenizer would put Qwen2's splitting rules in the place of those the model was trained with."""
    tokenizer = load_tokenizer(LlmConfig(id="zoo:world-lm"))
    words = "small red metal cube"
    assert len(tokenizer(words, add_special_tokens=False)["input_ids"]) == len(words.split())
    assert PromptBuilder(tokenizer).answer_ids("red")[:-1] == PromptBuilder(tokenizer).encode_text("red")


def test_encoders_differ_in_nothing_but_the_weights() -> None:
    loaded = {name: load_encoder(f"zoo:{name}", tokens=16) for name in MEMBERS}
    assert len({encoder.fingerprint for encoder in loaded.values()}) == len(MEMBERS)
    for key in ("width", "depth", "image_size", "transform", "params", "num_tokens"):
        assert len({str(encoder.facts()[key]) for encoder in loaded.values()}) == 1, key
    assert {encoder.facts()["objective"] for encoder in loaded.values()} == set(MEMBERS)


def test_an_unknown_member_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="world-lm"):
        zoo.build_member("wrld-lm")


def test_a_changed_member_is_built_but_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "zoo"
    monkeypatch.setattr(zoo, "zoo_root", lambda: place)
    changes = [
        "steps=3", "width=32", "depth=1", "mlp_width=32", "heads=2", "scenes=2", "questions=2",
        "retold=1", "maps=[{steps: 2}, {steps: 2, sides: [4, 8], doubtful: true}]", f"directory={tmp_path / 'runs'}",
    ]  # fmt: skip
    monkeypatch.setattr("sutura.train.world_lm.CHECKED", 4)
    (folder,) = zoo.build_member("world-lm", changes)
    assert (folder / "model.safetensors").is_file()
    assert not place.exists()
    lm, _ = load_language_model(LlmConfig(id=str(folder), train="none"))
    assert lm.config.hidden_size == 32


def test_a_member_is_installed_with_its_text_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the picture tower alone is copied, so that zero-shot needs the run again."""
    monkeypatch.setattr(zoo, "zoo_root", lambda: tmp_path / "zoo")
    monkeypatch.setattr(catalog, "zoo_root", lambda: tmp_path / "zoo")
    args = {"image_size": 16, "patch_size": 8, "width": 8, "depth": 1, "heads": 2}
    model = CLIP(ViT(**args), TextTransformer(3, 4, 8, 1, 2, 1), 6)
    transform = {"image_size": 16, "mean": [0.5] * 3, "std": [0.5] * 3}
    save_zoo_vit(
        tmp_path / "run-1/encoder", model.vision, args=args, transform=transform, about={"objective": "clip"}, card="",
        towers=model, words=("<pad>", "<end>", "cube"),
    )  # fmt: skip
    monkeypatch.setattr(zoo, "_train", lambda *given: tmp_path / "run-1/encoder")
    assert zoo.build_member("clip") == [tmp_path / "zoo/clip"]
    assert load_two_tower("zoo:clip").encode_text(["cube"]).shape == (1, 6)
    (row,) = zoo.zoo_table()
    held = sum(file.stat().st_size for file in (tmp_path / "zoo/clip").iterdir())
    assert (row["kind"], row["size"]) == ("clip", f"{held / 1e6:.1f} MB")


def test_building_twice_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sutura.train.world_lm.CHECKED", 2)
    prints = []
    for name in ("a", "b"):
        config = load_config(
            WorldLmConfig,
            "zoo/world-lm",
            [
                "steps=2",
                "width=32",
                "depth=1",
                "mlp_width=32",
                "heads=2",
                "scenes=2",
                "questions=2",
                "retold=1",
                "maps=[{steps: 2}, {steps: 2, sides: [4, 8], doubtful: true}]",
            ],
        )
        config = config.model_copy(update={"directory": str(tmp_path / name), "optim": OptimConfig()})
        folder = train_world_lm(config)
        prints.append(load_language_model(LlmConfig(id=str(folder), train="none"))[1])
    assert prints[0] == prints[1]


@pytest.mark.timeout(900)  # about ten seconds of work, but a busy machine stretches it
def test_a_member_built_anew_at_a_reduced_budget_learns(tmp_path: Path) -> None:
    """A hundredth of the passes, a fifth of the weights: the probe leaves the untrained encoder behind."""
    (folder,) = zoo.build_member(
        "supervised",
        [
            "vit.width=64", "vit.depth=2", "vit.heads=2", "passes=4800", "batch=32", "pictures.count=1200",
            "optim.lr=0.002", "optim.warmup=20", "optim.precision=float32", "checkpoint_every=0",
            "check={fitted: 500, scored: 250, watched: 250, every: 75, on_collapse: stop}",
            f"directory={tmp_path / 'runs'}", f"pictures.cache={tmp_path / 'cache'}",
        ],
    )  # fmt: skip
    _, facts = load_zoo_vit(folder)
    probe, untrained = facts["probe"], facts["untrained_probe"]
    assert probe["score"] > untrained["score"] + 0.05
    assert untrained["score"] > probe["base_rate"]
    rows = list(read_metrics(folder.parent / "metrics.jsonl"))
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert {"effective_rank", "relative_std", "uniformity"} == set(rows[-1]["evaluation"])


def test_a_teacher_is_built_before_its_student() -> None:
    order = zoo.build_order(preset_names("zoo"))
    assert sorted(order) == preset_names("zoo")
    assert order.index("clip") < order.index("eva")
