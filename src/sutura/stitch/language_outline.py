"""Language models without weights, on the meta device: what a plan is computed from. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.core.runtime import pick_dtype
from sutura.stitch.config import LlmConfig
from sutura.stitch.language import add_adapter, check_mask_support, locate
from sutura.stitch.language_rows import BY_ID, language_row

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def is_local(config: LlmConfig) -> bool:
    """Whether the language model is a folder of this machine or of the zoo."""
    return (Path(locate(config.id)).expanduser() / "config.json").is_file()


def shape_source(config: LlmConfig) -> str:
    """Where the shape comes from, in words."""
    if is_local(config):
        return "its config.json"
    row = language_row(config.id)
    return "unknown" if row is None else f"the table (unchecked: {', '.join(row.unchecked)})"


def language_config(config: LlmConfig) -> Any:
    """The transformers config of a language model: of a local folder, of the zoo, or of the table.

    Raises:
        UserError: a folder that transformers cannot read, or a name that the table does not have.
    """
    from transformers import AutoConfig

    if is_local(config):
        folder = str(Path(locate(config.id)).expanduser())
        try:
            return AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=config.trust_remote_code
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder} cannot be read as a language model: {str(error).splitlines()[0]}"
            ) from None
    row = language_row(config.id)
    if row is None:
        raise UserError(
            f"The shape of language model {config.id!r} is not known here, and a plan downloads nothing. "
            f"{suggest(config.id, BY_ID)} Or give a folder with its config.json as llm.id."
        )
    return AutoConfig.for_model(row.model_type, **row.shape)


def outline_language_model(config: LlmConfig) -> PreTrainedModel | PeftModel:
    """The model as training has it, adapter and all, on the meta device: every shape and type, no weight.

    Raises:
        UserError: an unknown shape, or a model that a stitch cannot use.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.float32 if config.train == "full" else pick_dtype(config.dtype)
    with torch.device("meta"):
        try:
            model = AutoModelForCausalLM.from_config(
                language_config(config), dtype=dtype, attn_implementation=config.attention
            )
        except ValueError as error:
            raise UserError(
                f"transformers cannot build language model {config.id!r}: {str(error).splitlines()[0]}"
            ) from None
        model.requires_grad_(False)
        check_mask_support(model, config)
        return add_adapter(model.eval(), config, seed=0)
