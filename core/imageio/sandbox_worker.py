"""The process in which images are decoded: `python -m core.imageio.sandbox_worker`, see
core/imageio/sandbox.py.

One request: 4 bytes length, then the file's bytes. One reply: 4 bytes length, a JSON header, then
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
MAX_UNEXPECTED_CHARS = 300
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


def _memory_bytes(which: int) -> int:
    """This process's address space (0) or resident memory (1); 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[which]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def read_exactly(stream: BinaryIO, n_bytes: int) -> bytes:
    """Raises EOFError where the other side has gone."""
    data = stream.read(n_bytes)
    if data is None or len(data) < n_bytes:
        raise EOFError
    return data


def decode_request(data: bytes, memory_bytes: int) -> tuple[dict[str, Any], memoryview]:
    """Decode one image: the header that is sent back, and the pixels (none unless it was read).

    The header is {"error": what ImageError says}, {"unexpected": what should never be}, or the
    fields of Decoded without its pixels.
    """
    from core.imageio.decode import NO_MEMORY, ImageError, decode_image

    try:
        decoded = decode_image(data)
    except ImageError as error:
        message = str(error)
        return {"error": _no_memory(memory_bytes) if message == NO_MEMORY else message}, NOTHING
    except MemoryError:
        return {"error": _no_memory(memory_bytes)}, NOTHING
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a decoder written in Rust is no Exception
        return {"unexpected": f"{type(error).__name__}: {error}"[:MAX_UNEXPECTED_CHARS]}, NOTHING
    pixels = decoded.pixels
    if pixels.dtype != "uint8" or pixels.shape != (decoded.height, decoded.width):
        return {"unexpected": f"an image of {pixels.dtype} {pixels.shape}"}, NOTHING
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
    return header, pixels.data.cast("B")


def _no_memory(memory_bytes: int) -> str:
    return (
        f"Decoding the picture needs more than {memory_bytes // 2**20:,} MiB of memory, which is "
        "the limit; save a smaller copy."
    )


def main(memory_bytes: int, seconds: float) -> None:
    """Reply to requests until the other side closes its end."""
    requests = sys.stdin.buffer
    # What a library prints must not get into the replies; it has nowhere else to go either.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(2, 1)
    # Before the limits: shared libraries are no part of an image.
    importlib.import_module("core.imageio.decode")

    limit_process(memory_bytes + _memory_bytes(0))
    replies.write(READY)
    replies.flush()
    if not _waits(requests):
        importlib.import_module("core.imageio.dicom")  # half a second, taken while nobody waits
    while True:
        try:
            (n_bytes,) = LENGTH.unpack(read_exactly(requests, LENGTH.size))
            data = read_exactly(requests, n_bytes)
        except EOFError:
            return
        _alarm(2 * seconds)
        header, pixels = decode_request(data, memory_bytes)
        del data
        header["resident_bytes"] = _memory_bytes(1)
        text = json.dumps(header).encode()
        replies.write(LENGTH.pack(len(text)) + text)
        replies.write(pixels)
        replies.flush()
        _alarm(0)
        del pixels


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
