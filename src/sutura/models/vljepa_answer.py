"""VL-JEPA as published: from a picture and a query, predict the embedding of the answer."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class AnswerVLJEPA(nn.Module):
    """Frozen features and a query in, the embedding of the answer out; a text side embeds the answers themselves.

        features → projector ┐
                             ├→ trunk, all tokens see all → mean over those that are no padding → head ┐
        query → query_embed  ┘                                                                          ├ loss
        answer → text encoder → text head ──────────────────────────────────────────────────────────────┘

    Nothing here knows which network any part is. Without a projector the model is blind: it sees queries alone.

    Args:
        projector: from the width of the features to the trunk's (B N Dv → B M D); None for a blind model.
        query_embed: token ids to the trunk's width (B L → B L D).
        trunk: embeddings (B S D) and which of them are no padding (B S) to hidden states (B S D).
        head: from the trunk's width to the shared space.
        text: ids of texts (T L) and which of them are no padding to one vector a text (T Dt).
        text_head: from that vector to the shared space.
        log_scale: where the log of the inverse temperature starts.
        bias: where the bias of the sigmoid loss starts; without one the model has none.
        most_log_scale: the most the log of the scale may become, held by `clamp_log_scale` after each step.

    Raises:
        ValueError: heads that end in spaces of different widths.

    Source: Chen et al. 2025, arXiv:2512.10942.
    Differs: equal answers of a batch are no negatives of each other (`losses/repeated.py`).
    """

    def __init__(
        self,
        projector: nn.Module | None,
        query_embed: nn.Module,
        trunk: nn.Module,
        head: nn.Linear,
        text: nn.Module,
        text_head: nn.Linear,
        log_scale: float = math.log(1 / 0.07),
        bias: float | None = None,
        most_log_scale: float = math.log(100),
    ) -> None:
        super().__init__()
        if head.out_features != text_head.out_features:
            raise ValueError(
                f"The prediction's head ends in {head.out_features} channels and the text's in "
                f"{text_head.out_features}; both end in the shared space."
            )
        self.projector, self.query_embed, self.trunk, self.head = projector, query_embed, trunk, head
        self.text, self.text_head = text, text_head
        self.log_scale = nn.Parameter(torch.tensor(log_scale))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(bias))
        self.most_log_scale = most_log_scale

    @property
    def dim(self) -> int:
        """Width of the shared space."""
        return self.head.out_features

    def predict(
        self,
        features: Float[Tensor, "batch patches encoder_width"] | None,
        query: Int[Tensor, "batch length"],
        real: Bool[Tensor, "batch length"],
    ) -> tuple[Float[Tensor, "batch dim"], dict[str, Tensor]]:
        """The embedding of the answer to each query, of any length: the loss normalises it.

        Args:
            features: what the frozen encoder says of each row's picture, or of the frames of its video one behind
                the other; None for a blind model.
            query: token ids, padded on the right.
            real: which of them are no padding.

        Returns:
            The predictions, and `visual`, `hidden` and `pooled` by name.

        Raises:
            ValueError: features for a blind model, or none for one that sees.
        """
        if (features is None) is not (self.projector is None):
            told = "takes no features" if self.projector is None else "needs the picture's features"
            raise ValueError(f"This model {told}.")
        out: dict[str, Tensor] = {}
        tokens = self.query_embed(query)  # B L D
        if features is not None and self.projector is not None:
            out["visual"] = self.projector(features)  # B M D
            tokens = torch.cat([out["visual"].to(tokens.dtype), tokens], dim=1)  # B M+L D
            real = torch.cat([real.new_ones(real.shape[0], out["visual"].shape[1]), real], dim=1)
        out["hidden"] = self.trunk(tokens, real)  # B M+L D
        out["pooled"] = mean_of_real(out["hidden"], real)  # B D
        return self.head(out["pooled"]), out

    def encode_text(
        self, ids: Int[Tensor, "texts length"], real: Bool[Tensor, "texts length"]
    ) -> Float[Tensor, "texts dim"]:
        """Embeddings of texts, of any length: the loss normalises them."""
        return self.text_head(self.text(ids, real))

    @torch.no_grad()
    def clamp_log_scale(self) -> None:
        """Hold the temperature in its range, as done after each optimizer step."""
        self.log_scale.clamp_(0.0, self.most_log_scale)


def mean_of_real(
    hidden: Float[Tensor, "batch length width"], real: Bool[Tensor, "batch length"]
) -> Float[Tensor, "batch width"]:
    """Mean over the tokens that are no padding; whatever stands in padding has no part in it."""
    kept = hidden.masked_fill(~real[..., None], 0.0)
    return kept.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp_min(1).to(hidden.dtype)
