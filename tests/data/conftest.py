"""Small pictures and tables made on the fly, and a place for what `datasets` converts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`datasets` keeps its converted copies under the test's folder, not in the home directory."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    return tmp_path / "datasets-cache"


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """A smooth picture that a number chooses; different numbers look different."""

    def make(number: int = 0, size: tuple[int, int] = (48, 32)) -> Image.Image:
        coarse = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)

    return make


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """A picture as a file of some format."""

    def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def cauldron(datasets_cache: Path) -> Callable[[Path, list[tuple[list[bytes], list[dict[str, Any]]]]], Path]:
    """Writes rows of (pictures, turns) as Parquet in the_cauldron's schema."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    turn = pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])

    def write(path: Path, rows: list[tuple[list[bytes], list[dict[str, Any]]]]) -> Path:
        pictures = [[{"bytes": data, "path": None} for data in images] for images, _ in rows]
        texts = [[{"source": "made here", **values} for values in turns] for _, turns in rows]
        table = pa.table(
            {"images": pa.array(pictures, pa.list_(image)), "texts": pa.array(texts, pa.list_(turn))}
        )
        pq.write_table(table, path)
        return path

    return write
