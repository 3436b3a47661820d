"""Bytes -> grey pixels: what is read, exactly how, and what is refused with which sentence."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from core import images
from core.images import ImageError, decode_image, read_image, resize_square

# Pillow warns on damaged files before it fails on them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 60), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(96), np.arange(64)).astype(np.uint8)


def encode(pixels, file_format="PNG", mode=None, **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if mode:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    message = str(caught.value)
    assert "\n" not in message and message.endswith("."), message
    return message


# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_pixels_come_through_lossless_formats_unchanged(file_format, mode):
    decoded = decode_image(encode(GREY, file_format, mode))
    assert np.array_equal(decoded.pixels, GREY)
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.width, decoded.height) == (60, 40)
    assert (decoded.format, decoded.mode) == (file_format, mode)


def test_webp_and_jpeg_are_read():
    assert np.array_equal(decode_image(encode(GREY, "WEBP", "RGB", lossless=True)).pixels, GREY)
    decoded = decode_image(encode(SMOOTH, "JPEG", quality=95))
    assert decoded.format == "JPEG"
    assert np.abs(decoded.pixels.astype(int) - SMOOTH).max() <= 4


def test_bits_become_black_and_white():
    decoded = decode_image(encode(Image.fromarray(GREY > 127)))
    assert decoded.mode == "1"
    assert np.array_equal(decoded.pixels, np.where(GREY > 127, 255, 0))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_is_scaled_by_its_own_range(file_format):
    deep = np.full((40, 60), 2000, np.uint16)
    deep[0, 0], deep[0, 1], deep[0, 2] = 1000, 3000, 2500
    pixels = decode_image(encode(deep, file_format)).pixels
    assert pixels[0, 0] == 0 and pixels[0, 1] == 255
    assert pixels[0, 2] == 191  # 0.75 of the range
    assert pixels[1, 1] == 128
    # A 12-bit picture must not come out nearly black.
    assert decode_image(encode((GREY.astype(np.uint16) * 16), file_format)).pixels.max() == 255


def test_16_bit_in_many_blocks_is_scaled_like_one():
    deep = RNG.integers(100, 60_000, (1100, 1000)).astype(np.uint16)
    low, high = int(deep.min()), int(deep.max())
    expected = np.rint((deep.astype(float) - low) * 255 / (high - low)).astype(np.uint8)
    assert np.array_equal(decode_image(encode(deep, "TIFF")).pixels, expected)


def test_flat_16_bit_is_black_and_white_is_zero_is_inverted():
    assert not decode_image(encode(np.full((40, 40), 700, np.uint16))).pixels.any()
    deep = GREY.astype(np.uint16) * 257
    inverted = decode_image(encode(deep, "TIFF", tiffinfo={262: 0}))
    plain = decode_image(encode(deep, "TIFF"))
    assert np.array_equal(inverted.pixels, 255 - plain.pixels)


def test_float_and_32_bit_are_scaled_and_nan_is_refused():
    values = np.linspace(-1, 1, 40 * 60, dtype=np.float32).reshape(40, 60)
    pixels = decode_image(encode(values, "TIFF")).pixels
    assert pixels[0, 0] == 0 and pixels[-1, -1] == 255
    pixels = decode_image(encode(GREY.astype(np.int32) * 70_000 - 5, "TIFF")).pixels
    assert np.array_equal(pixels, decode_image(encode(GREY.astype(np.float32), "TIFF")).pixels)
    for bad in (np.nan, np.inf, -np.inf):
        values[3, 3] = bad
        assert "no numbers" in refused(encode(values, "TIFF"))


def test_cmyk_jpeg_comes_out_as_it_looks():
    decoded = decode_image(encode(Image.fromarray(SMOOTH), "JPEG", "CMYK", quality=95))
    assert decoded.mode == "CMYK"
    assert np.abs(decoded.pixels.astype(int) - SMOOTH).max() <= 6


def test_palette_is_looked_up():
    image = Image.fromarray((GREY % 2).astype(np.uint8))
    image.putpalette([200, 200, 200, 10, 10, 10])
    decoded = decode_image(encode(image))
    assert decoded.mode == "P"
    assert np.array_equal(decoded.pixels, np.where(GREY % 2, 10, 200))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_lies_on_black(mode):
    image = Image.fromarray(np.full((40, 40), 200, np.uint8)).convert(mode)
    alpha = np.full((40, 40), 255, np.uint8)
    alpha[0], alpha[1] = 0, 128
    image.putalpha(Image.fromarray(alpha))
    pixels = decode_image(encode(image)).pixels
    assert (pixels[0] == 0).all() and (pixels[2:] == 200).all()
    assert abs(int(pixels[1, 0]) - 100) <= 1


def test_transparent_palette_colour_lies_on_black():
    image = Image.fromarray((GREY % 2).astype(np.uint8))
    image.putpalette([200, 200, 200, 90, 90, 90])
    pixels = decode_image(encode(image, transparency=0)).pixels
    assert np.array_equal(pixels, np.where(GREY % 2, 90, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
def test_exif_rotation_is_applied_once(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(SMOOTH, file_format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    decoded = decode_image(data)
    assert np.array_equal(decoded.pixels, expected)
    assert (decoded.height, decoded.width) == expected.shape
    assert (decoded.width > decoded.height) == (orientation >= 5)


def test_broken_exif_does_not_lose_the_picture():
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + b"\xff" * 40
    decoded = decode_image(encode(SMOOTH, "JPEG", exif=exif))
    assert decoded.pixels.shape == SMOOTH.shape


def test_the_content_tells_the_format_and_not_the_name(tmp_path):
    path = tmp_path / "misnamed.jpg"
    path.write_bytes(encode(GREY, "PNG"))
    assert read_image(path).format == "PNG"
    assert np.array_equal(read_image(str(path)).pixels, GREY)


def test_sides_at_the_limits():
    assert decode_image(encode(GREY[:32, :32])).pixels.shape == (32, 32)
    assert "too small (31×32 px)" in refused(encode(GREY[:32, :31]))


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.003, 0.02, 0.1, 0.5, 0.9, 0.99])
def test_truncated_anywhere_is_refused(file_format, share):
    pixels = RNG.integers(0, 256, (200, 200), dtype=np.uint8)
    data = encode(pixels, file_format)
    message = refused(data[: max(3, int(len(data) * share))])
    assert "cut off" in message or "no picture" in message


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_random_damage_gives_pixels_or_one_sentence(file_format):
    data = encode(SMOOTH, file_format)
    rng = np.random.default_rng(1)
    outcomes = []
    for _ in range(60):
        broken = bytearray(data)
        for position in rng.integers(0, len(data), 4):
            broken[position] = rng.integers(0, 256)
        try:
            outcomes.append(decode_image(bytes(broken)).pixels.dtype)
        except ImageError as error:  # anything else would end a run
            outcomes.append(str(error))
    assert len(outcomes) == 60
    assert all(outcome == np.uint8 or "\n" not in outcome for outcome in outcomes)


def test_empty_and_one_pixel_and_text():
    assert "empty" in refused(b"")
    assert "too small (1×1 px)" in refused(encode(np.zeros((1, 1), np.uint8)))
    assert "no picture" in refused(b"hello, this is a note")
    assert "HTML" in refused(b"<!DOCTYPE html><p>404")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0" * 128 + b"DICM" + b"\0" * 100, "DICOM"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"PK\x03\x04....", "ZIP"),
    ],
)
def test_other_formats_are_named(data, name):
    message = refused(data)
    assert name in message and "PNG" in message


def test_gif_is_not_on_the_list():
    assert "GIF" in refused(encode(GREY, "GIF"))


@pytest.mark.parametrize("file_format", ["TIFF", "PNG", "WEBP"])
def test_several_frames_are_refused(file_format):
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    data = encode(first, file_format, save_all=True, append_images=[second])
    assert "2 frames" in refused(data)


def test_huge_header_is_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(
        Image.Image, "load", lambda self: pytest.fail("decoded before the size was checked")
    )
    assert "too large (60000×50 px)" in refused(png_header(60_000, 50))
    assert "too large (8000×8000 px)" in refused(png_header(8_000, 8_000))
    # Where Pillow itself would warn (above 89 million) and where it would raise (179 million).
    assert "too large" in refused(png_header(10_000, 10_000))
    assert "50 million pixels" in refused(png_header(2**31 - 1, 2**31 - 1))


def test_decompression_bomb_is_refused():
    bomb = encode(Image.new("1", (19_000, 19_000)))
    assert len(bomb) < 100_000
    assert "million pixels" in refused(bomb)


def test_large_files_are_refused_without_being_read(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(ImageError, match="larger than 64 MiB"):
        read_image(path)
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    assert "larger than" in refused(encode(GREY))


def test_paths_that_are_no_readable_file(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="not a file"):
        read_image(tmp_path)
    with pytest.raises(ImageError):
        read_image("nul\0byte.png")
    with pytest.raises(ImageError):
        read_image(tmp_path / ("x" * 5000))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(GREY))
    path.chmod(0)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(path)


def test_read_errors_of_the_disk_are_named(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encode(GREY))

    def fail(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", fail)
    with pytest.raises(ImageError, match=r"cannot be read \(Permission denied\)"):
        read_image(path)


# --- resizing ---------------------------------------------------------------------------------


def test_resize_stretches_and_never_pads():
    wide = np.full((40, 400), 180, np.uint8)
    square = resize_square(wide, 64)
    assert square.shape == (64, 64) and square.dtype == np.uint8
    assert (square == 180).all()
    # The left half stays the left half, whatever the shape.
    wide[:, :200] = 20
    square = resize_square(wide, 64)
    assert (square[:, :28] == 20).all() and (square[:, 36:] == 180).all()


def test_resize_is_antialiased_when_shrinking():
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize_square(stripes, 32).astype(int) - 127).max() <= 12


def test_resize_to_the_same_size_copies():
    square = GREY[:40, :40]
    same = resize_square(square, 40)
    assert np.array_equal(same, square) and not np.shares_memory(same, square)


def test_resize_says_what_it_expects():
    with pytest.raises(ImageError, match="uint8"):
        resize_square(np.zeros((40, 40, 3), np.uint8), 32)
    with pytest.raises(ImageError, match="at least 1 px"):
        resize_square(GREY, 0)
