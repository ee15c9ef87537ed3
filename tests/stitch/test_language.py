"""Language models land whole or not at all; adapters begin equal and count as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sutura.core.errors import UserError
from sutura.stitch.language import (
    ADAPTER_WEIGHTS,
    LlmConfig,
    add_adapter,
    load_adapter,
    load_language_model,
    load_tokenizer,
    locate,
    save_adapter,
)
from sutura.stitch.projector import LayerNormMlp
from sutura.train.optim import trainable_parameters
from tiny_models import KINDS, WIDTH, awaken, save_language_model, tiny_lm, tiny_tokenizer


def config(folder: str, **changes: Any) -> LlmConfig:
    return LlmConfig(id=folder, rank=4, **changes)


def trainable(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def meta_qwen(**sizes: int) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model("qwen2", vocab_size=151936, tie_word_embeddings=True, **sizes)
        ).requires_grad_(False)


@pytest.mark.parametrize(
    ("sizes", "adapter", "totals"),
    [
        (
            {
                "hidden_size": 896,
                "num_hidden_layers": 24,
                "num_attention_heads": 14,
                "num_key_value_heads": 2,
                "intermediate_size": 4864,
            },
            1_081_344,
            {1024: 2_805_504, 1280: 3_035_392},
        ),
        (
            {
                "hidden_size": 1536,
                "num_hidden_layers": 28,
                "num_attention_heads": 12,
                "num_key_value_heads": 2,
                "intermediate_size": 8960,
            },
            2_179_072,
            {1024: 6_116_352, 1280: 6_510_080},
        ),
    ],
)
def test_trainable_counts_are_those_published(
    sizes: dict[str, int], adapter: int, totals: dict[int, int]
) -> None:
    """Qwen2.5-0.5B and -1.5B shapes, rank 16 on q_proj and v_proj: the totals of an earlier study."""
    model = add_adapter(meta_qwen(**sizes), LlmConfig(), seed=0)
    assert sum(p.numel() for p in trainable(model).values()) == adapter
    for encoder_width, total in totals.items():
        with torch.device("meta"):
            projector = LayerNormMlp(encoder_width, sizes["hidden_size"])
        assert adapter + sum(p.numel() for p in projector.parameters()) == total


def test_same_seed_same_adapter() -> None:
    """Fault: `seed` in the config and never read. What was drawn before does not matter."""
    torch.manual_seed(5)
    a = trainable(add_adapter(tiny_lm(), LlmConfig(rank=4), seed=3))
    torch.manual_seed(6)
    b, other = (trainable(add_adapter(tiny_lm(), LlmConfig(rank=4), seed=s)) for s in (3, 4))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert all(not torch.equal(a[n], other[n]) for n in a if "lora_A" in n)


def test_a_fresh_adapter_changes_nothing() -> None:
    ids = torch.arange(5, 15)[None]
    plain, adapted = tiny_lm(), add_adapter(tiny_lm(), LlmConfig(rank=4), seed=0)
    torch.testing.assert_close(adapted(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_masters_are_float32_over_a_bfloat16_trunk(tmp_path: Path) -> None:
    """Fault: bf16 trained weights without an fp32 master."""
    folder = save_language_model(tmp_path / "lm")
    lm, _ = load_language_model(config(folder, dtype="bfloat16"))
    adapted = add_adapter(lm, config(folder), seed=0)
    assert {p.dtype for p in adapted.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in trainable(adapted).values()} == {torch.float32}
    assert trainable_parameters(adapted)
    whole, _ = load_language_model(config(folder, dtype="bfloat16", train="full"))
    assert {p.dtype for p in whole.parameters()} == {torch.float32}


def test_loaded_frozen_and_quiet(tmp_path: Path) -> None:
    lm, _ = load_language_model(config(save_language_model(tmp_path / "lm")))
    assert not any(p.requires_grad for p in lm.parameters())
    assert not any(m.training for m in lm.modules())


def test_the_fingerprint_is_of_the_weights(tmp_path: Path) -> None:
    places = [save_language_model(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1))]
    a, again, other = (load_language_model(config(p))[1] for p in places)
    assert a == again != other


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_loads_as_saved(kind: str, tmp_path: Path) -> None:
    folder = save_language_model(tmp_path / "lm", kind)
    attention = "eager" if kind == "gemma2" else "sdpa"
    lm, _ = load_language_model(config(folder, attention=attention))
    ids = torch.arange(5, 15)[None]
    torch.testing.assert_close(lm(input_ids=ids).logits, tiny_lm(kind)(input_ids=ids).logits)


def test_capped_scores_are_not_run_without_the_cap(tmp_path: Path) -> None:
    """SDPA knows no soft cap of the attention's scores; leaving it out would be silent."""
    folder = save_language_model(tmp_path / "lm", "gemma2")
    with pytest.raises(UserError, match="eager"):
        load_language_model(config(folder, attention="sdpa"))


def _edit(folder: str, change: Any) -> None:
    path = Path(folder) / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_missing_weight_stops_the_program(tmp_path: Path) -> None:
    """Fault: a weight that is not in the file is drawn at random, with a warning."""
    folder = save_language_model(tmp_path / "lm")
    _edit(folder, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(UserError, match=r"missing keys: .*layers\.1\.mlp\.up_proj"):
        load_language_model(config(folder))


def test_a_missing_tied_head_is_no_missing_weight(tmp_path: Path) -> None:
    folder = save_language_model(tmp_path / "lm", "qwen3")
    assert "lm_head.weight" not in load_file(Path(folder) / "model.safetensors")
    load_language_model(config(folder))


def test_a_weight_left_over_stops_the_program(tmp_path: Path) -> None:
    folder = save_language_model(tmp_path / "lm")
    _edit(folder, lambda t: t.update({"model.layers.2.mlp.up_proj.weight": torch.zeros(24, WIDTH)}))
    with pytest.raises(UserError, match="unexpected keys"):
        load_language_model(config(folder))


def test_a_weight_of_another_shape_stops_the_program(tmp_path: Path) -> None:
    folder = save_language_model(tmp_path / "lm")
    _edit(folder, lambda t: t.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(25, WIDTH)}))
    with pytest.raises(UserError, match=r"mismatched keys.*up_proj"):
        load_language_model(config(folder))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """Safetensors only."""
    folder = save_language_model(tmp_path / "lm")
    weights = Path(folder) / "model.safetensors"
    torch.save(load_file(weights), Path(folder) / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(UserError, match=r"safetensors"):
        load_language_model(config(folder))


def test_a_place_without_a_model_is_a_sentence(tmp_path: Path) -> None:
    for load in (load_language_model, load_tokenizer):
        with pytest.raises(UserError, match="could"):
            load(config(str(tmp_path)))
    with pytest.raises(UserError, match="zoo holds no language model 'nothing'"):
        locate("zoo:nothing")


def test_learned_positions_are_allowed_but_no_positions_are_not(tmp_path: Path) -> None:
    """A model without `position_ids` could not be told where a turn begins again."""
    from transformers import BloomConfig, BloomForCausalLM

    bloom = BloomForCausalLM(BloomConfig(vocab_size=400, hidden_size=16, n_layer=1, n_head=2))
    bloom.save_pretrained(tmp_path / "bloom")
    with pytest.raises(UserError, match="position"):
        load_language_model(config(str(tmp_path / "bloom"), attention="eager"))


def test_unknown_targets_name_the_layers_there_are() -> None:
    with pytest.raises(UserError, match=r"down_proj.*set llm\.targets"):
        add_adapter(tiny_lm(), LlmConfig(targets=("query",)), seed=0)


def test_all_linear_layers_but_the_head() -> None:
    names = {
        n.split(".")[-4] for n in trainable(add_adapter(tiny_lm(), LlmConfig(targets="all-linear"), seed=0))
    }
    assert {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"} == names


def test_adapter_round_trip_in_pefts_layout(tmp_path: Path) -> None:
    saved = awaken(add_adapter(tiny_lm(), LlmConfig(rank=4), seed=0))
    save_adapter(saved, tmp_path / "adapter")  # type: ignore[arg-type]
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {ADAPTER_WEIGHTS, "adapter_config.json"}
    fresh = add_adapter(tiny_lm(), LlmConfig(rank=4), seed=9)
    load_adapter(fresh, tmp_path / "adapter")  # type: ignore[arg-type]
    a, b = trainable(saved), trainable(fresh)
    assert all(torch.equal(a[n], b[n]) for n in a)

    from peft import PeftModel

    theirs = PeftModel.from_pretrained(tiny_lm(), str(tmp_path / "adapter"))
    ids = torch.arange(5, 15)[None]
    torch.testing.assert_close(theirs.eval()(input_ids=ids).logits, saved.eval()(input_ids=ids).logits)


def test_an_adapter_of_another_rank_is_refused(tmp_path: Path) -> None:
    """Fault: an adapter that does not fit is a warning and training goes on from random weights."""
    save_adapter(add_adapter(tiny_lm(), LlmConfig(rank=4), seed=0), tmp_path / "adapter")  # type: ignore[arg-type]
    wider = add_adapter(tiny_lm(), LlmConfig(rank=8), seed=0)
    before = trainable(wider)
    with pytest.raises(UserError, match="another language model or rank"):
        load_adapter(wider, tmp_path / "adapter")  # type: ignore[arg-type]
    assert all(torch.equal(before[n], after) for n, after in trainable(wider).items())


def test_a_missing_adapter_is_an_error(tmp_path: Path) -> None:
    """Fault: a missing adapter is a warning."""
    with pytest.raises(UserError, match="missing"):
        load_adapter(add_adapter(tiny_lm(), LlmConfig(), seed=0), tmp_path)  # type: ignore[arg-type]


def test_the_tokenizer_is_the_one_that_was_saved(tmp_path: Path) -> None:
    """Fault: the architecture's usual splitting rules in the place of the tokenizer's own, and other ids."""
    ours = tiny_tokenizer()
    tokenizer = load_tokenizer(config(save_language_model(tmp_path / "lm")))
    assert tokenizer.chat_template == ours.chat_template
    text = "How many cubes in 2021?"
    assert tokenizer(text)["input_ids"] == ours(text)["input_ids"]
    assert len(ours.tokenize("2021")) == 1, "Qwen2's own rules would split digits, and this test would see it"
