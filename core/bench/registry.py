"""How long the parts take: measured when asked, one after the other, never asserted.

Each measurement says what was done, the figure and the limit that the project set itself for a
machine with 2 cores. What cannot be measured here is named with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.bench.measurement import Measured

logger = logging.getLogger(__name__)

# Bench -> the module whose function bench_<name>(run) yields its measurements; imported to run.
BENCHES = {
    "statistics": "core.bench.statistics",
    "live": "core.bench.serving",
    "zip": "core.bench.serving",
    "fuzz": "core.bench.serving",
    "audit": "core.bench.statistics",
    "evaluation": "core.bench.inference",
    "training": "core.bench.training",
    "memory": "core.bench.memory",
}


# Measured where pages are drawn, which this package knows nothing of.
OF_PAGES = ("pages", "people")


def run_benches(
    names: list[str], run: str | None, benches: Mapping[str, str] = BENCHES
) -> list[Measured]:
    """The measurements of the benches `names` (all where empty), in the order of `benches`.

    Raises:
        BenchError: a bench that there is not.
    """
    from core.bench.measurement import BenchError, describe

    unknown = [name for name in names if name not in benches]
    if set(unknown) & set(OF_PAGES):
        raise BenchError(f"The bench {unknown[0]!r} needs pages: `make bench NAMES={unknown[0]}`.")
    if unknown:
        raise BenchError(f"There is no bench {unknown[0]!r}. There are: {', '.join(benches)}.")
    results = []
    for name in names or benches:
        logger.info(f"{name} ...")
        bench = getattr(import_module(benches[name]), f"bench_{name}")
        for measured in bench(run):
            results.append(measured)
            logger.info(f"  {describe(measured)}")
    return results
