"""Feed the loader mutations of real files: nothing may come out but a picture or an ImageError.

Inputs are drawn by hypothesis (a development dependency) and decoded in a child process, so that
a crash inside a C decoder is counted and named with the input that caused it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

SECONDS_AN_INPUT = 20.0
MEMORY_BYTES = 1536 * 1024 * 1024
START_SECONDS = 120.0
_ROOT = Path(__file__).resolve().parents[2]
_STEPS = (
    "flip",
    "set",
    "edge",
    "flip",
    "set",
    "edge",
    "cut",
    "delete",
    "repeat",
    "insert",
    "splice",
)
# Sizes, offsets and counts at the edges of what 8, 16 and 32 bits hold.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass
class FuzzResult:
    """What came of it. tried = accepted + refused + wrong + crashed, each counted.

    by_format: inputs tried. outcomes: by format and outcome. wrong: another exception than
    ImageError, or a picture or a sentence that breaks the contract; crashed: the process died or
    did not come back; each with what makes the input again (`rebuild`).
    """

    tried: int = 0
    by_format: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    outcomes: dict[str, Counter] = field(default_factory=dict)


def run_fuzz(
    n: int,
    seed: int,
    formats: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FuzzResult:
    """Try n inputs, as many of each format. The same seed and files give the same inputs.

    Real X-rays are among the files where CXR_DATA names a folder. Raises ModuleNotFoundError
    without hypothesis, ValueError for a format that is not there.
    """
    import hypothesis  # noqa: F401

    from core.bench.fuzz_seeds import build_seeds

    known = list(build_seeds())
    chosen = list(formats) if formats is not None else known
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise ValueError(f"Formats are some of {', '.join(known)}. Received: {unknown}.")
    started = time.monotonic()
    result = FuzzResult()
    plan = {name: n // len(chosen) + (i < n % len(chosen)) for i, name in enumerate(chosen)}
    for name in chosen:
        result.by_format[name], result.outcomes[name] = 0, Counter()

    def tell() -> None:
        if progress:
            progress(result.tried, n)

    round_ = 0
    while left := {
        name: plan[name] - result.by_format[name]
        for name in chosen
        if plan[name] > result.by_format[name]
    }:
        _run_child(
            result, left, seed + 1000 * round_, lambda: progress and progress(result.tried, n)
        )
        round_ += 1
    result.seconds = time.monotonic() - started
    return result


def rebuild(recipe: dict[str, Any], data_root: str | None = None) -> bytes:
    """The bytes of one input, from what `wrong` and `crashed` say of it, and its CXR_DATA."""
    from core.bench.fuzz_seeds import build_seeds

    name = recipe["format"]
    return mutate(build_seeds(data_root)[name], recipe["file"], recipe["steps"], name == "PNG")


def mutate(
    files: Sequence[bytes], which: int, steps: Sequence[Sequence], is_png: bool = False
) -> bytes:
    """One of the files with all steps taken: (name, place 0 to 1, number, number)."""
    from core.bench.fuzz_seeds import mend_png

    data = bytearray(files[which % len(files)])
    for step, place, a, b in steps:
        # Half of the places lie in the first bytes, where the structure stands.
        reach = min(len(data), 700) if place < 0.5 else len(data)
        at = int((place * 2 % 1) * reach)
        if step == "flip" and data:
            data[min(at, len(data) - 1)] ^= 1 << a % 8
        elif step == "set" and data:
            data[min(at, len(data) - 1)] = a % 256
        elif step == "edge":
            size, order = (1, 2, 4)[b % 3], "little" if b % 2 else "big"
            value = _EDGES[a % len(_EDGES)] & (256**size - 1)
            data[at : at + size] = value.to_bytes(size, order)
        elif step == "cut":
            del data[at:]
        elif step == "delete":
            del data[at : at + a % 64 + 1]
        elif step == "repeat":
            data[at:at] = data[at : at + a % 256 + 1] * (b % 8 + 1)
        elif step == "insert":
            data[at:at] = bytes((a * i + b) % 256 for i in range(a % 40 + 1))
        elif step == "splice":
            other = files[b % len(files)]
            start = a % max(1, len(other))
            data[at : at + 64] = other[start : start + 64]
    # Else nearly every mutation of a PNG would end at the first checksum.
    return mend_png(bytes(data)) if is_png and len(steps) % 4 else bytes(data)


def _run_child(
    result: FuzzResult, left: dict[str, int], seed: int, tell: Callable[[], None]
) -> None:
    """All that is left to try, until it is done or the child process dies over an input."""
    before, latest, killed = result.tried, None, threading.Event()
    child = _start_child(left, seed)
    watch = _Watch(child, killed)
    try:
        for line in child.stdout:
            watch.again()
            message = json.loads(line)
            if "outcome" not in message:
                latest = message
                continue
            _count(result, latest, message["outcome"], message["why"])
            latest = None
            if result.tried % 50 == 0:
                tell()
    finally:
        watch.stop()
        child.stdout.close()
        code = child.wait()
    if latest is not None:
        late = killed.is_set() or code == -signal.SIGALRM
        why = f"no answer in {SECONDS_AN_INPUT:.0f} s" if late else f"process ended by {code}"
        _count(result, latest, "crashed", why)
    elif result.tried == before or code:
        raise RuntimeError(f"The process that tries inputs ended by {code} between two of them.")
    tell()


class _Watch:
    """Kills a child that says nothing for too long (its own alarm comes first)."""

    def __init__(self, child: subprocess.Popen, killed: threading.Event) -> None:
        self._child, self._killed = child, killed
        self._last, self._done = time.monotonic() + START_SECONDS, threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def again(self) -> None:
        self._last = time.monotonic()

    def stop(self) -> None:
        self._done.set()

    def _run(self) -> None:
        while not self._done.wait(1.0):
            if time.monotonic() - self._last > 2 * SECONDS_AN_INPUT:
                self._killed.set()
                self._child.kill()
                return


def _start_child(left: dict[str, int], seed: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "core.bench.fuzz", json.dumps(left), str(seed)],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _count(result: FuzzResult, recipe: dict[str, Any], outcome: str, why: str) -> None:
    name = recipe["format"]
    result.tried += 1
    result.by_format[name] += 1
    result.outcomes[name][outcome] += 1
    if outcome == "accepted":
        result.accepted += 1
    elif outcome == "refused":
        result.refused += 1
    else:
        named = result.wrong if outcome == "wrong" else result.crashed
        named.append(f"{name}: {why} {json.dumps(recipe)}")


def _try(data: bytes, name: str) -> tuple[str, str]:
    """Outcome of one input, and why where it is wrong."""
    from core.imageio.decode import ImageError, decode_image

    try:
        if name == "ZIP":
            return _try_zip(data)
        decoded = decode_image(data)
    except ImageError as error:
        return _judge_sentence(str(error))
    except BaseException as error:
        return "wrong", f"{type(error).__name__}: {error}"
    return _judge_image(decoded)


def _judge_sentence(message: str) -> tuple[str, str]:
    plain = message.endswith(".") and message.isprintable() and 20 < len(message) < 400
    return ("refused", "") if plain else ("wrong", f"no plain sentence: {message!r}")


def _judge_image(decoded: Any) -> tuple[str, str]:
    import numpy as np

    from core.bench.fuzz_seeds import WHOM
    from core.imageio.decode import MAX_PIXELS, MIN_SIDE_PX

    pixels = decoded.pixels
    said = " ".join([decoded.mode, *decoded.facts.values()])
    right = (
        pixels.dtype == np.uint8
        and pixels.shape == (decoded.height, decoded.width)
        and min(pixels.shape) >= MIN_SIDE_PX
        and pixels.size <= MAX_PIXELS
        and 0 <= decoded.colourfulness <= 1
        and said.isascii()
        and said.isprintable()
        and not any(value in said for value in WHOM.values())
    )
    return ("accepted", "") if right else ("wrong", f"a picture of {pixels.dtype} {pixels.shape}")


def _try_zip(data: bytes) -> tuple[str, str]:
    from core.imageio.zip_archive import MAX_ENTRY_BYTES, read_zip

    entries = 0
    for entry in read_zip(data):
        entries += 1
        if (entry.data is None) == (entry.problem is None):
            return "wrong", "an entry with both or neither of data and problem"
        if entry.data is not None and not 0 < len(entry.data) <= MAX_ENTRY_BYTES:
            return "wrong", f"an entry of {len(entry.data)} bytes"
        parts = entry.name.split("/")
        if ".." in parts or entry.name.startswith("/") or not entry.name.isprintable():
            return "wrong", f"the name {entry.name!r}"
        if entry.problem is not None:
            outcome = _judge_sentence(entry.problem)
            if outcome[0] == "wrong":
                return outcome
    return ("accepted" if entries else "refused"), ""


def _child(left: dict[str, int], seed: int) -> None:
    """Try so many inputs of each format; a line before each, with what makes it, and one after."""
    import core.imageio.dicom  # before memory is limited
    from core.bench.fuzz_seeds import build_seeds
    from core.imageio.sandbox_worker import limit_process

    del core.imageio.dicom
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a C library prints must not get in between
    seeds = build_seeds(os.environ.get("CXR_DATA"))
    limit_process(4 * MEMORY_BYTES)
    for name, n in left.items():
        _try_format(name, seeds[name], n, seed + list(seeds).index(name), out)


def _try_format(name: str, files: Sequence[bytes], n: int, seed: int, out: TextIO) -> None:
    import hypothesis
    from hypothesis import strategies as st

    def tell(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=n,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(
        st.integers(0, len(files) - 1),
        st.lists(
            st.tuples(
                st.sampled_from(_STEPS),
                st.floats(0, 1, exclude_max=True, width=32),
                st.integers(0, 2**16 - 1),
                st.integers(0, 2**16 - 1),
            ),
            min_size=1,
            max_size=5,
        ),
    )
    def draw(which: int, steps: list) -> None:
        data = mutate(files, which, steps, name == "PNG")
        tell({"format": name, "file": which, "steps": steps})
        with _alarm():
            outcome, why = _try(data, name)
        tell({"outcome": outcome, "why": why[:300]})

    draw()


@contextlib.contextmanager
def _alarm():
    """Ends the process, also inside a C decoder, where an input takes too long."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, SECONDS_AN_INPUT)
    yield
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]), int(sys.argv[2]))
