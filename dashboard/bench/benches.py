"""How long pages take to draw, and how many people at once are answered."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from core.bench import serving
from core.bench.measurement import Measured, Measurements, find_entry, last_line, run_python
from core.bench.statistics import PAGE_LIMIT_S
from core.runs import artifacts

PEOPLE, PEOPLE_S = 20, 60.0
BENCHES = dict.fromkeys(("pages", "people"), "dashboard.bench.benches")


def bench_pages(run: str | None) -> Measurements:
    """The second drawing of each page of the dashboard, when everything is cached."""
    entry = find_entry(run)
    if entry is None:
        yield Measured("pages", "pages", None, PAGE_LIMIT_S, "there is no run")
        return
    # In a process of its own, where nothing else is loaded.
    done = run_python("-m", "dashboard.bench.page_timing", CXR_RUN=entry.name)
    if done.returncode:
        yield Measured("pages", "pages", None, PAGE_LIMIT_S, last_line(done.stderr))
        return
    for page, seconds in json.loads(done.stdout).items():
        yield Measured("pages", f"page {page} of {entry.name}, warm", seconds, PAGE_LIMIT_S)


def bench_people(run: str | None) -> Measurements:
    """Many at once for a minute on a dashboard of its own, pages drawn, nobody pausing."""
    entry = find_entry(run)
    if entry is None:
        yield Measured("people", f"{PEOPLE} at once", None, 3.0, serving.NO_RUN)
        return
    images, kind = serving.load_images(artifacts.open_run(entry.path), serving.ONE_BY_ONE)
    # In a process of its own: what asks must not share this one's time.
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(images):
            Path(folder, f"{number:04d}").write_bytes(data)
        options = ("--people", str(PEOPLE), "--seconds", str(PEOPLE_S))
        done = run_python("-m", "dashboard.bench.load_test", folder, *options, CXR_RUN=entry.name)
    if done.returncode:
        yield Measured("people", f"{PEOPLE} at once", None, 3.0, last_line(done.stderr))
        return
    said = json.loads(done.stdout)
    what = (
        f"{PEOPLE} people at once on the page Predict of {entry.name} for {PEOPLE_S:.0f} s, no "
        f"pause, {kind}, from the upload to the page drawn"
    )
    note = f"{said['answers']:,} answers"
    note += f", slowest {said['slowest_s']:.2f} s" if said["answers"] else ""
    yield Measured("people", f"median, {what}", said["median_s"], 3.0, note)
    what, note = f"errors, {PEOPLE} people at once", "; ".join(said["errors"][:1])
    yield Measured("people", what, len(said["errors"]), 0, note, "errors")
