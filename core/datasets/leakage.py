"""What test shares with train and val: patients, exact copies, near copies.

A score on images whose patient (or whose very image) was trained on says little about new
patients, so this is measured from the manifest and the pixels, however the split was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from core.datasets.duplicate_pairs import DuplicatePair, find_pairs, linked_sets, spell_out
from core.datasets.near_duplicates import NEAR_COARSE, NEAR_DETAIL
from core.errors import UserError
from core.formatting import count, percent

SPLITS = ("train", "val", "test")
CROSSINGS = (("train", "test"), ("train", "val"), ("val", "test"))
# Enough to look at; the counts have all of them.
LISTED_PAIRS, LISTED_PATIENTS, LISTED_IMAGES = 200, 10, 6

METHOD = (
    "Patients by patient_id, and by group_id, which also joins patients whose images are copies "
    "of each other. Exact copies by the sha256 of the file or by equal pixels at the size that "
    f"was compared. Near copies by 16 px thumbnails that correlate above {NEAR_COARSE:.2f} and "
    "whose detail at 64 px (the blurred picture subtracted) correlates above "
    f"{NEAR_DETAIL:.2f}; brightness and contrast do not matter. "
)
MIRROR_DONE = "Mirrored copies are looked for likewise; turned or strongly cropped ones are not."
MIRROR_LEFT_OUT = "Mirrored, turned or strongly cropped copies are not looked for."
PAIRS_GIVEN = " The pairs were not looked for anew but taken as they had been found before."


class LeakageError(UserError):
    """A split that cannot be checked; the message is one sentence a person can act on."""


def find_leaks(
    manifest: pd.DataFrame, pixels: np.ndarray | None, near_pairs: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Copies and patients that stand in two splits: the audit's section `leakage`.

    manifest: n rows with image_id, patient_id, split (train, val or test) and, where known,
    group_id and sha256. pixels: uint8 (n, s, s) in the same order, s at least 16. near_pairs:
    what find_duplicates found among these images (image_id_a, image_id_b, kind, correlation, and
    `mirrored` where that was looked for); given, pixels are not looked at and may be None.

    Returns {status: "leaks" (anything stands in two splits) | "clean", sentence, caveats[], summary
    (as measure_split has it), checked{split: n}, method, thresholds, counts{exact, near,
    exact_crossing, near_crossing}, exact[], near[], shared_patients{"train/test", "train/val",
    "val/test"}}. A pair is {image_id_a, split_a, image_id_b, split_b, correlation, same_group,
    crosses, same_file, mirrored}, those that cross first; of each kind LISTED_PAIRS are listed and
    `counts` has all. Of many copies each is paired with the first of them in every split.
    shared_patients speaks of the later split: {patients, images, share (of its images),
    examples[{patient_id, image_ids{split: []}}]}, those with the most images first. Raises
    LeakageError or ManifestError.
    """
    manifest = _checked(manifest)
    if near_pairs is None:
        near_pairs, mirrored = _search(manifest, pixels)
        how = MIRROR_DONE if mirrored else MIRROR_LEFT_OUT
    else:
        how = (MIRROR_DONE if "mirrored" in near_pairs else MIRROR_LEFT_OUT) + PAIRS_GIVEN
    copies = _copies(manifest, near_pairs)
    split, person = manifest["split"].to_numpy(), _people(manifest)
    crossing = [copy for copy in copies if split[copy.a] != split[copy.b]]
    shared = {
        f"{first}/{second}": _shared_patients(manifest, person, first, second)
        for first, second in CROSSINGS
    }
    summary = _summarise(manifest, person, copies)
    leaks = bool(crossing) or any(found["images"] for found in shared.values())
    n_exact, exact_crossing = (sum(copy.exact for copy in some) for some in (copies, crossing))
    return {
        "status": "leaks" if leaks else "clean",
        "sentence": _section_sentence(summary, shared, crossing, split),
        "caveats": _caveats(summary),
        "summary": summary,
        "checked": {name: int((split == name).sum()) for name in SPLITS},
        "method": METHOD + how,
        "thresholds": {"coarse_correlation": NEAR_COARSE, "detail_correlation": NEAR_DETAIL},
        "counts": {
            "exact": n_exact,
            "near": len(copies) - n_exact,
            "exact_crossing": exact_crossing,
            "near_crossing": len(crossing) - exact_crossing,
        },
        "exact": _list_pairs(manifest, [copy for copy in copies if copy.exact]),
        "near": _list_pairs(manifest, [copy for copy in copies if not copy.exact]),
        "shared_patients": shared,
    }


def measure_split(manifest: pd.DataFrame, pairs: pd.DataFrame | None = None) -> dict[str, Any]:
    """How much of the test split is known from train and val: run.json's `leakage`.

    manifest: as for find_leaks. pairs: what find_duplicates found; without it copies are told by
    sha256 alone and `near` is 0.

    Returns {images, patients, share, n_test, by_patient, exact, near, unknown_patients}: test
    images that share a patient or a group with train or val or have a copy there, how many
    patients they show, and their share of the n_test test images; of them by_patient share the
    patient_id itself, exact have an exact copy and near a near copy there (one image may be in
    all three). unknown_patients: images of the whole manifest whose patient is not known.
    Raises LeakageError.
    """
    manifest = _checked(manifest)
    return _summarise(manifest, _people(manifest), _copies(manifest, pairs))


def leak_sentence(summary: Mapping[str, Any] | None) -> str:
    """What measure_split found, in one plain sentence; "" where nothing leaks."""
    if not summary or not summary["images"]:
        return ""
    images, exact, near = (int(summary[key]) for key in ("images", "exact", "near"))
    n_test = summary.get("n_test") or round(images / summary["share"])
    by_patient = summary.get("by_patient", images)
    if by_patient == images:
        what = "share a patient with train or val"
    elif by_patient:
        what = "share a patient with train or val or have a copy there"
    elif exact or near:
        what = "have a copy in train or val"
    else:
        what = "belong to a group of copies that reaches into train or val"
    text = (
        f"{_percent(summary['share'])} of the {n_test:,} test images {what} "
        f"({count(images, 'image')} of {count(summary['patients'], 'patient')})"
    )
    copies = [f"{exact:,} of them with an exact copy there"] if exact else []
    copies += [f"{near:,} {'' if exact else 'of them '}with a near copy there"] if near else []
    return ", ".join([text, " and ".join(copies)] if copies else [text]) + "."


def _checked(manifest: pd.DataFrame) -> pd.DataFrame:
    """The columns that are needed, as text, with the index 0..n-1."""
    absent = [name for name in ("image_id", "patient_id", "split") if name not in manifest]
    if absent:
        raise LeakageError(f"The manifest lacks the columns {', '.join(absent)}.")
    columns = ["image_id", "patient_id", "group_id", "split", "sha256"]
    out = manifest.reindex(columns=columns).astype(object).fillna("").astype(str)
    out = out.reset_index(drop=True)
    odd = sorted(set(out["split"]) - set(SPLITS))
    if odd:
        raise LeakageError(f"The split must be train, val or test. Received: {odd[0]!r}.")
    twice = out.loc[out["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise LeakageError(f"The image_id {twice.iloc[0]!r} occurs twice; each must be unique.")
    unnamed = int((out["patient_id"] == "").sum())
    if unnamed:
        raise LeakageError(
            f"{unnamed} of {len(out)} images have no patient_id; write image:<image_id> where "
            "the patient is unknown."
        )
    # Without a group_id the patient is the group, or all such images would be one group.
    out["group_id"] = out["group_id"].where(out["group_id"] != "", out["patient_id"])
    return out


def _search(manifest: pd.DataFrame, pixels: np.ndarray | None) -> tuple[pd.DataFrame, bool]:
    n = len(manifest)
    if pixels is None or pixels.ndim != 3 or pixels.dtype != np.uint8 or len(pixels) != n:
        given = "none" if pixels is None else f"{pixels.dtype} {pixels.shape}"
        raise LeakageError(
            f"Copies are looked for in uint8 pixels (n, s, s) of the manifest's {n} rows. "
            f"Received: {given}."
        )
    return find_pairs(pixels, list(manifest["image_id"]))


def _copies(manifest: pd.DataFrame, pairs: pd.DataFrame | None) -> list[DuplicatePair]:
    """All pairs of copies, by file and as found by pixels."""
    if pairs is not None and len(pairs):  # no pairs may come as a table without any columns
        needed = ("image_id_a", "image_id_b", "kind", "correlation")
        absent = [name for name in needed if name not in pairs]
        if absent:
            raise LeakageError(f"The pairs of copies lack the columns {', '.join(absent)}.")
    split = manifest["split"].map(SPLITS.index).to_numpy()
    return spell_out(manifest["image_id"], manifest["sha256"], split, pairs)


def _people(manifest: pd.DataFrame) -> np.ndarray:
    """Number (n,) of the person in each image, as far as patient_id and group_id tell."""
    n = len(manifest)
    patient, group = (pd.factorize(manifest[name])[0] for name in ("patient_id", "group_id"))
    links = [(i, n + number) for i, number in enumerate(patient.tolist())]
    links += [(i, 2 * n + number) for i, number in enumerate(group.tolist())]
    return linked_sets(3 * n, links)[:n]


def _shared_patients(
    manifest: pd.DataFrame, person: np.ndarray, first: str, second: str
) -> dict[str, Any]:
    """The people who stand in both splits; images and share are those of the second."""
    split = manifest["split"].to_numpy()
    both = np.intersect1d(person[split == first], person[split == second])
    concerned = np.isin(person, both)
    rows = manifest[concerned].assign(person=person[concerned])
    later = rows[rows["split"] == second]
    most = rows["person"].value_counts(sort=False).sort_index()
    most = most.sort_values(ascending=False, kind="stable").index[:LISTED_PATIENTS]
    return {
        "patients": int(later["patient_id"].nunique()),
        "images": len(later),
        "share": len(later) / max(1, int((split == second).sum())),
        "examples": [
            {
                "patient_id": later.loc[later["person"] == number, "patient_id"].iloc[0],
                "image_ids": {
                    name: list(theirs.loc[theirs["split"] == name, "image_id"][:LISTED_IMAGES])
                    for name in (first, second)
                },
            }
            for number, theirs in ((number, rows[rows["person"] == number]) for number in most)
        ],
    }


def _summarise(
    manifest: pd.DataFrame, person: np.ndarray, copies: list[DuplicatePair]
) -> dict[str, Any]:
    """The answer of measure_split."""
    patient, test = manifest["patient_id"], manifest["split"].to_numpy() == "test"
    # The test image of a pair that crosses into test is always its second.
    copied = [copy for copy in copies if test[copy.b] and not test[copy.a]]
    exact = {copy.b for copy in copied if copy.exact}
    near = {copy.b for copy in copied if not copy.exact}
    known = test & np.isin(person, person[~test])
    known[list(exact | near)] = True
    return {
        "patients": int(patient[known].nunique()),
        "images": int(known.sum()),
        "share": float(known.sum() / max(1, test.sum())),
        "exact": len(exact),
        "near": len(near),
        "by_patient": int((test & patient.isin(patient[~test]).to_numpy()).sum()),
        "n_test": int(test.sum()),
        # Copies of one image share the first one's name, and nobody knows the patient all the same.
        "unknown_patients": int(patient.astype(str).str.startswith("image:").sum()),
    }


def _list_pairs(manifest: pd.DataFrame, copies: list[DuplicatePair]) -> list[dict[str, Any]]:
    """The first LISTED_PAIRS pairs as the audit writes them, those that cross before others."""
    ids, split, group, sha256 = (
        manifest[name].to_numpy() for name in ("image_id", "split", "group_id", "sha256")
    )
    copies = sorted(copies, key=lambda copy: split[copy.a] == split[copy.b])
    return [
        {
            "image_id_a": ids[a],
            "split_a": split[a],
            "image_id_b": ids[b],
            "split_b": split[b],
            "correlation": correlation,
            "same_group": bool(group[a] == group[b]),
            "crosses": bool(split[a] != split[b]),
            "same_file": bool(sha256[a] and sha256[a] == sha256[b]),
            "mirrored": mirrored,
        }
        for a, b, _, correlation, mirrored in copies[:LISTED_PAIRS]
    ]


def _section_sentence(
    summary: dict, shared: dict[str, dict], crossing: list[DuplicatePair], split: np.ndarray
) -> str:
    """The finding about test and, where there is one, the finding about val."""
    shares = "is known to share" if summary["unknown_patients"] else "shares"
    text = leak_sentence(summary) or (
        f"None of the {summary['n_test']:,} test images {shares} a patient with train or val, "
        "and no copy of one was found there."
    )
    patients = shared["train/val"]["images"]
    copies = len({copy.b for copy in crossing if split[copy.b] == "val"})
    if patients or copies:
        text += (
            f" Val knows train too ({patients:,} of its images by patient, {copies:,} by copy), so "
            "what was chosen on val was chosen too hopefully."
        )
    return text


def _caveats(summary: dict) -> list[str]:
    if not summary["unknown_patients"]:
        return []
    return [
        f"Patients are unknown for {count(summary['unknown_patients'], 'image')}, so overlap of "
        "patients cannot be excluded."
    ]


def _percent(share: float) -> str:
    """44 %; small shares with one digit more, so that something never reads as nothing."""
    if share < 0.0005:
        return "Less than 0.1\u202f%"
    return percent(share, 1 if share < 0.1 else 0)
