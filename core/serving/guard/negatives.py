"""Pictures of other things, kind by kind, to try a guard on: what packages ship and what is drawn.

Nothing is downloaded: scikit-image, scikit-learn and pydicom bring pictures in their packages, and
data sets of another modality are used where they lie in the data root. What is not there is named.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from core.datasets.folder import find_image, load_table
from core.datasets.registry import KNOWN, dataset_folder
from core.imageio.decode import Decoded, ImageError, measure_colour, read_image
from core.runs.run import Run
from core.serving.guard.synthetic_negatives import (
    Draw,
    draw_blank,
    draw_chart,
    draw_form,
    draw_hand,
    draw_noise,
    draw_page,
    draw_screenshot,
    draw_texture,
)

DRAWN_N = 40  # drawings of a kind: fewer could not show 90% even if all were refused
PICTURES = (
    *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"),
    *("motorcycle_left.png", "motorcycle_right.png"),
)
GREY_IMAGES = ("camera.png", "clock_motion.png", "coins.png", "horse.png")
TEXTURES = ("brick.png", "grass.png", "gravel.png")
DOCUMENTS = ("page.png", "text.png")
SKIES = ("moon.png", "hubble_deep_field.jpg")
MEDICAL = ("retina.jpg", "microaneurysms.png", "ihc.png", "cell.png", "phantom.png")
# pydicom's CT, MR, ultrasound and scintigraphy, each once in however many encodings it ships them.
DICOM = (
    *("693_J2KI.dcm", "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "MR_small.dcm"),
    *("ExplVR_BigEnd.dcm", "examples_jpeg2k.dcm", "examples_overlay.dcm", "examples_palette.dcm"),
    *("examples_rgb_color.dcm", "examples_ybr_color.dcm"),
)
FACES = "lfw_subset.npy"  # 100 faces of 25 by 25 px and 100 patches of photos without one
NO_PACKAGE = "the package {package} is not installed"


class TrialError(ValueError):
    """A kind of pictures that is not here; the message completes "not measured: "."""


@dataclass(frozen=True)
class Trial:
    """One picture to try: `picture` is the same for all cuts of one picture or patient."""

    decoded: Decoded
    picture: str


@dataclass(frozen=True)
class NegativeKind:
    """Pictures of one kind. make(setting) yields them or raises TrialError.

    looked_at: which pictures of the kind were looked at when the guard was chosen, "" for none.
    """

    title: str
    make: Callable[[Setting], Iterator[Trial]]
    looked_at: str = ""


@dataclass(frozen=True)
class Setting:
    """Where real pictures are: a run, some rows of its manifest with their folder, the data sets.

    seed: of what is drawn. Choosing and reporting take different rows and seeds.
    """

    run: Run
    rows: pd.DataFrame
    root: Path
    data_root: Path
    seed: int = 0

    def read_rows(self) -> Iterator[Trial]:
        """The run's own images, a patient a picture; those that cannot be read are left out."""
        yield from read_table(self.root, self.rows)


def read_table(root: Path, table: pd.DataFrame) -> Iterator[Trial]:
    """The images of a table with image_id and patient_id, those that are there and readable."""
    for row in table.itertuples():
        file = find_image(root, row.image_id)
        if file is None:
            continue
        try:
            yield Trial(read_image(file), str(row.patient_id))
        except ImageError:
            continue


def as_decoded(pixels: np.ndarray) -> Decoded:
    """A picture made here, grey or RGB uint8, as if it had been read from a PNG."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    colour = measure_colour(pixels) if pixels.ndim == 3 else 0.0
    grey = np.array(image.convert("L"))
    return Decoded(grey, image.width, image.height, "PNG", image.mode, colourfulness=colour)


# ------------------------------------------------------------------------------ packages


def package_folder(package: str, below: str) -> Path:
    """A folder of an installed package; the package itself is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise TrialError(NO_PACKAGE.format(package=package))
    return Path(next(iter(found.submodule_search_locations))) / below


def _photos() -> Iterator[tuple[str, np.ndarray]]:
    """(name, RGB) of the photos in colour that scikit-image and scikit-learn ship."""
    files = [package_folder("skimage", "data") / name for name in PICTURES]
    files += [package_folder("sklearn", "datasets/images") / n for n in ("china.jpg", "flower.jpg")]
    for file in files:
        with Image.open(file) as image:
            yield file.stem, np.array(image.convert("RGB"))


def _shipped(names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        file = package_folder("skimage", "data") / name
        if file.is_file():
            with Image.open(file) as image:
                plain = image.mode in ("1", "L", "I;16", "LA")
                yield file.stem, np.array(image.convert("L" if plain else "RGB"))


def _cut(pictures: Iterator[tuple[str, np.ndarray]]) -> Iterator[Trial]:
    """Each picture whole, its four quarters and its middle."""
    for name, pixels in pictures:
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        yield Trial(as_decoded(pixels), name)
        for top in (0, height):
            for left in (0, width):
                part = pixels[top : top + height, left : left + width]
                yield Trial(as_decoded(part), name)
        middle = pixels[height // 2 : height // 2 + height, width // 2 : width // 2 + width]
        yield Trial(as_decoded(middle), name)


def _colour_photos(_: Setting) -> Iterator[Trial]:
    return _cut(_photos())


def _grey_photos(_: Setting) -> Iterator[Trial]:
    grey = ((name, np.array(Image.fromarray(p).convert("L"))) for name, p in _photos())
    yield from _cut(grey)
    yield from _cut(_shipped(GREY_IMAGES))


def _faces(_: Setting) -> Iterator[Trial]:
    file = package_folder("skimage", "data") / FACES
    if not file.is_file():
        raise TrialError("scikit-image does not ship its faces here")
    for number, face in enumerate(np.load(file, allow_pickle=False)):
        small = Image.fromarray((255 * face).astype(np.uint8))
        large = small.resize((200, 200), Image.Resampling.BICUBIC)
        yield Trial(as_decoded(np.asarray(large)), f"face {number}")


def _skies(_: Setting) -> Iterator[Trial]:
    return _cut(_shipped(SKIES))


def _medical(_: Setting) -> Iterator[Trial]:
    """Retina, tissue, cells and the Shepp-Logan phantom, cut too; and what pydicom ships.

    Headers are left out of account: the pixels alone must tell.
    """
    yield from _cut(_shipped(MEDICAL))
    folder = package_folder("pydicom", "data/test_files")
    for name in DICOM:
        try:
            decoded = read_image(folder / name)
        except ImageError:  # another version ships others, or a codec is not installed
            continue
        yield Trial(replace(decoded, facts={}), name)


# ------------------------------------------------------------------------------ drawn


def drawn(*draws: Draw) -> Callable[[Setting], Iterator[Trial]]:
    """DRAWN_N drawings of each."""

    def make(setting: Setting) -> Iterator[Trial]:
        for which, draw in enumerate(draws):
            for number in range(DRAWN_N):
                pixels = draw(np.random.default_rng([setting.seed, which, number]))
                yield Trial(as_decoded(pixels), f"{draw.__name__} {number}")

    return make


def _documents(setting: Setting) -> Iterator[Trial]:
    yield from drawn(draw_page, draw_form)(setting)
    yield from (Trial(as_decoded(p), name) for name, p in _shipped(DOCUMENTS))


def _textures(setting: Setting) -> Iterator[Trial]:
    yield from drawn(draw_texture)(setting)
    yield from _cut(_shipped(TEXTURES))


# ------------------------------------------------------------------------------ the run's own


def _changed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Setting], Iterator[Trial]]:
    def make(setting: Setting) -> Iterator[Trial]:
        for trial in setting.read_rows():
            yield Trial(as_decoded(change(trial.decoded.pixels)), trial.picture)

    return make


def _turned(setting: Setting) -> Iterator[Trial]:
    for quarters in (1, 2, 3):
        yield from _changed(partial(np.rot90, k=quarters))(setting)


def _framed(setting: Setting) -> Iterator[Trial]:
    """A window of a program in which one of the run's images takes about a quarter of the area."""
    for number, trial in enumerate(setting.read_rows()):
        window = draw_screenshot(np.random.default_rng([setting.seed, 9, number])).copy()
        window[70:440, 290:660] = np.asarray(
            Image.fromarray(trial.decoded.pixels).resize((370, 370))
        )[..., None]
        yield Trial(as_decoded(window), trial.picture)


def _paired(setting: Setting) -> Iterator[Trial]:
    before = None
    for trial in setting.read_rows():
        half = np.asarray(Image.fromarray(trial.decoded.pixels).resize((300, 400)))
        if before is not None:
            yield Trial(as_decoded(np.concatenate([before, half], axis=1)), trial.picture)
            half = None
        before = half


def _other_sets(modality: str) -> Callable[[Setting], Iterator[Trial]]:
    """All images of the known data sets of that modality which lie in the data root."""

    def make(setting: Setting) -> Iterator[Trial]:
        names = [name for name, known in KNOWN.items() if known.modality == modality]
        here = [name for name in names if dataset_folder(name, setting.data_root).is_dir()]
        if not here:
            raise TrialError(f"none of {', '.join(names)} lies in the folder of data sets")
        for name in here:
            root = dataset_folder(name, setting.data_root)
            yield from read_table(root, load_table(KNOWN[name], root))

    return make


INVERTED, TURNED = "inverted", "turned"
OTHER_MODALITY = {
    "ct": NegativeKind("CT slices", _other_sets("ct")),
    "xray": NegativeKind("Chest X-rays", _other_sets("xray")),
}
KINDS: dict[str, NegativeKind] = {
    "photos_colour": NegativeKind("Photos in colour", _colour_photos, "the same pictures in grey"),
    "photos_grey": NegativeKind("Photos in grey", _grey_photos, "these pictures"),
    "faces": NegativeKind("Faces and patches of photos, 25 px scaled up", _faces),
    "sky": NegativeKind("The moon and galaxies", _skies),
    "documents": NegativeKind("Pages of text and tables (most drawn)", _documents),
    "screens": NegativeKind("Charts and screenshots (drawn)", drawn(draw_chart, draw_screenshot)),
    "noise": NegativeKind("Noise of seven kinds", drawn(draw_noise), "other draws"),
    "blank": NegativeKind("Blank pictures and slopes of grey", drawn(draw_blank), "other draws"),
    "textures": NegativeKind("Textures (photographed and drawn)", _textures),
    "hands": NegativeKind("Hands (SYNTHETIC: drawn X-rays)", drawn(draw_hand)),
    "medical": NegativeKind("Other medical pictures, without their headers", _medical),
    **OTHER_MODALITY,
    INVERTED: NegativeKind(
        "The run's own images as negatives", _changed(lambda p: 255 - p), "validation"
    ),
    TURNED: NegativeKind(
        "The run's own images turned by 90, 180, 270 degrees", _turned, "validation"
    ),
    "framed": NegativeKind("The run's own images within a screenshot", _framed),
    "paired": NegativeKind("Two of the run's own images side by side", _paired),
}
# What a guard is chosen on: other draws than are reported, images of val in place of test.
LOOKED_AT = ("photos_grey", "noise", "blank", INVERTED, TURNED)


def kinds_for(modality: str) -> dict[str, NegativeKind]:
    """The kinds that are no such picture: all but data sets of the same modality."""
    same = {modality} if modality != "phantom" else set()
    return {name: kind for name, kind in KINDS.items() if name not in same}
