"""Vision models of transformers: the families known by name, and any other that gives hidden states."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.runtime import seeded
from sutura.encoders.base import Trunk, VisionEncoder, resolve_layer
from sutura.encoders.config import EncoderConfig
from sutura.encoders.families import FAMILIES, Family
from sutura.encoders.transform import from_numbers, from_processor
from sutura.encoders.weights import account, find_weights

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
#: What to download of a Hub repository in this format.
PATTERNS = ("*.json", "model*.safetensors")
#: More tokens than this before the patches are not believed of an architecture nobody here has looked at.
MOST_PREFIX = 16
#: What of a config changes from file to file without a change in what the model computes.
_BOOKKEEPING = (
    "transformers_version",
    "architectures",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "id2label",
    "label2id",
)


class FamilyTrunk(Trunk):
    """One of the families: the output of a block, prefix cut off.

    The block's output is taken by a hook, so it is before any final norm, whatever the model does after it.

    Args:
        model: the vision tower.
        family: what is known of its architecture.
        layer: which block, as a config says it.
        final_norm: whether the model's final norm is applied.
    """

    def __init__(self, model: nn.Module, family: Family, layer: int, *, final_norm: bool) -> None:
        super().__init__()
        config: Any = model.config
        self.model, self.family, self.config = model, family, config
        self.num_prefix_tokens = family.prefix(config)
        self.patch_size = self._patch = _one(config.patch_size)
        self.architecture = architecture(config)
        self.depth = config.num_hidden_layers
        self.layer = resolve_layer(layer, self.depth, family.model)
        self._norm = _named(model, family.norm) if final_norm else ""
        self._blocks = _block_list(model, self.depth)

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.model.get_submodule(self._blocks).children())[: self.layer + 1]

    def forward(
        self, pixels: Float[Tensor, "batch 3 height_px width_px"]
    ) -> Float[Tensor, "batch width rows columns"]:
        kept: list[Tensor] = []

        def keep(module: nn.Module, given: Any, output: Any) -> None:
            kept.append(output[0] if isinstance(output, tuple) else output)

        handle = self.blocks()[-1].register_forward_hook(keep)
        try:
            self.model(**self.family.inputs(pixels, self.config))
        finally:
            handle.remove()
        tokens = kept[0]  # B P+N D
        if self._norm:
            tokens = self.model.get_submodule(self._norm)(tokens)
        return as_map(tokens, pixels, self._patch, self.num_prefix_tokens)


class OtherTrunk(Trunk):
    """Any other vision model: its own hidden states, as tokens or as a map.

    Args:
        model: the vision tower.
        layer: which hidden state, as a config says it; stages count for a conv net.
        image_size: of the probe that finds out what the model gives.
    """

    def __init__(self, model: nn.Module, layer: int, image_size: int) -> None:
        super().__init__()
        self.model = model
        self.architecture = architecture(model.config)
        self.layer, self.depth = 0, 1
        with torch.no_grad():
            states = self._states(torch.zeros(1, 3, image_size, image_size))
        self.depth = len(states) - 1
        self.layer = resolve_layer(layer, self.depth, type(model).__name__)
        state = states[self.layer + 1]
        if state.ndim == 3:
            patch = getattr(model.config, "patch_size", None)
            if patch is None:
                raise UserError(f"{type(model).__name__} gives tokens but its config names no patch_size.")
            self.patch_size = _one(patch)
            self.num_prefix_tokens = state.shape[1] - (image_size // self.patch_size) ** 2
            if not 0 <= self.num_prefix_tokens <= MOST_PREFIX:
                raise UserError(
                    f"{type(model).__name__} gives {state.shape[1]} tokens for "
                    f"{(image_size // self.patch_size) ** 2} patches; which of them are patches is not known "
                    "here."
                )

    def _states(self, pixels: Tensor) -> Sequence[Tensor]:
        """Embeddings, then every block's or stage's output."""
        output = self.model(pixel_values=pixels, output_hidden_states=True)
        states = getattr(output, "reshaped_hidden_states", None) or getattr(output, "hidden_states", None)
        if not states or len(states) < 2:
            raise UserError(
                f"{type(self.model).__name__} gives no hidden states, so there are no patches to read."
            )
        return states

    def forward(
        self, pixels: Float[Tensor, "batch 3 height_px width_px"]
    ) -> Float[Tensor, "batch width rows columns"]:
        state = self._states(pixels)[self.layer + 1]
        if state.ndim == 4:
            return state
        return as_map(state, pixels, self.patch_size or 1, self.num_prefix_tokens)


def as_map(
    tokens: Float[Tensor, "batch all_tokens width"],
    pixels: Float[Tensor, "batch 3 height_px width_px"],
    patch_size: int,
    num_prefix_tokens: int,
) -> Float[Tensor, "batch width rows columns"]:
    """Cut the prefix off and lay the patches out; refuse when they do not fill the grid."""
    rows, columns = pixels.shape[2] // patch_size, pixels.shape[3] // patch_size
    if tokens.shape[1] != num_prefix_tokens + rows * columns:
        raise UserError(
            f"The model gave {tokens.shape[1]} tokens; {num_prefix_tokens} prefix tokens and {rows} × "
            f"{columns} "
            f"patches make {num_prefix_tokens + rows * columns}."
        )
    return tokens[:, num_prefix_tokens:].transpose(1, 2).unflatten(2, (rows, columns))


def load_transformers(folder: Path, config: EncoderConfig, about: Mapping[str, Any]) -> VisionEncoder:
    """An encoder from a folder in transformers' format.

    Args:
        folder: config.json, safetensors, and a preprocessor's config.
        config: the row asked for.
        about: what is known of the checkpoint.

    Raises:
        UserError: weights missing, left over or not safetensors; a transform that is not there; sizes that do
            not fit.
    """
    if config.transform is not None:
        transform = from_numbers(config.transform, config.image_size)
    else:
        transform = _packed(folder, config) or from_processor(folder, config.image_size)
    with _quiet():
        vision = _vision_config(folder, config)
        family = FAMILIES.get(vision.model_type)
        if family is not None and family.resized:
            setattr(vision, family.size, transform.size())
        for name, value in family.settings if family is not None else ():
            setattr(vision, name, value)
        arguments = dict(family.arguments) if family is not None else {}
        cls = _model_class(family)
        if config.untrained_seed is not None:
            with seeded(config.untrained_seed, "untrained"):
                model = _new(cls, vision, arguments)
            dropped: dict[str, int] = {}
        else:
            model, dropped = _load(cls, folder, vision, arguments, config)
    model.eval()
    size = transform.size()
    if family is not None:
        kept = model.get_submodule(family.trunk)
        trunk: Trunk = FamilyTrunk(kept, family, config.layer, final_norm=config.final_norm)
        if kept is not model:
            dropped = dropped | _beside(model, family.trunk)
    else:
        if config.final_norm:
            raise UserError(
                f"The final norm of {type(model).__name__} is not known here; leave final_norm off."
            )
        try:
            trunk = OtherTrunk(model, config.layer, size)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{type(model).__name__} cannot be used as an encoder: {error}") from None
    notes = {"architecture": type(model).__name__, "left_out": dropped}
    return VisionEncoder(trunk, transform, config, {**notes, **about})


def architecture(config: Any) -> dict[str, Any]:
    """What of a config decides the computation: its differences from the class's defaults."""
    values = json.loads(config.to_json_string(use_diff=True))
    return {key: value for key, value in values.items() if key not in _BOOKKEEPING}


def _load(
    cls: Any, folder: Path, vision: Any, arguments: Mapping[str, Any], config: EncoderConfig
) -> tuple[nn.Module, dict[str, int]]:
    find_weights(folder, WEIGHTS)
    try:
        model, info = cls.from_pretrained(
            str(folder),
            config=vision,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **({"trust_remote_code": True} if config.trust_remote_code else {}),
            **arguments,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"The weights in {folder} do not fit {cls.__name__}: {str(error).splitlines()[0]}"
        ) from None
    missing = sorted(info["missing_keys"])
    if missing or info["mismatched_keys"]:
        shown = [*missing, *(str(key) for key in info["mismatched_keys"])]
        raise UserError(
            f"{len(shown)} weights of {cls.__name__} are missing from {folder} or have another shape "
            f"({', '.join(shown[:4])}{' …' if len(shown) > 4 else ''}); they would be random. Nothing was "
            "loaded."
        )
    return model, account(info["unexpected_keys"], str(folder))


def _vision_config(folder: Path, config: EncoderConfig) -> Any:
    from transformers import AutoConfig

    try:
        whole = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} cannot be read as a transformers model: {str(error).splitlines()[0]}"
        ) from None
    return getattr(whole, "vision_config", None) or whole


def _model_class(family: Family | None) -> Any:
    import transformers

    return transformers.AutoModel if family is None else getattr(transformers, family.model)


def _new(cls: Any, vision: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """A model with the random weights its architecture starts from."""
    try:
        return cls.from_config(vision) if hasattr(cls, "from_config") else cls(vision, **arguments)
    except ValueError as error:
        raise UserError(
            f"transformers cannot build {vision.model_type!r}: {str(error).splitlines()[0]}"
        ) from None


def _packed(folder: Path, config: EncoderConfig) -> Any:
    """A square transform for SigLIP 2's NaFlex form, whose own keeps the shape of each picture."""
    given = folder / "preprocessor_config.json"
    values = json.loads(given.read_text(encoding="utf-8")) if given.is_file() else {}
    if not str(values.get("image_processor_type", "")).startswith("Siglip2"):
        return None
    from sutura.encoders.config import TransformConfig

    side = config.image_size or values["patch_size"] * int(values["max_num_patches"] ** 0.5)
    return from_numbers(
        TransformConfig(
            image_size=side,
            mean=tuple(values["image_mean"]),
            std=tuple(values["image_std"]),
            resize="squash",
            interpolation="bilinear",
        )
    )


def _beside(model: nn.Module, kept: str) -> dict[str, int]:
    """Tensors of the parts of a model that are not kept."""
    return account(
        (name for name in model.state_dict() if not name.startswith(kept + ".")), type(model).__name__
    )


def _block_list(model: nn.Module, depth: int) -> str:
    """Path of the one list of as many blocks as the config says."""
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if len(found) != 1:
        raise UserError(f"{type(model).__name__} has {len(found)} lists of {depth} blocks; one was expected.")
    return found[0]


def _named(model: nn.Module, name: str) -> str:
    """Path of the one module of a name."""
    found = [path for path, _ in model.named_modules() if path.split(".")[-1] == name]
    if len(found) != 1:
        raise UserError(f"{type(model).__name__} has {len(found)} modules called {name!r}; one was expected.")
    return found[0]


def _one(size: Any) -> int:
    """A patch size that is the same both ways."""
    sides = set(size) if isinstance(size, (list, tuple)) else {size}
    if len(sides) != 1:
        raise UserError(f"Patches of {tuple(size)} are not square; they are not supported.")
    return int(sides.pop())


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers reports left-out keys as warnings; here they are accounted for instead."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
