"""Stitches that an earlier study published: one folder an encoder, in a layout of its own.

Source: the folders of REDDITARUN/CLIP-ViT-IJEPA-VLM (2026): `config.json` (ids of encoder and language model),
`projector.pt` (a state dict of norm, fc1, fc2), `lora_adapter/` (PEFT), `loss_history.json`.
Differs: what is answered is scored by our protocol, with no minimum length and stop tokens of the tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sutura.core.checkpoint import load_strict, read_json
from sutura.core.errors import UserError
from sutura.core.runtime import pick_device
from sutura.encoders.config import EncoderConfig
from sutura.stitch.config import LlmConfig, PromptConfig, StitchConfig
from sutura.stitch.folder import CONFIG, PROJECTOR
from sutura.stitch.language import ADAPTER_CONFIG, load_adapter

if TYPE_CHECKING:
    from sutura.stitch.bundle import Stitch

ADAPTER, LOSSES = "lora_adapter", "loss_history.json"
#: The files that make a folder one of these, as patterns for a download.
FILES = (CONFIG, PROJECTOR, LOSSES, f"{ADAPTER}/*.json", f"{ADAPTER}/*.safetensors")
#: Settings of a PEFT adapter that change what it computes, and their values in a plain one.
_PLAIN: dict[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "layers_to_transform": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "alora_invocation_tokens": None,
}
#: Ways to begin an adapter that leave other base weights behind: their adapters belong to those, not to the checkpoint.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")


def load_published(
    folder: Path,
    build: Callable[[StitchConfig, Mapping[str, Any]], Stitch],
    *,
    device: str = "auto",
    encoder: bool = True,
) -> Stitch:
    """A published folder as a stitch that can be asked and scored; nothing in the folder can run code.

    It is asked as it was trained: the picture's tokens, then the text `<image>`, a new line and the question.

    Args:
        folder: holds config.json, projector.pt and lora_adapter/.
        build: makes a fresh stitch of a config and the encoder's facts.
        device: where to run.
        encoder: attach the encoder; it is loaded in any case, since its width and number of tokens are read from it.

    Raises:
        UserError: a file missing, weights that do not fit, a projector file with more in it than tensors, or an
            adapter of another kind than plain LoRA.
    """
    from sutura.encoders import load_encoder

    written = _table(folder / CONFIG)
    eyes = load_encoder(_encoder(folder, written))
    facts = {**eyes.facts(), "name": eyes.name, "width": eyes.width, "fingerprint": eyes.fingerprint}
    config = StitchConfig(
        encoder=eyes.config, llm=_llm(folder, written), prompt=PromptConfig(template="published")
    )
    stitch = build(config, facts)
    assert stitch.model.projector is not None
    load_strict(stitch.model.projector, _projector(folder / PROJECTOR), f"the projector in {folder.name}")
    load_adapter(stitch.model.lm, folder / ADAPTER)
    stitch.model.to(pick_device(device)).eval()
    if encoder:
        stitch.attach(eyes)
        eyes.to(stitch.model.device)
    return stitch


def _encoder(folder: Path, written: Mapping[str, Any]) -> EncoderConfig:
    """The study read `last_hidden_state`: behind the final norm, except in CLIP, which norms its pooled token only."""
    from sutura.encoders.catalog import BY_ID

    name = _named(folder, written, "encoder_model_id")
    known = name in BY_ID or ":" in name or Path(name).expanduser().is_dir()
    return EncoderConfig(
        id=name if known else f"hf:{name}",
        final_norm="clip" not in _named(folder, written, "encoder_type").lower(),
        name=str(written.get("encoder_name") or folder.name),
    )


def _llm(folder: Path, written: Mapping[str, Any]) -> LlmConfig:
    path = folder / ADAPTER / ADAPTER_CONFIG
    saved = _table(path)
    odd = [
        f"{key}={saved[key]!r}" for key, plain in _PLAIN.items() if (saved.get(key, plain) or plain) != plain
    ]
    start = str(saved.get("init_lora_weights")).lower()
    if start.startswith(_CHANGES_BASE):
        odd.append(f"init_lora_weights={start}, which changes the language model too")
    targets = saved.get("target_modules")
    if isinstance(targets, str) and targets != "all-linear":
        odd.append(f"target_modules={targets!r}, a pattern and no list of names")
    if odd:
        raise UserError(
            f"The adapter in {folder / ADAPTER} is no plain LoRA ({', '.join(odd)}), which is all this program "
            "can put on a language model. Nothing was loaded."
        )
    try:
        numbers = int(saved["r"]), int(saved["lora_alpha"]), float(saved.get("lora_dropout") or 0.0)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} does not say r and lora_alpha as numbers ({error}). Nothing was loaded."
        ) from None
    return LlmConfig(
        id=_named(folder, written, "llm_model_id"),
        rank=numbers[0],
        alpha=numbers[1],
        dropout=numbers[2],
        targets="all-linear" if targets == "all-linear" else tuple(sorted(targets or ())),
    )


def _table(path: Path) -> dict[str, Any]:
    """A JSON object, or a sentence."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no table of settings. Nothing was loaded.")
    return found


def _named(folder: Path, written: Mapping[str, Any], key: str) -> str:
    if not written.get(key):
        raise UserError(f"{folder / CONFIG} says no {key}, without which the folder cannot be put together.")
    return str(written[key])


def _projector(path: Path) -> dict[str, Any]:
    """Tensors of a `.pt` file; `weights_only` refuses whatever could run code."""
    import torch

    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file made to do harm can break the reading of it in any way
        raise UserError(
            f"{path} holds more than tensors, or is damaged; such a file could run code, so nothing was loaded "
            f"({type(error).__name__}). Ask its authors for a plain state dict."
        ) from None
    if not isinstance(tensors, dict) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise UserError(f"{path} is no state dict of tensors. Nothing was loaded.")
    return tensors
