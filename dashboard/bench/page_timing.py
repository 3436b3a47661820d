"""Seconds that each page takes to draw again, as JSON: `python -m dashboard.bench.page_timing`.

Pages run through Streamlit's own test harness, so what is timed is the script and all that it
computes, without the browser. The first drawing fills the caches and is not counted.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median

from streamlit.testing.v1 import AppTest

APP = Path(__file__).parents[1] / "app.py"
ROUNDS = 5
TIMEOUT_S = 120


def time_pages() -> dict[str, float]:
    """Page -> median seconds of a warm drawing; a page that raises ends the measurement."""
    seconds = {}
    for file in sorted(APP.with_name("app_pages").glob("[!_]*.py")):
        # The whole app with this page in front: pages link to each other.
        page = AppTest.from_file(str(APP), default_timeout=TIMEOUT_S).run()
        page.switch_page(f"app_pages/{file.name}").run()
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            page.run()
            times.append(time.perf_counter() - started)
        if page.exception:
            raise RuntimeError(f"The page {file.stem} fails: {page.exception[0].value}")
        seconds[file.stem] = median(times)
    return seconds


if __name__ == "__main__":
    print(json.dumps(time_pages()))
