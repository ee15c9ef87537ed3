"""Language models: loading them whole, freezing them, putting an adapter on."""

from __future__ import annotations

import warnings
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from sutura.core.checkpoint import load_tensors, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.fetch import Fetched, fetch
from sutura.core.hashing import fingerprint_tensors
from sutura.core.runtime import pick_dtype, seed_everything
from sutura.stitch.config import LlmConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ATTENTION = ("sdpa", "eager")
GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: What of a Hub repository is a language model with its tokenizer.
FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
#: Of those, copies for other programs.
OTHER_FILES = ("*/*", "consolidated*")


def load_tokenizer(config: LlmConfig) -> PreTrainedTokenizerBase:
    """The tokenizer that travels with the language model."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    place, _ = place_of(config)
    try:
        saved = get_tokenizer_config(place)
        # AutoTokenizer puts the architecture's own splitting rules in the place of those in tokenizer.json
        # (for Qwen2, for one): text would be cut into other tokens than the model was trained on.
        generic = saved.get("tokenizer_class") in GENERIC_TOKENIZERS and "auto_map" not in saved
        kind: Any = PreTrainedTokenizerFast if generic else AutoTokenizer
        return kind.from_pretrained(place, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(
            f"No tokenizer could be loaded for language model {config.id!r}: {_first(error)}"
        ) from None


def load_language_model(config: LlmConfig) -> tuple[PreTrainedModel, str]:
    """A causal language model, frozen, in eval mode, with the fingerprint of its weights.

    Raises:
        UserError: not there, not safetensors, a weight missing or left over, or an architecture whose
            attention cannot take a mask of our own.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    dtype = torch.float32 if config.train == "full" else pick_dtype(config.dtype)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            place_of(config)[0],
            dtype=dtype,
            attn_implementation=config.attention,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # told by the loading info, and refused below
            trust_remote_code=config.trust_remote_code,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"Language model {config.id!r} could not be loaded: {_first(error)}") from None
    model, info = loaded
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    faults = {name: sorted(set(info.get(name) or ()) - tied) for name in ("missing_keys", "mismatched_keys")}
    faults["unexpected_keys"] = sorted(info.get("unexpected_keys") or ())
    if any(faults.values()):
        told = "; ".join(
            f"{name.replace('_', ' ')}: {', '.join(map(str, keys[:4]))}"
            for name, keys in faults.items()
            if keys
        )
        raise UserError(f"Weights of language model {config.id!r} do not fit its architecture ({told}).")
    check_mask_support(model, config)
    model.requires_grad_(False)
    model.eval()
    return model, fingerprint_tensors(model.state_dict())


def embedding_size(model: nn.Module) -> tuple[int, int]:
    """Tokens that a language model embeds, and the width it embeds them in."""
    whole: Any = model
    tokens, width = whole.get_input_embeddings().weight.shape
    return tokens, width


def check_mask_support(model: PreTrainedModel, config: LlmConfig) -> None:
    """Refuse what would silently ignore our mask or positions."""
    import inspect

    parameters = inspect.signature(model.forward).parameters
    if not {"position_ids", "inputs_embeds", "attention_mask"} <= set(parameters):
        raise UserError(
            f"{type(model).__name__} takes no position_ids or inputs_embeds, so questions cannot share a "
            "picture's tokens in it; choose a language model with rotary or learned positions."
        )
    used = model.config._attn_implementation
    if used not in ATTENTION:
        raise UserError(
            f"{config.id!r} runs {used!r} attention; a mask of our own needs one of {', '.join(ATTENTION)}."
        )
    # Newer transformers refuse this themselves; the oldest supported one leaves the cap out without a word.
    if used == "sdpa" and getattr(model.config, "attn_logit_softcapping", None):
        raise UserError(
            f"{config.id!r} caps its attention scores, which SDPA cannot do; set llm.attention=eager."
        )


def add_adapter(model: PreTrainedModel, config: LlmConfig, *, seed: int) -> PreTrainedModel | PeftModel:
    """Make trainable what the config says; the adapter's first weights depend on the seed alone.

    Raises:
        UserError: no layer of the model has one of the target names.
    """
    if config.train == "none":
        adapted: Any = model
    elif config.train == "full":
        adapted = model.requires_grad_(True)
    else:
        from peft import LoraConfig, get_peft_model

        targets = config.targets if isinstance(config.targets, str) else list(config.targets)
        lora = LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )
        seed_everything(seed, "adapter")
        try:
            with warnings.catch_warnings():  # peft still reads a flag that transformers is renaming
                warnings.simplefilter("ignore", FutureWarning)
                adapted = get_peft_model(model, lora)
        except ValueError as error:
            linear = sorted(
                {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
            )
            raise UserError(
                f"No adapter could be put on {config.id!r} at {targets}: {_first(error)} Its linear layers "
                f"are named {', '.join(linear)}; set llm.targets."
            ) from None
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return adapted


def save_adapter(model: PeftModel, directory: Path, config: LlmConfig | None = None) -> None:
    """Write the adapter in PEFT's own layout; with a config, its base is named as there, not by a folder of a cache."""
    model.save_pretrained(str(directory), safe_serialization=True)
    if config is not None:
        named = {"base_model_name_or_path": config.id, "revision": config.revision}
        write_json(directory / ADAPTER_CONFIG, read_json(directory / ADAPTER_CONFIG) | named)
    readme = directory / "README.md"  # PEFT's card is a template to fill in; ours stands one level up
    readme.unlink(missing_ok=True)


def load_adapter(model: PeftModel, directory: Path) -> None:
    """Put saved weights into an adapter of the same shape; every key must land.

    Raises:
        UserError: a missing file, or keys or shapes that are not this adapter's.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    saved = load_tensors(directory / ADAPTER_WEIGHTS)
    expected = get_peft_model_state_dict(model)
    wrong = sorted(saved.keys() ^ expected.keys())
    wrong += sorted(k for k in saved.keys() & expected.keys() if saved[k].shape != expected[k].shape)
    if wrong:
        raise UserError(
            f"The adapter in {directory.name} was made for another language model or rank: {len(wrong)} "
            f"weights do not fit ({', '.join(wrong[:3])}{' …' if len(wrong) > 3 else ''}); none was loaded."
        )
    set_peft_model_state_dict(model, saved)
    for parameter in model.parameters():
        if parameter.requires_grad:  # in the precision it was trained in, so that it answers as it did
            parameter.data = parameter.data.to(next(iter(saved.values())).dtype)


def place_of(config: LlmConfig) -> tuple[str, str | None]:
    """The folder of a language model, downloaded where it is the Hub's, and its commit there (else None)."""
    place = locate(config.id)
    if Path(place).expanduser().is_dir():
        return str(Path(place).expanduser()), None
    patterns = (*FILES, "*.py") if config.trust_remote_code else FILES
    try:
        found: Fetched = fetch(place, revision=config.revision, patterns=patterns, ignore=OTHER_FILES)
    except UserError as error:
        raise UserError(f"Language model {config.id!r} could not be loaded: {error}") from None
    return str(found.folder), found.revision


def locate(identifier: str) -> str:
    """`zoo:NAME` as a folder of this package; anything else as it is.

    Raises:
        UserError: a zoo name that is not there.
    """
    kind, _, name = identifier.partition(":")
    if kind != "zoo":
        return identifier
    folder = Path(str(files("sutura"))) / "zoo" / name
    if not (folder / "config.json").is_file():
        raise UserError(f"The zoo holds no language model {name!r}; `sutura zoo list` lists what it holds.")
    return str(folder)


def _first(error: BaseException) -> str:
    """The first sentence of a library's message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
