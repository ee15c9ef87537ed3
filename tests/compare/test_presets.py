"""Every shipped comparison is built at toy width and takes a step; what the published ones break is named."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from small_checkpoints import save_everything, small_overrides
from sutura.compare import run as run_module
from sutura.compare.config import CompareConfig
from sutura.compare.engine import run_jobs
from sutura.compare.grid import CELL, cell_directory
from sutura.compare.load import load_data
from sutura.compare.rules import broken_rules
from sutura.compare.settings import dry, settings
from sutura.core.checkpoint import read_json
from sutura.core.config import load_config, preset_names, preset_path
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.log import read_metrics
from sutura.data.samples import SetAside
from sutura.stitch.bundle import StitchConfig, build_stitch, load_stitch

#: Those that train encoders have their own tests in tests/train.
COMPARISONS = [n for n in preset_names() if not n.startswith(("pretrain/", "zoo/", "jepa/"))]
STUDIES = ("cocoqa-0.5b", "vqav2-1.5b")
TOY = (
    "seeds=[0]",
    "features.dtype=float32",
    "evaluate.max_new_tokens=4",
    "engine={workers: 0, device: cpu, checkpoint_every: 0}",
    "controls.text_ceiling=false",
)


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import datasets.config

    folder = tmp_path_factory.mktemp("places")
    datasets.config.HF_DATASETS_CACHE = folder / "datasets-cache"
    save_everything(folder)
    return folder


def toy(preset: str, places: Path, *more: str, runs: Path | None = None) -> CompareConfig:
    """A shipped preset with small checkpoints and data, and nothing else of it changed but its size."""
    steps = load_config(CompareConfig, preset).feed.batch
    small = (f"runs={runs or places / 'runs'}", f"feed.answers={steps}", *TOY, *more)
    config = settings(preset, small_overrides(preset, places, *small))
    if not preset.startswith(("stitch/", "daquar")):
        config = settings(preset, small_overrides(preset, places, *small), limit=4)
    return config


def one_step(config: CompareConfig, *, cells: int | None = None) -> list[dict[str, Any]]:
    """The first seed's cells, trained for as many answers as the config has and evaluated."""
    data, _, _ = run_module.prepare(config)
    eyes = run_module.load_encoders(config, data, SetAside())
    language = build_stitch(StitchConfig(encoder=None, llm=config.llm, prompt=config.prompt))
    by_name = {seen.facts["name"]: seen for seen in eyes}
    chosen = run_module.choose_rates(config, data, by_name, language.llm_fingerprint).chosen
    planned = run_module.cells_of(config, eyes, data, language.llm_fingerprint, chosen)[:cells]
    run_jobs([run_module.make_job(cell, config, data, by_name) for cell in planned], config)
    return [read_json(cell_directory(Path(config.runs), cell) / CELL) for cell in planned]


@pytest.mark.parametrize("preset", COMPARISONS)
def test_every_preset_takes_a_step(preset: str, places: Path) -> None:
    """The blind run and the first encoder; every encoder where the preset is about other encoders."""
    many = preset in ("stitch/more-encoders", "stitch/fused")
    sweep = ("optim.lr_sweep=[0.001, 0.01]",) if preset.endswith("-lr") else ()
    config = toy(preset, places, *sweep)
    if sweep:  # two cells for each rate are enough
        few = {
            "encoders": config.encoders[:1],
            "controls": config.controls.model_copy(update={"untrained": None}),
        }
        config = config.model_copy(update=few)
    found = one_step(config, cells=None if many else 2)
    if many:
        assert {cell["encoder"] for cell in found} == {
            "none",
            *(row.display_name() for row in config.encoder_rows()),
        }
    for cell in found:
        assert cell["answers"] >= config.feed.batch
        assert cell["bad_batches"] == 0
        assert cell["loss"]["first"] > 0
    assert any(cell["trainable"]["projector"] for cell in found)


@pytest.mark.parametrize("preset", [n for n in preset_names() if not n.startswith("jepa/")])
def test_every_preset_refuses_unknown_keys(preset: str) -> None:
    read: Any = partial(load_config, CompareConfig, preset)
    if preset == "zoo/world-lm":
        from sutura.train.world_lm import WorldLmConfig

        read = partial(load_config, WorldLmConfig, preset)
    elif preset.startswith("zoo/"):
        from sutura.train.pretrain_config import PretrainConfig

        read = partial(load_config, PretrainConfig, preset)
    elif preset.startswith("pretrain/"):
        from sutura.train.pretrain_config import pretrain_settings

        read = partial(pretrain_settings, "mae", "world", preset)
    read([])
    with pytest.raises(UserError, match=r"optmi: unknown key"):
        read(["optmi.lr=0.1"])


@pytest.mark.parametrize("preset", [n for n in COMPARISONS if n.startswith("stitch/")])
def test_every_header_says_what_a_run_takes(preset: str) -> None:
    """Command, time (measured or computed), memory, licences, expectations; a variant may name its base for them."""
    text = preset_path(preset).read_text(encoding="utf-8")
    header = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert re.search(rf"^# command   sutura compare --preset {re.escape(preset)}\b", header, re.M)
    assert re.search(r"^# time      (measured|computed, not measured)", header, re.M)
    if "without a change, where time, memory" not in header:
        for word in ("memory", "licences", "expect"):
            assert re.search(rf"^# {word}\b", header, re.M), word
    assert max(map(len, text.splitlines())) <= 140


@pytest.mark.parametrize("study", STUDIES)
def test_the_plain_name_is_the_controlled_run(study: str) -> None:
    plain, controlled = (
        load_config(CompareConfig, f"stitch/{study}{end}").resolved() for end in ("", "-controlled")
    )
    assert controlled.pop("name") == f"{plain.pop('name')}-controlled"
    assert plain == controlled


@pytest.mark.parametrize("study", STUDIES)
def test_protocols_see_the_same_number_of_answers(study: str) -> None:
    """Fault: one protocol wins because it was trained for longer."""
    ends = ("-published", "-controlled", "-controlled-lr")
    feeds = [load_config(CompareConfig, f"stitch/{study}{end}").feed for end in ends]
    assert {(feed.answers, feed.batch) for feed in feeds} == {({"c": 32000, "v": 82768}[study[0]], 16)}
    assert feeds[0].answers // 16 == {"c": 2000, "v": 5173}[study[0]]  # type: ignore[operator]
    assert (feeds[0].micro_batch, feeds[0].average, feeds[0].turns) == (4, "micro", "separate")


@pytest.mark.parametrize("study", STUDIES)
def test_the_controlled_run_keeps_every_rule_and_the_published_one_names_what_it_breaks(study: str) -> None:
    assert broken_rules(load_config(CompareConfig, f"stitch/{study}-controlled")) == []
    assert broken_rules(load_config(CompareConfig, f"stitch/{study}-controlled-lr")) == []
    broken = " ".join(broken_rules(load_config(CompareConfig, f"stitch/{study}-published")))
    for switch in (
        "prompt.template: published",
        "optim.trained_dtype: bfloat16",
        "optim.decay_all: true",
        "evaluate.min_new_tokens: 3",
        "evaluate.headline: lenient",
        "data.test.0.allow_training: true",
        "data.test.2.data.first_rows: 1000",
        "data.train.first_turn: true",
        "data.train.several: first",
        "feed.average: micro",
        "encoder.tokens: null",
        "encoders.*.final_norm",
        "seeds: [0]",
        "controls.blind: false",
        "controls.wrong_picture: false",
    ):
        assert f"`{switch}`" in broken, switch


def test_budgets_that_are_equal_anyway_are_matched() -> None:
    config = load_config(CompareConfig, "world", ["encoder.tokens=null"])
    assert "encoder.tokens" in " ".join(broken_rules(config))
    assert "encoder.tokens" in " ".join(broken_rules(config, [16, 49]))
    assert broken_rules(config, [16]) == []


def test_a_published_run_to_its_report(places: Path, tmp_path: Path) -> None:
    """bfloat16 weights are trained, the headline is lenient, and the report names every broken rule."""
    preset = "stitch/cocoqa-0.5b-published"
    config = toy(preset, places, "evaluate.max_new_tokens=5", runs=tmp_path)
    config = config.model_copy(update={"encoders": config.encoders[:1]})
    text = run_module.run(config, command="sutura compare").read_text()
    assert "## House rules this run breaks" in text
    for rule in broken_rules(config, [16]):
        assert rule in text
    assert "Headline metric: lenient" in text
    assert "are in cocoqa/train" in text  # the overlap of training and test is said, not hidden
    cell = next((tmp_path / "cells").glob("*/stitch/stitch.json")).parent
    from sutura.core.checkpoint import load_tensors

    weights = load_tensors(cell / "projector.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert load_stitch(cell, device="cpu").ask(_red(), "colour?") is not None


def _red() -> Any:
    from PIL import Image

    return Image.new("RGB", (40, 30), "red")


def test_a_rate_is_chosen_for_each_encoder_on_the_selection_split(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the test sets is read while choosing; the chosen rate is what the cell trains with."""
    preset = "stitch/cocoqa-0.5b-controlled-lr"
    config = toy(
        preset, places, "optim.lr_sweep=[0.0001, 0.1]", "optim.warmup=0", "feed.answers=48", runs=tmp_path
    )
    config = config.model_copy(update={"encoders": config.encoders[:2]})
    asked: list[set[str]] = []
    real = run_module.run_jobs

    def watch(jobs: Any, settings: Any, on_cell: Any = None) -> None:
        asked.append({name for job in jobs for name in job.inputs.tests})
        real(jobs, settings)

    monkeypatch.setattr(run_module, "run_jobs", watch)
    report = run_module.run(config)
    assert asked[0] == {"selection"}
    assert "selection" not in asked[1]
    rates = read_json(report.parent / "comparison.json")["notes"]["rates"]
    assert rates.keys() == {"none", "clip", "vit", "untrained"}
    for name in read_json(report.parent / "comparison.json")["cells"]:
        cell = read_json(tmp_path / "cells" / name / CELL)
        assert cell["lr"] == rates[cell["encoder"]]["chosen"]
        assert list(read_metrics(tmp_path / "cells" / name / "metrics.jsonl"))[-1]["lr"] == cell["lr"]
    text = report.read_text()
    assert "## Learning rates" in text
    assert "| clip |" in text[text.index("## Learning rates") :]


def test_a_dry_run_counts_the_cells_that_choose_rates() -> None:
    config = settings("stitch/cocoqa-0.5b-controlled-lr", limit=40)
    assert "# 20 cells before them choose learning rates" in dry(config)
    assert "# 15 cells: 3 seeds × (clip, vit, ijepa, untrained, blind)" in dry(config)
    assert config.data.select is not None
    assert config.data.select.limit == 40
    assert "before them" not in dry(settings("stitch/cocoqa-0.5b"))


def test_a_selection_split_that_is_trained_on_is_refused(places: Path) -> None:
    config = toy("stitch/cocoqa-0.5b-controlled-lr", places, "data.train.part=train", "data.train.limit=null")
    with pytest.raises(UserError, match=r"are in the selection data"):
        load_data(config)
    with pytest.raises(UserError, match=r"optim.lr_sweep needs data.select"):
        toy("stitch/cocoqa-0.5b", places, "optim.lr_sweep=[0.1]")


def test_held_out_pictures_that_are_trained_on_are_refused(places: Path) -> None:
    """Fault: "held-out" rows of the split that was trained on."""
    config = toy("stitch/cocoqa-0.5b", places, "data.train.part=all", "data.train.limit=null")
    with pytest.raises(UserError, match=r"of cauldron/cocoqa are in the training data"):
        load_data(config)


def test_defaults_of_the_new_switches_change_no_default_run() -> None:
    """The default comparison's own settings, so that a switch with a new default is noticed."""
    world = load_config(CompareConfig, "world")
    assert broken_rules(world) == []
    assert (world.optim.trained_dtype, world.optim.lr_sweep) == ("float32", ())
    assert (world.evaluate.min_new_tokens, world.evaluate.headline) == (0, None)
    assert (world.feed.turns, world.feed.average) == ("shared", "step")
    assert not world.optim.decay_all
    assert fingerprint(world.prompt.resolved()) == fingerprint(
        {"template": "auto", "instruction": "", "max_tokens": 512}
    )
