"""Decoding in processes of their own: limits that hold, crashes that cost a sentence, and speed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.bench.fuzz_seeds import encode, make_dicom
from core.datasets.phantom.generate import make_phantom
from core.imageio import sandbox
from core.imageio.decode import MAX_BYTES, ImageError, decode_image
from core.imageio.sandbox import close_sandbox, decode_safely, start_sandbox, worker_processes
from tests.support.malicious_files import many_scans, png_header
from tests.support.server import ROOT
from tests.support.uploads import resident_mib

GREY = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def fresh_workers():
    close_sandbox()
    yield
    close_sandbox()


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_safely(data)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and "Traceback" not in message
    return message


# No file within the limits keeps a decoder busy for long, so a worker is given one that does.
SLOW = b"SLOW"
PATCH = """
import core.imageio.decode, sys
right = core.imageio.decode.decode_image
def decode(data):
    while data.startswith(b"SLOW"):
        pass
    return right(data)
core.imageio.decode.decode_image = decode
from core.imageio.sandbox_worker import main
main(int(sys.argv[1]), float(sys.argv[2]))
"""
PATCH_SANDBOX = f"""
from core.imageio import sandbox
start = sandbox.subprocess.Popen
def patched(command, **options):
    at = command.index("-m")
    return start([*command[:at], "-c", {PATCH!r}, *command[at + 2 :]], **options)
sandbox.subprocess.Popen = patched
"""


@pytest.fixture
def slow(monkeypatch):
    """A picture that decodes for ever; all others decode as they do."""
    monkeypatch.setattr(sandbox.subprocess, "Popen", subprocess.Popen)  # put back afterwards
    exec(PATCH_SANDBOX, {})
    return SLOW


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def busy_processes(n: int) -> list[int]:
    """The workers, once there are n and none is idle."""
    deadline = time.monotonic() + 20
    while len(worker_processes()) < n or sandbox._pool._idle:
        assert time.monotonic() < deadline, "they do not decode"
        time.sleep(0.02)
    return worker_processes()


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(pid)


# --- the same answer --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        encode(GREY, "PNG"),
        encode(np.stack([GREY, GREY.T[:40, :40].repeat(2, 1)[:, :60], GREY], -1), "BMP"),
        make_dicom(GREY, "JPEG 2000", BodyPartExamined="CHEST", PatientOrientation=["R", "F"]),
        make_dicom(GREY.astype(np.uint16) * 9, "RLE", WindowCenter=900, WindowWidth=900),
    ],
)
def test_the_same_as_without_it(data):
    ours, plain = decode_safely(data), decode_image(data)
    assert np.array_equal(ours.pixels, plain.pixels) and ours.pixels.dtype == np.uint8
    for field in ("width", "height", "format", "mode", "synthetic", "colourfulness", "tags_read"):
        assert getattr(ours, field) == getattr(plain, field), field
    assert dict(ours.facts) == dict(plain.facts)
    ours.pixels[0, 0] = 1  # an array of one's own


def test_the_same_sentences():
    for data in (b"", b"no picture at all", png_header(60_000, 50), many_scans(300)):
        with pytest.raises(ImageError) as plain:
            decode_image(data)
        assert refused(data) == str(plain.value)
    assert "larger than 64 MiB" in refused(bytes(MAX_BYTES + 1))


def test_workers_start_when_needed_and_stay():
    assert worker_processes() == []
    decode_safely(encode(GREY, "PNG"))
    (first,) = worker_processes()
    for _ in range(5):
        decode_safely(encode(GREY, "PNG"))
    assert worker_processes() == [first]
    close_sandbox()
    assert worker_processes() == []
    start_sandbox()
    deadline = time.monotonic() + 20
    while not worker_processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker_processes()


def test_many_people_at_once_each_get_their_own_picture():
    pictures = [np.full((32 + i, 40 + i), i * 5, np.uint8) for i in range(40)]
    files = [encode(pixels, "PNG") for pixels in pictures]
    most = []

    def ask(i: int) -> bool:
        found = decode_safely(files[i]).pixels
        most.append(len(worker_processes()))
        return np.array_equal(found, pictures[i])

    with ThreadPoolExecutor(12) as people:
        assert all(people.map(ask, list(range(40)) * 3))
    assert max(most) <= sandbox.N_WORKERS


def test_one_process_serves_picture_after_picture():
    """What keeps the overhead small: a start of Python costs a hundred times a decoding."""
    data = encode(make_phantom("covid", 1, 448).pixels, "JPEG")
    decode_safely(data)
    first = worker_processes()
    assert len(first) == 1
    for _ in range(30):
        decode_safely(data)
    assert worker_processes() == first


# --- limits -----------------------------------------------------------------------------------


def test_a_picture_that_takes_too_long_names_the_limit(slow, monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS_PER_IMAGE", 1.0)
    # It would decode for ever, so an answer means that the limit held.
    assert "took longer than 1 seconds, which is the limit" in refused(slow)
    assert worker_processes() == []
    assert np.array_equal(decode_safely(encode(GREY, "PNG")).pixels, GREY)


def test_a_picture_that_needs_too_much_memory_names_the_limit(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("only Linux limits a process's memory this way")
    large = encode(Image.new("RGBA", (4000, 4000), (9, 9, 9, 200)), "PNG")
    assert len(large) < 500_000
    assert decode_safely(large).width == 4000
    close_sandbox()
    monkeypatch.setattr(sandbox, "MEMORY_BYTES", 100 * 2**20)
    assert "needs more than 100 MiB of memory, which is the limit" in refused(large)
    assert np.array_equal(decode_safely(encode(GREY, "PNG")).pixels, GREY)


def test_a_killed_worker_costs_one_sentence(slow):
    decode_safely(encode(GREY, "PNG"))
    (worker,) = worker_processes()
    threading.Timer(0.5, os.kill, (worker, signal.SIGKILL)).start()
    message = refused(slow)
    assert "The process that decodes pictures ended over this one" in message
    assert np.array_equal(decode_safely(encode(GREY, "PNG")).pixels, GREY)
    assert worker not in worker_processes()


def test_a_worker_killed_while_idle_costs_nothing():
    decode_safely(encode(GREY, "PNG"))
    (worker,) = worker_processes()
    os.kill(worker, signal.SIGKILL)
    time.sleep(0.3)
    assert np.array_equal(decode_safely(encode(GREY, "PNG")).pixels, GREY)


def test_one_runaway_does_not_stop_the_others(slow, monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS_PER_IMAGE", 60.0)
    runaway = threading.Thread(target=lambda: refused(slow))
    runaway.start()
    (worker,) = busy_processes(1)
    for _ in range(10):
        decode_safely(encode(GREY, "PNG"))
    assert runaway.is_alive() and worker in worker_processes()
    os.kill(worker, signal.SIGKILL)
    runaway.join(30)
    assert not runaway.is_alive()


def test_waiting_has_an_end(slow, monkeypatch):
    monkeypatch.setattr(sandbox, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(sandbox, "SECONDS_PER_IMAGE", 60.0)
    runaways = [threading.Thread(target=lambda: refused(slow)) for _ in range(sandbox.N_WORKERS)]
    for runaway in runaways:
        runaway.start()
    workers = busy_processes(sandbox.N_WORKERS)
    assert "kept the decoders busy" in refused(encode(GREY, "PNG"))
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    for runaway in runaways:
        runaway.join(30)
        assert not runaway.is_alive()


def test_a_worker_that_has_grown_is_replaced(monkeypatch):
    decode_safely(encode(GREY, "PNG"))
    (first,) = worker_processes()
    monkeypatch.setattr(sandbox, "MAX_RESIDENT_BYTES", 1)
    decode_safely(encode(GREY, "PNG"))
    assert worker_processes() == []
    monkeypatch.undo()
    decode_safely(encode(GREY, "PNG"))
    assert worker_processes() != [first]


@pytest.mark.parametrize("junk", [b"\xff\xff\xff\xff", b"\x02\0\0\0{]", b"\x02\0\0\0{}", b""])
def test_a_worker_that_answers_nonsense_is_not_believed(junk, monkeypatch):
    code = (
        "import sys; out = sys.stdout.buffer\n"
        "out.write(b'ready'); out.flush(); sys.stdin.buffer.read(10)\n"
        f"out.write({junk!r}); out.flush()\n"
    )
    start = subprocess.Popen

    def another(command, **options):
        return start([sys.executable, "-c", code], **options)

    monkeypatch.setattr(sandbox.subprocess, "Popen", another)
    assert "ended over this one" in refused(encode(GREY, "PNG"))


def test_a_worker_that_cannot_start_is_said(monkeypatch):
    def fail(*_args, **_options):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(sandbox.subprocess, "Popen", fail)
    assert "The process that decodes pictures" in refused(encode(GREY, "PNG"))


# --- what a worker may and knows --------------------------------------------------------------


@on_linux
def test_the_worker_is_fenced_in(monkeypatch):
    monkeypatch.setenv("A_SECRET", "hunter2")
    decode_safely(encode(GREY, "PNG"))
    (worker,) = worker_processes()
    limits = {}
    for line in Path(f"/proc/{worker}/limits").read_text().splitlines()[1:]:
        limits[line[:26].strip()] = line[26:].split()[:2]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max open files"] == ["32", "32"]
    room = int(limits["Max address space"][1])
    assert sandbox.MEMORY_BYTES < room < sandbox.MEMORY_BYTES + 2**30
    environment = Path(f"/proc/{worker}/environ").read_bytes()
    assert b"hunter2" not in environment and b"HOME=" not in environment
    assert b"OPENBLAS_NUM_THREADS=1" in environment
    files = [os.readlink(entry) for entry in Path(f"/proc/{worker}/fd").iterdir()]
    assert not [name for name in files if name.startswith("socket:")]


@on_linux
@pytest.mark.parametrize("busy", [False, True])
def test_workers_end_when_their_parent_is_killed(busy, tmp_path):
    picture, runaway = tmp_path / "a.png", tmp_path / "b.jpg"
    picture.write_bytes(encode(GREY, "PNG"))
    runaway.write_bytes(SLOW)
    code = PATCH_SANDBOX + (
        "import sys, time\n"
        "sandbox.SECONDS_PER_IMAGE = 1.0 if len(sys.argv) > 2 else 20.0\n"
        "sandbox.decode_safely(open(sys.argv[1], 'rb').read())\n"
        "print(sandbox.worker_processes()[0], flush=True)\n"
        "if len(sys.argv) > 2: sandbox._pool.decode(open(sys.argv[2], 'rb').read())\n"
        "time.sleep(60)\n"
    )
    arguments = [str(picture), *([str(runaway)] if busy else [])]
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        worker = int(parent.stdout.readline())
        assert is_alive(worker)
        time.sleep(0.4)
    finally:
        parent.kill()
        parent.wait()
    assert gone_within(worker, 20)  # busy: by its own alarm


def test_a_page_that_is_main_is_not_run_again(tmp_path):
    """As under Streamlit, where `__main__` is the page: no worker may import it."""
    page = tmp_path / "page.py"
    page.write_text(
        "print('drawn')\n"
        "from core.bench.fuzz_seeds import encode, make_phantom\n"
        "from core.imageio.sandbox import decode_safely\n"
        "print(decode_safely(encode(make_phantom('covid', 1, 48).pixels, 'PNG')).width)\n"
    )
    done = subprocess.run(
        [sys.executable, str(page)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["drawn", "48"]


@on_linux
def test_memory_and_files_return_to_what_they_were(monkeypatch):
    large = encode(np.zeros((4000, 5000), np.uint8), "PNG")
    decode_safely(large)
    me = os.getpid()
    memory, files = resident_mib(me), len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(sandbox, "MAX_RESIDENT_BYTES", 1)  # a new worker for each
    for _ in range(4):
        decode_safely(large)
        refused(large[:5000])
    assert resident_mib(me) < memory + 18  # less than one of the pictures
    assert len(os.listdir("/proc/self/fd")) <= files
