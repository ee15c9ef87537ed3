"""The default projector, alone in a file because others end in it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


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
