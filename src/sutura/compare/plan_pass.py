"""One pass over shapes alone: its arithmetic, and the most memory it holds at once.

The real model runs forward and backward on tensors that have shape and type but no values (torch's FakeTensorMode,
which computes on the meta device), with the CPU's rules for autocast. Operations are counted by the formulas of
torch.utils.flop_counter, blocks of memory from their birth to the moment nothing refers to them any more.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from sutura.encoders.base import VisionEncoder
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import IGNORE, PADDING, Packed
from sutura.train.modes import set_train_mode


def attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Operations of an attention, as torch's formula for its other kernels has them."""
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def attention_backward_flops(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    """The same backward; scores are computed once more, as fused kernels do."""
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


#: torch's formulas, and the CPU's fused attention, which they leave out.
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
}


@dataclass(frozen=True)
class Pass:
    """What a pass costs. Bytes.

    Args:
        forward, backward: floating-point operations; a product and its sum are two.
        weights: parameters and buffers.
        gradients: of the weights that train; there before the pass where earlier micro-batches left them.
        activations: held at the end of the forward pass for the backward one, inputs included, logits apart.
        logits: what of it is as wide as the vocabulary.
        peak: the most held at once, weights included.
    """

    forward: int
    backward: int
    weights: int
    gradients: int
    activations: int
    logits: int
    peak: int

    @property
    def flops(self) -> int:
        """Forward and backward."""
        return self.forward + self.backward


class Watch(TorchDispatchMode):
    """While active, counts operations, and the bytes of all blocks of memory they return that are still referred to.

    Args:
        wide: blocks whose tensor's last side is this long are counted by themselves too (logits).
    """

    def __init__(self, wide: int | None = None) -> None:
        super().__init__()
        self.wide = wide
        self.now = self.peak = self.now_wide = 0
        self.flops = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            return True  # whether inputs are as they should be: a model's own check, and there are no values to look at
        out = func(*args, **kwargs)
        if (formula := FORMULAS.get(func.overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        self.hold(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that are there already."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage in self._seen:
                continue
            self._seen.add(storage)
            size = storage.nbytes()
            wide = size if tensor.ndim and tensor.shape[-1] == self.wide else 0
            self.now += size
            self.now_wide += wide
            weakref.finalize(storage, self._freed, size, wide).atexit = False
            self.peak = max(self.peak, self.now)

    def _freed(self, size: int, wide: int) -> None:
        self.now -= size
        self.now_wide -= wide


def training_pass(
    model: StitchModel,
    packed: Packed,
    pictures: Tensor | None,
    *,
    autocast: bool,
    accumulating: bool,
) -> Pass:
    """Forward and backward over one micro-batch.

    Args:
        model: on the meta device; what trains is marked. Consumed: its weights become valueless tensors.
        packed: the text, with labels.
        pictures: on the meta device: patches, or pixels where the encoder runs live; None for a blind model.
        autocast: bfloat16 arithmetic over float32 weights.
        accumulating: gradients of an earlier micro-batch are held already.
    """
    places = (packed.labels != IGNORE).nonzero(as_tuple=True)

    def given() -> Callable[[], Tensor]:
        text, seen = _like(packed), None if pictures is None else _copy(pictures)
        rows, columns = (_copy(place) for place in places)
        return lambda: model.nats_at(text, _seen(model, seen), rows, columns).sum()

    wide = model.lm.get_output_embeddings().weight.shape[0]
    return loss_pass(model, given, autocast=autocast, accumulating=accumulating, wide=wide)


def loss_pass(
    model: nn.Module,
    given: Callable[[], Callable[[], Tensor]],
    *,
    autocast: bool,
    accumulating: bool,
    wide: int | None = None,
) -> Pass:
    """Forward and backward of any module's loss.

    Args:
        model: on the meta device; what trains is marked. Consumed: its weights become valueless tensors.
        given: called where tensors have shape and type alone; makes the inputs and returns what computes the loss.
        autocast: bfloat16 arithmetic over float32 weights.
        accumulating: gradients of an earlier micro-batch are held already.
        wide: length of the last side of the tensors that count as logits.
    """
    with _valueless():
        _shadow(model)
        set_train_mode(model)
        watch = Watch(wide)
        watch.hold([*model.parameters(), *model.buffers()])
        weights = watch.now
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = sum(parameter.numel() * parameter.element_size() for parameter in trained)
        if accumulating:
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
            watch.hold(parameter.grad for parameter in trained if parameter.grad is not None)
        compute = given()
        with watch:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = compute()
            forward, held, logits = watch.flops, watch.now, watch.now_wide
            loss.backward()
        kept = held - weights - logits - (gradients if accumulating else 0)
        return Pass(forward, watch.flops - forward, weights, gradients, kept, logits, watch.peak)


def forward_pass(model: nn.Module, given: Callable[[], Callable[[], Tensor]]) -> Pass:
    """Any module without gradients, in float32.

    Args:
        model, given: as for `loss_pass`; the last call returns what is kept of the pass.
    """
    with _valueless(), torch.no_grad():
        _shadow(model)
        model.eval()
        watch = Watch()
        watch.hold([*model.parameters(), *model.buffers()])
        weights = watch.now
        compute = given()
        with watch:
            kept = compute()
        return Pass(watch.flops, 0, weights, 0, kept.nbytes, 0, watch.peak)


def asking_pass(model: StitchModel, packed: Packed, pictures: Tensor | None) -> Pass:
    """The pass that reads pictures and questions before answers are decoded, with the key-value cache it leaves.

    Args:
        model, packed, pictures: as for `training_pass`, without labels.
    """
    from transformers import DynamicCache

    rows, turns = (packed.last != PADDING).nonzero(as_tuple=True)
    columns = packed.last[rows, turns]
    with _valueless(), torch.no_grad():
        _shadow(model)
        model.eval()
        watch = Watch()
        watch.hold([*model.parameters(), *model.buffers()])
        weights = watch.now
        text, given = _like(packed), None if pictures is None else _copy(pictures)
        row_of, column_of = _copy(rows), _copy(columns)
        cache = DynamicCache()
        with watch:
            visual = _seen(model, given)
            spliced = model.splice(visual, text)
            logits = model.decode(spliced, row_of, column_of + spliced.image_tokens, cache)
        return Pass(watch.flops, 0, weights, 0, watch.now - weights, logits.nbytes, watch.peak)


def encoding_pass(encoder: VisionEncoder, pictures: int) -> Pass:
    """An encoder over a batch of pictures, without gradients.

    Args:
        encoder: an outline on the meta device. Consumed, as by `training_pass`.
        pictures: at once.
    """

    def given() -> Callable[[], Tensor]:
        def encode() -> Tensor:
            return encoder(torch.empty(pictures, 3, encoder.image_size, encoder.image_size))

        return encode

    return forward_pass(encoder, given)


def _seen(model: StitchModel, given: Tensor | None) -> Tensor | None:
    """Pictures as the language model's tokens, through the encoder where it is part of the model."""
    if given is None:
        return None
    return model.project(given if model.encoder is None else model.encode(given))


@contextmanager
def _valueless() -> Iterator[None]:
    """Inside, every new tensor has shape and type alone."""
    with FakeTensorMode(allow_non_fake_inputs=False):
        yield


def _shadow(model: nn.Module) -> None:
    """Replace a module's tensors on the meta device by valueless ones that count as being on the CPU; ties stay."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for holder in ("_parameters", "_buffers"):
            tensors: dict[str, Any] = getattr(module, holder)
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fresh = torch.empty(tensor.shape, dtype=tensor.dtype)
                    if isinstance(tensor, nn.Parameter):
                        fresh = nn.Parameter(fresh, requires_grad=tensor.requires_grad)
                    made[id(tensor)] = fresh
                tensors[name] = made[id(tensor)]


def _copy(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _like(packed: Packed) -> Packed:
    made = {
        field.name: _copy(value)
        for field in fields(packed)
        if isinstance(value := getattr(packed, field.name), Tensor)
    }
    return replace(packed, **made)
