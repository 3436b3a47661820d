"""What run.json and metrics.json must hold, and one sentence for what does not fit.

A shape says what a JSON value has to be:

    str, int, dict      text, a whole number, an object of any kind
    float, None         any finite number, null
    (a, b)              one of these
    [a]                 a list of such values
    {"k": a, "m?": b}   an object with k and, perhaps, m; further keys are not looked at
    {str: a}            an object that holds such a value under every name not listed beside it

RUN holds what is read from run.json; keys that nothing reads may be anything.
"""

from __future__ import annotations

from typing import Any

MAYBE = (float, None)
# Without two patients to draw from there is no interval, and both ends are null.
BOUNDS = ({"low": float, "high": float}, {"low": None, "high": None})
INTERVAL = ({"low": float, "high": float, "level": float}, {"low": None, "high": None})

STATUS = {"status": str, "reason?": str}
LEAKAGE = {"patients": int, "images": int, "share": float, "exact": int, "near": int}
CALIBRATION = {"temperature": float, "prior": {str: float}, "part": str, "n": int}

RUN = {
    "format_version": int,
    "name": str,
    "created": str,
    "modality?": str,
    "dataset": {"name": str, "title?": str, "caveats?": [str]},
    "class_names": [str],
    "task?": {"classes": [str], "map": {str: str}, "left_out": {str: int}},
    "models": [str],
    "kind?": {str: str},
    "display?": {str: str},
    "init?": {str: str},
    "weights?": {str: str},  # "kept" or "not kept"; a model that it does not name is kept
    "seed": int,
    "split_policy?": str,
    "grouping?": str,
    "recipes_tried?": ({str: int}, int),  # older runs: one number for all models
    "input_size_px": int,
    "model_input_size_px?": {str: int},
    "resize?": str,
    "precision?": str,
    "tta?": (str, list),  # older runs: a list
    "floors?": {
        str: {
            "title?": str,
            "kind?": str,
            "accuracy?": MAYBE,
            "macro_f1?": MAYBE,
            "intervals?": {str: BOUNDS},
        }
    },
    "members?": {str: [str]},
    "leakage?": (LEAKAGE, None),
    "folds?": ({"k": int, "split_policy": str, "rule": str, "models": {str: STATUS}}, None),
    "inner?": ({str: STATUS}, None),
    "calibration?": ({str: (CALIBRATION, None)}, None),
    "conformal?": ({str: ({"alpha": float, "threshold": float, "part": str}, None)}, None),
    "trials?": [{"model": str, "change": str, "images": str, "n": int, "log_loss": float}],
    "comparisons?": [{"a": str, "b": str, "p_holm": float, "verdict": str, "draws?": int}],
    "config?": dict,
    "devices?": {"backend": str, "kind": str, "n": int, "distribution": str, "precision": str},
    "rate_search?": {str: [{"learning_rate": float}]},
    "versions?": dict,
    "hardware?": (str, dict),
    "command?": str,
    "files": {str: str},
}

RATES = dict.fromkeys(("precision", "specificity", "f1"), float) | {"auc": MAYBE}
MACROS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_precision", "macro_recall")
METRICS = {
    "n": int,
    **dict.fromkeys((*MACROS, "log_loss", "brier", "ece"), float),
    "auc": MAYBE,
    "per_class": {str: {**RATES, "recall": float, "support": int}},
    "confusion_matrix": [[int]],
    "binary?": {"covid_vs_rest": {**RATES, "sensitivity": float, "accuracy": float}, str: dict},
    "intervals": {str: INTERVAL},
    "cost?": (dict.fromkeys(("params?", "size_mb?", "train_s?", "latency_ms?"), MAYBE), None),
}
# metrics_folds.json has this beside what METRICS asks for.
FOLDS = {
    "folds": [{"fold": int, "n": int, "accuracy": float, "macro_f1": float}],
    "spread": {str: {"mean": float, "sd": MAYBE}},
    "two_class": ({"n": int, "accuracy": float, "intervals": {str: INTERVAL}}, None),
}

_WORDS = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}
_LARGEST = 1e300  # neither NaN nor infinite, and no whole number that a float cannot hold


def find_problem(value: Any, shape: Any, where: str = "") -> str | None:
    """ "`dataset.caveats` must be a list, not null" (where: a dotted path), None if all fits."""
    options = shape if isinstance(shape, tuple) else (shape,)
    fitting = [option for option in options if _is_kind(value, option)]
    if not fitting:
        words = " or ".join(dict.fromkeys(map(_words, options)))
        return f"`{where}` must be {words}, not {_found(value)}"
    problems = [_find_inside(value, option, where) for option in fitting]
    return None if None in problems else problems[0]


def _find_inside(value: Any, shape: Any, where: str) -> str | None:
    """The first problem among the items of a list or the keys of an object."""

    def path(key: object) -> str:
        return f"{where}.{key}" if where else str(key)

    problems = []
    if isinstance(shape, list):
        problems = [find_problem(item, shape[0], path(k)) for k, item in enumerate(value)]
    elif isinstance(shape, dict):
        names = [key for key in shape if key is not str]
        missing = [key for key in names if not key.endswith("?") and key not in value]
        problems = [f"`{path(key)}` is missing" for key in missing]
        every = dict.fromkeys(value, shape[str]) if str in shape else {}
        known = every | {key.removesuffix("?"): shape[key] for key in names}
        problems += [
            find_problem(value[key], inner, path(key))
            for key, inner in known.items()
            if key in value
        ]
    return next(filter(None, problems), None)


def _is_kind(value: Any, shape: Any) -> bool:
    """Whether the value is such a thing at all, whatever is inside."""
    if value is None or shape is None:
        return value is shape
    kind = shape if isinstance(shape, type) else type(shape)
    if isinstance(value, bool):
        return False
    if kind in (int, float):
        return isinstance(value, (int, kind)) and -_LARGEST < value < _LARGEST
    return isinstance(value, kind)


def _words(shape: Any) -> str:
    if shape is None:
        return "null"
    return _WORDS[shape if isinstance(shape, type) else type(shape)]


def _found(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return f"{value:g}" if isinstance(value, float) else _WORDS[type(value)]
