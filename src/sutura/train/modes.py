"""Which modules are in train mode: those that learn, and nothing frozen."""

from __future__ import annotations

from torch import nn


def set_train_mode(model: nn.Module) -> None:
    """Put what learns in train mode and everything else in eval mode.

    `model.train()` on a parent would switch on the dropout of a frozen encoder and a frozen language model.
    The rule here, module by module:

    * it trains when a weight of its own trains, or when one of its children holds trainable weights only
      (a projector in a stitch, `lora_A` in a LoRA layer);
    * without any weight in or below it, it follows its parent (the dropout of a LoRA layer is on, that of an
      attention block whose projections merely carry LoRA layers is off);
    * a layer that recomputes activations stays in train mode, because transformers checks `training` before
      it does so; its attention is decided by the rules above;
    * all else is in eval mode.

    Flags are set directly, since a frozen encoder's `train()` does nothing.
    """
    learns: dict[nn.Module, tuple[bool, bool]] = {}
    _survey(model, learns)
    _apply(model, False, learns)


def _survey(module: nn.Module, learns: dict[nn.Module, tuple[bool, bool]]) -> tuple[bool, bool]:
    """Whether the subtree has (trainable, frozen) weights, remembered for every module in it."""
    own = [p.requires_grad for p in module.parameters(recurse=False)]
    trainable, frozen = any(own), not all(own)
    for child in module.children():
        below = learns[child] if child in learns else _survey(child, learns)
        trainable, frozen = trainable or below[0], frozen or below[1]
    learns[module] = (trainable, frozen)
    return learns[module]


def _apply(module: nn.Module, parent: bool, learns: dict[nn.Module, tuple[bool, bool]]) -> None:
    trainable, frozen = learns[module]
    if not trainable and not frozen:
        module.training = parent
    elif not trainable:
        module.training = False
    else:
        own = any(p.requires_grad for p in module.parameters(recurse=False))
        pure_child = any(learns[child] == (True, False) for child in module.children())
        module.training = own or pure_child or bool(getattr(module, "gradient_checkpointing", False))
    for child in module.children():
        _apply(child, module.training, learns)
