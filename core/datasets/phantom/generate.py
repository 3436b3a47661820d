"""Synthetic chest phantoms: drawn frontal X-rays with known lesions, for demos and for tests.

They look like chest radiographs and are none: nothing measured on them says anything about
patients. Show them only through `label_synthetic` or beside the word SYNTHETIC; the word is kept
out of the pixels that models see, where it would be one more marker to learn.

The lesions follow the published descriptions:
- covid: bilateral, peripheral, multifocal ground-glass opacities, more in the lower zones, through
  which vessels stay visible (Simpson et al., RSNA Expert Consensus on Reporting Chest CT Findings
  Related to COVID-19, Radiology: Cardiothoracic Imaging 2020;2(2):e200152; Wong et al., Frequency
  and Distribution of Chest Radiographic Findings in COVID-19, Radiology 2020;296:E72-E78).
- pneumonia: one lobe or segment consolidated, denser, often ending sharply at a fissure, with or
  without air bronchograms (Hansell et al., Fleischner Society: Glossary of Terms for Thoracic
  Imaging, Radiology 2008;246:697-722).
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from scipy.ndimage import gaussian_filter

from core.datasets.phantom.anatomy import Anatomy, View, draw_patient, draw_view
from core.datasets.phantom.chest import Frame, draw_frame
from core.datasets.phantom.lesions import LESIONS
from core.errors import UserError

class_names = ("covid", "normal", "pneumonia")
DRAWING_VERSION = 1
MIN_SIZE_PX, MAX_SIZE_PX = 32, 1024
NOTICE = "SYNTHETIC: a drawn phantom, not an image of a person"


class PhantomError(UserError):
    """A phantom that cannot be drawn or written; the message is one plain sentence."""


@dataclass(frozen=True)
class Phantom:
    """One drawn radiograph.

    pixels: uint8 (size, size). mask: bool (size, size), where the lesion is; empty for normal.
    lungs: bool (size, size), the lung fields, also behind the heart; the mask lies inside them.
    Outside the mask the pixels equal those of `make_phantom("normal", ...)` with the same seed,
    size and patient, so the difference of the two is what the lesion did.
    """

    pixels: np.ndarray
    mask: np.ndarray
    lungs: np.ndarray
    label: str


def make_phantom(label: str, seed: int, size_px: int = 224, patient: int = 0) -> Phantom:
    """Draw one phantom; the same arguments give the same pixels in every process.

    patient fixes the anatomy, seed (with patient) the pose, exposure, noise and lesion. The label
    decides nothing but the lesion. Raises PhantomError for an unknown label, a negative seed or
    patient, or a size outside 32..1024 px.
    """
    _check(label, seed, size_px, patient)
    streams = np.random.SeedSequence([int(seed), int(patient), 77]).spawn(3)
    view_rng, noise_rng, lesion_rng = (np.random.default_rng(s) for s in streams)
    view = draw_view(view_rng)
    frame = draw_frame(_patient(int(patient)), view, size_px)
    pattern, mask = LESIONS[label](lesion_rng, frame)
    pixels = _expose(frame, view, pattern, noise_rng)
    return Phantom(pixels, mask, frame.lungs, label)


def _check(label: str, seed: int, size_px: int, patient: int) -> None:
    if label not in class_names:
        raise PhantomError(
            f"A phantom's label is one of {', '.join(class_names)}. Received: {label!r}."
        )
    if not MIN_SIZE_PX <= size_px <= MAX_SIZE_PX:
        raise PhantomError(
            f"A phantom is {MIN_SIZE_PX} to {MAX_SIZE_PX} px wide. Received: {size_px}."
        )
    if seed < 0 or patient < 0:
        raise PhantomError(
            f"seed and patient must not be negative. Received: seed {seed}, patient {patient}."
        )


@lru_cache(maxsize=64)
def _patient(patient: int) -> Anatomy:
    return draw_patient(np.random.default_rng([patient, 1895]))


def _expose(
    frame: Frame, view: View, lesion: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Attenuation -> grey values uint8: texture, blur, window, film curve, quantum noise."""
    size_px = frame.attenuation.shape[0]
    mottle = np.minimum(0.05 * frame.attenuation, 0.012) + 0.02 * frame.air
    healthy = frame.attenuation + _texture(rng, size_px) * mottle
    if view.blur > 0.3:
        healthy = gaussian_filter(healthy, view.blur * size_px / 224, truncate=2.5)
    # The lesion comes after the blur (its own edges are drawn soft): nothing leaks past its mask.
    attenuation = healthy if lesion is None else healthy + lesion
    value = (attenuation - view.low) / np.float32(view.high - view.low)
    value += view.gradient_x * frame.x + view.gradient_y * frame.y * (value > 0.02)
    value = np.clip(value, 0, 1)
    value = value ** np.float32(view.gamma)
    value = value * (1.2 - 0.2 * value)  # shoulder of the film curve
    grain = rng.standard_normal((size_px, size_px), dtype=np.float32)
    value += grain * np.float32(view.noise) * (0.35 + value)
    return (np.clip(value, 0, 1) * 255 + 0.5).astype(np.uint8)


def _texture(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """Interstitium and soft-tissue mottle: three octaves of smooth noise, float32 near unit sd."""
    total = np.zeros((size_px, size_px), np.float32)
    for cells, weight in ((8, 0.8), (24, 0.7), (72, 0.6)):
        noise = rng.standard_normal((cells, cells), dtype=np.float32)
        image = Image.fromarray(noise).resize((size_px, size_px), Image.Resampling.BICUBIC)
        total += np.float32(weight) * np.asarray(image)
    return total


def label_synthetic(pixels: np.ndarray) -> np.ndarray:
    """A copy with the word SYNTHETIC in its upper left corner, for display only.

    pixels: uint8 (height, width) or (height, width, 3); the answer has the same shape.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise PhantomError(
            "label_synthetic takes uint8 pixels, grey or RGB. "
            f"Received: {pixels.dtype} of shape {pixels.shape}."
        )
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    height = max(8, image.height // 16)
    font = ImageFont.load_default(size=height)
    box = draw.textbbox((height // 3, height // 3), "SYNTHETIC", font=font)
    ink = (255, 255, 255) if pixels.ndim == 3 else 255
    paper = (0, 0, 0) if pixels.ndim == 3 else 0
    draw.rectangle((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2), fill=paper)
    draw.text((height // 3, height // 3), "SYNTHETIC", fill=ink, font=font)
    return np.asarray(image)


def write_phantoms(
    folder: str | Path,
    *,
    patients_per_class: int = 130,
    images_per_patient: int = 3,
    seed: int = 0,
    size_px: int = 224,
) -> Path:
    """Write a data set of phantoms and return its folder.

    Layout: `<class>/<patient>_<k>.png`, `metadata.csv` (path, label, patient_id, synthetic),
    `masks/<class>/<patient>_<k>.png` (0 and 255; for lesions only) and `phantoms.json` with the
    arguments. Each patient belongs to one class. A folder that holds the same phantoms already is
    left as it is; other phantoms are replaced; a folder that holds anything else is refused.
    The folder appears complete or not at all.
    """
    for name, value in (
        ("patients_per_class", patients_per_class),
        ("images_per_patient", images_per_patient),
    ):
        if value < 1:
            raise PhantomError(f"{name} must be at least 1. Received: {value}.")
    _check("normal", seed, size_px, 0)
    folder = Path(folder)
    recipe = {
        "synthetic": True,
        "notice": NOTICE,
        "drawing_version": DRAWING_VERSION,
        "patients_per_class": int(patients_per_class),
        "images_per_patient": int(images_per_patient),
        "seed": int(seed),
        "size_px": int(size_px),
    }
    if _read_recipe(folder) == recipe and _is_complete(folder):
        return folder
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and _read_recipe(folder) is None
    ):
        raise PhantomError(
            f"{folder} holds something other than phantoms and is left alone; "
            "choose an empty or new folder."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    outdated = staging.with_name(staging.name + "-outdated")
    try:
        _write_all(staging, recipe)
        staging.chmod(0o755)
        if folder.exists():
            os.replace(folder, outdated)
        os.replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(outdated, ignore_errors=True)
    return folder


def _read_recipe(folder: Path) -> dict | None:
    try:
        recipe = json.loads((folder / "phantoms.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return recipe if isinstance(recipe, dict) and recipe.get("synthetic") is True else None


def _is_complete(folder: Path) -> bool:
    try:
        with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        paths = [row["path"] for row in rows]
        paths += [f"masks/{row['path']}" for row in rows if row["label"] != "normal"]
        return bool(paths) and all((folder / path).is_file() for path in paths)
    except (OSError, KeyError):
        return False


def _write_all(folder: Path, recipe: dict) -> None:
    rows = []
    for c, label in enumerate(class_names):
        (folder / label).mkdir()
        for number in range(recipe["patients_per_class"]):
            key = f"{recipe['seed']}/{c}/{number}".encode()
            patient = int.from_bytes(hashlib.sha256(key).digest()[:4], "big")
            patient_id = f"phantom-{label[0]}{number:04d}"
            for k in range(recipe["images_per_patient"]):
                phantom = make_phantom(label, k, recipe["size_px"], patient)
                path = f"{label}/{patient_id}_{k}.png"
                _save(folder / path, phantom.pixels)
                if label != "normal":
                    mask = folder / "masks" / path
                    mask.parent.mkdir(parents=True, exist_ok=True)
                    _save(mask, phantom.mask.astype(np.uint8) * 255)
                rows.append((path, label, patient_id, "true"))
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "patient_id", "synthetic"))
        writer.writerows(rows)
    (folder / "phantoms.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def _save(path: Path, pixels: np.ndarray) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Synthetic", NOTICE)
    Image.fromarray(pixels).save(path, pnginfo=info, compress_level=3)
