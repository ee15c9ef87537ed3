"""What the shipped presets name, at toy width: checkpoints of the same architectures and data of the same schema.

`small_overrides` turns a preset's ids and paths into those places, and leaves everything else as it is shipped.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sutura.core.config import read_preset
from tiny_encoders import build, save_timm, write_processor
from tiny_models import save_language_model

#: id in a preset → (family, whether CLIP's processor).
ENCODERS = {
    "openai/clip-vit-large-patch14": "clip",
    "google/vit-large-patch16-224": "vit",
    "facebook/ijepa_vith14_1k": "ijepa",
    "facebook/vjepa2-vitl-fpc64-256": "vjepa2",
    "google/siglip2-base-patch16-224": "siglip",
    "facebook/dinov3-vitl16-pretrain-lvd1689m": "dinov3",
    "timm/eva02_large_patch14_224.mim_m38m": "eva02",
}
LANGUAGE_MODELS = {
    "Qwen/Qwen2.5-0.5B-Instruct": "qwen2",
    "Qwen/Qwen2.5-1.5B-Instruct": "qwen2",
    "Qwen/Qwen2.5-3B-Instruct": "qwen2",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2",
    "Qwen/Qwen3-1.7B": "qwen3",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": "llama",
    "meta-llama/Llama-3.2-1B-Instruct": "llama",
}
ROWS = 60


def save_everything(folder: Path) -> None:
    """Every checkpoint and data set under a folder, by family and by subset."""
    for kind in set(ENCODERS.values()) - {"eva02"}:
        build(kind).save_pretrained(folder / kind)
        write_processor(folder / kind, crop=kind == "clip")
    save_timm(
        folder / "eva02",
        "eva02_tiny_patch14_224",
        img_size=28,
        embed_dim=24,
        depth=2,
        num_heads=2,
        pretrained_cfg={
            "input_size": [3, 28, 28],
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "fixed_input_size": True,
        },
    )
    for kind in set(LANGUAGE_MODELS.values()):
        save_language_model(folder / kind, kind)
    for number, subset in enumerate(("cocoqa", "vqav2", "clevr", "tallyqa", "scienceqa", "daquar")):
        for split in ("train", "test") if subset == "daquar" else ("train",):
            write_cauldron(folder / subset / f"{split}.parquet", 1000 * number + 500 * (split == "test"))
    write_dialogues(folder / "dialogues", 9000)


def small_overrides(preset: str, folder: Path, *more: str) -> list[str]:
    """Overrides that put the small places where a preset names large ones."""
    return [*(f"{path}={value}" for path, value in _small(read_preset(preset), folder)), *more]


def _small(values: dict[str, Any], folder: Path) -> Iterator[tuple[str, Any]]:
    for i, row in enumerate(values.get("encoders", ())):
        for k, part in enumerate(row.get("fuse", ())):
            yield f"encoders.{i}.fuse.{k}", folder / ENCODERS[part]
        if row.get("id") in ENCODERS:
            yield f"encoders.{i}.id", folder / ENCODERS[row["id"]]
            if row.get("layer", -1) < -3:  # the small ones have three blocks
                yield f"encoders.{i}.layer", -3
    untrained = values.get("controls", {}).get("untrained")
    if untrained in ENCODERS:
        yield "controls.untrained", folder / ENCODERS[untrained]
    if values["llm"]["id"] in LANGUAGE_MODELS:
        yield "llm.id", folder / LANGUAGE_MODELS[values["llm"]["id"]]
    data = values["data"]
    for name in ("train", "select"):
        if name in data:
            yield from _source(f"data.{name}", data[name], folder)
    for i, test in enumerate(data["test"]):
        subset = test.get("data", {}).get("subset") or test["benchmark"].split("/")[-1]
        if (folder / subset).is_dir():
            yield f"data.test.{i}.data.path", folder / subset
            yield f"data.test.{i}.data.limit", 3


def _source(name: str, source: dict[str, Any], folder: Path) -> Iterator[tuple[str, Any]]:
    if source["source"] == "mixture":
        for i, part in enumerate(source["parts"]):
            yield from _source(f"{name}.parts.{i}", part, folder)
    elif source["source"] == "jsonl":
        yield f"{name}.path", folder / source["name"] / "dialogues.json"
        yield f"{name}.limit", 4
    elif source["source"] != "world":
        yield f"{name}.path", folder / (source.get("subset") or source["name"])
        yield f"{name}.limit", 8


def picture(number: int) -> bytes:
    """A picture of its own, as PNG."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((48, 32), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def write_cauldron(path: Path, first: int, rows: int = ROWS) -> Path:
    """Rows in the_cauldron's schema, one to three questions about a picture each."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    turn = pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])
    images = [[{"bytes": picture(first + i), "path": None}] for i in range(rows)]
    words = ("red", "two", "yes", "a chair")
    texts = [
        [{"user": f"How many {k}?", "assistant": words[(i + k) % 4], "source": "x"} for k in range(1 + i % 3)]
        for i in range(rows)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"images": pa.array(images, pa.list_(image)), "texts": pa.array(texts, pa.list_(turn))}
    pq.write_table(pa.table(table), path)
    return path


def write_dialogues(folder: Path, first: int, rows: int = 12) -> Path:
    """A JSON list as LLaVA-Instruct has it, with its pictures beside."""
    folder.mkdir(parents=True, exist_ok=True)
    told = []
    for i in range(rows):
        (folder / f"{i}.png").write_bytes(picture(first + i))
        turns = [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": "a chair"},
            {"from": "human", "value": "Which colour?"},
            {"from": "gpt", "value": "red"},
        ]
        told.append({"id": str(i), "image": f"{i}.png", "conversations": turns})
    (folder / "dialogues.json").write_text(json.dumps(told))
    return folder / "dialogues.json"
