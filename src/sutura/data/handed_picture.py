"""A picture as a person hands it over."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from sutura.core.errors import UserError
from sutura.data.images import BadPicture, decode, to_rgb


def open_picture(given: str | Path | bytes | Image.Image) -> Image.Image:
    """A picture from whatever a person hands over: a path, an http(s) URL, the file's bytes, or a PIL picture.

    Raises:
        UserError: nothing there, or nothing that can be fetched and decoded safely.
    """
    if isinstance(given, str) and "://" in given:
        from sutura.data.remote_image import fetch_picture

        return fetch_picture(given)
    try:
        if isinstance(given, Image.Image):
            return to_rgb(given, [])
        return decode(given if isinstance(given, bytes) else Path(given))
    except BadPicture as error:
        name = "the picture" if isinstance(given, (bytes, Image.Image)) else str(given)
        raise UserError(f"{name} cannot be used: {error}. Give a whole PNG, JPEG or WebP file.") from None
