"""The pre-norm transformer block, and how its weights start."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sutura.nn.attention import Attention


class QuickGELU(nn.Module):
    """`x * sigmoid(1.702 x)`, the activation of OpenAI's CLIP weights; they are wrong under plain GELU.

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2; openai/CLIP model.py.
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Element by element."""
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
}


class MLP(nn.Module):
    """Linear, activation, Linear."""

    def __init__(self, width: int, hidden: int, activation: str = "gelu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is not one of {', '.join(ACTIVATIONS)}.")
        self.up = nn.Linear(width, hidden)
        self.activation = ACTIVATIONS[activation]()
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        """Token by token."""
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """Attention and MLP, each on a normalised input and added to what came in.

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929, equations 2 and 3.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        norm_eps: float = 1e-6,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, heads, bias=qkv_bias)
        self.norm_mlp = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, round(width * mlp_ratio), activation)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        causal: bool = False,
        padding: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """One layer of the transformer; `causal` and `padding` as of its attention."""
        x = x + self.attention(self.norm_attention(x), causal, padding)
        return x + self.mlp(self.norm_mlp(x))


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw every weight of a from-scratch model anew, from one generator, in the order of its modules.

    Without a generator torch's global one is drawn from, as by the constructors of torch's own modules.

    Matrices are Xavier-uniform (a fixed deviation of 0.02 starves widths as small as the zoo's), biases
    zero, norms the identity; tables and tokens (positions, words, prefix and mask tokens) normal with
    deviation 0.02. A single number, a temperature for one, is left as its module made it.

    Source: He et al. 2022, arXiv:2111.06377, appendix A.1, for Xavier-uniform in a ViT.
    """
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            if isinstance(part, nn.LayerNorm):
                parameter.fill_(1.0 if parameter is part.weight else 0.0)
            elif parameter.ndim == 0:
                continue
            elif isinstance(part, nn.Linear):
                if parameter.ndim == 1:
                    parameter.zero_()
                else:
                    nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
