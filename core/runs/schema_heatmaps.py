"""What maps.json must hold, in the manner of core.runs.schema: what cards and pages read of it."""

from __future__ import annotations

from core.runs.schema import MAYBE

EST = dict.fromkeys(("value", "low", "high"), MAYBE)
AGAINST = {**EST, "difference": MAYBE, "verdict": (str, None)}
SCORED = {"hit": EST, "hit_exact": EST, "mass": EST}
FIGURES = {
    "n": int,
    **SCORED,
    "against": {
        key: dict.fromkeys(("hit", "hit_exact", "mass"), AGAINST)
        for key in ("random", "lungs", "centre")
    },
}
CHANGE = {"n": int, **dict.fromkeys(("rank", "rank_abs", "ssim", "blank"), float)}
MAPS = {
    "status": str,
    "reason": (str, None),
    "created": str,
    "phantoms?": {
        "classes": [str],
        "with_lesion": [str],
        "per_class": int,
        "size_px": int,
    },
    "learned_from?": str,
    "tolerance_share?": float,
    "sanity_rule?": str,
    "models": {
        str: {
            "method": str,
            "sentence": str,
            "n": int,
            "right": {"n": int, **EST},
            "called": {str: {str: int}},
            "pointing": {
                key: {"all": FIGURES, str: FIGURES} for key in ("true", "called", "right")
            },
            "sanity": (
                {
                    "n": int,
                    "shuffles": int,
                    "between": MAYBE,
                    "last_layer": CHANGE,
                    "all_layers": CHANGE,
                },
                None,
            ),
        }
    },
}
