"""What is known of a data set before its images are listed: where it is, its labels, its caveats.

`core.datasets.folder` makes the table of images from the folder.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from core.errors import UserError

CLASS_ORDER = ("covid", "normal", "pneumonia")
SYNONYMS = {
    "covid": "covid",
    "covid19": "covid",
    "ncov": "covid",
    "sarscov2": "covid",
    "normal": "normal",
    "nofinding": "normal",
    "nofindings": "normal",
    "healthy": "normal",
    "pneumonia": "pneumonia",
    "viralpneumonia": "pneumonia",
}
SOURCES = Path(__file__).parent / "sources"
JOINED = "+"  # between the names of the data sets that a run was trained on


class DatasetError(UserError):
    """A data set that cannot be found or read; the message is one sentence a person can act on."""


@dataclass(frozen=True)
class Dataset:
    """What is known about a data set before any of its files is opened.

    modality is xray, ct or phantom; class_map takes a class name as published to its canonical
    name and comes before the synonyms; how_to_get completes "Data set NAME is not in FOLDER: ...".
    folder: where it lies below the data folder, if not under its name; augmented: published with
    altered copies of its images, which have to be found and kept together
    (core.datasets.augmented_copies).

    How it is fetched: recorded names the list of its files and their hashes in sources/, for which
    the base_urls are asked in turn; kaggle is its handle there; drawn: made by this project.
    findings: a table in sources/ with finding, patient and view of some of its images.

    Where an image comes from (core.datasets.several): source_column of its table names the
    publisher; source_names takes a publisher as named there to what it is called beside the
    images of other sets (None: as named), and other_sources is what all others are called
    together ("": by the set's name, as images without a publisher are).
    parts: the sets that this one is made of, empty for one that is a set of its own.
    """

    name: str
    title: str
    modality: str
    class_map: Mapping[str, str] | None = None
    caveats: tuple[str, ...] = ()
    licence: str = ""
    attribution: str = ""
    homepage: str = ""
    how_to_get: str = ""
    folder: str = ""
    augmented: bool = False
    recorded: str = ""
    base_urls: tuple[str, ...] = ()
    kaggle: str = ""
    drawn: bool = False
    findings: str = ""
    source_column: str = "source"
    source_names: Mapping[str, str] | None = None
    other_sources: str = ""
    parts: tuple[Part, ...] = ()

    @property
    def records_csv(self) -> Path:
        """The recorded list of its files."""
        return SOURCES / self.recorded


@dataclass(frozen=True)
class Part:
    """One of several data sets used together; folder: POSIX, below the one that holds all."""

    dataset: Dataset
    folder: str


# One published collection of two kinds of images; a run has one kind, so each is a data set.
_MENDELEY = "mendeley-8h65ywd2jr"
_MENDELEY_PARTS = {"xray": "X-ray", "ct": "CT"}
_MENDELEY_CLASSES = {"COVID": "covid", "Non-COVID": "noncovid"}


def _mendeley(modality: str, images: str, *caveats: str) -> Dataset:
    """The X-ray or the CT part of the Mendeley collection 8h65ywd2jr."""
    folder = f"{_MENDELEY}/{_MENDELEY_PARTS[modality]}"
    return Dataset(
        name=f"{_MENDELEY}-{modality}",
        title=f"Extensive COVID-19 chest images, {images} (Mendeley 8h65ywd2jr)",
        modality=modality,
        class_map=_MENDELEY_CLASSES,
        caveats=(
            "Published with augmented copies of its images and without saying which is a copy of "
            "which: copies are looked for and kept together, but one that is not found may stand "
            "in two parts of the split.",
            "No patients are given: images of one patient may stand in two parts of the split.",
            "Both classes were gathered from other public collections, so the source may give the "
            "class away, and images may be those of another data set here.",
            *caveats,
        ),
        licence="As stated on its page at Mendeley Data. Research use, not redistributed here.",
        attribution="El-Shafai & Abd El-Samie 2020 (Extensive COVID-19 X-Ray and CT Chest Images "
        "Dataset, Mendeley Data).",
        homepage="https://data.mendeley.com/datasets/8h65ywd2jr/3",
        how_to_get="download it from https://data.mendeley.com/datasets/8h65ywd2jr/3 (about 4 GB) "
        f"and put its folder {_MENDELEY_PARTS[modality]} there as {folder}, with COVID/ and "
        "Non-COVID/ inside",
        folder=folder,
        augmented=True,
    )


KNOWN: dict[str, Dataset] = {
    "darkcovidnet": Dataset(
        name="darkcovidnet",
        title="DarkCovidNet chest X-rays (Ozturk et al. 2020)",
        modality="xray",
        caveats=(
            "The source gives the class away: in the original files no covid image is 1024×1024 "
            "and every other image is; they come from different collections.",
            "21 patients (74 images) have images in both normal and pneumonia; a random split "
            "would put images of one patient on both sides.",
            "1,124 of the 1,125 published images: Covid-19/covid-19-pneumonia-14-PA.png is left "
            "out.",
        ),
        licence="NIH ChestX-ray8: free to use with attribution; covid images: the licence of each "
        "publication (column license). Research use, not redistributed here.",
        attribution="Ozturk et al. 2020; Wang et al. 2017 (NIH ChestX-ray8); Cohen et al. 2020 "
        "(covid-chestxray-dataset).",
        homepage="https://github.com/muhammedtalo/COVID-19",
        how_to_get="run `python -m core data darkcovidnet` to download it, put its folder there, "
        "or run `make demo`, which needs no data",
        recorded="darkcovidnet.csv",
        # The commit that the list was recorded from, then the branch, should the server refuse the
        # abbreviated commit. Which of them answers is no matter of trust: the hashes decide.
        base_urls=tuple(
            f"https://raw.githubusercontent.com/muhammedtalo/COVID-19/{revision}"
            for revision in ("ee3e2cff", "master")
        ),
        source_names={"ChestX-ray8 (Wang et al., NIH)": "NIH"},
    ),
    "cohen-2020": Dataset(
        name="cohen-2020",
        title="COVID-19 image data collection, frontal X-rays (Cohen et al. 2020)",
        modality="xray",
        class_map={"COVID": "covid", "Pneumonia": "pneumonia", "Normal": "normal"},
        caveats=(
            "The collection that darkcovidnet's covid images come from: 116 of the 395 images are "
            "in both, so the two data sets are not independent.",
            "Collected from publications and teaching files, whose interesting cases are not what "
            "a clinic sees; 85 % of the images are covid, and only 11 are normal.",
            "The publisher may give the class away: 32 of the 47 pneumonia images are from "
            "eurorad.org, and 28 of the 337 covid images.",
        ),
        licence="The licence of each publication (column license; 196 images name none). Research "
        "use, not redistributed here.",
        attribution="Cohen et al. 2020 (covid-chestxray-dataset), state of 2020-06-22.",
        homepage="https://github.com/ieee8023/covid-chestxray-dataset",
        how_to_get="take the frontal X-rays of https://github.com/ieee8023/covid-chestxray-dataset "
        "(state of 2020-06-22) and put them there with a metadata.csv of "
        "path,label,patient_id,finding,view,source",
        source_names={name: name for name in ("radiopaedia.org", "sirm.org", "eurorad.org")},
        other_sources="journals",
    ),
    "kaggle-covid19-xray": Dataset(
        name="kaggle-covid19-xray",
        title="COVID-19 X-ray train and test sets (Kaggle, khoongweihao)",
        modality="xray",
        class_map={"NORMAL": "normal", "PNEUMONIA": "covid"},
        caveats=(
            "PNEUMONIA is read as covid: 70 of its 94 images are COVID-19; the others are 11 SARS, "
            "5 Streptococcus, 3 ARDS, 1 Pneumocystis, 3 unknown and 1 normal.",
            "71 of the 94 PNEUMONIA images are uncropped versions of darkcovidnet covid images: "
            "the two data sets are not independent.",
            "NORMAL looks paediatric, so age may give the class away.",
        ),
        licence="As published on Kaggle; the images keep the licences of their publications. "
        "Research use, not redistributed here.",
        attribution="khoongweihao (Kaggle); Cohen et al. 2020 (covid-chestxray-dataset).",
        homepage="https://www.kaggle.com/datasets/khoongweihao/"
        "covid19-xray-dataset-train-test-sets",
        how_to_get="run `python -m core data kaggle-covid19-xray` to download it from Kaggle, or "
        "put its folder with train/ and test/ there",
        kaggle="khoongweihao/covid19-xray-dataset-train-test-sets",
        findings="kaggle-covid19-xray-findings.csv",
    ),
    "ucsd-covid-ct": Dataset(
        name="ucsd-covid-ct",
        title="COVID-CT slices (UCSD)",
        modality="ct",
        class_map={"COVID": "covid", "NonCOVID": "noncovid"},
        caveats=(
            "CT slices, not X-rays: figures are not comparable with the X-ray data sets.",
            "Which slices belong to one case is guessed from the file names.",
            "Border brightness differs by class (149 against 109), so the source may give the "
            "class away.",
        ),
        licence="The licences of the publications that the slices come from. Research use, not "
        "redistributed here.",
        attribution="Zhao et al. 2020 (COVID-CT-Dataset).",
        homepage="https://github.com/UCSD-AI4H/COVID-CT",
        how_to_get="it has no simple download, so get it from "
        "https://github.com/UCSD-AI4H/COVID-CT (folder Images-processed) and put its slices there "
        "in COVID/ and NonCOVID/",
    ),
    f"{_MENDELEY}-xray": _mendeley(
        "xray",
        "X-rays",
        "Non-COVID is not normal: nothing is said of what else those images show.",
    ),
    f"{_MENDELEY}-ct": _mendeley(
        "ct",
        "CT slices",
        "CT slices, not X-rays: figures are not comparable with the X-ray data sets.",
    ),
    "phantom": Dataset(
        name="phantom",
        title="SYNTHETIC chest phantoms",
        modality="phantom",
        caveats=(
            "SYNTHETIC: drawn phantoms, no patient was imaged; figures say nothing about "
            "real X-rays.",
        ),
        licence="Drawn by this project, same licence as its code.",
        attribution="Drawn by core.datasets.phantom.generate.",
        how_to_get="run `python -m core data phantom`, which draws it",
        drawn=True,
    ),
}


def dataset_folder(name: str, data_root: str | Path) -> Path:
    """Where the data set of that name belongs, whether it is there or not.

    Sets that are used together ("darkcovidnet+cohen-2020") lie in the data folder itself.
    """
    known = KNOWN.get(name)
    folder = Path(data_root) / (known.folder if known and known.folder else name)
    return Path(data_root) if JOINED in name and not folder.is_dir() else folder


def resolve_dataset(name_or_path: str | Path, data_root: str | Path) -> tuple[Dataset, Path]:
    """The data set of that name below data_root, or any folder by path.

    A folder named as a known data set counts as that data set. Raises DatasetError, saying how
    to get a known one and which names there are.
    """
    text = str(name_or_path).strip()
    if not text:
        raise DatasetError("No data set named: give a name or the path of a folder of images.")
    folder = dataset_folder(text, data_root)
    if text in (".", "..") or not folder.is_dir():
        folder = Path(text).expanduser()
    elif text in KNOWN:
        return KNOWN[text], folder
    if folder.is_dir():
        return describe_folder(folder), folder
    if text in KNOWN:
        raise DatasetError(f"Data set {text} is not in {data_root}: {KNOWN[text].how_to_get}.")
    if folder.is_file():
        raise DatasetError(f"{text} is a file: give the folder that holds the images.")
    raise DatasetError(
        f"No data set or folder {text!r}: give one of {', '.join(KNOWN)}, or the path of a folder "
        "of images."
    )


def describe_folder(folder: Path) -> Dataset:
    """The known data set that the folder is named after, else a plain one made from its name.

    The parts of the Mendeley collection are known by their layout, whatever holds them. Raises
    DatasetError for a folder that holds both of them.
    """
    folder = Path(os.path.abspath(folder))  # not resolve(): a link keeps the name it was given
    name = folder.name
    if name in KNOWN:
        return KNOWN[name]
    both = _mendeley_parts(folder)
    if both:
        raise DatasetError(
            f"{folder.name} holds X-rays and CT slices, and a run has one kind of images: give "
            f"{both['xray']} or {both['ct']}."
        )
    part = _plain(name)
    if part in _MENDELEY_PARTS and (
        folder.parent.name == _MENDELEY or _mendeley_parts(folder.parent, deeper=0)
    ):
        return KNOWN[f"{_MENDELEY}-{part}"]
    if _all_synthetic(folder / "metadata.csv"):
        phantom = KNOWN["phantom"]
        return Dataset(name, phantom.title, "phantom", caveats=phantom.caveats)
    caveat = "Not a data set this project knows: its images are taken to be chest X-rays."
    return Dataset(name, name, "xray", caveats=(caveat,))


def _mendeley_parts(folder: Path, deeper: int = 2) -> dict[str, Path]:
    """The folders X-ray and CT, each with COVID and Non-COVID, in whatever spelling; or none.

    An unpacked archive holds them some folders `deeper`, each the only one in its folder.
    """
    inside = _folders(folder)
    wanted = {_plain(name) for name in _MENDELEY_CLASSES}
    parts = {
        key: inside[key]
        for key in _MENDELEY_PARTS
        if key in inside and wanted <= _folders(inside[key]).keys()
    }
    if len(parts) == len(_MENDELEY_PARTS):
        return parts
    if not deeper or len(inside) != 1:
        return {}
    return _mendeley_parts(next(iter(inside.values())), deeper - 1)


def _folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by their plain names, none where it cannot be looked into."""
    try:
        with os.scandir(folder) as entries:  # it knows a folder from a file without asking anew
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return {}
    return {_plain(name): folder / name for name in names if name[0] not in "._"}


def canonical_label(name: str, class_map: Mapping[str, str] | None = None) -> str:
    """The data set's own map first, then the synonyms (Covid-19, No_findings ...), else as is."""
    key = _plain(name)
    for published, canonical in (class_map or {}).items():
        if _plain(published) == key:
            return canonical
    return SYNONYMS.get(key, name.strip())


def order_classes(labels: Iterable[str]) -> list[str]:
    """Each label once: covid, normal, pneumonia, then the others in alphabetical order."""
    found = set(labels)
    return [c for c in CLASS_ORDER if c in found] + sorted(
        found.difference(CLASS_ORDER), key=lambda label: (label.casefold(), label)
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def read_text_table(path: Path) -> pd.DataFrame:
    """A CSV file as text columns (empty stays ""); comma, semicolon or tab, with a BOM or none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        header = text.split("\n", 1)[0]
        separator = max(",;\t", key=header.count)
        table = pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False
        )
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is not UTF-8 text: save it again as CSV in UTF-8.") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        raise DatasetError(
            f"{path} cannot be read as a table ({str(error).strip()}): expected CSV with a header "
            "path,label[,patient_id]."
        ) from None
    return table.rename(columns=lambda name: str(name).strip())


def _all_synthetic(path: Path) -> bool:
    """Whether every row of that metadata.csv is marked synthetic, under whatever folder name."""
    if not path.is_file():
        return False
    table = read_text_table(path)
    marked = table.get("synthetic")
    yes = {"1", "true", "yes"}
    return marked is not None and len(table) > 0 and set(marked.str.strip().str.lower()) <= yes
