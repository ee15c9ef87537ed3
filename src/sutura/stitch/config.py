"""What a config can say of a stitch's parts. No torch here, so that a config is read in a moment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sutura.core.config import Section
from sutura.encoders.config import EncoderConfig


class ProjectorConfig(Section):
    """`ln-mlp` is the protocol's default; hidden width is the language model's width.

    Args:
        kind: `ln-mlp`, `mlp` and `linear` keep the number of tokens; `pixel-shuffle` lays r × r neighbours into one
            token before `ln-mlp`; `resampler` reads all patches with a fixed number of learned queries.
        factor: r of `pixel-shuffle`.
        queries: tokens that `resampler` hands on.
        heads: attention heads of `resampler`; they divide the language model's width.
    """

    kind: Literal["ln-mlp", "mlp", "linear", "pixel-shuffle", "resampler"] = "ln-mlp"
    factor: int = Field(default=2, ge=1)
    queries: int = Field(default=64, ge=1)
    heads: int = Field(default=8, ge=1)

    def tokens(self, patches: int) -> int:
        """Tokens given to the language model for so many patches."""
        if self.kind == "resampler":
            return self.queries
        return patches // self.factor**2 if self.kind == "pixel-shuffle" else patches


class LlmConfig(Section):
    """Which language model, and what of it trains.

    Args:
        id: `zoo:NAME`, a local folder, or a Hub id.
        train: nothing, a low-rank adapter (Hu et al. 2021, arXiv:2106.09685), or every weight.
        targets: linear layers that get an adapter, or `all-linear`.
        dtype: precision of frozen weights; trained weights are always float32.
    """

    id: str = "zoo:world-lm"
    revision: str | None = None
    train: Literal["none", "lora", "full"] = "lora"
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: tuple[str, ...] | Literal["all-linear"] = ("q_proj", "v_proj")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["sdpa", "eager"] = "sdpa"
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False


class PromptConfig(Section):
    """How a question becomes text.

    Args:
        template: `auto` takes the tokenizer's chat template and, where it has none, `plain`. `published` is an earlier
            study's text, to repeat its figures: `<image>`, a new line and the question, with `<image>` as ordinary
            text, then the answer with nothing between, then the end of sequence.
        instruction: appended to every question after a space, for example "Answer in one word."
        max_tokens: of one turn, question and answer together; a longer turn is set aside and counted.
    """

    template: Literal["auto", "plain", "published"] = "auto"
    instruction: str = ""
    max_tokens: int = 512


class StitchConfig(Section):
    """What a stitch is made of. `encoder: null` is a blind stitch: the same training without pictures."""

    encoder: EncoderConfig | None
    projector: ProjectorConfig = ProjectorConfig()
    llm: LlmConfig = LlmConfig()
    prompt: PromptConfig = PromptConfig()
    seed: int = 0
