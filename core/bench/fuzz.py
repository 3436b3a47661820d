"""Feed the loader mutations of real files: nothing may come out but an image or an ImageError.

Inputs are drawn by hypothesis (a development dependency) and decoded in the sandbox, as uploads
are: a crash inside a C decoder is counted and named with the input that caused it. Archives are
unpacked in this process, as the dashboard does.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.bench.fuzz_seeds import PATIENT_IDENTIFIERS, build_seeds, mend_png
from core.imageio.picture import MAX_PIXELS, MIN_SIDE_PX, Decoded, ImageError
from core.imageio.sandbox import (
    SECONDS_PER_IMAGE,
    UnexpectedError,
    WorkerError,
    decode_in_worker,
)
from core.imageio.zip_archive import MAX_ENTRY_BYTES, read_zip

_STEPS = (*("flip", "set", "edge") * 2, "cut", "delete", "repeat", "insert", "splice")
# Sizes, offsets and counts at the edges of what 8, 16 and 32 bits hold.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass
class FuzzResult:
    """What came of it. tried = accepted + refused + wrong + crashed, each counted.

    by_format: inputs tried. outcomes: by format and outcome. wrong: another exception than
    ImageError, or an image or a sentence that breaks the contract; crashed: the process died or
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
    """Try n inputs, as many of each format. The same seed, files and code give the same inputs
    (hypothesis looks into the code for numbers to try).

    Real X-rays are among the files where CXR_DATA names a folder. Raises ModuleNotFoundError
    without hypothesis, ValueError for a format that is not there.
    """
    seeds = build_seeds(os.environ.get("CXR_DATA"))
    chosen = list(formats) if formats is not None else list(seeds)
    unknown = [name for name in chosen if name not in seeds]
    if unknown or not chosen:
        raise ValueError(f"Formats are some of {', '.join(seeds)}. Received: {unknown}.")
    started = time.monotonic()
    result = FuzzResult()
    for i, name in enumerate(chosen):
        result.by_format[name], result.outcomes[name] = 0, Counter()
        share = n // len(chosen) + (i < n % len(chosen))
        for recipe in _draw(name, len(seeds[name]), share, seed + list(seeds).index(name)):
            _count(result, recipe, *_try(_make(seeds, recipe), name))
            if progress and (result.tried % 50 == 0 or result.tried == n):
                progress(result.tried, n)
    result.seconds = time.monotonic() - started
    return result


def rebuild(recipe: dict[str, Any], data_root: str | None = None) -> bytes:
    """The bytes of one input, from what `wrong` and `crashed` say of it, and its CXR_DATA."""
    return _make(build_seeds(data_root), recipe)


def _make(seeds: dict[str, list[bytes]], recipe: dict[str, Any]) -> bytes:
    name = recipe["format"]
    return mutate(seeds[name], recipe["file"], recipe["steps"], name == "PNG")


def mutate(
    files: Sequence[bytes], which: int, steps: Sequence[Sequence], is_png: bool = False
) -> bytes:
    """One of the files with all steps taken: (name, place 0 to 1, number, number)."""
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


def _draw(name: str, n_files: int, n: int, seed: int) -> list[dict[str, Any]]:
    """What makes n inputs of a format, by hypothesis, which finds edges that chance does not."""
    import hypothesis
    from hypothesis import strategies as st

    recipes: list[dict[str, Any]] = []
    if not n:
        return recipes
    number = st.integers(0, 2**16 - 1)
    place = st.floats(0, 1, exclude_max=True, width=32)
    step = st.tuples(st.sampled_from(_STEPS), place, number, number)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=n,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.integers(0, n_files - 1), st.lists(step, min_size=1, max_size=5))
    def draw(which: int, steps: list) -> None:
        recipes.append({"format": name, "file": which, "steps": steps})

    draw()
    return recipes


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
        named.append(f"{name}: {why[:300]} {json.dumps(recipe)}")


def _try(data: bytes, name: str) -> tuple[str, str]:
    """Outcome of one input, and why where it is wrong or crashed."""
    try:
        return _try_zip(data) if name == "ZIP" else _judge_image(decode_in_worker(data))
    except ImageError as error:
        return _judge_sentence(str(error))
    except TimeoutError:
        return "crashed", f"no reply in {SECONDS_PER_IMAGE:.0f} s"
    except UnexpectedError as error:
        return "wrong", str(error)
    except WorkerError as error:
        return "crashed", str(error)
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"


def _judge_sentence(message: str) -> tuple[str, str]:
    plain = message.endswith(".") and message.isprintable() and 20 < len(message) < 400
    return ("refused", "") if plain else ("wrong", f"no plain sentence: {message!r}")


def _judge_image(decoded: Decoded) -> tuple[str, str]:
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
        and not any(value in said for value in PATIENT_IDENTIFIERS.values())
    )
    return ("accepted", "") if right else ("wrong", f"a picture of {pixels.dtype} {pixels.shape}")


def _try_zip(data: bytes) -> tuple[str, str]:
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
