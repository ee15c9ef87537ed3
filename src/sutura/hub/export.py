"""Stitches in other programs' layouts: LLaVA's, and a plain PEFT adapter beside a projector.

Source: the LLaVA layout is that of haotian-liu/LLaVA: `mm_projector.bin` with keys `model.mm_projector.*`, where the
projector is one linear layer (`linear`) or a sequence of linear layers and GELU (`mlp2x_gelu`), and `mm_*` settings in
`config.json`.
Differs: the tensors are in `mm_projector.safetensors`, since no pickle is written here; the card has the line that
makes the `.bin` of it. Our default projector begins with a LayerNorm, for which LLaVA has no name; it is written as the
sequence it is, under the type `ln_mlp2x_gelu`, and the card has the lines that build it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sutura.core.checkpoint import (
    atomic_directory,
    load_tensors,
    read_json,
    save_tensors,
    write_json,
)
from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.hub.staging import clean
from sutura.stitch.bundle import ADAPTER, ENCODER, LLM, PROJECTOR, STITCH

if TYPE_CHECKING:
    from torch import Tensor

LAYOUTS = ("peft", "llava")
#: Our projector → LLaVA's type, and our module → its place in LLaVA's sequence ("" where it is the module itself).
LLAVA: dict[str, tuple[str, dict[str, str]]] = {
    "linear": ("linear", {"fc": ""}),
    "mlp": ("mlp2x_gelu", {"fc1": "0", "fc2": "2"}),
    "ln-mlp": ("ln_mlp2x_gelu", {"norm": "0", "fc1": "1", "fc2": "3"}),
}
MM_PROJECTOR = "mm_projector.safetensors"
_BIN = """
LLaVA reads the projector from a pickle, which is not written here; make it once:

```python
import torch
from safetensors.torch import load_file

torch.save(load_file("mm_projector.safetensors"), "mm_projector.bin")
```
"""
_LN_MLP = """
The projector begins with a LayerNorm, which LLaVA's `build_vision_projector` does not know. Before its own types, add:

```python
if projector_type == "ln_mlp2x_gelu":
    return nn.Sequential(
        nn.LayerNorm(config.mm_hidden_size),
        nn.Linear(config.mm_hidden_size, config.hidden_size),
        nn.GELU(),
        nn.Linear(config.hidden_size, config.hidden_size),
    )
```
"""


def export(stitch: Path, out: Path, layout: str = "peft") -> Path:
    """Write a stitch as another program reads it. The language model and the encoder are named, not copied.

    Args:
        stitch: as `Stitch.save` wrote it.
        out: a new folder.
        layout: `peft` (adapter/, projector.safetensors, config.json) or `llava` (mm_projector.safetensors, config.json,
            adapter files beside them).

    Raises:
        UserError: an unknown layout, a blind stitch, one whose encoder trained along, or a projector that the layout
            has no place for.
    """
    if layout not in LAYOUTS:
        raise UserError(f"There is no layout {layout!r}. {suggest(layout, LAYOUTS)}")
    if not (stitch / STITCH).is_file():
        raise UserError(
            f"{stitch} is no stitch: it holds no {STITCH}. Give the directory `sutura stitch` wrote."
        )
    manifest = read_json(stitch / STITCH)
    if not (stitch / PROJECTOR).is_file():
        raise UserError(
            f"{stitch} is blind: it has no projector, and neither layout has a place for such a stitch."
        )
    if (stitch / ENCODER).is_file():
        raise UserError(
            f"The encoder of {stitch} was trained along, and neither layout holds an encoder; pass on the stitch."
        )
    with atomic_directory(out) as folder:
        (_llava if layout == "llava" else _peft)(stitch, manifest, folder)
        clean(folder)
    return out


def _peft(stitch: Path, manifest: Mapping[str, Any], folder: Path) -> None:
    shutil.copyfile(stitch / PROJECTOR, folder / PROJECTOR)
    trained = _trained(stitch, folder / ADAPTER)
    config = manifest["config"]
    write_json(folder / "config.json", {**_about(manifest), "projector": config["projector"]["kind"]})
    _card(
        folder,
        f"Base language model `{config['llm']['id']}`; {trained}. The projector's tensors are in `{PROJECTOR}` "
        f"({config['projector']['kind']}). Tokens of the picture, projected, go before the text, which is made with "
        "the tokenizer's chat template.\n",
    )


def _llava(stitch: Path, manifest: Mapping[str, Any], folder: Path) -> None:
    config, facts = manifest["config"], manifest["encoder"]
    kind = config["projector"]["kind"]
    if kind not in LLAVA:
        raise UserError(f"LLaVA's layout has no place for a {kind!r} projector; use layout peft.")
    name, places = LLAVA[kind]
    tensors = renamed(load_tensors(stitch / PROJECTOR), places)
    save_tensors(folder / MM_PROJECTOR, tensors)
    trained = _trained(stitch, folder)
    last = max(places.values())
    width = int(tensors[f"model.mm_projector.{f'{last}.' if last else ''}bias"].shape[0])
    write_json(
        folder / "config.json",
        {
            **_about(manifest),
            "mm_vision_tower": facts["id"],
            "mm_projector_type": name,
            "mm_hidden_size": facts["width"],
            "hidden_size": width,
            "mm_vision_select_layer": _select_layer(config["encoder"]["layer"]),
            "mm_vision_select_feature": "patch",
            "mm_use_im_start_end": False,
            "mm_use_im_patch_token": False,
            "tune_mm_mlp_adapter": True,
        },
    )
    more = _LN_MLP if kind == "ln-mlp" else ""
    _card(folder, f"LLaVA's layout. Base language model `{config['llm']['id']}`; {trained}.\n{_BIN}{more}")


def renamed(tensors: Mapping[str, Tensor], places: Mapping[str, str]) -> dict[str, Tensor]:
    """A projector's tensors under LLaVA's names; every one of them has a place."""
    found = {}
    for key, tensor in tensors.items():
        module, _, parameter = key.rpartition(".")
        place = places[module]
        found[f"model.mm_projector.{f'{place}.' if place else ''}{parameter}"] = tensor
    return found


def _select_layer(layer: int) -> int:
    """LLaVA counts hidden states, of which the first are the embeddings; from the end both count alike."""
    return layer if layer < 0 else layer + 1


def _trained(stitch: Path, target: Path) -> str:
    """Copy what trained in the language model; says what that was."""
    if (stitch / ADAPTER).is_dir():
        shutil.copytree(stitch / ADAPTER, target, dirs_exist_ok=True)
        return "its LoRA adapter is in PEFT's layout"
    if (stitch / LLM).is_file():
        target.mkdir(parents=True, exist_ok=True)
        save_tensors(target / "model.safetensors", load_tensors(stitch / LLM))
        return "all its weights were trained and are in `model.safetensors`"
    return "nothing of it was trained"


def _about(manifest: Mapping[str, Any]) -> dict[str, Any]:
    config, facts = manifest["config"], manifest["encoder"]
    return {
        "made_by": f"sutura {manifest['sutura']}",
        "encoder": {
            key: facts.get(key) for key in ("id", "revision", "licence", "num_tokens", "layer", "final_norm")
        },
        "language_model": {"id": config["llm"]["id"], "revision": manifest.get("llm_revision")},
        "prompt": config["prompt"],
        "seed": config["seed"],
    }


def _card(folder: Path, text: str) -> None:
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    encoder = about["encoder"]
    licence = f"Encoder `{encoder['id']}`, licence {encoder['licence'] or 'not known'}.\n"
    (folder / "README.md").write_text(f"# Exported stitch\n\n{licence}\n{text}", encoding="utf-8")
