"""Figures -> tables that pages show or offer as CSV; never imports streamlit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from core.formatting import interval_text
from core.metrics.classification import flatten_metrics

Metrics = Mapping[str, Mapping[str, Any]]  # model -> its metrics.json
# Key -> name for people. Fractions, shown as percent.
SHARES = {
    "macro_f1": "Macro-F1",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "Mean AUC",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
}
# Not percent, and lower is better.
ERRORS = {
    "log_loss": "Log loss",
    "brier": "Brier score",
    "ece": "ECE",
}
CLASS_SHARES = {
    "precision": "Precision",
    "recall": "Recall (sensitivity)",
    "f1": "F1",
    "specificity": "Specificity",
    "auc": "AUC",
}
BINARY_TASK = "covid_vs_rest"
BINARY_SHARES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "accuracy": "Accuracy",
    "auc": "AUC",
}
COLUMNS = ["model", "label", "metric", "metric_label", "value", "low", "high", "method"]


def metric_names(class_names: Sequence[str], *, binary: bool) -> dict[str, str]:
    """Every metric key in the order to show -> its name for people."""
    names = dict(SHARES)
    names |= {
        f"{key}.{c}": f"{text}, {c}" for c in class_names for key, text in CLASS_SHARES.items()
    }
    if binary:
        names |= {
            f"binary.{BINARY_TASK}.{key}": f"{text}, COVID-19 or not"
            for key, text in BINARY_SHARES.items()
        }
    return names | ERRORS


def metric_rows(
    metrics: Metrics, class_names: Sequence[str], labels: Mapping[str, str]
) -> pd.DataFrame:
    """COLUMNS, one row a metric and model (fractions), in the order of metric_names.

    metrics: model -> its metrics.json. value, low and high are NaN where undefined.
    """
    binary = any("binary" in m for m in metrics.values())
    rows = []
    flat = {model: flatten_metrics(m) for model, m in metrics.items()}
    for key, name in metric_names(class_names, binary=binary).items():
        for model in metrics:
            interval = metrics[model].get("intervals", {}).get(key) or {}
            bounds = (interval.get("low"), interval.get("high"), interval.get("method", ""))
            rows.append((model, labels[model], key, name, flat[model].get(key), *bounds))
    table = pd.DataFrame(rows, columns=COLUMNS)
    numbers = ["value", "low", "high"]
    table[numbers] = table[numbers].astype(float)
    return table


def csv_download(table: pd.DataFrame) -> bytes:
    """UTF-8 CSV that a spreadsheet opens as text: names from files may look like formulas.

    An apostrophe is put before text that begins with one of = + - @ or a control character
    (OWASP, CSV Injection).
    """
    table = table.copy()
    for column in table.select_dtypes(["object", "str"]):
        table[column] = table[column].map(
            lambda value: f"'{value}" if str(value)[:1] in tuple("=+-@\t\r") else value
        )
    return table.to_csv(index=False).encode()


def csv_table(rows: pd.DataFrame, metrics: Metrics, part: str) -> pd.DataFrame:
    """metric_rows for a file: plain names, with part, n, level and unit of the intervals."""
    table = rows[["metric", "model", "label", "value", "low", "high", "method"]].copy()
    table = table.rename(columns={"label": "model_title"})
    table.insert(0, "part", part)
    table["n"] = [metrics[model]["n"] for model in table["model"]]
    for key in ("level", "unit"):
        table[key] = [
            (metrics[r.model].get("intervals", {}).get(r.metric) or {}).get(key, "")
            for r in table.itertuples()
        ]
    return table


def side_by_side(rows: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """One row a share: metric, then for each model its percent and, as text, its interval.

    Columns: metric, then (model, interval:model) pairs.
    """
    shares = rows[~rows["metric"].isin(ERRORS)]
    table = pd.DataFrame({"metric": shares["metric_label"].drop_duplicates().to_list()})
    for model in models:
        part = shares[shares["model"] == model]
        table[model] = (100 * part["value"]).to_list()
        table[f"interval:{model}"] = [
            range_text(low, high) for low, high in zip(part["low"], part["high"], strict=True)
        ]
    return table


def error_and_cost_table(
    metrics: Metrics, rows: pd.DataFrame, labels: Mapping[str, str]
) -> pd.DataFrame:
    """One row a model: log loss, Brier score, ECE with intervals, and what the model costs."""
    by_key = rows.set_index(["model", "metric"])
    table = []
    for model, figures in metrics.items():
        row: dict[str, Any] = {"Model": labels[model]}
        for key, name in ERRORS.items():
            cell = by_key.loc[(model, key)]
            row[name] = cell["value"]
            row[f"{name}, 95%"] = range_text(cell["low"], cell["high"], as_percent=False)
        cost = figures.get("cost") or {}
        params, train_s = cost.get("params"), cost.get("train_s")
        row["Parameters, millions"] = params / 1e6 if params is not None else None
        row["MB"] = cost.get("size_mb")
        row["ms an image"] = cost.get("latency_ms")
        row["Training, minutes"] = train_s / 60 if train_s is not None else None
        table.append(row)
    return pd.DataFrame(table)


def baseline_rows(baselines: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """run.json's floors as name, kind, metric, value, low, high: one row a floor and metric."""
    rows = []
    for key, baseline in baselines.items():
        for metric in ("accuracy", "macro_f1"):
            interval = (baseline.get("intervals") or {}).get(metric) or {}
            name, kind = str(baseline.get("title", key)), str(baseline.get("kind", "pixel"))
            bounds = (interval.get("low"), interval.get("high"))
            rows.append((name, kind, metric, baseline.get(metric), *bounds))
    table = pd.DataFrame(rows, columns=["name", "kind", "metric", "value", "low", "high"])
    numbers = ["value", "low", "high"]
    table[numbers] = table[numbers].astype(float)
    return table


def range_text(low: float | None, high: float | None, *, as_percent: bool = True) -> str:
    """Fractions -> "82.1 to 87.3"; "no interval" where one is undefined."""
    scale, decimals = (100, 1) if as_percent else (1, 3)
    # Spaces that do not break: a narrow column would tear the interval apart.
    return interval_text((low, high), decimals, scale=scale, to="\u00a0to\u00a0")


def split_counts(manifest: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """One row a split (train, val, test, those present, then all): images a class, patients."""
    rows = []
    splits = [s for s in ("train", "val", "test") if (manifest["split"] == s).any()]
    for split in [*splits, "all"]:
        part = manifest if split == "all" else manifest[manifest["split"] == split]
        counts = {name: int((part["label"] == name).sum()) for name in class_names}
        patients = part["patient_id"].nunique()
        rows.append({"split": split, **counts, "images": len(part), "patients": patients})
    return pd.DataFrame(rows)


def size_table(manifest: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """One row a class: images, median width × height in px, percent square, file formats."""
    rows = []
    for name in class_names:
        part = manifest[manifest["label"] == name]
        sized = part.dropna(subset=["width", "height"])
        formats = part["format"].value_counts()
        rows.append(
            {
                "class": name,
                "images": len(part),
                "median px": f"{sized['width'].median():.0f} × {sized['height'].median():.0f}"
                if len(sized)
                else "–",
                "square": 100 * (sized["width"] == sized["height"]).mean(),
                "formats": ", ".join(f"{key} {n}" for key, n in formats.items()),
            }
        )
    return pd.DataFrame(rows)


def plain(value: object) -> str:
    """A JSON value as a person would write it."""
    if value is None:
        return "the recipe's own"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
