"""References for `pretrain_device.py` out of timm's and torch's own modules, where lightly or open_clip has none."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pretrain_references import PlainClip, PlainMae, PlainSupervised, Run, timm_vit
from torch import Tensor, nn

from sutura.train.picture_feed import PictureBatch


def blocks(width: int, depth: int, heads: int) -> nn.Sequential:
    """timm's transformer blocks."""
    from timm.models.vision_transformer import Block

    return nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens at the given places, picture by picture."""
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))


def encode(vit: Any, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
    """timm's ViT over some of the patches."""
    tokens = vit.patch_embed(pixels) + vit.pos_embed
    return vit.fc_norm(vit.norm(vit.blocks(tokens if keep is None else pick(tokens, keep))))


class TorchClip(nn.Module):
    """timm's picture tower and torch's transformer encoder as the text tower."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        c = run.config("clip").methods.clip
        self.vit, self.project = timm_vit(run.vit, 0), nn.Linear(run.vit["width"], c.dim, bias=False)
        self.words = nn.Embedding(run.words, c.text_width)
        self.places = nn.Parameter(torch.zeros(run.length, c.text_width))
        layer = nn.TransformerEncoderLayer(
            c.text_width, c.text_heads, 4 * c.text_width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.text = nn.TransformerEncoder(
            layer, c.text_depth, nn.LayerNorm(c.text_width), enable_nested_tensor=False
        )
        self.project_text = nn.Linear(c.text_width, c.dim, bias=False)
        self.register_buffer("later", nn.Transformer.generate_square_subsequent_mask(run.length))
        self.log_scale = nn.Parameter(torch.tensor(2.6593))

    def forward(self, pixels: Tensor, labels: Tensor, words: Tensor) -> Tensor:
        image = F.normalize(self.project(self.vit(pixels)).float(), dim=-1)
        tokens = self.text(self.words(words) + self.places, mask=self.later, is_causal=True)
        end = tokens[torch.arange(len(words), device=words.device), (words == 1).int().argmax(dim=1)]
        text = F.normalize(self.project_text(end).float(), dim=-1)
        logits = self.log_scale.exp() * image @ text.T
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class TimmMae(nn.Module):
    """MAE around timm's ViT and blocks."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        d, self.size = run.parts["mae"], run.vit["patch_size"]
        width, patches = d["decoder_width"], (run.vit["image_size"] // self.size) ** 2
        self.vit, self.enter = timm_vit(run.vit, 0), nn.Linear(run.vit["width"], width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, patches, width) * 0.02, requires_grad=False)
        self.blocks = blocks(width, d["decoder_depth"], d["decoder_heads"])
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3 * self.size**2))

    def forward(self, pixels: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        seen = self.enter(encode(self.vit, pixels, keep))
        tokens = self.mask_token.to(seen.dtype).repeat(len(pixels), self.places.shape[1], 1)
        tokens = tokens.scatter(1, keep[:, :, None].expand_as(seen), seen)
        guess = self.leave(self.blocks(tokens + self.places)).float()
        target = F.unfold(pixels, self.size, stride=self.size).transpose(1, 2)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return ((guess - target).square().mean(-1) * hidden).sum() / hidden.sum()


class TimmIjepa(nn.Module):
    """I-JEPA around timm's ViT and blocks."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        c, wide = run.config("ijepa").methods.ijepa, run.vit["width"]
        width, patches = c.predictor_width, (run.vit["image_size"] // run.vit["patch_size"]) ** 2
        self.vit, self.momentum = timm_vit(run.vit, 0), c.momentum
        self.target = copy.deepcopy(self.vit).requires_grad_(False)
        self.enter, self.leave = nn.Linear(wide, width), nn.Linear(width, wide)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, patches, width) * 0.02, requires_grad=False)
        self.blocks = blocks(width, c.predictor_depth, c.predictor_heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor, context: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            whole = encode(self.target, pixels).float()
            whole = F.layer_norm(whole, whole.shape[-1:])
        places = self.places.expand(len(pixels), -1, -1)
        seen = self.enter(encode(self.vit, pixels, context)) + pick(places, context)
        asked = torch.cat([self.mask_token + pick(places, index) for index in targets])
        tokens = self.blocks(torch.cat([seen.repeat(len(targets), 1, 1), asked], dim=1))
        guess = self.leave(self.norm(tokens[:, seen.shape[1] :]))
        return F.smooth_l1_loss(guess.float(), torch.cat([pick(whole, index) for index in targets]))

    @torch.no_grad()
    def follow(self) -> None:
        """The target encoder's moving average."""
        for theirs, ours in zip(self.target.parameters(), self.vit.parameters(), strict=True):
            theirs.lerp_(ours, 1 - self.momentum)


@dataclass(frozen=True)
class Reference:
    """What a method is held against.

    Args:
        about: whose modules.
        build: the model.
        call: its loss of a batch.
    """

    about: str
    build: Callable[[Run], nn.Module]
    call: Callable[[Any, PictureBatch], Tensor]


def reference(method: str) -> Reference:
    """The reference of a method, out of what is installed."""

    def pixels_labels_words(model: Any, batch: PictureBatch) -> Tensor:
        return model(batch.pixels, batch.labels, batch.words)

    def there(name: str) -> bool:
        return importlib.util.find_spec(name) is not None

    if method == "supervised":
        return Reference("timm", PlainSupervised, pixels_labels_words)
    if method == "clip":
        if there("open_clip"):
            return Reference("timm, open_clip", PlainClip, pixels_labels_words)
        return Reference("timm, torch (open_clip is missing)", TorchClip, pixels_labels_words)
    if method == "mae":
        if there("lightly"):
            return Reference("lightly, timm", PlainMae, pixels_labels_words)
        return Reference(
            "timm (lightly is missing)", TimmMae, lambda model, b: model(b.pixels, b.keep, b.hidden)
        )
    return Reference("timm", TimmIjepa, lambda model, b: model(b.pixels, b.context, b.targets))
