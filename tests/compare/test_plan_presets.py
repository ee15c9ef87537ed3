"""`sutura plan` on every shipped comparison, and on what only some of them use."""

from __future__ import annotations

import copy
import json
import math
import socket
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from sutura.compare import plan as plan_module
from sutura.compare import plan_shapes
from sutura.compare.config import CompareConfig
from sutura.compare.plan import Plan, plan_run
from sutura.compare.plan_config import PlanSettings
from sutura.compare.plan_data import DataSizes, data_sizes
from sutura.compare.plan_gpus import Gpu
from sutura.compare.plan_pass import encoding_pass
from sutura.compare.plan_shapes import ask_batch, count_parts, train_micro
from sutura.compare.plan_sources import source_sizes
from sutura.compare.plan_text import as_data, text
from sutura.core.config import load_config, parse, preset_names
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.data.mixture import interleave
from sutura.data.sources import VqaSource
from sutura.encoders import EncoderConfig, load_encoder
from sutura.encoders.outline import EncoderOutline, outline_encoder
from sutura.stitch.language_rows import BY_ID

COMPARISONS = [name for name in preset_names() if not name.startswith(("pretrain/", "zoo/", "jepa/"))]
STUDIES = {
    "cocoqa-0.5b": {"clip": 2_805_504, "vit": 2_805_504, "ijepa": 3_035_392},
    "vqav2-1.5b": {"clip": 6_116_352, "vit": 6_116_352, "ijepa": 6_510_080},
}
GPU = Gpu("planted", "Planted", 24, 100, 10)
SHAPE = {
    "vocab_size": 3000,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may ask anybody."""

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("the plan opened a socket")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, forbidden)


OUTLINED = cache(outline_encoder)
PASSES: dict[str, Any] = {}


def once(function: Any) -> Any:
    """A function of `plan_shapes`, computed once for all presets that agree in everything it reads."""

    def call(config: CompareConfig, *given: Any) -> Any:
        told = [str(config.optim.trained_dtype), config.optim.precision, config.evaluate.batch]
        for value in (config.llm, config.projector, config.encoder, config.features, *given):
            told.append(value.resolved() if hasattr(value, "resolved") else _plain(value))
        feed = config.feed.model_copy(update={"answers": None, "epochs": 1.0})
        key = fingerprint([function.__name__, feed.resolved(), *told])
        if key not in PASSES:
            PASSES[key] = function(config, *given)
        return PASSES[key]

    return call


def _plain(value: Any) -> Any:
    if isinstance(value, DataSizes):
        return [value.per_picture, *vars(value.texts).values()]
    return value.config.resolved() if isinstance(value, EncoderOutline) else str(value)


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Language models of two layers, outlines and passes of one shape made once: a plan takes a moment."""
    for name in ("count_parts", "train_micro", "ask_batch", "encode_batch"):
        monkeypatch.setattr(plan_module, name, once(getattr(plan_shapes, name)))
    for name, row in BY_ID.items():
        monkeypatch.setitem(BY_ID, name, replace(row, shape={**row.shape, "num_hidden_layers": 2}))
    for module in (plan_module, plan_shapes):
        monkeypatch.setattr(module, "outline_encoder", lambda row: copy.deepcopy(OUTLINED(row)))


def first_encoder(config: CompareConfig) -> CompareConfig:
    controls = config.controls.model_copy(update={"untrained": None})
    return config.model_copy(update={"encoders": config.encoders[:1], "controls": controls})


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("preset", COMPARISONS)
def test_every_shipped_comparison_has_a_plan(preset: str) -> None:
    """The first encoder and the blind run; every encoder where the preset is about other encoders."""
    config = load_config(CompareConfig, preset)
    if preset not in ("stitch/fused", "stitch/more-encoders"):
        config = first_encoder(config)
    mine = PlanSettings(pictures=500) if preset == "daquar" else None
    plan = plan_run(config, mine)
    assert [row.name for row in plan.rows] == [
        *(row.display_name() for row in config.encoder_rows()),
        *["blind"] * config.controls.blind,
    ]
    told = as_data(plan, None, [])
    json.dumps(told)
    assert f"# Plan of {config.name}" in text(plan, None, [])
    for row in plan.rows:
        moved = row.parts.adapter if config.llm.train == "lora" else row.parts.language_model
        assert row.parts.trainable == row.parts.projector + moved > 0
        assert row.training.peak > row.training.cost.weights > 0
        assert row.training.tokens > row.image_tokens
    if preset.startswith("stitch/"):
        assert plan.sizes.encoded is not None
        assert all(one["total_seconds"] > 0 for one in told["gpus"])
        assert plan.steps == math.ceil((plan.sizes.answers or 0) / 16)
    assert plan.cells == len(config.seeds) + (4 if preset.endswith("-lr") else 0)


@pytest.mark.parametrize("study", STUDIES)
def test_the_published_presets_have_the_published_counts(study: str) -> None:
    config = load_config(CompareConfig, f"stitch/{study}-published")
    found = {row.display_name(): count_parts(config, outline_encoder(row)) for row in config.encoder_rows()}
    assert {name: parts.trainable for name, parts in found.items()} == STUDIES[study]
    assert all(parts.trainable == parts.projector + parts.adapter for parts in found.values())
    if study == "cocoqa-0.5b":
        assert {parts.adapter for parts in found.values()} == {1_081_344}
        totals = {name: f"{parts.total / 1e9:.2f}" for name, parts in found.items()}
        assert totals == {"clip": "0.80", "vit": "0.80", "ijepa": "1.13"}


@pytest.mark.parametrize(("study", "steps"), [("cocoqa-0.5b", 2000), ("vqav2-1.5b", 5173)])
def test_the_published_runs_have_their_lengths(study: str, steps: int) -> None:
    """First questions of every row and 3 × 1,000 rows to score; the controlled run draws from what is not held out."""
    whole = {"cocoqa-0.5b": 46287, "vqav2-1.5b": 82772}[study]
    sizes = data_sizes(load_config(CompareConfig, f"stitch/{study}-published"), PlanSettings())
    assert (sizes.pictures, sizes.per_picture, sizes.test_pictures) == (whole, 1.0, 3000)
    assert sizes.answers == 16 * steps
    controlled = data_sizes(load_config(CompareConfig, f"stitch/{study}-controlled"), PlanSettings())
    assert controlled.answers == sizes.answers
    assert (controlled.pictures, controlled.test_pictures) == ({"c": 20000, "v": 16500}[study[0]], 3500)
    unlimited = ["data.train.limit=null", "data.test=[cauldron/clevr]"]
    held = data_sizes(load_config(CompareConfig, f"stitch/{study}-controlled", unlimited), PlanSettings())
    assert (held.pictures, held.test_pictures) == (math.ceil(0.9 * whole), 7000)


@pytest.mark.usefixtures("shallow")
def test_published_weights_train_in_bfloat16_behind_a_live_encoder() -> None:
    """Gradients and AdamW's moments have two bytes a weight; the encoder's operations are float32's."""
    config = first_encoder(load_config(CompareConfig, "stitch/cocoqa-0.5b-published"))
    plan = plan_run(config)
    (row,) = plan.rows
    assert row.training.cost.gradients == 2 * row.parts.trainable
    assert row.training.optimizer == 4 * row.parts.trainable
    assert (row.kept, row.cache_bytes, row.image_tokens) == ((), None, 256)
    picture = encoding_pass(outline_encoder(config.encoder_rows()[0]), 1).flops
    assert row.live_float32 == 4 * picture
    fast = row.training.cost.flops - row.live_float32
    encode, train = plan.seconds(row, GPU)
    assert encode == 0
    assert train == pytest.approx(8000 * (fast / 100e12 + 4 * picture / 10e12) / 0.4)
    assert plan.total_seconds(GPU) == pytest.approx(train)


# On the zoo's encoders, with a language model that is a config file.


@pytest.fixture
def small(tmp_path: Path) -> CompareConfig:
    AutoConfig.for_model("qwen2", **SHAPE).save_pretrained(tmp_path)
    values = {
        "name": "small",
        "encoders": ["zoo:clip"],
        "llm": {"id": str(tmp_path)},
        "data": {
            "train": {"source": "cauldron", "path": "x", "subset": "cocoqa", "limit": 1000},
            "test": [{"benchmark": "cauldron/clevr", "data": {"limit": 100}}],
        },
        "feed": {"batch": 4, "micro_batch": 4, "answers": 400},
        "evaluate": {"batch": 2},
        "features": {"batch": 2},
        "controls": {"blind": False},
        "seeds": [0, 1],
    }
    return parse(CompareConfig, values)


def changed(config: CompareConfig, **sections: Any) -> CompareConfig:
    return parse(CompareConfig, {**config.resolved(), **sections})


@pytest.mark.parametrize(
    ("projector", "tokens"),
    [({"kind": "pixel-shuffle", "factor": 2}, 16), ({"kind": "resampler", "queries": 9, "heads": 4}, 9)],
)
def test_the_projector_decides_what_the_language_model_is_given(
    projector: dict[str, Any], tokens: int, small: CompareConfig
) -> None:
    """The cache stays as large as the patches are many."""
    plain = plan_run(small).rows[0]
    plan = plan_run(changed(small, projector=projector))
    row = plan.rows[0]
    assert (plain.image_tokens, row.image_tokens) == (64, tokens)
    assert row.training.tokens == plain.training.tokens - 64 + tokens
    assert row.cache_bytes == plain.cache_bytes == 1100 * 64 * 128 * 2
    assert row.training.cost.activations < plain.training.cost.activations
    assert ask_batch(plan.config, plan.config.encoder_rows()[0], plan.sizes).flops < plain.asking.flops


def test_a_fused_row_is_its_parts_side_by_side(small: CompareConfig) -> None:
    both = ["zoo:clip", "zoo:ijepa"]
    config = changed(small, encoders=[*both, {"fuse": both, "tokens": 16}], encoder={"tokens": 16})
    clip, ijepa, fused = plan_run(config).rows
    real = load_encoder(config.encoder_rows()[2])
    assert (fused.width, fused.image_tokens) == (real.width, real.num_tokens) == (256, 16)
    assert fused.parts.encoder == sum(p.numel() for p in real.parameters())
    assert fused.parts.encoder == clip.parts.encoder + ijepa.parts.encoder
    assert fused.encode_flops == clip.encode_flops + ijepa.encode_flops
    assert fused.kept == (*clip.kept, *ijepa.kept)
    assert fused.peaks["encoding"] == max(clip.peaks["encoding"], ijepa.peaks["encoding"])


def test_features_that_two_rows_read_are_made_and_kept_once(small: CompareConfig) -> None:
    """Fault: the fused row's features counted beside its parts', or the untrained control's not at all."""
    both = ["zoo:clip", "zoo:ijepa"]
    plan = plan_run(
        changed(small, encoders=[*both, {"fuse": both}], controls={"blind": False, "untrained": "zoo:clip"})
    )
    clip, ijepa, fused, untrained = plan.rows
    kept = [kept.size or 0 for kept in plan.kept.values()]
    assert len(kept) == 3
    assert sum(kept) == (clip.cache_bytes or 0) + (ijepa.cache_bytes or 0) + (untrained.cache_bytes or 0)
    assert fused.cache_bytes == (clip.cache_bytes or 0) + (ijepa.cache_bytes or 0)
    encode, train = zip(*(plan.seconds(row, GPU) for row in plan.rows), strict=True)
    assert plan.total_seconds(GPU) == pytest.approx(encode[0] + encode[1] + encode[3] + 2 * sum(train))


def test_grids_that_differ_are_refused_as_by_the_run() -> None:
    row = EncoderConfig.model_validate(
        {"fuse": ["openai/clip-vit-large-patch14", "google/vit-large-patch16-224"]}
    )
    with pytest.raises(UserError, match=r"16 × 16.*14 × 14.*Set tokens"):
        outline_encoder(row)


def test_live_encoders_are_all_on_the_device(small: CompareConfig) -> None:
    """Fault: the memory of one live encoder, where the run holds every row's."""
    features = {"cache": False}
    alone, both = (
        plan_run(changed(small, encoders=encoders, features=features)).rows[0]
        for encoders in (["zoo:clip"], ["zoo:clip", "zoo:ijepa"])
    )
    other = load_encoder("zoo:ijepa")
    held = sum(tensor.nbytes for tensor in [*other.parameters(), *other.buffers()])
    assert both.training.peak == alone.training.peak + held
    assert both.asking.peak == alone.asking.peak + held


def test_cells_that_choose_rates_are_in_the_hours(small: CompareConfig) -> None:
    train = {**small.data.train.resolved(), "part": "fit", "test_share": 0.1}
    select = {**train, "part": "select", "limit": 50}
    data = {**small.data.resolved(), "train": train, "select": select}
    plan = plan_run(changed(small, data=data, optim={"lr_sweep": [0.1, 0.2, 0.3]}))
    encode, one = plan.seconds(plan.rows[0], GPU)
    assert plan.sizes.encoded == 1150
    assert encode is not None
    assert one is not None
    assert plan.total_seconds(GPU) == pytest.approx(encode + (2 + 3) * one)
    assert "2 seeds, and before them one cell for each of 3 learning rates" in text(plan, GPU, [])


def test_a_dialogue_costs_what_a_shared_row_of_its_turns_does(small: CompareConfig) -> None:
    sizes = data_sizes(small, PlanSettings(questions_per_picture=4))
    costs = {}
    for turns in ("shared", "conversation"):
        feed = small.feed.model_copy(update={"turns": turns})
        config = small.model_copy(update={"feed": feed})
        costs[turns] = train_micro(config, config.encoder_rows()[0], sizes, 4).cost
    assert costs["conversation"] == costs["shared"]


# Sources.


def source(**values: Any) -> VqaSource:
    return VqaSource.model_validate({"source": "cauldron", "path": "x", "subset": "cocoqa", **values})


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ({"part": "all"}, 1.0),
        ({"part": "train", "test_share": 0.1}, 0.9),
        ({"part": "test", "test_share": 0.1}, 0.1),
        ({"part": "fit", "test_share": 0.1, "select_share": 0.2}, 0.72),
        ({"part": "select", "test_share": 0.1, "select_share": 0.2}, 0.18),
    ],
)
def test_a_part_is_its_share(values: dict[str, Any], share: float) -> None:
    assert source_sizes(source(**values)).pictures == math.ceil(46287 * share)
    assert source_sizes(source(**values, limit=77)).pictures == 77


def test_first_rows_first_turns_and_dialogues() -> None:
    assert source_sizes(source(first_rows=1000)).pictures == 1000
    assert source_sizes(source(first_rows=1000, part="train", test_share=0.1)).pictures == 900
    assert source_sizes(source(first_turn=True)).per_picture == 1.0
    assert source_sizes(source(questions_per_picture=5)).per_picture == pytest.approx(78736 / 46287)
    told = source_sizes(source(subset=None, turns="conversation", limit=30))
    assert (told.pictures, told.per_picture) == (30, 4.0)
    assert "assumed" in told.source


@pytest.mark.parametrize("stop", ["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"])
@pytest.mark.parametrize("weights", [None, [0.5, 0.25, 0.25]])
@pytest.mark.parametrize("limit", [None, 900])
def test_a_mixture_hands_on_what_it_draws(stop: Any, weights: Any, limit: int | None) -> None:
    """Against the real draw: number of pictures, and questions a picture."""
    sizes = [1200, 900, 300]
    names = ("cocoqa", "vqav2", "scienceqa")
    parts = [
        {"source": "cauldron", "path": "x", "subset": n, "limit": s}
        for n, s in zip(names, sizes, strict=True)
    ]
    mixed = VqaSource.model_validate(
        {"source": "mixture", "parts": parts, "weights": weights, "stop": stop, "limit": limit}
    )
    chances = tuple(weights) if weights else None
    order = interleave(sizes, chances, seed=0, stop=stop)[:limit]
    drawn = Counter(part for part, _ in order)
    alone = [source_sizes(part).per_picture for part in mixed.parts]
    found = source_sizes(mixed)
    assert found.pictures == pytest.approx(len(order), rel=0.12)
    mean = sum(drawn[part] * alone[part] for part in range(3)) / len(order)
    assert found.per_picture == pytest.approx(mean, rel=0.12)


def test_the_shipped_mixture_is_all_of_its_parts() -> None:
    sizes = data_sizes(load_config(CompareConfig, "stitch/mixture"), PlanSettings())
    assert sizes.pictures == 16000 + 12000 + 4000 + 8000
    questions = 16000 * 443757 / 82772 + 12000 * 78736 / 46287 + 4000 * 6149 / 4976 + 8000 * 4
    assert sizes.per_picture == pytest.approx(questions / 40000)
    assert Plan(load_config(CompareConfig, "stitch/mixture"), PlanSettings(), sizes, 16, ()).steps == 5173
