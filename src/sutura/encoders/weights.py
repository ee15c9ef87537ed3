"""Weights that are safetensors, complete, and accounted for to the last key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sutura.core.errors import UserError

#: First parts of names that a checkpoint may hold beside the vision trunk, and what they are.
DROPPED = {
    "text_model": "text tower",
    "text": "text tower",
    "transformer": "text tower",
    "token_embedding": "text tower",
    "positional_embedding": "text tower",
    "ln_final": "text tower",
    "text_projection": "projection heads",
    "visual_projection": "projection heads",
    "attn_mask": "text tower",
    "logit_scale": "temperature",
    "logit_bias": "temperature",
    "classifier": "classifier",
    "cls_classifier": "classifier",
    "distillation_classifier": "classifier",
    "pooler": "pooler",
    "decoder": "decoder",
    "predictor": "predictor",
    "head": "head",
}

_PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".msgpack", ".h5", ".npz")


def find_weights(folder: Path, names: Sequence[str]) -> Path:
    """The first of some safetensors files that is there.

    Raises:
        UserError: none is; with the way to convert when weights lie there in another format.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if others:
        raise UserError(
            f"{folder} holds weights as {', '.join(others[:3])}; such files can run code when they are "
            "opened, so "
            "only safetensors are read. Convert them once, where you trust the file: load the model with its "
            "library "
            f"and save it again (safetensors.torch.save_file(model.state_dict(), '{names[0]}'))."
        )
    raise UserError(f"{folder} holds no weights: none of {', '.join(names)} is there.")


def account(left_over: Iterable[str], what: str, extra: Sequence[str] = ()) -> dict[str, int]:
    """Count the keys of a checkpoint that are no part of the vision trunk.

    Args:
        left_over: keys that were not loaded.
        what: names the checkpoint in the message.
        extra: further first parts that may be dropped.

    Returns:
        Part of the model → number of its tensors left out.

    Raises:
        UserError: a key that belongs to nothing known, which would be a weight lost in silence.
    """
    counts: dict[str, int] = {}
    unknown = []
    for key in left_over:
        first = key.split(".")[0]
        part = DROPPED.get(first) or (first if first in extra else None)
        if part is None:
            unknown.append(key)
        else:
            counts[part] = counts.get(part, 0) + 1
    if unknown:
        raise UserError(
            f"{what} holds {len(unknown)} weights that its architecture has no place for "
            f"({', '.join(sorted(unknown)[:4])}{' …' if len(unknown) > 4 else ''}). Nothing was loaded."
        )
    return dict(sorted(counts.items()))


def library_model(cls: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    """A transformers model out of a folder, in float32, and what loading it says of keys, for the caller to judge.

    Raises:
        UserError: no safetensors, or files that the class cannot load.
    """
    import torch

    find_weights(folder, ("model.safetensors", "model.safetensors.index.json"))
    try:
        return cls.from_pretrained(
            str(folder),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from None
