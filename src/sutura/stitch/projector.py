"""The bridge from encoder width to language-model width."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.stitch.compress import PixelShuffle, Resampler
from sutura.stitch.config import ProjectorConfig
from sutura.stitch.layer_norm_mlp import LayerNormMlp


class Mlp(nn.Module):
    """Linear → GELU → Linear.

    Source: Liu et al. 2023, arXiv:2310.03744 (LLaVA-1.5), section 3.2.
    """

    def __init__(self, encoder_width: int, llm_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(encoder_width, llm_width)
        self.fc2 = nn.Linear(llm_width, llm_width)

    def forward(
        self, patches: Float[Tensor, "batch image_tokens encoder_width"]
    ) -> Float[Tensor, "batch image_tokens llm_width"]:
        return self.fc2(nn.functional.gelu(self.fc1(patches)))


class LinearProjector(nn.Module):
    """One linear map.

    Source: Liu et al. 2023, arXiv:2304.08485 (LLaVA), section 4.1.
    """

    def __init__(self, encoder_width: int, llm_width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(encoder_width, llm_width)

    def forward(
        self, patches: Float[Tensor, "batch image_tokens encoder_width"]
    ) -> Float[Tensor, "batch image_tokens llm_width"]:
        return self.fc(patches)


PROJECTORS: dict[str, type[nn.Module]] = {"ln-mlp": LayerNormMlp, "mlp": Mlp, "linear": LinearProjector}
"""Those that keep the number of tokens and are built from the two widths alone."""


def build_projector(config: ProjectorConfig, encoder_width: int, llm_width: int, *, seed: int) -> nn.Module:
    """A projector in float32 whose first weights depend on the seed alone.

    Linear weights are drawn uniformly within ±1/sqrt(fan-in), as torch does, biases are zero.

    Raises:
        UserError: a width below one, or a number of heads that does not divide the language model's width.
    """
    if encoder_width < 1 or llm_width < 1:
        raise UserError(f"Projector from width {encoder_width} to {llm_width}: both must be at least 1.")
    projector: nn.Module
    if config.kind == "pixel-shuffle":
        projector = PixelShuffle(encoder_width, llm_width, config.factor)
    elif config.kind == "resampler":
        projector = Resampler(encoder_width, llm_width, config.queries, config.heads)
        with torch.no_grad():
            projector.queries.normal_(0.0, 0.02, generator=generator(seed, "projector", "queries"))
    else:
        projector = PROJECTORS[config.kind](encoder_width, llm_width)
    for name, module in projector.named_modules():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            with torch.no_grad():
                module.weight.uniform_(-bound, bound, generator=generator(seed, "projector", name))
                module.bias.zero_()
    return projector
