"""The shapes of known language models, so that a run can be planned before a checkpoint is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LanguageRow:
    """One checkpoint's shape.

    Args:
        id: its exact name on the Hub.
        model_type: of transformers.
        shape: what of its config.json decides parameters and arithmetic, by transformers' names.
        parameters: the published number of parameters, tied ones counted once; a test builds the shape and compares.
        licence: of the weights.
        unchecked: what nobody here has read in the checkpoint's own config.json. No file of the Hub was at hand, so
            that is everything but what the number of parameters settles.
    """

    id: str
    model_type: str
    shape: Mapping[str, Any]
    parameters: int
    licence: str
    unchecked: tuple[str, ...] = ("shape", "licence")


def _row(
    id: str,
    model_type: str,
    parameters: int,
    licence: str,
    *,
    width: int,
    mlp: int,
    depth: int,
    heads: int,
    key_heads: int,
    vocabulary: int,
    tied: bool,
    head_dim: int | None = None,
) -> LanguageRow:
    shape = {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": head_dim or width // heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }
    return LanguageRow(id, model_type, shape, parameters, licence)


_APACHE = "Apache-2.0"
_QWEN = {"vocabulary": 151936}
_SMOL = {"vocabulary": 49152, "tied": True}
_LLAMA = {"vocabulary": 128256, "tied": True, "key_heads": 8}
_LLAMA_LICENCE = "Llama-3.2 community licence (gated)"

# fmt: off
ROWS: tuple[LanguageRow, ...] = (
    _row("Qwen/Qwen2.5-0.5B-Instruct", "qwen2", 494_032_768, _APACHE,
         width=896, mlp=4864, depth=24, heads=14, key_heads=2, tied=True, **_QWEN),
    _row("Qwen/Qwen2.5-1.5B-Instruct", "qwen2", 1_543_714_304, _APACHE,
         width=1536, mlp=8960, depth=28, heads=12, key_heads=2, tied=True, **_QWEN),
    _row("Qwen/Qwen2.5-3B-Instruct", "qwen2", 3_085_938_688, "Qwen research licence (non-commercial)",
         width=2048, mlp=11008, depth=36, heads=16, key_heads=2, tied=True, **_QWEN),
    _row("Qwen/Qwen2.5-7B-Instruct", "qwen2", 7_615_616_512, _APACHE,
         width=3584, mlp=18944, depth=28, heads=28, key_heads=4, tied=False, vocabulary=152064),
    _row("Qwen/Qwen3-0.6B", "qwen3", 596_049_920, _APACHE,
         width=1024, mlp=3072, depth=28, heads=16, key_heads=8, head_dim=128, tied=True, **_QWEN),
    _row("Qwen/Qwen3-1.7B", "qwen3", 1_720_574_976, _APACHE,
         width=2048, mlp=6144, depth=28, heads=16, key_heads=8, head_dim=128, tied=True, **_QWEN),
    _row("Qwen/Qwen3-4B", "qwen3", 4_022_468_096, _APACHE,
         width=2560, mlp=9728, depth=36, heads=32, key_heads=8, head_dim=128, tied=True, **_QWEN),
    _row("Qwen/Qwen3-8B", "qwen3", 8_190_735_360, _APACHE,
         width=4096, mlp=12288, depth=36, heads=32, key_heads=8, head_dim=128, tied=False, **_QWEN),
    _row("HuggingFaceTB/SmolLM2-135M-Instruct", "llama", 134_515_008, _APACHE,
         width=576, mlp=1536, depth=30, heads=9, key_heads=3, **_SMOL),
    _row("HuggingFaceTB/SmolLM2-360M-Instruct", "llama", 361_821_120, _APACHE,
         width=960, mlp=2560, depth=32, heads=15, key_heads=5, **_SMOL),
    _row("HuggingFaceTB/SmolLM2-1.7B-Instruct", "llama", 1_711_376_384, _APACHE,
         width=2048, mlp=8192, depth=24, heads=32, key_heads=32, **_SMOL),
    _row("meta-llama/Llama-3.2-1B-Instruct", "llama", 1_235_814_400, _LLAMA_LICENCE,
         width=2048, mlp=8192, depth=16, heads=32, **_LLAMA),
    _row("meta-llama/Llama-3.2-3B-Instruct", "llama", 3_212_749_824, _LLAMA_LICENCE,
         width=3072, mlp=8192, depth=28, heads=24, **_LLAMA),
)
# fmt: on

BY_ID: dict[str, LanguageRow] = {row.id: row for row in ROWS}


def language_row(id: str) -> LanguageRow | None:
    """The row of a checkpoint; one whose name differs in `-Instruct` alone has the same shape."""
    return BY_ID.get(id) or BY_ID.get(f"{id}-Instruct") or BY_ID.get(id.removesuffix("-Base"))
