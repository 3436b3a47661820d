"""Bytes -> grey pixels: what is read, exactly how, and what is refused with which sentence."""

import io
import os
import tracemalloc
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from core.imageio import decode, file_type
from core.imageio.decode import ImageError, decode_image, read_image, resize_square
from tests.support import malicious_files
from tests.support.malicious_files import png_header

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
        (b"7z\xbc\xaf\x27\x1c....", "7z"),
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
        file.truncate(decode.MAX_BYTES + 1)
    with pytest.raises(ImageError, match="larger than 64 MiB"):
        read_image(path)
    monkeypatch.setattr(decode, "MAX_BYTES", 100)
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


# --- hostile files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (png_header(1, 100_000), "too large (1×100000 px)"),
        (png_header(100_000, 1), "too large (100000×1 px)"),
        (malicious_files.tiff(1, 100_000, bytes(100_000)), "too large (1×100000 px)"),
        (malicious_files.bmp_header(100_000, 1), "too large (100000×1 px)"),
        (malicious_files.jpeg_header(65_000, 65_000), "50 million pixels"),
        (malicious_files.webp_header(16_383, 16_383), "too large (16383×16383 px)"),
        (malicious_files.webp_header(2**24, 2**24), "too large (16777216×16777216 px)"),
        (malicious_files.tiff(2**31, 2**31, bytes(1600)), "50 million pixels"),
        (malicious_files.bmp_header(2**31 - 1, 40), "50 million pixels"),
        (png_header(1, 20_000), "too small (1×20000 px)"),
        (png_header(20_001, 40), "too large (20001×40 px); at most 20000 px a side"),
    ],
)
def test_sizes_are_refused_by_the_header_naming_what_was_found(data, says, monkeypatch):
    monkeypatch.setattr(
        Image.Image, "load", lambda self: pytest.fail("decoded before the size was checked")
    )
    assert says in refused(data)


def test_webp_canvas_is_refused_before_pillow_sets_it_aside(monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_args, **_kw: pytest.fail("opened"))
    assert "too large" in refused(malicious_files.webp_header(16_383, 16_383))


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"lossless": False}, {"lossless": True, "exif": b"Exif"}]
)
def test_webp_sizes_are_read_right(options):
    data = encode(GREY, "WEBP", "RGB", **options)
    assert file_type.webp_size(data) == (60, 40)


@contextmanager
def allocating_at_most(n_bytes: int):
    """The block may hold no more than n_bytes of what Python allocates at any moment."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= n_bytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "bomb", [malicious_files.text_bomb(50_000_000), malicious_files.text_flood(80)]
)
def test_text_that_unpacks_to_too_much_names_the_limit(bomb):
    assert len(bomb) < 200_000
    message = refused(bomb)
    assert "unpacks to more than 1 MiB a piece or 64 MiB in all" in message


def test_a_profile_that_unpacks_to_too_much_names_the_limit():
    bomb = malicious_files.profile_bomb(50_000_000)
    with allocating_at_most(10_000_000):
        assert "colour profile beside the picture unpacks to more than 1 MiB" in refused(bomb)


def test_png_of_very_many_pieces_is_refused():
    few = malicious_files.png_with(malicious_files.png_chunk(b"prVt", b"") * 50_000)
    assert (decode_image(few).pixels == 90).all()
    many = malicious_files.png_with(malicious_files.png_chunk(b"prVt", b"") * 100_001)
    assert "more than 100,000 pieces" in refused(many)


def test_jpeg_of_very_many_scans_is_refused():
    assert decode_image(malicious_files.many_scans(20)).width == 64
    message = refused(malicious_files.many_scans(300))
    assert "scans, at most 200 are read" in message


def test_tiff_of_very_many_pictures_is_refused_without_counting_them(monkeypatch):
    chain = malicious_files.tiff_chain(50_000)
    sought, seek = [], TiffImageFile.seek
    monkeypatch.setattr(TiffImageFile, "seek", lambda s, to: (sought.append(to), seek(s, to)))
    assert "more than 100 frames" in refused(chain)
    assert sought == list(range(1, 101))
    assert "3 frames" in refused(malicious_files.tiff_chain(3))
    # A chain that leads back to its beginning has an end all the same.
    assert "frames" in refused(malicious_files.tiff_chain(3, circular=True))
    assert decode_image(malicious_files.tiff_chain(1)).pixels.shape == (40, 40)
    assert decode_image(malicious_files.tiff_chain(1, circular=True)).pixels.shape == (40, 40)


def test_tiff_with_lying_strips_and_tiles():
    # A strip that unpacks to 30,000 times what the picture has: the rest stays packed.
    bomb = zlib.compress(bytes(50_000_000), 9)
    assert not decode_image(malicious_files.tiff(40, 40, bomb, compression=8)).pixels.any()
    assert "damaged" in refused(malicious_files.tiff(4000, 4000, bytes(100)))
    one_tile = {322: 48, 323: 48, 324: 0, 325: 48 * 48}
    assert decode_image(malicious_files.tiff(40, 40, bytes(48 * 48), further=one_tile)).width == 40
    gigantic = one_tile | {322: 2**31 - 16, 323: 2**31 - 16}
    with allocating_at_most(10_000_000):
        assert "damaged" in refused(malicious_files.tiff(40, 40, bytes(48 * 48), further=gigantic))


WHOLE = {
    "PNG": encode(GREY),
    "PNG16": encode(GREY.astype(np.uint16) * 100),
    "JPEG": encode(SMOOTH, "JPEG"),
    "progressive": encode(SMOOTH, "JPEG", progressive=True),
    "BMP": encode(GREY, "BMP", "RGB"),
    "TIFF": encode(GREY, "TIFF"),
    "TIFF-LZW": encode(GREY, "TIFF", compression="tiff_lzw"),
    "WebP": encode(GREY, "WEBP", "RGB"),
    "WebP lossless": encode(GREY, "WEBP", "RGB", lossless=True),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("tenth", range(10))
def test_cut_off_at_every_tenth(name, tenth):
    data = WHOLE[name]
    decode_image(data)
    message = refused(data[: len(data) * tenth // 10])
    assert any(word in message for word in ("damaged", "cut off", "empty", "no picture"))


@pytest.mark.parametrize("name", WHOLE)
def test_polyglots_are_refused_by_both_names(name):
    data = WHOLE[name]
    kind = file_type.detect_file_type(data)
    page = b"<html><body><script>alert(1)</script></body></html>"
    pdf = b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"
    archive = malicious_files.zip_of(("a.txt", b"hello"))
    for other, behind in (("HTML", page), ("PDF", pdf), ("ZIP", archive)):
        message = refused(data + behind)
        assert message.startswith(f"The file is {kind} and {other} at once")
    for before in (page, pdf, archive):
        refused(before + data)


def test_a_second_picture_or_program_behind_the_first_is_refused():
    assert "PNG and JPEG at once" in refused(WHOLE["PNG"] + WHOLE["JPEG"])
    assert "JPEG and PNG at once" in refused(WHOLE["JPEG"] + WHOLE["PNG"])
    assert "BMP and Linux program at once" in refused(WHOLE["BMP"] + b"\x7fELF" + bytes(60))
    assert "WebP and gzip at once" in refused(WHOLE["WebP"] + b"\x1f\x8b\x08" + bytes(60))


def test_what_some_programs_write_behind_a_picture_is_no_polyglot():
    for data in (WHOLE["PNG"], WHOLE["JPEG"]):
        for behind in (b"\0" * 16, b"\r\n", b"made by a scanner"):
            assert np.array_equal(decode_image(data + behind).pixels, decode_image(data).pixels)


def test_xmp_and_comments_that_speak_of_html_are_no_polyglot():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF/></x:xmpmeta>'
    assert decode_image(encode(SMOOTH, "JPEG", xmp=xmp, comment=b"see a.html")).width == 64


# --- colour -----------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_colourfulness_is_the_mean_spread_of_the_channels(file_format):
    rgb = np.zeros((40, 50, 3), np.uint8)
    rgb[:20] = (200, 100, 50)  # spread 150
    rgb[20:, :25] = (7, 7, 7)
    rgb[20:, 25:] = (10, 61, 10)  # spread 51
    expected = (0.5 * 150 + 0.25 * 51) / 255
    decoded = decode_image(encode(rgb, file_format))
    assert decoded.colourfulness == pytest.approx(expected, abs=1e-12)
    # By ITU-R 601, as Pillow rounds it.
    assert decoded.pixels[0, 0] == (200 * 299 + 100 * 587 + 50 * 114) // 1000


def test_colourfulness_in_many_blocks():
    rgb = RNG.integers(0, 256, (1100, 1000, 3), dtype=np.uint8)
    expected = np.ptp(rgb.astype(int), axis=2).mean() / 255
    assert decode_image(encode(rgb, "BMP")).colourfulness == pytest.approx(expected, abs=1e-12)


def test_grey_pictures_have_no_colour_in_any_mode():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = Image.fromarray(GREY).convert(mode)
        assert decode_image(encode(image)).colourfulness == 0.0, mode
    assert decode_image(encode(GREY.astype(np.uint16) * 7)).colourfulness == 0.0
    assert decode_image(encode(GREY.astype(np.float32), "TIFF")).colourfulness == 0.0
    assert decode_image(encode(SMOOTH, "JPEG")).colourfulness == 0.0


def test_palette_transparent_and_lab_pictures_have_colour():
    red = Image.new("RGB", (40, 40), (255, 0, 0))
    assert decode_image(encode(red.convert("P"))).colourfulness == 1.0
    half = red.convert("RGBA")
    half.putalpha(51)  # a fifth of it over black
    assert decode_image(encode(half)).colourfulness == pytest.approx(0.2)
    planes = [Image.new("L", (40, 40), value) for value in (128, 200, 128)]
    assert decode_image(encode(Image.merge("LAB", planes), "TIFF")).colourfulness > 0.3
