"""What Reliability checks shows, from audit and external sets: tables and sentences.

No Streamlit. Sentences are plain text with names from files in them; a page escapes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from core.formatting import count, join, percent, with_interval
from core.reporting.scorecard.audit_checks import crossing, false_alarms
from core.reporting.scorecard.external_checks import fall_text, macro_f1_fall
from core.reporting.verdict import BASELINE_METRICS
from dashboard.tables.metrics import Metrics, range_text

POINT_COLUMNS = ["row", "model", "value", "low", "high", "hollow", "faded", "note"]
REFERENCE_COLUMNS = ["row", "name", "kind", "value", "low", "high"]
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
SECTION_PARTS = {"without_lungs": "lungs hidden", "lungs_only": "only the lungs"}
BASELINE_KINDS = {"pixel": "floor: pixel shortcuts", "metadata": "floor: file properties only"}
MODELS_ROW = "Models"
ACCURACY = "accuracy"


def points(rows: Sequence[tuple]) -> pd.DataFrame:
    """POINT_COLUMNS from (row, model, value, low, high, hollow, faded, note) tuples."""
    table = pd.DataFrame(list(rows), columns=POINT_COLUMNS)
    numbers = ["value", "low", "high"]
    table[numbers] = table[numbers].astype(float)
    return table


def references(rows: Sequence[tuple]) -> pd.DataFrame:
    """REFERENCE_COLUMNS from (row, name, kind, value, low, high) tuples."""
    table = pd.DataFrame(list(rows), columns=REFERENCE_COLUMNS)
    numbers = ["value", "low", "high"]
    table[numbers] = table[numbers].astype(float)
    return table


def _ends(bounds: Mapping[str, Any] | None) -> tuple:
    bounds = bounds or {}
    return bounds.get("low"), bounds.get("high")


# ------------------------------------------------------------------------------ leakage


def leakage_sentence(section: Mapping[str, Any]) -> str:
    """What was found, in the audit's words where it has some."""
    if section.get("sentence"):
        return str(section["sentence"])
    pairs = sum(len(crossing(section[kind])) for kind in ("exact", "near"))
    patients = sum(found["patients"] for found in section["shared_patients"].values())
    if section["status"] == "clean":
        return "No image and no patient stands in more than one of train, validation and test."
    return (
        f"{count(pairs, 'pair')} of copies stand in different parts, and "
        f"{count(patients, 'patient')} in more than one."
    )


def checked_text(section: Mapping[str, Any]) -> str:
    """ "Compared: 787 training, 113 validation and 224 test images"."""
    parts = [f"{n:,} {SPLIT_NAMES.get(part, part)}" for part, n in section["checked"].items()]
    return f"Compared: {join(parts)} images"


def crossing_pairs(section: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Pairs in different parts with their kind: those with test first, then the most alike."""
    pairs = [
        {**pair, "kind": kind} for kind in ("exact", "near") for pair in crossing(section[kind])
    ]

    def order(pair: dict[str, Any]) -> tuple:
        alike = -1 if pair["correlation"] is None else pair["correlation"]
        return ("test" not in (pair["split_a"], pair["split_b"]), -alike)

    return sorted(pairs, key=order)


def pair_table(section: Mapping[str, Any]) -> pd.DataFrame:
    """All listed pairs, those in different parts first."""
    pairs = crossing_pairs(section)
    inside = [
        {**pair, "kind": kind}
        for kind in ("exact", "near")
        for pair in section[kind]
        if pair["split_a"] == pair["split_b"]
    ]
    rows = [
        {
            "kind": pair["kind"],
            "part": SPLIT_NAMES.get(pair["split_a"], pair["split_a"]),
            "image": pair["image_id_a"],
            "other part": SPLIT_NAMES.get(pair["split_b"], pair["split_b"]),
            "other image": pair["image_id_b"],
            "correlation": pair["correlation"],
            "in different parts": pair["split_a"] != pair["split_b"],
        }
        for pair in [*pairs, *inside]
    ]
    return pd.DataFrame(rows)


def shared_table(section: Mapping[str, Any]) -> pd.DataFrame:
    """One row an example of a patient who stands in two parts."""
    rows = [
        {
            "parts": " and ".join(SPLIT_NAMES.get(part, part) for part in parts.split("/")),
            "patient": example["patient_id"],
            "images": "; ".join(
                f"{SPLIT_NAMES.get(part, part)}: {', '.join(ids)}"
                for part, ids in example["image_ids"].items()
            ),
        }
        for parts, found in section["shared_patients"].items()
        for example in found["examples"]
    ]
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------ floors


def baseline_points(
    metrics: Metrics, baselines: Mapping[str, Mapping[str, Any]], key: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(points, references) for one of BASELINE_METRICS: the models in one row, a row a floor."""
    mine = [
        (MODELS_ROW, model, figures[key], *_ends(figures["intervals"].get(key)), False, False, "")
        for model, figures in metrics.items()
    ]
    own = sorted(
        (baseline for baseline in baselines.values() if baseline.get(key) is not None),
        key=lambda baseline: -baseline[key],
    )
    theirs = []
    for baseline in own:
        title, kind = str(baseline.get("title", "a floor")), str(baseline.get("kind", "pixel"))
        ends = _ends((baseline.get("intervals") or {}).get(key))
        theirs.append((title, title, BASELINE_KINDS.get(kind, kind), baseline[key], *ends))
    return points(mine), references(theirs)


def highest(baselines: Mapping[str, Mapping[str, Any]], key: str) -> tuple[str, float] | None:
    """("highest floor", its figure), None where there is none."""
    values = [baseline[key] for baseline in baselines.values() if baseline.get(key) is not None]
    return ("highest floor", max(values)) if values else None


# ------------------------------------------------------------------------------ blackout


def blackout_points(
    section: Mapping[str, Any], models: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(points, references): a row for the whole image and for each way of hiding."""
    mine, theirs = [], []
    for model in models:
        row = section["models"].get(model)
        if row is None:
            continue
        full = row["full"]
        mine.append(("Whole image", model, full["accuracy"], *_ends(full), False, False, ""))
        for part in SECTION_PARTS:
            for number, fill in enumerate(section["fills"], start=1):
                masked = row[part].get(fill)
                if masked is None:
                    continue
                kept = f"kept of the gain: {with_interval(masked['kept']['share'], masked['kept'])}"
                name = _blackout_row(part, number, len(section["fills"]))
                ends = _ends(masked)
                mine.append((name, model, masked["accuracy"], *ends, False, False, kept))
    for number, fill in enumerate(section["fills"], start=1):
        for part in SECTION_PARTS:
            for baseline in section["floors"].get(fill, {}).get(part, {}).values():
                name = _blackout_row(part, number, len(section["fills"]))
                kind = f"floor on the same images: {baseline['title']}"
                theirs.append(
                    (name, baseline["title"], kind, baseline["accuracy"], *_ends(baseline))
                )
    order = ["Whole image"] + [
        _blackout_row(part, number, len(section["fills"]))
        for part in SECTION_PARTS
        for number in range(1, len(section["fills"]) + 1)
    ]
    table = points(mine)
    table = table.sort_values("row", key=lambda rows: rows.map(order.index), kind="stable")
    return table, references(theirs)


def _blackout_row(part: str, number: int, n_fills: int) -> str:
    words = SECTION_PARTS[part].capitalize()
    return words if n_fills < 2 else f"{words}, fill {number}"


def retained_table(section: Mapping[str, Any], models: Mapping[str, str]) -> pd.DataFrame:
    """One row a model (models: model -> its Markdown name): what is kept of the gain, by fill."""
    rows = []
    for model, name in models.items():
        if model not in section["models"]:
            continue
        row: dict[str, str] = {"Model": name}
        for part, words in SECTION_PARTS.items():
            for number, fill in enumerate(section["fills"], start=1):
                kept = (section["models"][model][part].get(fill) or {}).get("kept") or {}
                column = words.capitalize()
                column += f", fill {number}" if len(section["fills"]) > 1 else ""
                ends = range_text(kept.get("low"), kept.get("high"))
                row[column] = f"{percent(kept.get('share'))} :gray[{ends}]"
        rows.append(row)
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------ probe


def probe_points(
    section: Mapping[str, Any],
    metrics: Metrics,
    models: Sequence[str],
    target: str,
) -> pd.DataFrame:
    """Share called `target`: a row for the probe and one for the run's own test images."""
    rows, n = [], section["n"]
    for model in models:
        row = section["models"].get(model)
        if row is None:
            continue
        covid = row["covid"]
        note = f"{covid['n']} of {n} images"
        probe = f"These images, n = {n}"
        rows.append((probe, model, covid["share"], *_ends(covid), False, False, note))
        alarms, whose = false_alarms(row, metrics.get(model), target)
        own = f"{whose[0].upper()}{whose[1:]}"
        rows.append((own, model, alarms, *_ends(row.get("own")), False, False, ""))
    table = points(rows)
    own_last = ~table["row"].str.startswith("These images")
    return table.iloc[own_last.argsort(kind="stable")]


def probe_table(section: Mapping[str, Any], titles: Mapping[str, str], target: str) -> pd.DataFrame:
    """One row an image: what it shows and what each model said of it, the surest alarm first."""
    rows = []
    for image in section["images"]:
        row = {"image": image["image_id"], "shows": str(image.get("finding", ""))}
        for model, title in titles.items():
            row[title] = str(image["predicted"].get(model, "–"))
            share = image["p_covid"].get(model)
            row[f"p {target}, {title}"] = None if share is None else 100 * share
        rows.append(row)
    table = pd.DataFrame(rows)
    shares = [name for name in table if name.startswith("p ")]
    if shares and len(table):
        table = table.assign(mean_=table[shares].astype(float).mean(axis=1))
        table = table.sort_values("mean_", ascending=False).drop(columns="mean_")
    return table.reset_index(drop=True)


# ------------------------------------------------------------------------------ perturbation


def perturbation_curves(section: Mapping[str, Any], models: Sequence[str]) -> pd.DataFrame:
    """kind, model, strength, value, low, high; the unaltered image stands at neutral."""
    rows = []
    for model in models:
        row = section["models"].get(model)
        if row is None:
            continue
        for kind, how in section["kinds"].items():
            base = row["baseline"]
            rows.append((kind, model, how["neutral"], base["accuracy"], *_ends(base)))
            for point in row["curves"].get(kind, []):
                if point["strength"] != how["neutral"]:
                    ends = _ends(point)
                    rows.append((kind, model, point["strength"], point["accuracy"], *ends))
    columns = ["kind", "model", "strength", "value", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    table[columns[2:]] = table[columns[2:]].astype(float)
    return table


# ------------------------------------------------------------------------------ subgroups


def subgroup_choices(column: Mapping[str, Any], class_names: Sequence[str]) -> list[str]:
    """What can be shown of a column: accuracy where it is known, then the classes."""
    has_accuracy = any(
        row["accuracy"] for group in column["groups"] for row in group["models"].values()
    )
    present = {
        name
        for group in column["groups"]
        for row in group["models"].values()
        for name in row["sensitivity"]
    }
    return [ACCURACY] * has_accuracy + [name for name in class_names if name in present]


def subgroup_points(
    column: Mapping[str, Any], models: Sequence[str], what: str, min_n: int
) -> pd.DataFrame:
    """A row a group; what: ACCURACY or the class whose sensitivity is shown. Small groups fade."""
    rows = []
    for group in column["groups"]:
        found = [
            (model, row)
            for model in models
            if (row := _subgroup_figure(group["models"].get(model), what))
        ]
        if not found:
            continue
        n, patients = group["n"], group["n_patients"]
        if what != ACCURACY:
            n, patients = found[0][1]["n"], found[0][1]["n_patients"]
        small = patients < min_n
        name = f"{group['value']} · n = {n}, {count(patients, 'patient')}"
        name += ", too few to judge" if small else ""
        rows += [
            (name, model, row["value"], *_ends(row), False, small, f"n = {n}")
            for model, row in found
        ]
    return points(rows)


def _subgroup_figure(row: Mapping[str, Any] | None, what: str) -> Mapping[str, Any] | None:
    if row is None:
        return None
    return row["accuracy"] if what == ACCURACY else row["sensitivity"].get(what)


# ------------------------------------------------------------------------------ external


def external_points(
    doc: Mapping[str, Any], metrics: Metrics, models: Sequence[str]
) -> pd.DataFrame:
    """Filled: own test images; hollow: external. Accuracy and macro-F1 where the set has two
    classes or more, and sensitivity by class. The own ones count the classes of the external set.
    """
    rows = []
    keys = {key: name[0].upper() + name[1:] for key, name in BASELINE_METRICS.items()}
    keys |= {f"recall.{name}": f"Sensitivity for {name}" for name in doc["classes_present"]}
    for key, row in keys.items():
        for model in models:
            fall = macro_f1_fall(doc, model, key) or _class_fall(doc, metrics[model], model, key)
            if fall is None:
                continue
            note = fall_text(fall) if fall["low"] is not None else ""
            home, there = _ends(fall["home"]), _ends(fall["there"])
            rows.append((row, model, fall["internal"], *home, False, False, ""))
            rows.append((row, model, fall["external"], *there, True, False, note))
    return points(rows)


def _class_fall(
    doc: Mapping[str, Any], own: Mapping[str, Any], model: str, key: str
) -> dict | None:
    """A class's sensitivity on both sides where the set does not compare them itself."""
    name, far = key.removeprefix("recall."), doc["models"].get(model) or {}
    there = (far.get("per_class") or {}).get(name, {}).get("recall")
    if name == key or there is None or name not in own["per_class"]:
        return None
    home = own["per_class"][name]["recall"]
    return {
        "internal": home,
        "external": there,
        "fall": home - there,
        "low": None,
        "high": None,
        "home": own["intervals"].get(key),
        "there": (far.get("intervals") or {}).get(key),
    }


def external_sentence(doc: Mapping[str, Any], metrics: Metrics, titles: Mapping[str, str]) -> str:
    """What became of the figures there, model by model, in plain words."""
    if not doc.get("labelled", True):
        return "The truth of these images is not known, so only the answers can be counted."
    falls = {model: macro_f1_fall(doc, model) for model in titles}
    known = [f"{titles[m]} {fall_text(fall)}" for m, fall in falls.items() if fall]
    if known:
        return f"Macro-F1 on these images is, against the run's own test part: {'; '.join(known)}."
    parts = []
    for name in doc["classes_present"]:
        found = []
        for model, title in titles.items():
            far = doc["models"].get(model) or {}
            there = (far.get("per_class") or {}).get(name, {}).get("recall")
            if there is not None:
                ends = (far.get("intervals") or {}).get(f"recall.{name}")
                own = metrics[model]["per_class"].get(name, {}).get("recall")
                found.append(
                    f"{title} {with_interval(there, ends)}, own test images {percent(own)}"
                )
        if found:
            parts.append(f"Of the {name} images found: {'; '.join(found)}.")
    missing = join(doc["classes_missing"])
    if missing:
        parts.append(f"Missing among them: {missing}, so false alarms cannot be told.")
    return " ".join(parts) or "No figure could be computed on these images."


def overlap_sentence(doc: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """What accuracy would be with the overlapping images left in; "" where none overlaps."""
    found = doc.get("with_overlap") or {}
    parts = [
        f"{title} {with_interval(found[model]['accuracy'], found[model])}"
        for model, title in titles.items()
        if model in found
    ]
    if not parts:
        return ""
    n = max(row["n"] for row in found.values())
    return (
        "With the images left in that overlap with what the run learned from, accuracy would read "
        f"{'; '.join(parts)} (n = {n})."
    )


def findings_table(doc: Mapping[str, Any], titles: Mapping[str, str], target: str) -> pd.DataFrame:
    """One row a finding of the set's own record: how many images each model calls `target`."""
    rows = [
        {"recorded finding": finding, "images": row["n"]}
        | {
            f"called {target}, {title}": row["called"].get(model, {}).get(target)
            for model, title in titles.items()
        }
        for finding, row in (doc.get("findings") or {}).items()
    ]
    return pd.DataFrame(rows)


def predicted_table(doc: Mapping[str, Any], models: Mapping[str, str]) -> pd.DataFrame:
    """How many images each model calls what (models: model -> how it is called)."""
    rows = [
        {"Model": name, **{f"called {c}": n for c, n in doc["models"][model]["called"].items()}}
        for model, name in models.items()
        if (doc["models"].get(model) or {}).get("called")
    ]
    return pd.DataFrame(rows)


def excluded_text(excluded: Sequence[Mapping[str, Any]]) -> str:
    """ "12 images were left out: 3 duplicate, 9 class"; "" where none was."""
    if not excluded:
        return ""
    kinds = Counter(str(entry["kind"]) for entry in excluded if entry.get("kind"))
    others = len(excluded) - kinds.total()
    if kinds and others:
        kinds["for other reasons"] = others
    were = "was" if len(excluded) == 1 else "were"
    listed = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    text = f"{count(len(excluded), 'image')} {were} left out"
    return f"{text}: {listed}" if listed else text
