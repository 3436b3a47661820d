"""Folders of files made for tests: of any bytes, or of pictures for the pixel cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.imageio import decode as images
from core.imageio.decode import read_image, resize_square

SIZES = [32, 48]


def write_files(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def write_metadata(root: Path, text: str, encoding: str = "utf-8") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "metadata.csv").write_bytes(text.encode(encoding))
    return root


def write_picture(path: Path, seed: int, size=(50, 70)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_pictures(root: Path) -> pd.DataFrame:
    """40 pictures (more than one batch of the pixel cache) below root, and their table."""
    paths = [f"class {i % 2}/image_{i:02d}.png" for i in range(40)]
    for i, path in enumerate(paths):
        write_picture(root / path, i)
    return pd.DataFrame({"image_id": [p[:-4] for p in paths], "path": paths, "label": "a"})


def record_decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the size in bytes of every picture decoded from now on."""
    calls: list[int] = []
    decode = images.decode_image

    def counting(content: bytes):
        calls.append(len(content))
        return decode(content)

    monkeypatch.setattr(images, "decode_image", counting)
    return calls


def check_pixels(built, root: Path, sizes=SIZES) -> None:
    """Every row of every size is what decoding its file gives."""
    for size in sizes:
        pixels = built.pixels(size)
        assert pixels.shape == (len(built.table), size, size) and pixels.dtype == np.uint8
        for row, path in enumerate(built.table["path"]):
            expected = resize_square(read_image(root / path).pixels, size)
            assert np.array_equal(pixels[row], expected), (size, path)


def write_published_layout(file, model):
    """The layout of the published files: one group a layer, named datasets in order."""
    import h5py  # only training brings it

    with h5py.File(file, "w") as out:
        out.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        out.attrs["backend"] = b"tensorflow"
        out.attrs["keras_version"] = b"2.1.6"
        for layer in model.layers:
            group = out.create_group(layer.name)
            names = [f"{layer.name}/w{i}".encode() for i in range(len(layer.weights))]
            group.attrs["weight_names"] = names
            for key, value in zip(names, layer.get_weights(), strict=True):
                group.create_dataset(key.decode(), data=value)


def copy_workplace(whole: Path, folder: Path, monkeypatch) -> None:
    """Copy runs and data sets made once for many tests to where the commands will look."""
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    monkeypatch.setenv("CXR_ARTIFACTS", str(folder / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(folder / "data"))
    monkeypatch.setenv("CXR_CACHE", str(folder / "cache"))
