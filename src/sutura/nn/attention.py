"""Multi-head self-attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values.

    Args:
        width: of the tokens.
        heads: divides the width.
        bias: whether queries, keys and values have one.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.
    """

    def __init__(self, width: int, heads: int, bias: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} is not a multiple of heads={heads}.")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        causal: bool = False,
        padding: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Mix tokens; with `causal`, a token sees itself and those before it only; none sees `padding`."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each B H N D/H
        # The CPU's fused kernel is slow backwards in bfloat16: with gradients, 64 tokens took 4 times and
        # 20 tokens 11 times as long as the two matrix products written out (torch 2.15, AVX-512).
        attend = written_out if q.dtype == torch.bfloat16 and q.device.type == "cpu" else fused
        return self.out(attend(q, k, v, causal, padding).transpose(1, 2).reshape(batch, tokens, width))


def fused(
    q: Float[Tensor, "batch heads tokens dim"],
    k: Float[Tensor, "batch heads tokens dim"],
    v: Float[Tensor, "batch heads tokens dim"],
    causal: bool = False,
    padding: Bool[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "batch heads tokens dim"]:
    """Scaled dot-product attention by torch's kernels."""
    if padding is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    if causal:
        raise ValueError("Padding behind a causal text needs no mask; give one or the other.")
    return F.scaled_dot_product_attention(q, k, v, attn_mask=~padding[:, None, None, :])


def written_out(
    q: Float[Tensor, "batch heads tokens dim"],
    k: Float[Tensor, "batch heads tokens dim"],
    v: Float[Tensor, "batch heads tokens dim"],
    causal: bool = False,
    padding: Bool[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "batch heads tokens dim"]:
    """The same as two matrix products around a softmax, which is taken in float32."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # B H N N
    if causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        logits = logits.masked_fill(later, float("-inf"))
    if padding is not None:
        logits = logits.masked_fill(padding[:, None, None, :], float("-inf"))
    return logits.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v
