"""VL-JEPA, first form: pictures and texts aligned, while hidden patches are predicted from the rest."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sutura.models.ijepa import Predictor, layer_normalise
from sutura.models.vit import ViT
from sutura.nn.masking import gather_patches

LEAST_SCALE, MOST_SCALE = 0.01, 100.0


class AlignVLJEPA(nn.Module):
    """A picture tower and a text tower that meet in one space; the picture tower also predicts its hidden patches.

    The context encoder sees whole pictures for the alignment and parts of them for the prediction. The target encoder
    starts as its copy, has no gradient, and follows it as a moving average that the training loop keeps
    (`train/ema.py`). The contrastive part uses negatives; the prediction uses none.

    Args:
        vision: becomes the context encoder; a picture's embedding begins with its pooled output.
        text: ids to (pooled text, intermediates).
        predictor: None leaves the prediction out, and the target encoder with it.
        image_head: from the picture tower's width to the space.
        text_head: from the text tower's width to the same space.
        log_scale: where the log of the inverse temperature starts.
        bias: where the sigmoid loss's bias starts; None for InfoNCE, which has none.
        normalise: makes targets of the target encoder's normed patches; by default a layer norm without weights, as in
            I-JEPA.

    Source: the prediction: Assran et al. 2023, arXiv:2301.08243, section 3 and figure 3; the alignment: Radford et al.
        2021, arXiv:2103.00020, figure 3, and Zhai et al. 2023, arXiv:2303.15343, algorithm 1. Their sum is that of the
        earlier project docs/vl_jepa.md names.
    """

    def __init__(
        self,
        vision: ViT,
        text: nn.Module,
        predictor: Predictor | None,
        image_head: nn.Module,
        text_head: nn.Module,
        log_scale: float = math.log(1 / 0.07),
        bias: float | None = None,
        normalise: Callable[[Tensor], Tensor] = layer_normalise,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.context_encoder = vision
        self.target_encoder = None
        if predictor is not None:
            if predictor.positions.shape[1] != vision.grid[0] * vision.grid[1]:
                raise ValueError(
                    f"The predictor has {predictor.positions.shape[1]} places, the encoder a grid of "
                    f"{vision.grid[0]}×{vision.grid[1]}."
                )
            self.target_encoder = copy.deepcopy(vision).requires_grad_(False).eval()
        self.predictor = predictor
        self.text = text
        self.image_head, self.text_head = image_head, text_head
        self.log_scale = nn.Parameter(torch.tensor(float(log_scale)))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    def encode_image(
        self, pixels: Float[Tensor, "batch channels height columns"]
    ) -> Float[Tensor, "batch dim"]:
        """Picture embeddings, of any length: the losses normalise them."""
        return self.image_head(self.context_encoder(pixels)[0])

    def encode_text(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch dim"]:
        """Text embeddings, of any length: the losses normalise them."""
        return self.text_head(self.text(ids)[0])

    def predict(
        self,
        pixels: Float[Tensor, "batch channels height columns"],
        context_index: Int[Tensor, "batch context"],
        target_index: Int[Tensor, "batch masked"],
    ) -> tuple[Float[Tensor, "batch masked width"], Float[Tensor, "batch masked width"]]:
        """Guesses for the hidden patches, and what the target encoder says of them, having seen the whole picture.

        The context encoder never sees the hidden patches: they are left out before its first block. Targets carry no
        gradient.

        Raises:
            ValueError: a model without a predictor, or pictures of another grid than the predictor's.
        """
        if self.predictor is None or self.target_encoder is None:
            raise ValueError("This model was built without a predictor; it aligns only.")
        patch = self.context_encoder.patch_size
        places = (pixels.shape[2] // patch) * (pixels.shape[3] // patch)
        if places != self.predictor.positions.shape[1]:
            raise ValueError(
                f"Pictures of {places} patches, the predictor has {self.predictor.positions.shape[1]} places."
            )
        context = self.context_encoder(pixels, keep=context_index)[1]["normed"]  # B K D
        guesses = self.predictor(context, context_index, target_index)  # B M D
        with torch.no_grad():
            whole = self.normalise(self.target_encoder(pixels)[1]["normed"])  # B N D
            wanted = gather_patches(whole, target_index)  # B M D
        return guesses, wanted

    def forward(
        self,
        pixels: Float[Tensor, "batch channels height columns"],
        ids: Int[Tensor, "batch tokens"],
        context_index: Int[Tensor, "batch context"] | None = None,
        target_index: Int[Tensor, "batch masked"] | None = None,
    ) -> dict[str, Tensor]:
        """All of it, by name.

        Returns:
            `image_pooled`, `text_pooled` (the towers' own outputs), `image`, `text` (embeddings of any length),
            `log_scale`, `bias` where there is one; with indices also `guesses` and `wanted` (B M D).
        """
        out = {"image_pooled": self.context_encoder(pixels)[0], "text_pooled": self.text(ids)[0]}
        out["image"] = self.image_head(out["image_pooled"])
        out["text"] = self.text_head(out["text_pooled"])
        out["log_scale"] = self.log_scale
        if self.bias is not None:
            out["bias"] = self.bias
        if context_index is not None and target_index is not None:
            out["guesses"], out["wanted"] = self.predict(pixels, context_index, target_index)
        return out

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Hold the inverse temperature between 0.01 and 100, as done after each optimizer step."""
        self.log_scale.clamp_(math.log(LEAST_SCALE), math.log(MOST_SCALE))

    def train(self, mode: bool = True) -> AlignVLJEPA:
        """The target encoder stays in eval mode whatever the parent says."""
        super().train(mode)
        if self.target_encoder is not None:
            self.target_encoder.eval()
        return self
