"""The pixel cache after every kind of interruption and damage, and two builds at once."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.imageio import pixel_cache, pixel_cache_store
from core.imageio.decode import ImageError
from core.imageio.pixel_cache import build_pixel_cache
from tests.support.files import SIZES, check_pixels, write_picture

ROOT = Path(__file__).resolve().parents[2]


def break_index(folder: Path) -> None:
    (folder / "index.sqlite").write_bytes(b"this was a database once" * 100)


def break_index_inside(folder: Path) -> None:
    path = folder / "index.sqlite"
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def break_a_row(folder: Path) -> None:
    with (folder / "pixels-v1-48.u8").open("r+b") as file:
        file.seek(5 * 48 * 48 + 10)
        file.write(b"\0\1\2\3\4\5\6\7")


def cut_rows_off(folder: Path) -> None:
    os.truncate(folder / "pixels-v1-32.u8", 7 * 32 * 32 + 100)


def append_rubbish(folder: Path) -> None:
    with (folder / "pixels-v1-32.u8").open("ab") as file:
        file.write(b"half a row")


def lose_pixels(folder: Path) -> None:
    (folder / "pixels-v1-32.u8").unlink()


def lose_index(folder: Path) -> None:
    (folder / "index.sqlite").unlink()


def lose_views(folder: Path) -> None:
    for path in folder.glob("view-*"):
        os.truncate(path, 10)
    (folder / ".view-left-over").write_bytes(b"half a view")


@pytest.mark.parametrize(
    "damage",
    [
        break_index,
        break_index_inside,
        break_a_row,
        cut_rows_off,
        append_rubbish,
        lose_pixels,
        lose_index,
        lose_views,
    ],
)
def test_a_damaged_cache_mends_itself(data, tmp_path, damage, decoded):
    root, table = data
    folder = tmp_path / "c"
    build_pixel_cache(table, root, folder, SIZES)
    build_pixel_cache(table[::-1], root, folder, SIZES)
    damage(folder)
    for rows in (table, table[::-1]):
        check_pixels(build_pixel_cache(rows, root, folder, SIZES), root)
    extra = root / "extra.png"
    write_picture(extra, 12345)
    more = pd.concat([table, pd.DataFrame({"path": ["extra.png"]})])
    check_pixels(build_pixel_cache(more, root, folder, SIZES), root)
    del decoded[:]
    build_pixel_cache(more, root, folder, SIZES)
    assert not decoded  # and stays mended
    assert not list(folder.glob(".view-*"))


def test_deleted_pixels_leave_no_hole(data, tmp_path):
    root, table = data
    build_pixel_cache(table, root, tmp_path / "c", SIZES)
    lose_pixels(tmp_path / "c")
    build_pixel_cache(table, root, tmp_path / "c", SIZES)
    assert (tmp_path / "c" / "pixels-v1-32.u8").stat().st_size == 40 * 32 * 32


def test_pixels_in_use_survive_the_mending(data, tmp_path):
    root, table = data
    folder = tmp_path / "c"
    built = build_pixel_cache(table, root, folder, SIZES)
    in_use = built.pixels(32)
    before = np.array(in_use)
    break_index(folder)
    build_pixel_cache(table[::-1], root, folder, SIZES)
    assert np.array_equal(in_use, before)


def test_a_full_disk_is_one_sentence_and_loses_nothing(data, tmp_path, monkeypatch, decoded):
    root, table = data
    build_pixel_cache(table.iloc[:10], root, tmp_path / "c", SIZES)

    def full(_handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pixel_cache_store.os, "fsync", full)
        with pytest.raises(ImageError, match="No space left"):
            build_pixel_cache(table, root, tmp_path / "c", SIZES)
    del decoded[:]
    built = build_pixel_cache(table, root, tmp_path / "c", SIZES)
    assert len(decoded) == 30
    check_pixels(built, root)


def test_an_index_that_is_only_out_of_reach_is_not_thrown_away(data, tmp_path, monkeypatch):
    root, table = data
    folder = tmp_path / "c"
    build_pixel_cache(table, root, folder, SIZES)

    def busy(*_args, **_options):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(pixel_cache, "Store", busy)
        with pytest.raises(ImageError, match="disk I/O error"):
            build_pixel_cache(table, root, folder, SIZES)
    assert (folder / "index.sqlite").exists()


BUILD = """
import sys, time
import pandas as pd
from core.imageio import decode
right = decode.decode_image
def slow(data):
    time.sleep(0.01)
    return right(data)
decode.decode_image = slow
root, folder, step = sys.argv[1:]
from core.imageio.pixel_cache import build_pixel_cache
paths = [f"class {i % 2}/image_{i:02d}.png" for i in range(40)]
table = pd.DataFrame({"path": paths[:: int(step)]})
print("start", flush=True)
build_pixel_cache(table, root, folder, [32, 48], lambda *d: print(*d, flush=True))
"""


def start_build(root: Path, folder: Path, step: int = 1) -> subprocess.Popen:
    command = [sys.executable, "-c", BUILD, str(root), str(folder), str(step)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_build_that_is_killed_leaves_a_usable_cache(data, tmp_path, decoded):
    root, table = data
    process = start_build(root, tmp_path / "c")
    while process.stdout.readline().strip() != "32 40":  # one batch is in, the next under way
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    built = build_pixel_cache(table, root, tmp_path / "c", SIZES)
    assert len(decoded) <= 8
    check_pixels(built, root)


def test_two_builds_at_once_do_not_disturb_each_other(data, tmp_path, decoded):
    root, table = data
    processes = [start_build(root, tmp_path / "c", step) for step in (1, -1)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    built = build_pixel_cache(table, root, tmp_path / "c", SIZES)
    assert not decoded
    check_pixels(built, root)
    # The second found the first one's work: nothing is stored twice.
    assert (tmp_path / "c" / "pixels-v1-32.u8").stat().st_size == 40 * 32 * 32


def test_the_index_holds_no_row_before_its_pixels(data, tmp_path, monkeypatch):
    """Index and pixels are written in the order that a crash between them forgives."""
    root, table = data
    events = []
    fsync = os.fsync
    monkeypatch.setattr(
        pixel_cache_store.os, "fsync", lambda handle: (events.append("fsync"), fsync(handle))
    )
    connect = sqlite3.connect

    class Recording(sqlite3.Connection):
        def executemany(self, statement, rows):
            events.append("index")
            return super().executemany(statement, rows)

    monkeypatch.setattr(
        pixel_cache_store.sqlite3, "connect", lambda path: connect(path, factory=Recording)
    )
    build_pixel_cache(table.iloc[:5], root, tmp_path / "c", SIZES)
    assert events == ["fsync", "fsync", "index", "index", "index"]
