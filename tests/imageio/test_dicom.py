"""DICOM -> grey pixels: values worked out by hand and by other programs, limits, and no names."""

from __future__ import annotations

import io
import logging
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence

from core.bench.fuzz_seeds import PATIENT_IDENTIFIERS, SYNTAXES, encode, make_dicom, pydicom_files
from core.imageio import dicom, dicom_codecs
from core.imageio.decode import ImageError, decode_image
from core.imageio.dicom_header import OTHER_WORD
from tests.support.server import ROOT

# pytest puts its own filters in place of those of core.imageio.dicom.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 60), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (40, 60)).astype(np.uint16)
DEEP[0, 0], DEEP[0, 1] = 0, 4095
SMOOTH = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)
FILES = {path.name: path for path in pydicom_files()}
LOSSLESS = [name for name in SYNTAXES if name != "JPEG"]


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and message.isprintable(), message
    assert not any(value in message for value in PATIENT_IDENTIFIERS.values())
    return message


def own_range(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return np.rint((values.astype(float) - low) * 255 / (high - low)).astype(np.uint8)


# --- stored values -> grey levels -------------------------------------------------------------


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_8_bit_keeps_its_grey_levels_in_every_lossless_syntax(syntax):
    decoded = decode_image(make_dicom(GREY, syntax))
    assert np.array_equal(decoded.pixels, GREY)
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.width, decoded.height) == (60, 40)
    assert (decoded.format, decoded.mode) == ("DICOM", "MONOCHROME2 8 bit")
    assert decoded.facts["Window"] == "none; grey levels kept"
    assert decoded.colourfulness == 0 and not decoded.synthetic


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_12_of_16_bits_are_scaled_by_their_own_range(syntax):
    data = make_dicom(DEEP, syntax, stored=12)
    assert np.array_equal(decode_image(data).pixels, own_range(DEEP))
    inverted = make_dicom(DEEP, syntax, stored=12, photometric="MONOCHROME1")
    assert np.array_equal(decode_image(inverted).pixels, 255 - own_range(DEEP))


@pytest.mark.parametrize("syntax", ["uncompressed", "implicit", "big endian", "RLE", "JPEG 2000"])
def test_signed_values(syntax):
    signed = (DEEP.astype(np.int32) - 2000).astype(np.int16)
    assert np.array_equal(decode_image(make_dicom(signed, syntax)).pixels, own_range(signed))
    data = make_dicom(signed, syntax, WindowCenter="0", WindowWidth="1")
    assert np.array_equal(decode_image(data).pixels, np.where(signed > -0.5, 255, 0))


@pytest.mark.parametrize(
    ("function", "value", "grey"),
    [
        # PS3.3 C.11.2.1.2.1 by hand: c=2048, w=4096: x <= c-0.5-(w-1)/2 = 0 is black,
        # x > c-0.5+(w-1)/2 = 4095 is white, between ((x-2047.5)/4095 + 0.5) * 255.
        ("LINEAR", 0, 0),
        ("LINEAR", 4095, 255),
        ("LINEAR", 1024, 64),  # 63.77
        ("LINEAR", 2048, 128),  # 127.53
        ("LINEAR_EXACT", 2048, 128),  # 127.5 to even
        ("LINEAR_EXACT", 1024, 64),  # 63.75
        ("LINEAR_EXACT", 4000, 249),  # 249.02
        ("SIGMOID", 2048, 128),
        ("SIGMOID", 1024, 69),  # 255 / (1 + e) = 68.58
        ("SIGMOID", 4095, 225),  # 255 / (1 + exp(-4 * 2047 / 4096)) = 224.6
    ],
)
def test_windows_by_hand(function, value, grey):
    pixels = np.full((40, 40), 3000, np.uint16)
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = value, 0, 4095
    data = make_dicom(
        pixels, stored=12, WindowCenter="2048", WindowWidth="4096", VOILUTFunction=function
    )
    decoded = decode_image(data)
    assert decoded.pixels[0, 0] == grey
    assert decoded.facts["Window"] == f"center 2048, width 4096, {function}"


def test_the_first_of_several_windows_counts():
    several = make_dicom(DEEP, stored=12, WindowCenter=["500", "3000"], WindowWidth=["800", "90"])
    one = make_dicom(DEEP, stored=12, WindowCenter="500", WindowWidth="800")
    assert np.array_equal(decode_image(several).pixels, decode_image(one).pixels)


@pytest.mark.parametrize(
    ("function", "rescale", "signed"),
    [  # Every pair of two of the three stands in one row.
        ("LINEAR", None, False),
        ("LINEAR", ("2.5", "-1024"), True),
        ("LINEAR", ("-1", "100"), False),
        ("LINEAR_EXACT", None, True),
        ("LINEAR_EXACT", ("2.5", "-1024"), False),
        ("LINEAR_EXACT", ("-1", "100"), True),
        ("SIGMOID", None, False),
        ("SIGMOID", ("2.5", "-1024"), True),
        ("SIGMOID", ("-1", "100"), True),
    ],
)
def test_windows_agree_with_pydicom(function, rescale, signed):
    pixels = (DEEP.astype(np.int32) - 2000).astype(np.int16) if signed else DEEP
    tags = {"WindowCenter": "300", "WindowWidth": "700", "VOILUTFunction": function}
    if rescale:
        tags |= {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]}
    data = make_dicom(pixels, stored=None if signed else 12, **tags)
    source = pydicom.dcmread(io.BytesIO(data))
    shown = apply_voi_lut(apply_modality_lut(source.pixel_array, source), source)
    bits = 16 if signed else 12
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    # pydicom's black and white; with a falling slope its black is the larger number.
    low, high = ends * float(rescale[0]) + float(rescale[1]) if rescale else ends
    expected = np.rint((shown - low) / (high - low) * 255)
    assert np.abs(decode_image(data).pixels - expected).max() <= 1


def lut(entries: list[int], first: int, bits: int, vr: str = "US") -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", vr, np.array(entries, "<u2").tobytes() if vr == "OW" else entries)
    item.LUTExplanation = PATIENT_IDENTIFIERS["PatientName"]
    return Sequence([item])


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("syntax", ["uncompressed", "implicit"])
def test_voi_lut_by_hand_and_by_pydicom(vr, syntax):
    pixels = np.arange(1600, dtype=np.uint16).reshape(40, 40)
    entries = [0, 0, 100, 1000, 4095]
    data = make_dicom(pixels, syntax, stored=12, VOILUTSequence=lut(entries, 10, 12, vr))
    decoded = decode_image(data).pixels.ravel()
    by_hand = np.rint(np.array(entries) / 4095 * 255)  # 0 0 6 62 255
    assert (decoded[:11] == 0).all() and (decoded[14:] == 255).all()
    assert decoded[10:15].tolist() == by_hand.tolist() == [0, 0, 6, 62, 255]
    source = pydicom.dcmread(io.BytesIO(data))
    theirs = apply_voi_lut(source.pixel_array, source) / 4095 * 255
    assert np.array_equal(decoded, np.rint(theirs).ravel())


def test_values_beyond_an_8_bit_table_have_its_last_entry():
    """pydicom's own apply_voi gives 256 the first entry again."""
    pixels = np.full((40, 40), 300, np.uint16)
    pixels[0, :5] = 0, 1, 3, 255, 256
    data = make_dicom(pixels, stored=12, VOILUTSequence=lut([10, 20, 30, 200], 0, 8))
    assert decode_image(data).pixels[0, :6].tolist() == [10, 20, 200, 200, 200, 200]


def test_a_lut_comes_before_a_window_and_a_window_before_the_own_range():
    both = make_dicom(
        DEEP, stored=12, VOILUTSequence=lut([0, 255] * 10, 5, 8), WindowCenter=1, WindowWidth=2
    )
    assert decode_image(both).facts["Window"] == "VOI LUT"


def test_modality_lut():
    pixels = np.tile(np.arange(4, dtype=np.uint16), (40, 10))
    data = make_dicom(pixels, ModalityLUTSequence=lut([5000, 1000, 2000], 1, 16))
    # 0 and 1 are 5000 (the first entry), 2 is 1000, 3 is 2000; then by their own range.
    assert decode_image(data).pixels[0, :4].tolist() == [255, 255, 0, 64]  # 63.75


def test_a_window_that_shows_nothing_gives_way_to_the_own_range():
    data = make_dicom(DEEP, stored=12, WindowCenter="-9000", WindowWidth="10")
    decoded = decode_image(data)
    assert np.array_equal(decoded.pixels, own_range(DEEP))
    assert "shows nothing" in decoded.facts["Window"]


def test_padding_is_black_and_counts_for_no_range():
    padded = DEEP.copy()
    padded[:, :20] = 4000
    inside = padded[:, 20:]
    inside[inside >= 4000] = 3999
    data = make_dicom(padded, stored=12, PixelPaddingValue=4000)
    pixels = decode_image(data).pixels
    assert (pixels[:, :20] == 0).all()
    assert np.array_equal(pixels[:, 20:], own_range(inside))
    inverted = make_dicom(
        padded, stored=12, photometric="MONOCHROME1", PixelPaddingValue=4000,
        PixelPaddingRangeLimit=4095,
    )  # fmt: skip
    pixels = decode_image(inverted).pixels
    assert (pixels[:, :20] == 0).all()
    assert np.array_equal(pixels[:, 20:], 255 - own_range(inside))


def test_unused_high_bits_are_left_out():
    overlaid = DEEP | 0xF000
    assert np.array_equal(decode_image(make_dicom(overlaid, stored=12)).pixels, own_range(DEEP))


def test_flat_pictures_do_not_divide_by_nothing():
    flat = np.full((40, 40), 700, np.uint16)
    assert not decode_image(make_dicom(flat, stored=12)).pixels.any()
    data = make_dicom(flat, stored=12, WindowCenter="700", WindowWidth="0")
    assert not decode_image(data).pixels.any()
    assert not decode_image(make_dicom(flat, stored=12, PixelPaddingValue=700)).pixels.any()


# --- colour -----------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_rgb_becomes_luma_and_its_colour_is_measured(syntax):
    rgb = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    decoded = decode_image(make_dicom(rgb, syntax))
    assert np.array_equal(decoded.pixels, np.array(Image.fromarray(rgb).convert("L")))
    assert decoded.colourfulness == pytest.approx(np.ptp(rgb.astype(int), axis=2).mean() / 255)


def test_planes_one_after_another():
    rgb = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1)).reshape(rgb.shape)
    decoded = decode_image(make_dicom(planes, PlanarConfiguration=1))
    assert np.array_equal(decoded.pixels, np.array(Image.fromarray(rgb).convert("L")))


def test_16_bit_colour():
    rgb = RNG.integers(0, 65536, (40, 60, 3)).astype(np.uint16)
    expected = np.rint(rgb / 65535 * 255).astype(np.uint8)
    decoded = decode_image(make_dicom(rgb))
    assert np.array_equal(decoded.pixels, np.array(Image.fromarray(expected).convert("L")))


def test_ybr_full_by_the_standard():
    ybr = np.zeros((40, 60, 3), np.uint8)
    ybr[...] = (100, 90, 200)
    # PS3.3 C.7.6.3.1.2: R = Y + 1.402 (Cr - 128), B = Y + 1.772 (Cb - 128), G from both.
    red, green, blue = 100 + 1.402 * 72, 100 + 0.344136 * 38 - 0.714136 * 72, 100 - 1.772 * 38
    decoded = decode_image(make_dicom(ybr, photometric="YBR_FULL"))
    assert abs(decoded.pixels[0, 0] - 100) <= 1  # luma is Y itself
    assert decoded.colourfulness == pytest.approx((red - min(green, blue)) / 255, abs=0.01)


def test_jpeg_baseline_as_pillow_decodes_it():
    decoded = decode_image(make_dicom(SMOOTH, "JPEG"))
    with Image.open(io.BytesIO(encode(SMOOTH, "JPEG", quality=92))) as image:
        assert np.array_equal(decoded.pixels, np.array(image))
    rgb = np.stack([SMOOTH, SMOOTH.T[:48, :48].repeat(2, 1)[:, :64], 255 - SMOOTH], axis=-1)
    with Image.open(io.BytesIO(encode(rgb, "JPEG", quality=92))) as image:
        expected = np.array(image.convert("L")).astype(int)
    assert np.abs(decode_image(make_dicom(rgb, "JPEG")).pixels - expected).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("syntax", ["uncompressed", "implicit"])
def test_palette_by_hand(bits, syntax):
    index = np.tile(np.arange(5, dtype=np.uint8), (40, 8))
    tables = {"Red": [255, 0, 9], "Green": [0, 0, 9], "Blue": [0, 255, 9]}
    tags = {}
    for name, entries in tables.items():
        kind = "u1" if bits == 8 else "<u2"
        wide = np.array(entries) * (1 if bits == 8 else 257)
        content = wide.astype(kind).tobytes()
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [3, 1, bits]
        tags[f"{name}PaletteColorLookupTableData"] = content + b"\0" * (len(content) % 2)
    decoded = decode_image(make_dicom(index, syntax, photometric="PALETTE COLOR", **tags))
    # Below the first mapped value (1) the first entry counts, above the last the last.
    red, blue, grey = 76, 29, 9
    assert decoded.pixels[0, :5].tolist() == [red, red, blue, grey, grey]
    assert decoded.colourfulness == pytest.approx(3 / 5)


def test_palette_without_its_table():
    message = refused(make_dicom(GREY, photometric="PALETTE COLOR"))
    assert "colour table is missing" in message


# --- other people's files ---------------------------------------------------------------------

# (row, column, value), as pydicom's own tests have them (tests/pixels/pixels_reference.py).
KNOWN_12_BIT = [(420, 140, 244), (230, 120, 95)]


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_12_bit_jpeg_by_pydicoms_reference_values(name):
    values = np.unique([0, 264])
    decoded = decode_image(FILES[name].read_bytes())
    assert decoded.facts["TransferSyntaxUID"] == "JPEG extended"
    assert "0 to 264" in decoded.facts["Window"] and values[1] == 264
    for row, column, value in KNOWN_12_BIT:
        assert decoded.pixels[row, column] == round(value * 255 / 264)


def test_lossless_jpeg_equals_what_it_was_made_from():
    jpeg = decode_image(FILES["SC_rgb_jpeg_gdcm.dcm"].read_bytes())
    assert jpeg.facts["TransferSyntaxUID"] == "JPEG lossless SV1"
    rle = decode_image(FILES["SC_rgb_rle.dcm"].read_bytes())
    assert np.array_equal(jpeg.pixels, rle.pixels)


@pytest.mark.parametrize("kind", ["RLE", "jp2klossless", "jpeg_ls_lossless", "implicit", "padded"])
def test_lossless_copies_of_one_slice_are_alike(kind):
    one = decode_image(FILES["MR_small.dcm"].read_bytes())
    assert np.array_equal(
        decode_image(FILES[f"MR_small_{kind}.dcm"].read_bytes()).pixels, one.pixels
    )
    source = pydicom.dcmread(FILES["MR_small.dcm"])
    window = (source.pixel_array - 599.5) / 1599 + 0.5
    assert np.array_equal(one.pixels, np.rint(np.clip(window, 0, 1) * 255))


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "MR_small_expb.dcm"])
def test_big_endian_by_pydicoms_values(name):
    source = pydicom.dcmread(FILES[name])
    window = (source.pixel_array.astype(float) - 599.5) / 1599 + 0.5
    decoded = decode_image(FILES[name].read_bytes())
    assert np.array_equal(decoded.pixels, np.rint(np.clip(window, 0, 1) * 255))


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_every_file_of_pydicom_is_read_or_refused_in_one_sentence(path):
    data = path.read_bytes()
    try:
        decoded = decode_image(data)
    except ImageError:
        refused(data)
    else:
        assert decoded.pixels.shape == (decoded.height, decoded.width)
        assert decoded.pixels.dtype == np.uint8 and decoded.pixels.max() > decoded.pixels.min()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("examples_ybr_color.dcm", "several pictures (30 frames)"),
        ("rtdose.dcm", "several pictures (15 frames)"),
        ("SC_rgb_rle_32bit.dcm", "32 of 32 bits; 8 to 16 bits are read"),
        ("test-SR.dcm", "(Comprehensive SR Storage) holds no picture"),
        ("DICOMDIR", "a DICOMDIR, a list of files"),
        ("waveform_ecg.dcm", "(12-lead ECG Waveform Storage) holds no picture"),
        ("rtplan.dcm", "(RT Plan Storage) holds no picture"),
        ("MR_truncated.dcm", "8,130 bytes of pixels where 8,192 are due"),
        ("SC_rgb_small_odd.dcm", "too small (3×3 px)"),
        ("JPEG2000-embedded-sequence-delimiter.dcm", "tiles, at most 65,535"),
    ],
)
def test_what_is_no_single_picture_is_named(name, says):
    assert says in refused(FILES[name].read_bytes())


def test_the_deflated_file_is_read():
    decoded = decode_image(FILES["image_dfl.dcm"].read_bytes())
    assert np.array_equal(decoded.pixels, pydicom.dcmread(FILES["image_dfl.dcm"]).pixel_array)


# --- limits, before anything is decoded -------------------------------------------------------


@pytest.fixture
def undecoded(monkeypatch):
    monkeypatch.setattr(dicom, "decode_pixels", lambda *_args, **_kw: pytest.fail("decoded"))


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"Rows": 60_000, "Columns": 60_000}, "too large (60000×60000 px)"),
        ({"Rows": 1, "Columns": 60_000}, "too large (60000×1 px)"),
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"NumberOfFrames": 2**31 - 1}, "frames"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "32 of 32 bits"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "1 of 1 bits"),
        ({"BitsStored": 12}, "12 of 8 bits"),
        ({"HighBit": 11}, "do not begin at the lowest bit"),
        ({"SamplesPerPixel": 4}, "4 samples a pixel"),
        ({"SamplesPerPixel": 65535}, "65535 samples a pixel"),
        ({"PhotometricInterpretation": "ZZYZX"}, "photometric interpretation is not read"),
        ({"Rows": None}, "no usable Rows"),
        ({"PixelRepresentation": 7}, "neither how signs"),
    ],
)
def test_header_limits(tags, says):
    message = refused(make_dicom(GREY, **tags))
    assert says in message and "ZZYZX" not in message


def test_too_many_elements_and_too_long_a_header(monkeypatch):
    data = make_dicom(GREY)
    monkeypatch.setattr(dicom, "MAX_HEADER_BYTES", 300)
    assert "larger than 0 MiB" in refused(data)
    monkeypatch.undo()
    monkeypatch.setattr(dicom, "MAX_ELEMENTS", 5)
    assert "more than 5 elements" in refused(data)


def test_nested_sequences_end_in_a_sentence():
    # 3,000 sequences of undefined length, each inside the other, before the picture.
    opening = bytes.fromhex("0900011053510000ffffffff" + "feff00e0ffffffff")
    data = make_dicom(GREY)
    at = data.index(b"\x08\x00\x16\x00UI")
    assert "nested too deeply" in refused(data[:at] + opening * 3000)


def test_a_deflated_bomb_names_the_limit():
    data = make_dicom(GREY, "deflated")
    meta = data[: data.index(b"1.2.840.10008.1.2.1.99") + 22]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(200_000_000)) + packer.flush()
    assert len(packed) < 250_000
    assert "unpacks to more than 64 MiB" in refused(meta + packed)


def j2k(pixels: np.ndarray) -> bytes:
    return encode(pixels, "JPEG2000", irreversible=False, no_jp2=True)


@pytest.mark.parametrize("family", ["JPEG 2000", "JPEG", "JPEG-LS"])
def test_streams_that_claim_another_size_never_reach_their_decoder(family, monkeypatch):
    stream = {"JPEG 2000": j2k(GREY), "JPEG": encode(GREY, "JPEG")}.get(family)
    if stream is None:
        data = make_dicom(GREY, family)
        at = data.index(b"\xff\xf7") + 5
        lying = data[:at] + (60_000).to_bytes(2, "big") * 2 + data[at + 4 :]
    else:
        lying = bytearray(stream)
        if family == "JPEG":
            at = lying.index(b"\xff\xc0") + 5
            lying[at : at + 4] = (60_000).to_bytes(2, "big") * 2
        else:
            lying[8:16] = (60_000).to_bytes(4, "big") * 2
            lying[24:32] = (60_000).to_bytes(4, "big") * 2
        lying = make_dicom(GREY, SYNTAXES[family], stream=bytes(lying))
    monkeypatch.setattr(
        "pydicom.pixels.decoders.base.DecodeRunner._decode_frame",
        lambda *_args: pytest.fail("decoded"),
    )
    assert "60×40 px and the" in refused(lying) and "60000×60000 px" in refused(lying)


def test_j2k_tiles_and_jpeg_scans_are_limited():
    stream = bytearray(j2k(GREY))
    stream[24:32] = (1).to_bytes(4, "big") * 2
    data = make_dicom(np.zeros((300, 300), np.uint8), SYNTAXES["JPEG 2000"], stream=bytes(stream))
    big = bytearray(j2k(np.zeros((300, 300), np.uint8)))
    big[24:32] = (1).to_bytes(4, "big") * 2
    assert "300×300 px and the" in refused(data)
    data = make_dicom(np.zeros((300, 300), np.uint8), SYNTAXES["JPEG 2000"], stream=bytes(big))
    assert "90,000 tiles, at most 65,535" in refused(data)
    scans = encode(GREY, "JPEG") + b"\xff\xda" * 300
    assert "more than 200 scans" in refused(make_dicom(GREY, SYNTAXES["JPEG"], stream=scans))


def test_rle_that_is_longer_than_it_can_be():
    stream = b"\x01\0\0\0\x40\0\0\0" + bytes(56) + b"\x00a" * 200_000
    assert "at most 94,336 fit" in refused(make_dicom(GREY, SYNTAXES["RLE"], stream=stream))


def test_a_panic_of_the_rle_decoder_is_a_sentence():
    """Found by fuzzing: pylibjpeg-rle panics where the last run is longer than its plane."""
    plane = b"\x81a" * 18 + b"\xa1a"  # 18 runs of 128 and one of 96: 2,400 as in the picture
    longer = b"\x81a" * 19
    for planes, right in (((plane, plane), True), ((plane, longer), False)):
        starts = (2, 64, 64 + len(planes[0]), *[0] * 13)
        stream = struct.pack("<16L", *starts) + b"".join(planes)
        data = make_dicom(DEEP, SYNTAXES["RLE"], stream=stream)
        if right:
            assert not decode_image(data).pixels.any()
        else:
            assert "compressed by RLE, cannot be decoded" in refused(data)


def test_fragments_that_lie():
    codec = dicom_codecs.CODECS[SYNTAXES["JPEG"]]
    item, end = bytes.fromhex("feff00e0"), bytes.fromhex("feffdde000000000")
    dicom_codecs._check_fragments(item + bytes(4) + item + b"\4\0\0\0abcd" + end, codec)
    for bad in (item + b"\5\0\0\0abcd", item + b"\4\0\0\0abcdxy", b"\0" * 16):
        with pytest.raises(dicom_codecs.PixelError, match="damaged or cut off"):
            dicom_codecs._check_fragments(bad, codec)


def test_no_logger_of_pydicom_speaks():
    decode_image(make_dicom(GREY))
    for name in ("pydicom", "pydicom.pixels.decoders.base", "pydicom.filereader"):
        assert not logging.getLogger(name).isEnabledFor(logging.CRITICAL)


@pytest.mark.parametrize("syntax", [*SYNTAXES, "bare"])
@pytest.mark.parametrize("tenth", range(10))
def test_cut_off_at_every_tenth(syntax, tenth):
    data = make_dicom(DEEP, syntax) if syntax not in ("bare", "JPEG") else make_dicom(GREY, "JPEG")
    if syntax == "bare":
        data = make_dicom(DEEP, "implicit")
        data = data[data.index(b"\x08\x00\x16\x00") :]
    decode_image(data)
    message = refused(data[: len(data) * tenth // 10])
    assert any(word in message for word in ("damaged", "cut off", "empty", "no picture"))


def test_transfer_syntaxes_that_are_not_read_are_named():
    data = make_dicom(GREY, uid.MPEG4HP41, stream=b"1234")
    assert "(MPEG-4 AVC/H.264 High Profile / Level 4.1) is not read" in refused(data)
    private = make_dicom(GREY).replace(b"1.2.840.10008.1.2.1\0", b"1.3.46.670589.99.9\0\0")
    assert "(one that is not known) is not read" in refused(private)


def test_tables_that_lie():
    assert "damaged" in refused(make_dicom(DEEP, VOILUTSequence=lut([1, 2], 0, 99)))
    short = lut([1, 2], 0, 12)
    short[0].LUTDescriptor = [4000, 0, 12]
    assert "damaged" in refused(make_dicom(DEEP, VOILUTSequence=short))
    assert "RescaleSlope is 0" in refused(make_dicom(DEEP, RescaleSlope="0", RescaleIntercept="1"))


# --- without a preamble, and with a strange one -----------------------------------------------


@pytest.mark.parametrize("syntax", ["uncompressed", "implicit", "big endian"])
def test_bare_datasets_are_told_by_their_first_elements(syntax):
    data = make_dicom(DEEP, syntax, stored=12)
    first = b"\x00\x08\x00\x16" if syntax == "big endian" else b"\x08\x00\x16\x00"
    bare = data[data.index(first) :]
    assert np.array_equal(decode_image(bare).pixels, own_range(DEEP))
    without_preamble = data[132:]
    assert np.array_equal(decode_image(without_preamble).pixels, own_range(DEEP))


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"MZ\x90\0", "Windows program"),
        (b"\x7fELF", "Linux program"),
        (b"%PDF-1.4 ", "PDF"),
        (b"<html>", "HTML or XML"),
        (b"PK\x03\x04", "ZIP"),
        (b"#!/bin/sh\n", "script"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
    ],
)
def test_preambles_that_begin_another_file_are_refused(start, kind):
    data = make_dicom(GREY, preamble=start.ljust(128, b"\0"))
    assert refused(data).startswith(f"The file is DICOM and {kind} at once")


def test_a_tiff_preamble_is_refused_only_where_it_leads_to_a_picture():
    # Scanners of GE write one that leads nowhere: pydicom's CT_small.dcm has it.
    assert FILES["CT_small.dcm"].read_bytes()[:4] == b"II*\0"
    decode_image(FILES["CT_small.dcm"].read_bytes())
    directory = (
        b"\x02\0" + b"\0\x01\x04\0\x01\0\0\0\x28\0\0\0" + b"\x01\x01\x04\0\x01\0\0\0\x28\0\0\0"
    )
    leading = b"II*\0" + (8).to_bytes(4, "little") + directory + bytes(4)
    assert "DICOM and TIFF at once" in refused(make_dicom(GREY, preamble=leading.ljust(128, b"\0")))


# --- nobody's name ----------------------------------------------------------------------------


def test_only_listed_tags_are_read_and_no_name_gets_out(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    data = make_dicom(
        DEEP,
        stored=12,
        BodyPartExamined="CHEST",
        ViewPosition="PA",
        PresentationIntentType="FOR PRESENTATION",
        PatientOrientation=["L", "F"],
        WindowCenter="2000",
        WindowWidth="4000",
        WindowCenterWidthExplanation=PATIENT_IDENTIFIERS["PatientName"],
        VOILUTSequence=lut([0, 4095], 0, 12),
    )
    decoded = decode_image(data)
    assert dict(decoded.facts) == {
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientOrientation": "L\\F",
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsStored": "12",
        "TransferSyntaxUID": "uncompressed",
        "Window": "VOI LUT",
    }
    allowed = {*dicom.HEADER_TAGS, *dicom.META_TAGS, "PixelData"}
    assert set(decoded.tags_read) <= allowed
    assert {"Rows", "WindowCenter", "PixelData", "TransferSyntaxUID"} <= set(decoded.tags_read)
    assert not {"PatientName", "PatientID", "StudyInstanceUID"} & set(decoded.tags_read)
    everything = repr(decoded) + caplog.text + "".join(capsys.readouterr())
    assert not any(value in everything for value in PATIENT_IDENTIFIERS.values())


def test_no_identifying_tag_is_on_the_list():
    """None of those of the patient, of when, where and by whom (PS3.15 Annex E)."""
    names = ("Patient", "Name", "Date", "Time", "Institution", "Physician", "Operator", "Address")
    unlike = ("Description", "Comment", "Number", "InstanceUID", "Accession", "Station", "Study")
    for keyword in (*dicom.HEADER_TAGS, *dicom.META_TAGS):
        found = [word for word in (*names, *unlike) if word in keyword]
        assert not found or keyword in ("PatientOrientation", "NumberOfFrames"), keyword


def test_free_text_where_a_code_belongs_is_not_shown():
    for keyword in ("Modality", "BodyPartExamined", "ViewPosition", "PresentationIntentType"):
        decoded = decode_image(make_dicom(GREY, **{keyword: "ZZYZX"}))
        assert decoded.facts[keyword] == OTHER_WORD
    decoded = decode_image(make_dicom(GREY, PatientOrientation=["ZZYZX", "F"]))
    assert "PatientOrientation" not in decoded.facts


@pytest.mark.parametrize(
    ("orientation", "note"),
    [
        (["L", "F"], "L\\F"),
        (["R", "F"], "R\\F (mirrored; read as stored)"),
        (["L", "H"], "L\\H (upside down; read as stored)"),
        (["F", "R"], "F\\R (lying on its side; read as stored)"),
        (["P", "F"], "P\\F"),
    ],
)
def test_orientation_is_said_and_left(orientation, note):
    decoded = decode_image(make_dicom(GREY, PatientOrientation=orientation))
    assert decoded.facts["PatientOrientation"] == note
    assert np.array_equal(decoded.pixels, GREY)


def test_odd_values_are_neither_warned_about_nor_logged(tmp_path):
    """In a fresh process: pydicom repeats values in warnings, in its log and in exceptions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = make_dicom(GREY, PatientOrientation=["ZZYZX-" * 30, "F"], WindowWidth="10")
        data = data.replace(b"10", b"ZZ")  # a window width (and more) that is no number
    path = tmp_path / "odd.dcm"
    path.write_bytes(data)
    code = (
        "import sys, logging; logging.basicConfig(level=0)\n"
        "from core.imageio.decode import ImageError, read_image\n"
        "try: print(dict(read_image(sys.argv[1]).facts))\n"
        "except ImageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 and done.stdout.strip()
    assert "ZZ" not in said and not any(value in said for value in PATIENT_IDENTIFIERS.values())


def test_exceptions_carry_no_header_value(monkeypatch):
    def fail(*_args, **_kwargs):
        raise ValueError(f"bad value {PATIENT_IDENTIFIERS['PatientName']}")

    monkeypatch.setattr(dicom, "read_dataset", fail)
    with pytest.raises(ImageError) as caught:
        decode_image(make_dicom(GREY))
    assert "Zzyzx" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
