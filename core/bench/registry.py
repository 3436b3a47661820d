"""How long the parts take: measured when asked, one after the other, never asserted.

Each measurement says what was done, the figure and the limit that the project set itself for a
machine with 2 cores. What cannot be measured here is named with the reason.
"""

from __future__ import annotations

from collections.abc import Callable

from core.bench.inference import bench_evaluation
from core.bench.measurement import BenchError, Measured, Measurements, describe
from core.bench.memory import bench_memory
from core.bench.serving import bench_fuzz, bench_live, bench_people, bench_zip
from core.bench.statistics import bench_audit, bench_pages, bench_statistics
from core.bench.training import bench_training

BENCHES: dict[str, Callable[[str | None], Measurements]] = {
    "statistics": bench_statistics,
    "pages": bench_pages,
    "live": bench_live,
    "zip": bench_zip,
    "people": bench_people,
    "fuzz": bench_fuzz,
    "audit": bench_audit,
    "evaluation": bench_evaluation,
    "training": bench_training,
    "memory": bench_memory,
}


def run_benches(names: list[str], run: str | None, say: Callable[[str], None]) -> list[Measured]:
    """The measurements of the benches `names` (all where empty), in the order of BENCHES.

    Raises:
        BenchError: a bench that there is not.
    """
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        raise BenchError(f"There is no bench {unknown[0]!r}. There are: {', '.join(BENCHES)}.")
    results = []
    for name in names or BENCHES:
        say(f"{name} ...")
        for measured in BENCHES[name](run):
            results.append(measured)
            say(f"  {describe(measured)}")
    return results
