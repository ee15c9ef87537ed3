"""The folder a zoo encoder lives in: config.json, model.safetensors, README.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sutura.core.checkpoint import (
    atomic_directory,
    load_strict,
    load_tensors,
    read_json,
    save_tensors,
    write_json,
)
from sutura.core.errors import UserError
from sutura.models.vit import ViT

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
#: Of the weights on disk.
SAVED = torch.bfloat16


def save_zoo_vit(
    folder: Path,
    vit: ViT,
    *,
    args: Mapping[str, Any],
    transform: Mapping[str, Any],
    about: Mapping[str, Any],
    card: str,
    dtype: torch.dtype = SAVED,
    replace: bool = False,
) -> None:
    """Write an encoder as one folder, whole or not at all.

    Args:
        folder: made here.
        vit: the encoder.
        args: the keyword arguments that `vit` was built with.
        transform: `image_size`, `mean` and `std` a picture is brought to.
        about: facts that go into the config beside these: objective, data, budget, versions.
        card: the README's text.
        dtype: of the weights on disk.
        replace: whether an existing folder may be replaced.

    Raises:
        UserError: `args` do not build this encoder, or a weight does not fit the dtype.
    """
    tensors = {name: tensor.to(dtype) for name, tensor in vit.state_dict().items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"Weight {name!r} is not finite as {dtype}; the encoder is not saved.")
    load_strict(ViT(**args), vit.state_dict(), f"{folder.name} (built anew from its arguments)")
    config = {
        "model": "vit",
        "args": dict(args),
        "transform": dict(transform),
        "dtype": str(dtype).removeprefix("torch."),
        **about,
    }
    with atomic_directory(folder, replace=replace) as temporary:
        save_tensors(temporary / WEIGHTS, tensors)
        write_json(temporary / CONFIG, config)
        (temporary / CARD).write_text(card, encoding="utf-8")


def read_zoo_config(folder: Path) -> dict[str, Any]:
    """The config of a zoo folder. Raises UserError when it is not one."""
    config = read_json(folder / CONFIG)
    missing = [key for key in ("model", "args", "transform") if key not in config]
    if missing or config["model"] != "vit":
        raise UserError(
            f"{folder / CONFIG} is no zoo encoder's: "
            + (
                f"it lacks {', '.join(missing)}."
                if missing
                else f"model={config['model']!r}, expected 'vit'."
            )
        )
    return config


def load_zoo_vit(folder: Path) -> tuple[ViT, dict[str, Any]]:
    """An encoder in float32 and eval mode, and its config; every weight lands or the program stops."""
    config = read_zoo_config(folder)
    try:
        vit = ViT(**config["args"])
    except (TypeError, ValueError) as error:
        raise UserError(f"The arguments in {folder / CONFIG} do not build a ViT: {error}") from None
    tensors = {name: tensor.float() for name, tensor in load_tensors(folder / WEIGHTS).items()}
    load_strict(vit, tensors, str(folder))
    return vit.eval(), config
