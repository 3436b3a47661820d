"""What the page Training says in words: whose time is counted, and which epoch is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.formatting import join
from core.runs.run import Run
from dashboard.components.sidebar import Selection

# What a recipe's stages keep -> what is said of it.
_KEPT = {
    ("best",): "the epoch that is kept is chosen on validation",
    ("last",): "the last epoch is kept, and validation is only watched",
    ("best", "last"): "the epoch that is kept is chosen on validation in one stage and is the last "
    "in another",
    (): "it is not recorded which epoch is kept",
}


def trained_models(run: Run, models: Sequence[str]) -> list[str]:
    """The models that were trained for `models`: an average is its members, each counted once."""
    trained = {single for model in models for single in run.members(model) or [model]}
    return [model for model in run.models if model in trained]


def describe_kept_epochs(selection: Selection) -> str:
    """Which epoch each recipe keeps, as it stands in run.json; Markdown without a full stop."""
    models = trained_models(selection.run, selection.models)
    kept = {model: _kept_epochs(selection.run, model) for model in models}
    parts = []
    for epochs, words in _KEPT.items():
        names = [selection.safe_titles[model] for model in models if kept[model] == epochs]
        if names:
            parts.append(f"for {join(names)} {words}" if len(names) < len(models) else words)
    said = "; ".join(parts)
    return said[:1].upper() + said[1:]


def _kept_epochs(run: Run, model: str) -> tuple[str, ...]:
    """What the stages of a model keep: "best" (on validation) or "last"; () where unknown."""
    recipe: Mapping[str, Any] = (run.info.get("recipes") or {}).get(model) or {}
    return tuple(sorted({stage.get("keep", "best") for stage in recipe.get("stages", [])}))
