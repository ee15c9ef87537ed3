"""What `pretrain_speed.py` and `pretrain_memory.py` hold ours against, and the pictures for both sides."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from sutura.data.captions import END, PAD, CaptionedPictures, WordVocabulary
from sutura.train.pretrain_config import PretrainConfig

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"image_size": 64, "patch_size": 8, "width": 128, "depth": 6, "heads": 4},
    "b16": {"image_size": 224, "patch_size": 16, "width": 768, "depth": 12, "heads": 12},
}
LABELS, WORDS, LENGTH, CAPTIONS = 20, 60, 40, 4
#: Steps that are run and not counted.
WARM = 2
MEAN, STD = (0.70, 0.69, 0.69), (0.14, 0.14, 0.14)
#: Share of hidden patches, on both sides.
RATIO = 0.75
#: What the methods put around the encoder, on both sides; of `b16` as in the papers.
PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {"mae": {"decoder_width": 64, "decoder_depth": 2, "decoder_heads": 4}},
    "b16": {
        "clip": {"dim": 512, "text_width": 512, "text_depth": 12, "text_heads": 8},
        "mae": {"decoder_width": 512, "decoder_depth": 8, "decoder_heads": 16},
        "ijepa": {"predictor_width": 384, "predictor_depth": 6, "predictor_heads": 12},
    },
}


@dataclass(frozen=True)
class Run:
    """What both sides share."""

    vit: dict[str, Any]
    batch: int
    steps: int
    precision: str
    device: str
    workers: int
    parts: dict[str, dict[str, Any]] = field(default_factory=lambda: PARTS["tiny"])
    words: int = WORDS
    length: int = LENGTH

    def config(self, method: str) -> PretrainConfig:
        """Of our side."""
        return PretrainConfig.model_validate(
            {
                "name": method,
                "objective": method,
                "passes": self.batch * (WARM + self.steps),
                "batch": self.batch,
                "vit": self.vit,
                "pictures": {"mean": MEAN, "std": STD, "shift": 4},
                "methods": {**self.parts, "mae": {"ratio": RATIO, **self.parts["mae"]}},
                "optim": {"lr": 1e-3, "weight_decay": 0.05, "precision": self.precision},
            }
        )

    def autocast(self) -> Any:
        """Of the plain side."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16)


def make_pictures(folder: Path, count: int, side: int) -> CaptionedPictures:
    """Random pictures, labels and captions, written as the built-in world's are."""
    rng = np.random.default_rng(0)
    with (folder / "pixels.bin").open("wb") as file:
        for start in range(0, count, 256):
            shape = (min(256, count - start), side, side, 3)
            file.write(rng.integers(0, 256, shape, np.uint8).tobytes())
    ids = rng.integers(2, WORDS, (count, CAPTIONS, LENGTH), np.int16)
    ends = rng.integers(LENGTH // 4, LENGTH, (count, CAPTIONS, 1))
    places = np.arange(LENGTH)
    np.save(folder / "words.npy", np.where(places < ends, ids, (places == ends).astype(np.int16)))
    np.save(folder / "labels.npy", (rng.random((count, LABELS)) < 0.2).astype(np.float32))
    return open_pictures(folder, count, side)


def open_pictures(folder: Path, count: int, side: int) -> CaptionedPictures:
    """Pictures as the built-in world's are opened: pixels stay on disk, labels and captions do not."""
    return CaptionedPictures(
        np.memmap(folder / "pixels.bin", np.uint8, "r", shape=(count, side, side, 3)),
        np.load(folder / "labels.npy"),
        np.load(folder / "words.npy"),
        WordVocabulary((PAD, END, *(f"word{i}" for i in range(2, WORDS)))),
        f"random-{count}",
    )


class OneByOne(Dataset):
    """The same pictures as a tutorial reads them: one at a time, moved, scaled, normalised."""

    def __init__(self, data: CaptionedPictures, side: int) -> None:
        from torchvision.transforms import v2

        self.data = data
        self.transform = v2.Compose(
            [
                v2.RandomCrop(side, padding=4, padding_mode="edge"),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        assert self.data.labels is not None
        assert self.data.words is not None
        pixels = torch.from_numpy(np.array(self.data.pixels[place])).permute(2, 0, 1)
        words = self.data.words[place, int(torch.randint(CAPTIONS, ()))]
        return (
            self.transform(pixels),
            torch.from_numpy(self.data.labels[place]),
            torch.from_numpy(words.astype(np.int64)),
        )


def timm_vit(vit: dict[str, Any], labels: int) -> nn.Module:
    """timm's ViT as ours is: no class token, mean of the patches."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=vit["image_size"],
        patch_size=vit["patch_size"],
        embed_dim=vit["width"],
        depth=vit["depth"],
        num_heads=vit["heads"],
        num_classes=labels,
        class_token=False,
        global_pool="avg",
    )


class PlainSupervised(nn.Module):
    """timm's classifier with a question a label."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.vit = timm_vit(run.vit, LABELS)

    def forward(self, pixels: Tensor, labels: Tensor, words: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.vit(pixels).float(), labels)


class PlainClip(nn.Module):
    """timm's picture tower, open_clip's text tower and loss."""

    def __init__(self, run: Run) -> None:
        from open_clip.loss import ClipLoss
        from open_clip.transformer import TextTransformer

        super().__init__()
        c = run.config("clip").methods.clip
        self.vit, self.project = timm_vit(run.vit, 0), nn.Linear(run.vit["width"], c.dim, bias=False)
        self.text = TextTransformer(
            context_length=run.length, vocab_size=run.words, width=c.text_width, heads=c.text_heads,
            layers=c.text_depth, output_dim=c.dim, pool_type="eos", eos_id=1,
        )  # fmt: skip
        self.log_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
        self.loss = ClipLoss()

    def forward(self, pixels: Tensor, labels: Tensor, words: Tensor) -> Tensor:
        image = F.normalize(self.project(self.vit(pixels)).float(), dim=-1)
        text = F.normalize(self.text(words).float(), dim=-1)
        return self.loss(image, text, self.log_scale.exp())  # pyright: ignore


class PlainMae(nn.Module):
    """lightly's masked ViT and decoder around timm's blocks, put together as in lightly's example."""

    def __init__(self, run: Run) -> None:
        from lightly.models.modules.masked_vision_transformer_decoder_timm import (  # pyright: ignore
            MaskedVisionTransformerDecoderTIMM,
        )
        from lightly.models.modules.masked_vision_transformer_timm import (  # pyright: ignore
            MaskedVisionTransformerTIMM,
        )

        super().__init__()
        decoder = run.parts["mae"]
        vit, width = timm_vit(run.vit, 0), decoder["decoder_width"]
        self.patches, self.size = (
            (run.vit["image_size"] // run.vit["patch_size"]) ** 2,
            run.vit["patch_size"],
        )
        self.encoder = MaskedVisionTransformerTIMM(vit=vit)
        self.enter, self.leave = nn.Linear(run.vit["width"], width), nn.Linear(width, 3 * self.size**2)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=self.patches, embed_dim=width, depth=decoder["decoder_depth"],
            num_heads=decoder["decoder_heads"], num_prefix_tokens=0,
        )  # fmt: skip

    def forward(self, pixels: Tensor, labels: Tensor, words: Tensor) -> Tensor:
        from lightly.models import utils  # pyright: ignore

        keep, mask = utils.random_token_mask(
            (len(pixels), self.patches), mask_ratio=RATIO, mask_class_token=True, device=pixels.device
        )
        seen = self.enter(self.encoder.encode(pixels, idx_keep=keep))
        tokens = utils.repeat_token(self.decoder.mask_token, (len(pixels), self.patches)).type_as(seen)
        tokens = self.decoder(utils.set_at_index(tokens, keep, seen))
        guess = self.leave(utils.get_at_index(tokens, mask)).float()
        target = utils.get_at_index(utils.patchify(pixels, self.size), mask)
        target = utils.normalize_mean_var(target, dim=-1)
        return F.mse_loss(guess, target)


PLAIN: dict[str, Callable[[Run], nn.Module]] = {
    "supervised": PlainSupervised,
    "clip": PlainClip,
    "mae": PlainMae,
}
