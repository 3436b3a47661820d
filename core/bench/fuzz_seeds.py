"""Small valid files of every format that is read, for the fuzzer and for tests.

Phantoms in every mode, real X-rays made small where a data folder is given, DICOM in every
transfer syntax that can be written here, and the files that pydicom brings for its own tests.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from core.datasets.phantom.generate import make_phantom
from core.imageio.decode import ImageError, read_image, resize_square

SEED_PX = 48
MAX_SEED_BYTES = 60_000
N_REAL = 6
# Of nobody: with these in every header a test sees whether a name gets out.
PATIENT_IDENTIFIERS = {
    "PatientName": "Zzyzx^Quentin",
    "PatientID": "ID-4711-SECRET",
    "PatientBirthDate": "19331224",
    "InstitutionName": "Hospital of Nowhere",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.4711",
    "StudyDescription": "Secret study of Zzyzx",
}
SYNTAXES = {
    "uncompressed": uid.ExplicitVRLittleEndian,
    "implicit": uid.ImplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "RLE": uid.RLELossless,
    "JPEG": uid.JPEGBaseline8Bit,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG 2000": uid.JPEG2000Lossless,
}


def encode(pixels: np.ndarray | Image.Image, file_format: str, **options) -> bytes:
    """One image as a file of one of Pillow's formats."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def make_dicom(
    pixels: np.ndarray,
    syntax: str = "uncompressed",
    *,
    stream: bytes | None = None,
    stored: int | None = None,
    photometric: str | None = None,
    preamble: bytes = b"\0" * 128,
    **tags: Any,
) -> bytes:
    """A DICOM file of stored values (rows, columns[, 3]), 8 or 16 bits, signed or not.

    syntax: a key of SYNTAXES or a UID. stream: compressed pixels, where pydicom is not to make
    them. tags: further elements by keyword; None leaves one out. Every header has
    PATIENT_IDENTIFIERS.
    """
    syntax_uid = uid.UID(SYNTAXES.get(syntax, syntax))
    little = syntax_uid != uid.ExplicitVRBigEndian
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid.UID("1.2.826.0.1.3680043.8.498.1")
    meta.TransferSyntaxUID = syntax_uid
    colour = pixels.ndim == 3
    data = Dataset()
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.Modality = "DX"
    for keyword, value in PATIENT_IDENTIFIERS.items():
        setattr(data, keyword, value)
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = photometric or ("RGB" if colour else "MONOCHROME2")
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored = stored or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    if colour:
        data.PlanarConfiguration = 0
    for keyword, value in tags.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    if syntax == "JPEG":
        stream = encode(pixels, "JPEG", quality=92)
        data.PhotometricInterpretation = (
            "YBR_FULL_422" if colour else data["PhotometricInterpretation"].value
        )
    data.file_meta = meta
    data.preamble = preamble
    if stream is not None:
        data.PixelData = encapsulate([stream])
        data["PixelData"].VR = "OB"
    elif syntax_uid.is_encapsulated:
        data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        data.PixelData = np.ascontiguousarray(pixels).tobytes()
        data.compress(syntax_uid, generate_instance_uid=False)
    else:
        order = pixels.dtype.newbyteorder("<" if little else ">")
        content = np.ascontiguousarray(pixels, order).tobytes()
        if not little and pixels.dtype.itemsize == 1 and len(content) % 2 == 0:
            content = np.frombuffer(content, "u2").byteswap().tobytes()
        data.PixelData = content + b"\0" * (len(content) % 2)
        data["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def make_zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An ordinary archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def pydicom_files() -> list[Path]:
    """The test files that lie in pydicom's own package."""
    root = Path(pydicom.__file__).parent / "data"
    return sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".py")


def build_seeds(data_root: str | Path | None = None) -> dict[str, list[bytes]]:
    """Format -> valid files, small ones; the same at every call on the same machine."""
    grey = make_phantom("covid", 1, SEED_PX, 1).pixels
    images = [grey, *_real_images(data_root)]
    deep = grey.astype(np.uint16) * 16
    seeds: dict[str, list[bytes]] = {name: [] for name in ("PNG", "JPEG", "TIFF", "BMP", "WEBP")}
    for pixels in images:
        for name, files in seeds.items():
            files.append(encode(pixels, name))
    image = Image.fromarray(grey)
    rgb = Image.merge("RGB", (image, image.rotate(90), image.rotate(180)))
    for mode in ("1", "P", "LA", "RGB", "RGBA"):
        seeds["PNG"].append(encode(rgb.convert(mode), "PNG"))
    seeds["PNG"] += [encode(deep, "PNG"), encode(image, "PNG", dpi=(72, 72), exif=_exif())]
    for mode, options in (
        ("RGB", {"progressive": True}),
        ("CMYK", {}),
        ("RGB", {"exif": _exif(), "subsampling": 0}),
    ):
        seeds["JPEG"].append(encode(rgb.convert(mode), "JPEG", **options))
    for mode, compression in (
        ("RGB", "tiff_lzw"),
        ("L", "packbits"),
        ("RGB", "tiff_adobe_deflate"),
        ("RGB", "jpeg"),
        ("1", "group4"),
        ("CMYK", "raw"),
        ("LAB", "raw"),
        ("P", "tiff_lzw"),
        ("F", "tiff_adobe_deflate"),
    ):
        made = image if mode == "LAB" else rgb.convert(mode)
        made = Image.merge("LAB", (image, image, image)) if mode == "LAB" else made
        seeds["TIFF"].append(encode(made, "TIFF", compression=compression))
    seeds["TIFF"] += [encode(deep, "TIFF"), encode(grey, "TIFF", big_tiff=True)]
    seeds["BMP"] += [encode(rgb.convert(mode), "BMP") for mode in ("1", "P", "RGB")]
    seeds["WEBP"] += [
        encode(rgb, "WEBP", lossless=True),
        encode(rgb.convert("RGBA"), "WEBP", quality=60),
    ]
    seeds |= _dicom_seeds(images, deep, np.asarray(rgb))
    packed = {f"x/{i}.{name.lower()}": own[0] for i, (name, own) in enumerate(seeds.items())}
    few = dict(list(packed.items())[:3])
    seeds["ZIP"] = [
        make_zip(few),
        make_zip(few, zipfile.ZIP_STORED),
        make_zip(packed),
        make_zip({"inner.zip": make_zip(few), "__MACOSX/._x": b"x", "ä/é.png": seeds["PNG"][0]}),
    ]
    return seeds


def mend_png(data: bytes) -> bytes:
    """A PNG with right checksums: else nearly every mutation ends at the first of them."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


def _dicom_seeds(
    images: list[np.ndarray], deep: np.ndarray, rgb: np.ndarray
) -> dict[str, list[bytes]]:
    window: dict[str, Any] = {"WindowCenter": "2000", "WindowWidth": "3000"}
    seeds = {}
    for name in SYNTAXES:
        own = [make_dicom(pixels, name) for pixels in images[:3]]
        own.append(make_dicom(rgb, name))
        if name != "JPEG":
            own.append(make_dicom(deep, name, stored=12, photometric="MONOCHROME1", **window))
            own.append(make_dicom(deep.astype(np.int16), name, RescaleIntercept="-1024"))
        seeds[f"DICOM {name}"] = own
    others = [path.read_bytes() for path in pydicom_files()]
    seeds["DICOM of pydicom"] = [
        data for data in others if len(data) <= MAX_SEED_BYTES and data[128:132] == b"DICM"
    ]
    return seeds


def _real_images(data_root: str | Path | None) -> Iterable[np.ndarray]:
    """A few real X-rays, made small; none without a folder of data sets."""
    found = 0
    for folder, folders, names in os.walk(data_root) if data_root else ():
        folders.sort()
        for name in sorted(names):
            if found == N_REAL:
                return
            if not name.lower().endswith((".png", ".jpg", ".jpeg")):
                continue
            try:
                yield resize_square(read_image(Path(folder, name)).pixels, SEED_PX)
            except ImageError:
                continue
            found += 1


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
