"""Source probe: images from the covid images' own collection that show another disease.

A model that calls them covid reads the collection (its scanners, crops and printed marks) rather
than the disease; one that reads the disease calls them something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from core.datasets.near_duplicates import find_duplicates
from core.datasets.several import SHARED_NUMBERING
from core.evaluation.audit.source_probe_images import NORMAL, NOT_STATED, Probe
from core.formatting import percent, with_interval
from core.imageio.decode import ImageError, read_image, resize_square
from core.inference.ensemble import AuditError, ModelGroup
from core.metrics.classification import COVID, predicted_index
from core.metrics.intervals import wilson_interval

METHOD = (
    "Intervals: 95\u202f%, Wilson, on the number of patients (images of one patient are not "
    "independent, and with so few a bootstrap would be too sure)."
)


@dataclass(frozen=True)
class Known:
    """What the models have learned from: n images of train and val, as far as they are here.

    manifest: rows of train and val with image_id, patient_id, sha256; pixels uint8 (m, s, s) of
    the rows `image_ids`, empty where the images are not here. folders: where each of the run's
    data sets lies below the folder that holds its images, for a run on several.
    """

    manifest: pd.DataFrame
    image_ids: Sequence[str] = ()
    pixels: np.ndarray | None = None
    folders: Mapping[str, str] = field(default_factory=dict)

    def refuse(self, row: Any, set_name: str) -> str | None:
        """Why the image of a probe (image_id, patient_id) was learned from; None where not known.

        By its own id where the probe is one of the run's data sets, and by its patient.
        """
        patient_id = str(row.patient_id)
        if set_name in self.folders:
            own_id = f"{self.folders[set_name]}/{row.image_id}"
            if own_id in self._ids:
                return f"the models learned from it ({own_id})"
            if not SHARED_NUMBERING.fullmatch(patient_id):
                patient_id = f"{set_name}:{patient_id}"
        if patient_id in self._patients:
            return f"the models learned from other images of its patient ({patient_id})"
        return None

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(self.manifest["image_id"].astype(str))

    @cached_property
    def _patients(self) -> frozenset[str]:
        # A bare number names another patient in every collection, image:<image_id> names none.
        return frozenset(
            patient_id
            for patient_id in self.manifest["patient_id"].astype(str)
            if not patient_id.isdigit() and not patient_id.startswith("image:")
        )


def predict_probe(
    model_group: ModelGroup,
    probe: Probe,
    class_names: Sequence[str],
    known: Known,
    own: Mapping[str, pd.DataFrame],
) -> dict:
    """The audit's section `probe`.

    own: model -> predictions of the run's test part with a column patient_id; their images that
    show another disease than covid are what the probe is held against.
    Returns {name, title, n, n_patients, question, method, models{model: {called, covid, own,
    sentence}}, without_disease, images, excluded}; see docs/artifacts.md. Raises AuditError.
    """
    class_names = list(class_names)
    if COVID not in class_names:
        raise AuditError(f"A source probe needs a run with a class {COVID}.")
    rows, pixels, excluded = _read(probe, [*model_group.sizes_px, _compare_px(known)], known)
    excluded = probe.excluded + excluded
    if not len(rows) or rows["normal"].all():
        raise AuditError(
            f"No image of the probe {probe.name} is left to ask about "
            f"({excluded[0]['image_id']}: {excluded[0]['reason']})."
        )
    answers = model_group.predict(pixels)
    covid = class_names.index(COVID)
    called = {
        name: np.asarray(class_names, dtype=object)[predicted_index(y_prob)]
        for name, y_prob in answers.items()
    }
    disease, healthy = ~rows["normal"].to_numpy(), rows["normal"].to_numpy()
    patients = rows["patient_id"].to_numpy()
    models = {}
    for name in model_group.names:
        models[name] = _count(called[name][disease], patients[disease], class_names)
        models[name]["own"] = _own_share(own.get(name))
        models[name]["sentence"] = _sentence(
            model_group.title(name), models[name], len(set(patients[disease]))
        )
    return {
        "name": probe.name,
        "title": probe.title,
        "n": int(disease.sum()),
        "n_patients": len(set(patients[disease])),
        "question": _question(probe, class_names),
        "method": METHOD,
        "models": models,
        "without_disease": {
            "n": int(healthy.sum()),
            "n_patients": len(set(patients[healthy])),
            "models": {
                name: _count(called[name][healthy], patients[healthy], class_names)
                for name in model_group.names
            },
        }
        if healthy.any()
        else None,
        "images": [
            {
                "image_id": row.image_id,
                "finding": row.finding,
                "patient_id": row.patient_id,
                "predicted": {name: called[name][i] for name in model_group.names},
                "p_covid": {name: float(answers[name][i, covid]) for name in model_group.names},
            }
            for i, row in enumerate(rows.itertuples())
        ],
        "excluded": excluded,
    }


def share_on_patients(marks: np.ndarray, groups: Iterable) -> dict[str, float | int]:
    """{n (marked), share, low, high}: Wilson on the number of patients behind marks (n,) bool."""
    share, patients = float(np.mean(marks)), len(set(groups))
    low, high = wilson_interval(share * patients, patients)
    return {"n": int(np.sum(marks)), "share": share, "low": low, "high": high}


def _compare_px(known: Known) -> int:
    return known.pixels.shape[1] if known.pixels is not None else 64


def _read(
    probe: Probe, sizes_px: Sequence[int], known: Known
) -> tuple[pd.DataFrame, dict[int, np.ndarray], list[dict]]:
    """Rows that can be asked about, their pixels by size, and the others with the reason."""
    sizes, small = set(sizes_px), _compare_px(known)
    pixels: dict[int, list] = {size: [] for size in sizes}
    kept, excluded = [], []
    for row in probe.table.itertuples():
        reason = known.refuse(row, probe.name)
        if reason is None:
            try:
                grey = read_image(probe.root / row.path).pixels
            except ImageError as error:
                reason = str(error)
        if reason:
            excluded.append({"image_id": row.image_id, "reason": reason})
            continue
        kept.append(row.Index)
        for size in sizes:
            pixels[size].append(resize_square(grey, size))
    rows = probe.table.loc[kept].reset_index(drop=True)
    arrays = {
        size: np.stack(images) if images else np.zeros((0, size, size), np.uint8)
        for size, images in pixels.items()
    }
    copies = _copies(arrays[small], known)
    excluded += [
        {"image_id": rows["image_id"][i], "reason": reason} for i, reason in sorted(copies.items())
    ]
    fresh = np.array([i not in copies for i in range(len(rows))], dtype=bool)
    arrays = {size: images[fresh] for size, images in arrays.items()}
    return rows[fresh].reset_index(drop=True), arrays, excluded


def _copies(pixels: np.ndarray, known: Known) -> dict[int, str]:
    """Which of the n probe images are (mirrored) copies of a learned one or of another, and why."""
    n = len(pixels)
    if not n:
        return {}
    arrays = [pixels, pixels[:, :, ::-1]]
    arrays += [] if known.pixels is None else [np.asarray(known.pixels)]
    total = sum(map(len, arrays))
    # Numbers in place of ids: i and n + i are the probe's image i and its mirror image. Of equal
    # images only the first is compared with others, so what it is like counts for all of them.
    found = find_duplicates(np.concatenate(arrays), range(total))
    first = np.arange(total)
    pairs = [(int(r.image_id_a), int(r.image_id_b), r.kind) for r in found.itertuples()]
    for a, b, kind in pairs:
        if kind == "exact":
            first[b] = a
    same = {first[k]: k for k in reversed(range(2 * n, total))}
    alike: dict[int, int] = {}
    near = [(a, b) for a, b, kind in pairs if kind == "near"]
    for one, other in [pair for a, b in near for pair in ((a, b), (b, a))]:
        if other in same:
            alike.setdefault(one, same[other])
    copies: dict[int, str] = {}
    for i in range(n):
        # As it is or mirrored, the same before the merely alike.
        learned = [
            (words, matches[one])
            for words, matches in (("a copy", same), ("nearly a copy", alike))
            for one in (first[i], first[n + i])
            if one in matches
        ]
        if learned:
            words, k = learned[0]
            copies[i] = f"{words} of {known.image_ids[k - 2 * n]}, which the models learned from"
        elif first[i] != i:
            copies[i] = "a copy of another image of the probe"
    return copies


def _count(called: np.ndarray, patients: np.ndarray, class_names: list[str]) -> dict:
    return {
        "called": {name: int((called == name).sum()) for name in class_names},
        "covid": share_on_patients(called == COVID, patients),
    }


def _own_share(predictions: pd.DataFrame | None) -> dict | None:
    """How many of the run's own test images of another disease are called covid."""
    if predictions is None:
        return None
    other = predictions[~predictions["label"].isin([COVID, NORMAL])]
    if not len(other):
        return None
    marks = (other["predicted"] == COVID).to_numpy()
    return {"images": len(other)} | share_on_patients(marks, other["patient_id"])


def _question(probe: Probe, class_names: list[str]) -> str:
    text = (
        "Images of another disease from the collection that the covid images come from: how many "
        "are called covid?"
    )
    if set(class_names) <= {COVID, NORMAL}:
        text += " The run has no class for another disease, so no answer is right; covid is wrong."
    if (probe.table["finding"] == NOT_STATED).all():
        text += " What they show was not stated; they are taken to show no covid."
    if probe.left_out:
        text += f" Not asked about: {probe.left_out}."
    return text


def _sentence(title: str, row: dict, n_patients: int) -> str:
    covid, n = row["covid"], sum(row["called"].values())
    text = (
        f"{title} calls {covid['n']} of {n} images of other diseases from the covid images' own "
        f"collection covid: {with_interval(covid['share'], covid)}, "
        f"{n_patients} patients"
    )
    own = row["own"]
    if own is not None:
        text += (
            f"; in the run's own test part it is {percent(own['share'])} of the {own['images']} "
            "images of other diseases"
        )
    return f"{text}."
