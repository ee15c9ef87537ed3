"""Decoding: every odd kind of file becomes RGB or a reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sutura.core.errors import UserError
from sutura.data import images
from sutura.data.handed_picture import open_picture
from sutura.data.images import BadPicture, decode, decode_noted, inspect
from sutura.data.samples import BytesPicture, FilePicture


def reason_of(data: bytes | Path) -> str:
    with pytest.raises(BadPicture) as caught:
        decode(data)
    return caught.value.reason


def test_plain_pictures_lose_nothing_and_leave_no_note(picture, encoded):
    image = picture()
    for mode, format in (("RGB", "PNG"), ("L", "PNG"), ("RGB", "BMP"), ("1", "PNG"), ("RGB", "TIFF")):
        own = image.convert(mode)
        found, notes = decode_noted(encoded(own, format))
        assert found.mode == "RGB"
        assert notes == ()
        assert np.array_equal(found, own.convert("RGB"))


def test_palette_without_and_with_transparency(picture, encoded):
    palette = picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    found, notes = decode_noted(encoded(palette))
    assert notes == ()
    assert np.array_equal(found, palette.convert("RGB"))

    clear = palette.getpixel((0, 0))
    found, notes = decode_noted(encoded(palette, transparency=clear))
    assert notes == ("alpha",)
    assert found.getpixel((0, 0)) == (255, 255, 255)
    kept = np.asarray(palette) != clear
    assert np.array_equal(np.asarray(found)[kept], np.asarray(palette.convert("RGB"))[kept])


def test_transparency_is_laid_on_white_and_black_under_it_does_not_shine_through(encoded):
    """Dropping the alpha channel would show whatever colour is stored under clear pixels, mostly black."""
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 2), (200, 0, 0, 255))
    image.putpixel((2, 2), (0, 0, 0, 128))
    found, notes = decode_noted(encoded(image))
    assert notes == ("alpha",)
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert found.getpixel((1, 2)) == (200, 0, 0)
    assert found.getpixel((2, 2))[0] in (126, 127, 128)


def test_opaque_alpha_is_no_conversion(picture, encoded):
    image = picture().convert("RGBA")
    found, notes = decode_noted(encoded(image))
    assert notes == ()
    assert np.array_equal(found, image.convert("RGB"))


def test_cmyk_is_converted_and_counted(encoded):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # full magenta and yellow: red
    found, notes = decode_noted(encoded(image, "JPEG", quality=100))
    assert notes == ("CMYK",)
    red, green, blue = found.getpixel((4, 4))
    assert red > 230
    assert max(green, blue) < 40


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format, encoded):
    """Fault: a 16-bit depth picture clipped to 255 is white everywhere but in its darkest 0.4 %."""
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found, notes = decode_noted(encoded(Image.fromarray(ramp), format))
    assert notes == ("16-bit",)
    assert np.array_equal(np.asarray(found)[..., 0], np.round(ramp / 257))


def test_floats_are_stretched_and_counted(encoded):
    found, notes = decode_noted(encoded(Image.fromarray(np.float32([[-2, 0], [1, 2]])), "TIFF"))
    assert notes == ("32-bit",)
    assert np.asarray(found)[..., 0].tolist() == [[0, 128], [191, 255]]


def test_one_pixel(encoded):
    assert decode(encoded(Image.new("RGB", (1, 1), (9, 8, 7)))).getpixel((0, 0)) == (9, 8, 7)


def test_a_wide_picture_is_read_and_a_thread_of_one_is_refused(encoded):
    """A 20,000 × 10 strip decodes, but resizing its short side to 224 would make 100 megapixels."""
    assert decode(encoded(Image.new("RGB", (20_000, 200)))).size == (20_000, 200)
    assert reason_of(encoded(Image.new("RGB", (20_000, 10)))) == "too narrow"
    assert reason_of(encoded(Image.new("RGB", (10, 20_000)))) == "too narrow"


def test_animation_gives_its_first_frame_and_is_counted(picture, encoded):
    first, second = picture(1), picture(2)
    for format in ("GIF", "PNG", "WEBP"):
        data = encoded(first, format, save_all=True, append_images=[second], duration=40)
        found, notes = decode_noted(data)
        assert notes == ("animated",), format
        apart = [np.abs(np.int16(found) - np.int16(other)).mean() for other in (first, second)]
        assert apart[0] < 12 < apart[1], format


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, picture, encoded):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture(3, (40, 24))
    data = encoded(image, "PNG", exif=exif)
    found, notes = decode_noted(data)
    assert np.array_equal(found, ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert notes == (() if orientation == 1 else ("rotated",))


def test_broken_exif_does_not_cost_the_picture(picture, encoded):
    data = encoded(picture(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decode(data).size == (48, 32)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_file_cut_short_is_no_picture_with_a_grey_end(format, picture, encoded):
    data = encoded(picture(0, (128, 128)), format)
    for share in (0.3, 0.6, 0.9):
        assert reason_of(data[: int(len(data) * share)]) in ("truncated", "corrupt")


def test_other_damage_is_named(tmp_path, picture, encoded):
    assert reason_of(b"") == "zero bytes"
    assert reason_of(b"this is a text, not a picture") == "not a picture"
    assert reason_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not a picture"
    broken = bytearray(encoded(picture(0, (128, 128))))
    middle = len(broken) // 2
    broken[middle : middle + 64] = bytes(64)
    assert reason_of(bytes(broken)) in ("corrupt", "truncated")
    assert reason_of(tmp_path / "nothing.png") == "missing"
    assert reason_of(tmp_path) == "not a file"
    (tmp_path / "loop.png").symlink_to(tmp_path / "gone.png")
    assert reason_of(tmp_path / "loop.png") == "missing"
    (tmp_path / "empty.jpg").touch()
    assert reason_of(tmp_path / "empty.jpg") == "zero bytes"


def test_links_are_followed(tmp_path, picture, encoded):
    (tmp_path / "real.png").write_bytes(encoded(picture(5)))
    (tmp_path / "link.png").symlink_to("real.png")
    assert np.array_equal(FilePicture(tmp_path / "link.png").open(), picture(5))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header asks for any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8_001, 10_000, 60_000])
def test_decompression_bombs_are_refused_before_a_pixel_is_decoded(side, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("a bomb was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    assert reason_of(png_claiming(side, side)) == "too large"


def test_files_beyond_the_limit_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    (tmp_path / "big.png").write_bytes(bytes(1001))
    assert reason_of(tmp_path / "big.png") == "too large"
    assert reason_of(bytes(1001)) == "too large"


def test_pictures_open_from_bytes_and_from_a_call(picture, encoded):
    data = encoded(picture(4))
    assert np.array_equal(BytesPicture(data).open(), picture(4))
    assert np.array_equal(BytesPicture(lambda: data).open(), picture(4))


def _sources() -> list[bytes]:
    """Small files of every format, still and moving."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8))
    files = []
    for format, mode, options in (
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("GIF", "P", {"save_all": True, "append_images": [image.rotate(90).convert("P")]}),
        ("WEBP", "RGB", {}),
        ("BMP", "RGB", {}),
        ("PPM", "RGB", {}),
        ("TIFF", "RGB", {}),
    ):
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, format, **options)
        files.append(buffer.getvalue())
    return files


SOURCES = _sources()


@given(
    st.sampled_from(SOURCES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
    st.floats(0.2, 1.0),
)
def test_damaged_files_give_a_picture_or_a_reason_and_the_cheap_check_agrees(data, changes, share):
    """No other exception escapes, and `inspect` (eighth-size JPEG) judges as full decoding does."""
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    cut = bytes(damaged[: max(1, int(share * len(damaged)))])
    found = []
    for judge in (lambda d: decode_noted(d)[1], inspect):
        try:
            found.append(judge(cut))
        except BadPicture as error:
            found.append(error.reason)
    assert found[0] == found[1]


def test_a_picture_may_be_handed_over_as_path_bytes_or_picture(tmp_path, picture, encoded):
    (tmp_path / "photo.png").write_bytes(encoded(picture(6)))
    for handed in (
        tmp_path / "photo.png",
        str(tmp_path / "photo.png"),
        encoded(picture(6)),
        picture(6).convert("RGBA"),
    ):
        found = open_picture(handed)
        assert found.mode == "RGB"
        assert np.array_equal(found, picture(6))
    with pytest.raises(UserError, match=r"gone\.png cannot be used: missing"):
        open_picture(tmp_path / "gone.png")
