"""The peak of resident memory: a process's own, whoever started it."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from core.bench.memory import peak_bytes

ROOT = Path(__file__).resolve().parents[2]
SAY_PEAK = "from core.bench.memory import peak_bytes; print(peak_bytes())"
LARGE = 400_000_000


def peak_of(code: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def test_the_peak_is_of_the_process_itself_and_not_of_the_one_that_started_it():
    small = peak_of(SAY_PEAK)
    assert 5_000_000 < small < LARGE / 2
    held = np.ones(LARGE, np.uint8)  # this process is large now, as after a training bench
    assert peak_bytes() > held.nbytes
    assert peak_of(SAY_PEAK) < 1.2 * small


def test_memory_that_was_given_back_counts():
    code = f"import numpy as np; a = np.ones({LARGE}, np.uint8); del a; {SAY_PEAK}"
    assert LARGE < peak_of(code) < 1.5 * LARGE
