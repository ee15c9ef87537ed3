"""Train mode where something learns, eval mode everywhere else; on real PEFT layers too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sutura.core.hashing import fingerprint_tensors
from sutura.train.loop import fit
from sutura.train.modes import set_train_mode
from sutura.train.optim import OptimConfig


class Deaf(nn.Linear):
    """Like a frozen encoder: `train()` does nothing."""

    def train(self, mode=True):
        return self


@pytest.fixture
def language_model():
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attention_dropout=0.5,
        max_position_embeddings=32,
    )
    lora = LoraConfig(r=2, lora_alpha=4, lora_dropout=0.5, target_modules=["q_proj", "v_proj"], bias="none")
    return get_peft_model(Qwen2ForCausalLM(config), lora)


def training(model, part):
    return {m.training for n, m in model.named_modules() if part in n}


def test_frozen_trunk_rests_while_the_lora_layers_learn(language_model):
    """Fault: `model.train()` on the parent switches on the dropout of what is frozen."""
    language_model.train()
    set_train_mode(language_model)
    dropouts = [m for n, m in language_model.named_modules() if "lora_dropout" in n]
    assert dropouts
    assert all(m.training for m in dropouts)
    assert training(language_model, "lora_A") == {True}
    assert training(language_model, "base_layer") == {False}
    assert training(language_model, "mlp") == {False}
    attention = [m for n, m in language_model.named_modules() if n.endswith("self_attn")]
    assert [m.training for m in attention] == [False, False]


def test_attention_dropout_of_the_frozen_trunk_is_inactive(language_model):
    """LoRA at its start (B = 0) leaves nothing random, so two passes agree; `train()` would break that."""
    ids = torch.arange(8)[None]
    set_train_mode(language_model)
    with torch.no_grad():
        first, second = (language_model(ids).logits for _ in range(2))
        assert torch.equal(first, second)
        language_model.train()
        assert not torch.equal(language_model(ids).logits, first)


def test_lora_dropout_is_active(language_model):
    for name, weight in language_model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)
    ids = torch.arange(8)[None]
    set_train_mode(language_model)
    with torch.no_grad():
        assert not torch.equal(language_model(ids).logits, language_model(ids).logits)


def test_frozen_trunk_keeps_its_bits_and_gets_no_gradient(language_model):
    trunk = {n: p for n, p in language_model.named_parameters() if "lora_" not in n}
    assert not any(p.requires_grad for p in trunk.values())
    before = fingerprint_tensors(trunk)
    ids = torch.arange(8)[None]

    class Feed:
        steps = 4

        def micro_batches(self, step):
            return [ids]

    def objective(model, batch, step):
        return model(batch, labels=batch).loss, {}

    result = fit(language_model, objective, Feed(), OptimConfig(lr=1e-2), seed=0, directory=None)
    assert fingerprint_tensors(trunk) == before
    assert all(p.grad is None for p in trunk.values())
    assert result.bad_batches == 0
    assert any(p.abs().sum() > 0 for n, p in language_model.named_parameters() if "lora_B" in n)


def test_layers_that_recompute_still_do(language_model):
    """transformers recomputes only in layers whose `training` is set; their attention still rests."""
    language_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    set_train_mode(language_model)
    layers = language_model.base_model.model.model.layers
    assert [layer.training for layer in layers] == [True, True]
    assert training(language_model, "self_attn.k_proj") == {False}
    assert [layer.self_attn.training for layer in layers] == [False, False]

    calls = []
    layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    language_model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    assert len(calls) == 2, "once forward, once again for the gradient"


def test_partly_unfrozen_encoder():
    encoder = nn.Sequential(*[nn.Sequential(nn.Linear(2, 2), nn.Dropout()) for _ in range(3)])
    encoder.requires_grad_(False)
    encoder[2].requires_grad_(True)
    set_train_mode(encoder)
    assert [block.training for block in encoder] == [False, False, True]
    assert [block[1].training for block in encoder] == [False, False, True]


def test_flags_are_set_although_train_does_nothing():
    model = nn.ModuleDict({"frozen": Deaf(2, 2).requires_grad_(False), "learns": Deaf(2, 2)})
    model["frozen"].training = True
    model["learns"].training = False
    set_train_mode(model)
    assert (model["frozen"].training, model["learns"].training) == (False, True)


def test_a_model_that_learns_as_a_whole_is_all_in_train_mode():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.GELU()), nn.Linear(2, 2)).eval()
    set_train_mode(model)
    assert all(m.training for m in model.modules())


def test_a_weight_of_the_module_itself_counts():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = nn.Linear(2, 2).requires_grad_(False)
            self.log_scale = nn.Parameter(torch.zeros(()))
            self.dropout = nn.Dropout()

    model = Scaled()
    set_train_mode(model)
    assert (model.training, model.dropout.training, model.tower.training) == (True, True, False)
