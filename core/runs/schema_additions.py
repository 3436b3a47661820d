"""What audit.json, external.json and guard.json must hold, in the manner of core.runs.schema.

Only what pages and scorecard read is here; a section of the audit that was not done is null.
"""

from __future__ import annotations

from core.runs.schema import BOUNDS, MAYBE

EST = {"accuracy": float, "low": MAYBE, "high": MAYBE}
SHARE = {"share": MAYBE, "low": MAYBE, "high": MAYBE}
MASKED = {**EST, "kept": SHARE}
FLOORS = {str: {"title": str, **EST}}
VALUE = {"value": MAYBE, "low": MAYBE, "high": MAYBE}
PAIR = {
    **dict.fromkeys(("image_id_a", "split_a", "image_id_b", "split_b"), str),
    "correlation": MAYBE,
}
EXCLUDED = [{"image_id": str, "reason": str}]

LEAKAGE = {
    "status": str,
    "checked": {str: int},
    "method": str,
    "exact": [PAIR],
    "near": [PAIR],
    "shared_patients": {
        str: {
            "patients": int,
            "images": int,
            "examples": [{"patient_id": str, "image_ids": {str: [str]}}],
        }
    },
}
BLACKOUT = {
    "region": {"rule": str, "kind": str, "boxes?": ([[float]], None)},
    "majority_rate": float,
    "n": int,
    "fills": {str: str},
    "models": {
        str: {
            "full": EST,
            "without_lungs": {str: MASKED},
            "lungs_only": {str: MASKED},
            "sentence?": str,
        }
    },
    "floors": {str: {"without_lungs": FLOORS, "lungs_only": FLOORS}},
    "rule": str,
}
PROBE = {
    "title": str,
    "n": int,
    "n_patients": int,
    "question": str,
    "models": {
        str: {
            "called": {str: int},
            "covid": {"n": int, "share": MAYBE, "low": MAYBE, "high": MAYBE},
        }
    },
    "images": [{"image_id": str, "predicted": {str: str}, "p_covid": {str: float}}],
    "excluded": EXCLUDED,
}
PERTURBATION = {
    "kinds": {str: {"title": str, "unit": str, "strengths": [float], "neutral": float}},
    "models": {
        str: {
            "baseline": EST,
            "curves": {str: [{"strength": float, **EST}]},
            "steepest": ({"sentence": str}, None),
        }
    },
}
SUBGROUPS = {
    "min_n": int,
    "rule?": str,
    "left_out?": [{"column": str, "reason": str}],
    "columns": [
        {
            "column": str,
            "title": str,
            "why?": (str, None),
            "groups": [
                {
                    "value": str,
                    "n": int,
                    "n_patients": int,
                    "models": {
                        str: {
                            "accuracy": (VALUE, None),
                            "sensitivity": {str: {**VALUE, "n": int, "n_patients": int}},
                        }
                    },
                }
            ],
        }
    ],
}
AUDIT = {
    "n_test": int,
    "models": [str],
    "missing?": [str],
    "excluded?": EXCLUDED,
    "leakage": (LEAKAGE, None),
    "blackout": (BLACKOUT, None),
    "probe": (PROBE, None),
    "perturbation": (PERTURBATION, None),
    "subgroups": (SUBGROUPS, None),
}

DROP = {
    **dict.fromkeys(("internal", "external", "difference"), float),
    **dict.fromkeys(("low", "high", "internal_low?", "internal_high?"), MAYBE),
    **dict.fromkeys(("external_low?", "external_high?"), MAYBE),
}
EXTERNAL = {
    "name": str,
    "title": str,
    "n": int,
    "n_patients": int,
    "classes_present": [str],
    "classes_missing": [str],
    "caveats": [str],
    "classes_extra": {str: int},
    "excluded": EXCLUDED,
    "models": {
        str: {
            "n": int,
            "called?": {str: int},
            "per_class?": {str: {"recall?": MAYBE, "support?": int}},
            "intervals?": {str: BOUNDS},
        }
    },
    "drop?": ({str: {str: (DROP, None)}}, None),
    "with_overlap?": ({str: {"n": int, **EST}}, None),
    "findings?": ({str: {"n": int, "called": {str: {str: int}}}}, None),
    "skipped?": [{"path": str, "reason": str}],
}

RATE = {"n": int, **dict.fromkeys(("share", "low", "high"), float)}
KEPT = {**RATE, "n_patients": int}
GUARD = {
    "model": str,
    "model_files": {str: str},
    "subject": str,
    "modality": str,
    "input_size_px": int,
    "level": float,
    "method": str,
    "bounds": {"features": float, "layout": float},
    "rule": str,
    "acceptance": (
        {
            "test": {
                "all": KEPT,
                "classes": {str: KEPT},
                "columns": {str: {str: KEPT}},
            },
            "elsewhere": {str: {"title": str, "all": KEPT, "classes": {str: KEPT}}},
        },
        None,
    ),
    "refusal": {str: {"title": str, "pictures": int, "looked_at": str, **RATE}},
    "missing": [str],
}
