"""One pass over shapes alone, held against real steps: operations exactly, memory by torch's profiler."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AutoConfig, AutoModelForCausalLM

from sutura.compare.plan_data import DataSizes, Texts, head_ids, rows_of
from sutura.compare.plan_pass import asking_pass, encoding_pass, training_pass
from sutura.compare.plan_shapes import ADAM_STATES
from sutura.encoders import EncoderConfig, load_encoder
from sutura.encoders.outline import outline_encoder
from sutura.stitch.config import LlmConfig, ProjectorConfig
from sutura.stitch.language import add_adapter
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Packed, pack
from sutura.stitch.projector import build_projector
from sutura.train.modes import set_train_mode
from sutura.train.optim import OptimConfig, build_optimizer, trainable_parameters

SHAPE = {
    "vocab_size": 3000,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
SIZES = DataSizes(10, 1.0, 1, Texts(8, 10, 3), 10, "a test")


def stitch(device: str, llm: LlmConfig) -> StitchModel:
    with torch.device(device):
        dtype = getattr(torch, llm.dtype)
        lm = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **SHAPE), dtype=dtype)
        lm = add_adapter(lm.requires_grad_(False).eval(), llm, seed=0)
        model = StitchModel(lm, build_projector(ProjectorConfig(), 48, 64, seed=0))
    set_train_mode(model)
    return model


def batch(mode: Any = "separate", answers: int = 8) -> Packed:
    return pack(rows_of(answers, SIZES, mode), head_ids=head_ids(SIZES.texts), pad_id=0)


def counter() -> FlopCounterMode:
    """torch's counter over a real run; the CPU's fused attention is the one thing it does not know."""
    aten = torch.ops.aten
    forward: Any = lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)  # noqa: E731
    backward: Any = lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g, q, k, v)  # noqa: E731
    known = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    return FlopCounterMode(display=False, custom_mapping=known)


def peak_of(step: Any) -> int:
    """Most bytes that a piece of work allocates at once, as torch's profiler saw the allocator."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    now = peak = 0
    for event in recorded.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


CASES = {
    "float32": (LlmConfig(), False, False, "float32"),
    "bfloat16, a later micro-batch": (LlmConfig(dtype="bfloat16"), True, True, "float32"),
    "checkpointed": (LlmConfig(dtype="bfloat16", gradient_checkpointing=True), True, True, "float32"),
    "every weight": (LlmConfig(train="full"), False, False, "float32"),
    "trained in bfloat16, as the published runs": (LlmConfig(dtype="bfloat16"), False, True, "bfloat16"),
}


@pytest.mark.parametrize("case", CASES)
def test_operations_are_exact_and_memory_within_five_percent(case: str) -> None:
    """A real step: its operations by torch's counter, its memory by torch's profiler."""
    llm, autocast, accumulating, trained = CASES[case]
    packed, patches = batch(), torch.randn(8, 16, 48)
    model, outline = stitch("cpu", llm), stitch("meta", llm)
    for one in (model, outline):
        trainable_parameters(one, trained)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(packed, model.project(patches))[0].sum()
        loss.backward()

    step()
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    if not accumulating:
        model.zero_grad(set_to_none=True)
    found = training_pass(
        outline,
        packed,
        torch.empty(8, 16, 48, device="meta"),
        autocast=autocast,
        accumulating=accumulating,
    )
    before = bytes_of([*model.parameters(), *model.buffers()])
    assert (found.weights, found.gradients) == (before, gradients)
    before += patches.nbytes + bytes_of(v for v in vars_of(packed)) + (gradients if accumulating else 0)
    assert found.peak == pytest.approx(before + peak_of(step), rel=0.05)
    assert found.weights + found.activations + found.logits < found.peak
    with counter() as counted:
        step()
    assert found.flops == counted.get_total_flops()


def bytes_of(tensors: Any) -> int:
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def vars_of(packed: Packed) -> Iterator[Tensor]:
    for name in ("input_ids", "labels", "segments", "positions", "pictures", "last"):
        yield getattr(packed, name)


def test_logits_are_as_many_as_answer_tokens() -> None:
    """Scores and their softmax, in float32, at the supervised places alone."""
    packed = batch()
    found = training_pass(
        stitch("meta", LlmConfig()),
        packed,
        torch.empty(8, 16, 48, device="meta"),
        autocast=False,
        accumulating=False,
    )
    assert found.logits % (packed.supervised * SHAPE["vocab_size"] * 4) == 0
    assert 1 <= found.logits // (packed.supervised * SHAPE["vocab_size"] * 4) <= 2


def test_adam_keeps_two_numbers_a_weight() -> None:
    model = stitch("cpu", LlmConfig())
    optimizer = build_optimizer(trainable_parameters(model), OptimConfig())
    model(batch(), model.project(torch.randn(8, 16, 48)))[0].sum().backward()
    optimizer.step()
    kept = sum(
        value.nbytes for state in optimizer.state.values() for name, value in state.items() if name != "step"
    )
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    assert kept == ADAM_STATES * gradients


def test_an_encoders_operations_are_those_of_a_real_picture() -> None:
    encoder = load_encoder("zoo:clip", tokens=16)
    with torch.no_grad(), counter() as counted:
        encoder(torch.zeros(3, 3, encoder.image_size, encoder.image_size))
    found = encoding_pass(outline_encoder(EncoderConfig(id="zoo:clip", tokens=16)), 3)
    assert found.flops == counted.get_total_flops() > 0


def test_sharing_a_picture_is_cheaper_than_separate_rows() -> None:
    asked = DataSizes(10, 4.0, 1, Texts(8, 10, 3), 10, "a test")
    costs = {}
    for mode in ("shared", "separate"):
        rows = rows_of(8, asked, mode)
        packed = pack(rows, head_ids=head_ids(asked.texts), pad_id=0)
        pictures = torch.empty(2, 16, 48, device="meta")
        costs[mode] = training_pass(
            stitch("meta", LlmConfig()), packed, pictures, autocast=False, accumulating=False
        )
    assert costs["shared"].flops < 0.7 * costs["separate"].flops


def test_asking_costs_what_reading_the_questions_costs() -> None:
    """The pass before answers are decoded: picture and question, the head at one place a question, keys and values."""
    rows = rows_of(6, SIZES, "shared", answered=False)
    packed = pack(rows, head_ids=head_ids(SIZES.texts), pad_id=0)
    found = asking_pass(stitch("meta", LlmConfig()), packed, torch.empty(6, 16, 48, device="meta"))
    model, patches = stitch("cpu", LlmConfig()).eval(), torch.randn(6, 16, 48)
    with torch.no_grad(), counter() as counted:
        spliced = model.splice(model.project(patches), packed)
        model.decode(spliced, torch.arange(6), packed.last[:, 0] + 16)
    assert found.flops == counted.get_total_flops()
    tokens = 6 * (16 + packed.input_ids.shape[1])
    keys_and_values = 2 * tokens * SHAPE["num_hidden_layers"] * 2 * 16 * 4
    assert found.activations > keys_and_values
    assert found.logits == 6 * SHAPE["vocab_size"] * 4
