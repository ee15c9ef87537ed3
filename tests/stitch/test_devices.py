"""Nothing of a batch stays on the CPU when the model is on a GPU: run on torch's simulated CUDA tensors.

A fake tensor carries shape, type and device and no numbers; an operation that mixes devices raises, as it would on a
GPU. What reads numbers (which positions are supervised, whether a turn is still open) is answered here. Only forward
passes can be simulated; a backward pass runs where its forward pass did.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from sutura.stitch.generate import generate, log_likelihoods
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Packed, Row, pack
from sutura.stitch.projector import LayerNormMlp
from sutura.stitch.prompt import PromptBuilder
from sutura.train.stitching import StitchBatch, stitch_loss
from tiny_models import ENCODER_WIDTH, IMAGE_TOKENS, WIDTH, learn_rows, tiny_tokenizer


class Numbers(TorchFunctionMode):
    """Answers the questions that a tensor without numbers cannot: `found` places, everything true, ids of 0."""

    def __init__(self, found: int) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.nonzero:
            zeros = [torch.zeros(self.found, dtype=torch.long, device=args[0].device) for _ in args[0].shape]
            return tuple(zeros)
        if func is torch.Tensor.__bool__:
            return True
        if func is torch.Tensor.item:
            return 0
        if func is torch.tensor and kwargs and kwargs.get("device") is not None:  # would ask for a real GPU
            here = func(*args, **{**kwargs, "device": "cpu"})
            return torch.empty(here.shape, dtype=here.dtype, device=kwargs["device"])
        return func(*args, **(kwargs or {}))


class Patches(torch.nn.Module):
    """A map of features as a row of patches."""

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(2).transpose(1, 2)


@contextmanager
def simulated_gpu(rows: list[Row], *, supervised: bool) -> Iterator[StitchModel]:
    """A stitch of fake CUDA tensors; batches are made on the CPU inside."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    turns = [turn for row in rows for turn in row.turns]
    found = sum(len(turn.answer_ids) for turn in turns) if supervised else len(turns)
    config = Qwen2Config(
        vocab_size=340, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    with FakeTensorMode():
        with torch.device("cuda"):
            model = StitchModel(Qwen2ForCausalLM(config), LayerNormMlp(ENCODER_WIDTH, WIDTH))
        with Numbers(found):
            yield model


@pytest.fixture
def prompt() -> PromptBuilder:
    return PromptBuilder(tiny_tokenizer())


def batch(prompt: PromptBuilder, rows: list[Row], **pictures: Any) -> StitchBatch:
    packed = pack(rows, head_ids=prompt.head_ids, pad_id=min(prompt.stop_ids))
    return StitchBatch(packed, 7, **pictures)


def test_training_moves_its_batch_to_the_model(prompt: PromptBuilder) -> None:
    rows = learn_rows(prompt)
    with simulated_gpu(rows, supervised=True) as model:
        patches = torch.zeros(len(rows), IMAGE_TOKENS, ENCODER_WIDTH)
        loss, _ = stitch_loss(model, batch(prompt, rows, patches=patches), 0)
        assert loss.device.type == "cuda"


def test_a_live_encoder_is_given_pixels_where_it_is(prompt: PromptBuilder) -> None:
    rows = learn_rows(prompt)
    with simulated_gpu(rows, supervised=True) as model:
        with torch.device("cuda"):
            cut = torch.nn.Conv2d(3, ENCODER_WIDTH, kernel_size=4, stride=4)
        model.encoder = torch.nn.Sequential(cut, Patches())
        pixels = torch.zeros(len(rows), 3, 8, 8)
        assert stitch_loss(model, batch(prompt, rows, pixels=pixels), 0)[0].device.type == "cuda"


def test_generating_and_scoring_stay_on_the_device(prompt: PromptBuilder) -> None:
    rows = learn_rows(prompt)
    with simulated_gpu(rows, supervised=False) as model:
        visual = torch.zeros(len(rows), IMAGE_TOKENS, WIDTH, device="cuda")
        answers = generate(model, prompt, rows, visual, max_new_tokens=3)
        assert len(answers) == sum(len(row.turns) for row in rows)
    with simulated_gpu(rows, supervised=True) as model:
        visual = torch.zeros(len(rows), IMAGE_TOKENS, WIDTH, device="cuda")
        assert len(log_likelihoods(model, prompt, rows, visual)) == len(rows)


def test_a_batch_left_behind_is_noticed(prompt: PromptBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation is able to fail: rows that stay on the CPU raise as on a GPU."""
    monkeypatch.setattr(Packed, "to", lambda self, device: self)
    rows = learn_rows(prompt)
    with simulated_gpu(rows, supervised=True) as model:
        patches = torch.zeros(len(rows), IMAGE_TOKENS, ENCODER_WIDTH)
        with pytest.raises(Exception, match=r"device"):
            stitch_loss(model, batch(prompt, rows, patches=patches), 0)
