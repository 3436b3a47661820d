"""How long steps take beside each other."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


def median_by_turns(steps: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each, taking turns, so that other work on the machine meets all alike."""
    times: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 1):
        for step, seconds in zip(steps, times, strict=True):
            started = time.perf_counter()
            step()
            if number:  # the first turn warms up
                seconds.append(time.perf_counter() - started)
    return [float(np.median(seconds)) for seconds in times]
