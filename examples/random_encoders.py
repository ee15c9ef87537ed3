"""Two encoders of other libraries with random weights, saved as their libraries save them.

    python examples/random_encoders.py DIR
    sutura compare --preset daquar "encoders=[DIR/timm-vit, DIR/dinov2]" …

They know nothing: beside trained encoders they show what an architecture gives by itself, and that any local folder
in these formats can be compared.
"""

from __future__ import annotations

import sys
from pathlib import Path

import timm
import torch
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model


def main(folder: Path) -> None:
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0)
    timm.models.save_for_hf(vit, folder / "timm-vit", safe_serialization=True)
    sizes = {
        "hidden_size": 192,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "image_size": 224,
        "patch_size": 14,
    }
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder / "dinov2")
    BitImageProcessor(size={"shortest_edge": 256}, crop_size=224).save_pretrained(folder / "dinov2")
    print(f"{folder / 'timm-vit'}\n{folder / 'dinov2'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
