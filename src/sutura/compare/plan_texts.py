"""Text networks without weights, by id: those a language model's table has, and two encoders that presets name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sutura.core.errors import UserError
from sutura.stitch.config import LlmConfig
from sutura.stitch.language import locate
from sutura.stitch.language_outline import is_local, language_config
from sutura.stitch.language_rows import BY_ID

#: Shapes by transformers' names; nobody here has read them in the checkpoints' own config.json.
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-base-uncased": ("bert", {}),  # the library's defaults are this checkpoint's shape
    "google-bert/bert-base-uncased": ("bert", {}),
    "google/embeddinggemma-300m": (
        "gemma3_text",
        {
            "vocab_size": 262_144,
            "hidden_size": 768,
            "intermediate_size": 1_152,
            "num_hidden_layers": 24,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "use_bidirectional_attention": True,
        },
    ),
}


def outline_text_network(id: str) -> tuple[nn.Module, int]:
    """A text network as transformers' AutoModel loads it, on the meta device, with the width of its states.

    Raises:
        UserError: a name whose shape is not known here.
    """
    from transformers import AutoConfig, AutoModel

    local = Path(locate(id)).expanduser()
    if is_local(LlmConfig(id=id)):
        config = AutoConfig.from_pretrained(str(local), local_files_only=True)
    elif id in ENCODERS:
        kind, shape = ENCODERS[id]
        config = AutoConfig.for_model(kind, **shape)
    elif id in BY_ID:
        config = language_config(LlmConfig(id=id))
    else:
        raise UserError(
            f"The shape of text network {id!r} is not known here, and a plan downloads nothing. Known: "
            f"{', '.join(ENCODERS)} and the table of language models; or give a folder with its config.json."
        )
    with torch.device("meta"):
        return AutoModel.from_config(config, dtype=torch.float32).eval(), config.hidden_size
