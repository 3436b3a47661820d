"""A stage that solves its one linear layer instead of stepping towards it: logistic regression.

Multinomial, with scikit-learn's L2 penalty (Pedregosa et al. 2011); how strong it is, is chosen by
the log loss on validation. Features are standardised for it, and the standardisation is written
into the layer's weights, so that what is exported is one linear layer.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from core.console import progress
from core.files import write_csv
from core.training.callbacks import save_state

# Inverse strengths of the penalty, the strongest first.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
# More rows than this teach a linear layer nothing new, and they are held in memory.
MOST_ROWS = 50_000


def fit_logistic(
    top: keras.Model,
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    weight: np.ndarray,
    folder: Path,
    title: str,
    seed: int,
) -> pd.DataFrame:
    """Solve the layer "probabilities" of `top`; returns and writes the history.

    train, val: features (n, d) and classes (n,); weight (n,) of the training rows. A row of the
    history is one strength of the penalty, and the one with the lowest validation loss is kept in
    folder/best.npz, as a stage of epochs keeps its best epoch.
    """
    (x, y), (x_val, y_val) = train, val
    if len(x) > MOST_ROWS:
        chosen = np.random.default_rng(seed).choice(len(x), MOST_ROWS, replace=False)
        x, y, weight = x[chosen], y[chosen], weight[chosen]
    mean, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    x, x_val = (x - mean) / spread, (x_val - mean) / spread
    layer = top.get_layer("probabilities")
    rows: list[dict[str, Any]] = []
    solver = LogisticRegression(max_iter=1000, warm_start=True)
    bar = progress(len(STRENGTHS), f"{title}: logistic regression", "strength")
    for strength in STRENGTHS:
        started = time.perf_counter()
        solver.set_params(C=strength).fit(x, y, sample_weight=weight)
        answers = {name: solver.predict_proba(a) for name, a in (("", x), ("val_", x_val))}
        truth = {"": y, "val_": y_val}
        row = {"epoch": len(rows) + 1, "phase": f"penalty 1/{strength:g}", "lr": np.nan}
        for name, y_prob in answers.items():
            weights = weight if not name else None
            row[f"{name}loss"] = log_loss(
                truth[name], y_prob, labels=solver.classes_, sample_weight=weights
            )
            row[f"{name}accuracy"] = float((y_prob.argmax(axis=1) == truth[name]).mean())
        rows.append(row | {"seconds": time.perf_counter() - started})
        if row["val_loss"] == min(done["val_loss"] for done in rows):
            kernel = (solver.coef_ / spread).T
            layer.set_weights([kernel, solver.intercept_ - mean @ kernel])
            save_state(folder / "best.npz", top.variables, len(rows))
        bar.update(1)
    bar.close()
    history = pd.DataFrame(rows)
    write_csv(folder / "history.csv", history)
    return history
