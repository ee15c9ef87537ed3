"""`sutura plan`: published counts, what a run needs, and what would make it fit."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from sutura.compare.config import CompareConfig
from sutura.compare.plan import Plan, plan_run, smallest_gpu
from sutura.compare.plan_advice import proposals
from sutura.compare.plan_config import PlanSettings
from sutura.compare.plan_data import DataSizes, Texts, data_sizes, head_ids, rows_of
from sutura.compare.plan_gpus import GPUS, Gpu, get_gpu
from sutura.compare.plan_shapes import count_parts, micro_sizes, train_micro
from sutura.compare.plan_text import planned
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.encoders import EncoderConfig, load_encoder
from sutura.encoders.outline import outline_encoder
from sutura.stitch.config import ProjectorConfig
from sutura.stitch.language import add_adapter
from sutura.stitch.model import StitchModel, describe_parts
from sutura.stitch.pack import pack
from sutura.stitch.projector import build_projector

CLIP, VIT, IJEPA = "openai/clip-vit-large-patch14", "google/vit-large-patch16-224", "facebook/ijepa_vith14_1k"
SMALL, LARGE = "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct"
#: (encoder, language model) → trainable parameters, as the earlier study has them.
PUBLISHED = {
    (CLIP, SMALL): 2_805_504,
    (VIT, SMALL): 2_805_504,
    (IJEPA, SMALL): 3_035_392,
    (CLIP, LARGE): 6_116_352,
    (VIT, LARGE): 6_116_352,
    (IJEPA, LARGE): 6_510_080,
}
SHAPE = {
    "vocab_size": 3000,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def config(**sections: Any) -> CompareConfig:
    """The first published experiment, or what is laid over it."""
    values: dict[str, Any] = {
        "name": "cocoqa-0.5b",
        "encoders": [CLIP, VIT, IJEPA],
        "llm": {"id": SMALL, "dtype": "bfloat16"},
        "data": {
            "train": {"source": "cauldron", "path": "hf:HuggingFaceM4/the_cauldron", "subset": "cocoqa"},
            "test": [{"benchmark": "local:clevr", "data": {"subset": "clevr", "limit": 1000}}],
        },
        "feed": {"batch": 16, "micro_batch": 4, "turns": "first", "answers": 32000},
        "optim": {"precision": "bfloat16"},
        "controls": {"blind": False},
        "seeds": [0],
    }
    return parse(CompareConfig, {**values, **sections})


@pytest.fixture
def small(tmp_path: Path) -> CompareConfig:
    """A comparison whose plan takes a moment: an encoder of the zoo, a language model that is a config file."""
    AutoConfig.for_model("qwen2", **SHAPE).save_pretrained(tmp_path)
    return config(
        encoders=["zoo:clip"],
        llm={"id": str(tmp_path)},
        optim={"precision": "float32"},
        evaluate={"batch": 2},
        features={"batch": 2},
    )


# Parameters.


def test_the_document_shows_the_published_counts(root: Path) -> None:
    """In the tables of both experiments, and in words."""
    written = (root / "docs/planning.md").read_text(encoding="utf-8")
    for count in set(PUBLISHED.values()):
        assert written.count(f"{count:,}") >= 2


@pytest.mark.parametrize("train", ["none", "lora", "full"])
def test_parts_are_counted_as_on_a_real_stitch(train: Any, small: CompareConfig) -> None:
    llm = small.llm.model_copy(update={"train": train})
    encoder = load_encoder("zoo:clip")
    whole = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **SHAPE)).requires_grad_(False)
    real = StitchModel(
        add_adapter(whole, llm, seed=0),
        build_projector(ProjectorConfig(), encoder.width, 64, seed=0),
        encoder,
    )
    parts = count_parts(small.model_copy(update={"llm": llm}), outline_encoder(EncoderConfig(id="zoo:clip")))
    told = {name: (frozen, trained) for name, frozen, trained in describe_parts(real)}
    assert parts.encoder == sum(told["encoder"])
    assert parts.projector == sum(told["projector"])
    assert parts.language_model + parts.adapter == sum(told["language model"])
    assert parts.trainable == sum(trained for _, trained in told.values())
    assert (parts.adapter > 0) == (train == "lora")


def test_an_encoder_that_trains_along_is_counted(small: CompareConfig) -> None:
    encoder = load_encoder("zoo:clip")
    changed = small.model_copy(
        update={"encoder": small.encoder.model_copy(update={"train": "last_k", "last_k": 2})}
    )
    alone = count_parts(small, outline_encoder(EncoderConfig(id="zoo:clip")))
    along = count_parts(changed, outline_encoder(EncoderConfig(id="zoo:clip")))
    assert along.trainable - alone.trainable == encoder.unfreeze(2)


# Data.


def test_limits_parts_and_assumptions_are_heeded() -> None:
    train = {**config().data.train.resolved(), "part": "fit", "select_share": 0.1}
    data = {**config().data.resolved(), "train": train}
    assert data_sizes(config(data=data), PlanSettings()).pictures == math.ceil(0.9 * 46287)
    train["limit"] = 500
    assert data_sizes(config(data=data), PlanSettings()).pictures == 500
    unknown = {**data, "train": {**train, "subset": "mine", "limit": None, "part": "all"}}
    assert data_sizes(config(data=unknown), PlanSettings()).encoded is None
    told = PlanSettings(pictures=70, questions_per_picture=3, question_tokens=7, tail_tokens=1)
    sizes = data_sizes(config(data=unknown, feed={"epochs": 2}), told)
    assert (sizes.pictures, sizes.answers, sizes.texts.question) == (70, 420, 8)


@pytest.mark.parametrize("answers", [1, 5, 16])
@pytest.mark.parametrize("mode", ["shared", "separate", "first"])
def test_rows_hold_the_answers_they_are_for(answers: int, mode: Any) -> None:
    sizes = DataSizes(10, 5.36, 1, Texts(24, 13, 3), 10, "a test")
    rows = rows_of(answers, sizes, mode)
    assert sum(len(row.turns) for row in rows) == answers
    packed = pack(rows, head_ids=head_ids(sizes.texts), pad_id=0)
    assert packed.supervised == 3 * answers
    longest = max(len(row.turns) for row in rows)
    assert packed.input_ids.shape[1] == 24 + longest * 16


# The plan and what it proposes.


def test_the_world_has_a_plan_without_a_download() -> None:
    found = planned("world", ["encoders=[zoo:clip]", "controls.untrained=null", "evaluate.batch=16"])
    assert "| clip | 1,222,784 |" in found
    assert "A100" in found


def test_features_on_disk_are_what_the_cache_will_write(small: CompareConfig) -> None:
    plan = plan_run(small)
    row = plan.rows[0]
    assert row.cache_bytes == 47287 * 64 * 128 * 2
    live = plan_run(small.model_copy(update={"features": small.features.model_copy(update={"cache": False})}))
    assert live.rows[0].cache_bytes is None
    assert live.rows[0].encoding is None
    assert live.rows[0].training.cost.forward > row.training.cost.forward


def gpu(memory: float) -> Gpu:
    return Gpu("planted", "Planted", memory, 100, 10)


def test_auto_plans_the_largest_micro_batch_that_fits(small: CompareConfig) -> None:
    few = small.model_copy(update={"feed": small.feed.model_copy(update={"batch": 4})})
    auto = few.model_copy(update={"feed": few.feed.model_copy(update={"micro_batch": "auto"})})
    mine = PlanSettings(reserve_gb=0, slack=0)
    row, sizes = few.encoder_rows()[0], data_sizes(few, mine)
    need = {micro: train_micro(few, row, sizes, micro).peak / 1e9 for micro in micro_sizes(4)}
    assert list(need) == [4, 2, 1]
    assert sorted(need.values(), reverse=True) == list(need.values())
    assert plan_run(auto, mine).micro == 4
    assert plan_run(auto, mine, gpu((need[4] + need[2]) / 2)).micro == 2
    assert plan_run(auto, mine, gpu(0)).micro == 1


def test_what_does_not_fit_is_answered_with_what_would(small: CompareConfig) -> None:
    mine = PlanSettings(reserve_gb=0, slack=0)
    large = small.model_copy(
        update={
            "feed": small.feed.model_copy(update={"micro_batch": 16}),
            "evaluate": small.evaluate.model_copy(update={"batch": 1}),
            "features": small.features.model_copy(update={"batch": 1}),
        }
    )
    plan = plan_run(large, mine)
    scarce = gpu(0.6 * plan.needed())
    advice = {proposal.change: proposal for proposal in proposals(plan, scarce)}
    smaller = next(p for change, p in advice.items() if change.startswith("feed.micro_batch="))
    assert smaller.fits
    assert "the same gradients" in smaller.note
    feed = large.feed.model_copy(update={"average": "micro"})
    others = proposals(plan_run(large.model_copy(update={"feed": feed}), mine), scarce)
    assert any("another loss" in p.note for p in others), "their means weigh by the micro-batch"
    micro = int(smaller.change.partition("=")[2].split()[0])
    changed = large.model_copy(update={"feed": large.feed.model_copy(update={"micro_batch": micro})})
    assert plan_run(changed, mine).needed() == pytest.approx(smaller.needed_gb)
    assert advice["llm.gradient_checkpointing=true"].needed_gb < plan.needed()
    assert advice["llm.dtype=bfloat16 optim.precision=bfloat16"].needed_gb < plan.needed()
    assert any(change.startswith("--gpu ") and p.fits for change, p in advice.items())
    assert proposals(plan, gpu(plan.needed())) == []


def test_each_phase_that_is_over_has_its_own_proposals(small: CompareConfig) -> None:
    plan = plan_run(small, PlanSettings(reserve_gb=0, slack=0))
    found = proposals(plan, gpu(0.9 * min(plan.needed(peak) for peak in plan.phases.values())))
    assert {"training", "evaluation", "encoding", "all"} == {proposal.phase for proposal in found}
    changes = " ".join(proposal.change for proposal in found)
    assert "evaluate.batch=" in changes
    assert "features.batch=" in changes


def test_hours_are_operations_by_arithmetic(small: CompareConfig) -> None:
    plan = plan_run(small, PlanSettings(utilisation=0.5))
    row, one = plan.rows[0], gpu(24)
    encode, train = plan.seconds(row, one)
    assert train == pytest.approx(32000 * row.training.cost.flops / 4 / (10e12 * 0.5))  # float32 throughout
    assert encode == pytest.approx(47287 * row.encode_flops / (10e12 * 0.5))
    three = Plan(small.model_copy(update={"seeds": (0, 1, 2)}), plan.settings, plan.sizes, 4, plan.rows)
    assert three.total_seconds(one) == pytest.approx(encode + 3 * train)


def test_the_gpus_go_by_memory_and_wrong_names_get_a_suggestion() -> None:
    assert [g.memory_gb for g in GPUS] == sorted(g.memory_gb for g in GPUS)
    assert len({g.key for g in GPUS}) == len(GPUS)
    assert get_gpu("H200").measured == 790
    with pytest.raises(UserError, match="Did you mean 'h200'"):
        get_gpu("h20")


def test_the_smallest_gpu_is_the_first_that_fits(small: CompareConfig) -> None:
    plan = plan_run(small, PlanSettings(reserve_gb=30, slack=0))
    assert plan.needed() > 30
    found = smallest_gpu(plan)
    assert found is not None
    assert found.memory_gb == 32
    assert smallest_gpu(plan_run(small, PlanSettings(reserve_gb=500))) is None


def test_the_command_prints_numbers_without_touching_the_network(
    small: CompareConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published checkpoints by their ids, with sockets forbidden; every shape comes from this package's tables."""

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("the plan opened a socket")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, forbidden)
    preset = tmp_path / "published.yaml"
    values = config(encoders=[{"id": VIT, "name": "vit"}]).resolved()
    preset.write_text(json.dumps(values))
    told = json.loads(
        planned(str(preset), ["plan.utilisation=0.25", "evaluate.batch=8"], gpu="a100", as_json=True)
    )
    row = told["rows"][0]
    assert row["parts"]["trainable"] == PUBLISHED[VIT, SMALL]
    assert row["image_tokens"] == 196
    assert (told["steps"], told["settings"]["utilisation"]) == (2000, 0.25)
    assert [one["key"] for one in told["gpus"]] == ["a100"]
    assert told["gpus"][0]["fits"]
    assert told["proposals"] == []


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["plan.utilization=0.5"], "Did you mean 'utilisation'"),
        (["llm.id=Qwen/Qwen2.5-14B-Instruct"], "a plan downloads nothing"),
        (["encoders=[openai/clip-vit-huge]"], "a plan downloads nothing"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        planned("world", overrides)
