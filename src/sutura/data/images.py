"""Safe decoding: whatever a picture file holds becomes RGB, 8 bits a channel, or a reason why not."""

from __future__ import annotations

import os
import struct
import zlib
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from sutura.core.hashing import fingerprint_bytes

#: More pixels than this are refused before any of them is decoded (a bomb of a few kB can ask for 60 GB).
MAX_PIXELS = 64_000_000
#: Larger files are refused before they are read.
MAX_BYTES = 256 * 2**20
#: Longest side over shortest. A 20,000 × 10 strip whose short side is resized to 224 has 100 megapixels.
MAX_RATIO = 200

#: Raster formats only: EPS would start Ghostscript, others are rare and little tested. JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")

#: EXIF orientation → how to turn the stored pixels upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112

#: What Pillow's plug-ins raise on damaged data.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    ZeroDivisionError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class BadPicture(ValueError):
    """A picture that cannot be used.

    Args:
        reason: a short slug, the same for all pictures of one kind: it is what is counted.
        detail: what was found in this one.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def decode(data: bytes | Path) -> Image.Image:
    """The picture upright, in RGB, 8 bits a channel.

    Raises:
        BadPicture: with the reason, see `decode_noted`.
    """
    return decode_noted(data)[0]


def decode_noted(data: bytes | Path) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in RGB, and what had to be changed to make it so.

    Animations give their first frame. Transparency is laid on white. 16-bit values are scaled to 8 bits,
    32-bit ones stretched from their own lowest to their own highest. EXIF orientation is applied. Colour
    profiles are left out of account, as in the pipelines the encoders were trained with.

    Returns:
        The picture, and slugs of conversions that lose or change something: "animated", "rotated", "alpha",
        "16-bit", "32-bit", "CMYK". Grey and palette pictures become RGB without a loss and without a note.

    Raises:
        BadPicture: "missing", "not a file", "zero bytes", "too large", "too narrow", "not a picture",
            "truncated", "corrupt" or "unsupported mode …".
    """
    if isinstance(data, Path):
        data = read_file(data)
    image = _open(data)
    try:
        notes = ["animated"] if getattr(image, "is_animated", False) else []
        image.load()
    except Image.DecompressionBombError as error:
        raise BadPicture("too large", str(error)) from None
    except _DAMAGE as error:
        raise _damage(error) from None
    turn = _UPRIGHT.get(_orientation(image))
    image = to_rgb(image, notes)
    if turn is not None:
        image = image.transpose(turn)
        notes.append("rotated")
    return image, tuple(notes)


def pixel_hash(image: Image.Image) -> str:
    """16 hexadecimal digits of the decoded pixels and their shape, whatever file they were stored in."""
    return fingerprint_bytes(repr(image.size).encode(), image.tobytes())


def inspect(data: bytes) -> tuple[str, ...]:
    """Check that a picture decodes to its last byte, cheaply; the notes `decode_noted` would give.

    JPEG is decoded at an eighth of its size: the whole stream is read, most of the arithmetic is left out.

    Raises:
        BadPicture: as `decode_noted`.
    """
    image = _open(data)
    if image.format != "JPEG" or image.mode == "CMYK":
        return decode_noted(data)[1]
    try:
        image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except _DAMAGE as error:
        raise _damage(error) from None
    return ("rotated",) if _orientation(image) in _UPRIGHT else ()


def picture_path(folder: Path, name: str) -> Path:
    """Where a file's line says that a picture lies: below a folder, or at an absolute path.

    Raises:
        BadPicture: "outside the folder" for a relative path that leads out of it by `..`. Whoever means such a place
            names the folder that holds it all (`image_folder`), or writes absolute paths.
    """
    path = folder / name
    if not Path(name).is_absolute() and not Path(os.path.normpath(path)).is_relative_to(
        os.path.normpath(folder)
    ):
        raise BadPicture("outside the folder", f"{name} leads out of {folder}; name a folder that holds both")
    return path


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; links are followed.

    Raises:
        BadPicture: "missing" (a broken link too), "not a file" (folders, pipes), "too large", "unreadable".
    """
    try:
        if not path.exists():
            raise BadPicture("missing", str(path))
        if not path.is_file():
            raise BadPicture("not a file", str(path))
        if path.stat().st_size > MAX_BYTES:
            raise BadPicture(
                "too large", f"{path} has {path.stat().st_size:,} bytes; {MAX_BYTES:,} is the limit"
            )
        return path.read_bytes()
    except OSError as error:
        raise BadPicture("unreadable", f"{path}: {error.strerror or error}") from None


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(data: bytes) -> Image.Image:
    """Read the header and judge the size; no pixel is decoded yet."""
    if not data:
        raise BadPicture("zero bytes")
    if len(data) > MAX_BYTES:
        raise BadPicture("too large", f"{len(data):,} bytes; {MAX_BYTES:,} is the limit")
    try:
        image = Image.open(BytesIO(data), formats=_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadPicture("too large", str(error)) from None
    except UnidentifiedImageError:
        raise BadPicture("not a picture", f"starts with {data[:8]!r}") from None
    except _DAMAGE as error:
        raise _damage(error) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadPicture("too large", f"{width} × {height} pixels; {MAX_PIXELS:,} is the limit")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise BadPicture("too narrow", f"{width} × {height}; sides beyond {MAX_RATIO} : 1 are not used")
    return image


def _damage(error: BaseException) -> BadPicture:
    text = str(error)
    short = isinstance(error, EOFError) or "truncated" in text.lower() or "unexpected end" in text.lower()
    return BadPicture("truncated" if short else "corrupt", text)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none; broken EXIF data does not cost the picture."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _DAMAGE:
        return 1


def to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """A decoded picture in RGB; what that loses or changes is added to the notes (see `decode_noted`)."""
    try:
        if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
            return _on_white(image.convert("RGBA"), notes)
        if image.mode.startswith("I;16") or image.mode in ("I", "F"):
            return _eight_bits(image, notes)
        if image.mode == "CMYK":
            notes.append("CMYK")
        return image.convert("RGB")
    except ValueError as error:
        raise BadPicture(f"unsupported mode {image.mode}", str(error)) from None


def _on_white(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB")
    notes.append("alpha")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _eight_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    """Scale deep grey values to 0–255; Pillow's own conversion would clip them."""
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16") or (image.mode == "I" and values.min() >= 0 and values.max() <= 65535):
        notes.append("16-bit")
        values = values / 257.0
    else:
        notes.append("32-bit")
        if not np.isfinite(values).all():
            raise BadPicture("corrupt", "values that are not finite numbers")
        low, high = values.min(), values.max()
        values = (values - low) * (255.0 / (high - low) if high > low else 0.0)
    return Image.fromarray(np.round(values).astype(np.uint8)).convert("RGB")
