"""The process in which pictures are decoded: `python -m core.imageio.sandbox_worker`, see
core/imageio/sandbox.py.

One request: 4 bytes length, then the file's bytes. One answer: 4 bytes length, a JSON header, then
the pixels as they lie in memory. Nothing is pickled and nothing of a file is written anywhere.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import struct
import sys
from typing import Any, BinaryIO

LENGTH = struct.Struct("<L")
MAX_HEADER_BYTES = 1024 * 1024
OPEN_FILES = 32
READY = b"ready"
NOTHING = memoryview(b"")


def limit_process(address_space_bytes: int) -> list[str]:
    """Set this process's limits for good and return the names of those that the system has.

    No more memory than said, no core dump, no file can be written, few can be open.
    """
    try:
        import resource
    except ImportError:  # Windows
        return []
    held = []
    limits = {
        "RLIMIT_AS": address_space_bytes,
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NOFILE": OPEN_FILES,
    }
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
            held.append(name)
        except (AttributeError, ValueError, OSError):
            continue  # macOS refuses RLIMIT_AS; docs/security.md says so
    return held


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def read_exactly(stream: BinaryIO, n_bytes: int) -> bytes:
    """Raises EOFError where the other side has gone."""
    data = stream.read(n_bytes)
    if data is None or len(data) < n_bytes:
        raise EOFError
    return data


def answer(data: bytes, memory_bytes: int) -> tuple[dict[str, Any], memoryview]:
    """Decode one picture: the header that is sent back, and the pixels (none with an error)."""
    from core.imageio.decode import NO_MEMORY, ImageError, decode_image

    try:
        decoded = decode_image(data)
    except ImageError as error:
        message = str(error)
        return {"error": _no_memory(memory_bytes) if message == NO_MEMORY else message}, NOTHING
    except MemoryError:
        return {"error": _no_memory(memory_bytes)}, NOTHING
    header = {
        "width": decoded.width,
        "height": decoded.height,
        "format": decoded.format,
        "mode": decoded.mode,
        "synthetic": decoded.synthetic,
        "colourfulness": decoded.colourfulness,
        "facts": dict(decoded.facts),
        "tags_read": list(decoded.tags_read),
    }
    return header, memoryview(decoded.pixels).cast("B")


def _no_memory(memory_bytes: int) -> str:
    return (
        f"Decoding the picture needs more than {memory_bytes // 2**20:,} MiB of memory, which is "
        "the limit; save a smaller copy."
    )


def main(memory_bytes: int, seconds: float) -> None:
    """Answer requests until the other side closes its end."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    # What a library prints must not get into the answers; it has nowhere else to go either.
    answers = os.fdopen(os.dup(answers.fileno()), "wb")
    os.dup2(2, 1)
    # Before the limits: shared libraries are no part of a picture.
    importlib.import_module("core.imageio.decode")

    limit_process(memory_bytes + _address_space_bytes())
    answers.write(READY)
    answers.flush()
    if not _waits(requests):
        importlib.import_module("core.imageio.dicom")  # half a second, taken while nobody waits
    while True:
        try:
            (n_bytes,) = LENGTH.unpack(read_exactly(requests, LENGTH.size))
            data = read_exactly(requests, n_bytes)
        except EOFError:
            return
        _alarm(2 * seconds)
        header, pixels = answer(data, memory_bytes)
        del data
        header["resident_bytes"] = resident_bytes()
        text = json.dumps(header).encode()
        answers.write(LENGTH.pack(len(text)) + text)
        answers.write(pixels)
        answers.flush()
        _alarm(0)
        del pixels


def _address_space_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _waits(stream: BinaryIO) -> bool:
    """Whether a request is there already."""
    try:
        return bool(select.select([stream], [], [], 0.05)[0])
    except (OSError, ValueError):  # Windows has it for sockets only
        return True


def _alarm(seconds: float) -> None:
    """End this process after so long, also within a C decoder and with nobody left to kill it."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
