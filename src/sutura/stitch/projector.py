"""The bridge from encoder width to language-model width."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.stitch.config import ProjectorConfig


class LayerNormMlp(nn.Module):
    """LayerNorm → Linear → GELU → Linear, a patch at a time.

    The norm takes away the difference in scale between encoders, which would otherwise be a hidden
    learning-rate difference. Parameter names (norm, fc1, fc2) are those of published stitches.
    """

    def __init__(self, encoder_width: int, llm_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(encoder_width)
        self.fc1 = nn.Linear(encoder_width, llm_width)
        self.fc2 = nn.Linear(llm_width, llm_width)

    def forward(
        self, patches: Float[Tensor, "batch image_tokens encoder_width"]
    ) -> Float[Tensor, "batch image_tokens llm_width"]:
        return self.fc2(nn.functional.gelu(self.fc1(self.norm(patches))))


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


def build_projector(config: ProjectorConfig, encoder_width: int, llm_width: int, *, seed: int) -> nn.Module:
    """A projector in float32 whose first weights depend on the seed alone.

    Linear weights are drawn uniformly within ±1/sqrt(fan-in), as torch does, biases are zero.

    Raises:
        UserError: a width below one.
    """
    if encoder_width < 1 or llm_width < 1:
        raise UserError(f"Projector from width {encoder_width} to {llm_width}: both must be at least 1.")
    projector = PROJECTORS[config.kind](encoder_width, llm_width)
    for name, module in projector.named_modules():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            with torch.no_grad():
                module.weight.uniform_(-bound, bound, generator=generator(seed, "projector", name))
                module.bias.zero_()
    return projector
