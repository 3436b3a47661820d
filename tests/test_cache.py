"""The pixel cache: decoded once, right after every kind of interruption, bad files named."""

import io
import os
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core import cache, images
from core.images import ImageError, build_pixel_cache, read_image, resize_square

ROOT = Path(__file__).resolve().parents[1]
SIZES = [32, 48]


def write_picture(path: Path, seed: int, size=(50, 70)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path):
    """A folder of 40 pictures (more than one batch) and its table."""
    root = tmp_path / "data"
    paths = [f"class {i % 2}/image_{i:02d}.png" for i in range(40)]
    for i, path in enumerate(paths):
        write_picture(root / path, i)
    return root, pd.DataFrame({"image_id": [p[:-4] for p in paths], "path": paths, "label": "a"})


@pytest.fixture
def decoded(monkeypatch):
    """How many pictures were decoded since."""
    calls = []
    decode = images.decode_image

    def counting(content: bytes):
        calls.append(len(content))
        return decode(content)

    monkeypatch.setattr(images, "decode_image", counting)
    return calls


def check_pixels(built, root: Path, sizes=SIZES) -> None:
    """Every row of every size is what decoding its file gives."""
    for size in sizes:
        pixels = built.pixels(size)
        assert pixels.shape == (len(built.table), size, size) and pixels.dtype == np.uint8
        for row, path in enumerate(built.table["path"]):
            expected = resize_square(read_image(root / path).pixels, size)
            assert np.array_equal(pixels[row], expected), (size, path)


def test_pixels_are_in_the_order_of_the_table(data, tmp_path):
    root, table = data
    built = build_pixel_cache(table.set_index("label"), root, tmp_path / "c", SIZES)
    assert list(built.table["path"]) == list(table["path"])
    assert list(built.table.index) == list(range(40))
    assert set(built.table.columns) == {"image_id", "path", "sha256", "width", "height", "format"}
    assert set(built.table["width"]) == {70} and set(built.table["height"]) == {50}
    assert list(built.skipped.columns) == ["path", "reason"] and built.skipped.empty
    check_pixels(built, root)
    assert isinstance(built.pixels(32), np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        built.pixels(32)[0] = 0


def test_a_second_build_decodes_and_reads_nothing(data, tmp_path, decoded, monkeypatch):
    root, table = data
    build_pixel_cache(table, root, tmp_path / "c", SIZES)
    assert len(decoded) == 40
    with monkeypatch.context() as patch:
        patch.setattr(images, "read_bytes", lambda path: pytest.fail(f"{path} was read again"))
        again = build_pixel_cache(table, root, tmp_path / "c", SIZES)
        fewer = build_pixel_cache(table, root, tmp_path / "c", SIZES[:1])
    assert len(decoded) == 40
    check_pixels(again, root)
    check_pixels(fewer, root, SIZES[:1])


def test_any_order_and_any_part_of_the_table_is_served(data, tmp_path, decoded):
    root, table = data
    build_pixel_cache(table, root, tmp_path / "c", SIZES)
    del decoded[:]
    for part in (table[::-1], table[table["path"].str.startswith("class 1")], table.iloc[:3]):
        built = build_pixel_cache(part, root, tmp_path / "c", SIZES)
        assert list(built.table["path"]) == list(part["path"])
        assert not decoded
        check_pixels(built, root)
        del decoded[:]


def test_only_what_is_missing_is_decoded(data, tmp_path, decoded):
    root, table = data
    build_pixel_cache(table.iloc[:30], root, tmp_path / "c", SIZES)
    del decoded[:]
    built = build_pixel_cache(table, root, tmp_path / "c", SIZES)
    assert len(decoded) == 10
    del decoded[:]
    # A changed file under the old name, and the old file under a new name.
    (root / "copy.png").write_bytes((root / table["path"][5]).read_bytes())
    write_picture(root / table["path"][0], 999)
    more = pd.concat([table, pd.DataFrame({"path": ["copy.png"]})])
    built = build_pixel_cache(more, root, tmp_path / "c", SIZES)
    assert len(decoded) == 1
    assert built.table["sha256"][40] == built.table["sha256"][5]
    del decoded[:]
    check_pixels(built, root)


def test_another_size_or_decoder_version_decodes_again(data, tmp_path, decoded, monkeypatch):
    root, table = data
    build_pixel_cache(table, root, tmp_path / "c", [32])
    build_pixel_cache(table, root, tmp_path / "c", [32, 40])
    assert len(decoded) == 80
    monkeypatch.setattr(images, "DECODER_VERSION", images.DECODER_VERSION + 1)
    built = build_pixel_cache(table, root, tmp_path / "c", [32, 40])
    assert len(decoded) == 120
    check_pixels(built, root, [32, 40])


def test_bad_files_are_named_and_end_nothing(data, tmp_path, decoded):
    root, table = data
    whole = (root / table["path"][0]).read_bytes()
    gif = io.BytesIO()
    Image.new("L", (50, 50)).save(gif, "GIF")
    bad = {
        "empty.png": (b"", "empty"),
        "cut.png": (whole[: len(whole) // 2], "cut off"),
        "text.jpg": (b"not a picture at all", "no picture"),
        "gif.png": (gif.getvalue(), "GIF"),
        "absent.png": (None, "does not exist"),
        "../outside.png": (None, "outside"),
        "/etc/hostname": (None, "outside"),
        "nul\0.png": (None, "outside"),
        "long" * 100 + ".png": (None, "cannot be read"),
        "surrogate\udcff.png": (b"what", "no picture"),
        "class 0": (None, "not a file"),
    }
    for name, (content, _) in bad.items():
        if content is not None:
            (root / name).write_bytes(content)
    paths = pd.Series([*bad, *table["path"]], dtype=object).sample(frac=1, random_state=0)
    mixed = pd.DataFrame({"path": paths})
    for _ in range(2):
        built = build_pixel_cache(mixed, root, tmp_path / "c", SIZES)
        assert sorted(built.table["path"]) == sorted(table["path"])
        assert len(built.table) + len(built.skipped) == len(mixed)
        reasons = dict(zip(built.skipped["path"], built.skipped["reason"], strict=True))
        assert len(reasons) == len(bad)
        for name, (_, word) in bad.items():
            name = name.replace("\udcff", "\\udcff")
            assert word in reasons[name] and "\n" not in reasons[name], (name, reasons[name])
            assert str(tmp_path) not in reasons[name]
    assert len(decoded) == 40 + 4  # bad content is remembered too (the empty file is not decoded)


def test_a_file_that_is_mended_is_taken_in(data, tmp_path):
    root, table = data
    path = root / table["path"][7]
    content = path.read_bytes()
    path.write_bytes(content[:100])
    assert len(build_pixel_cache(table, root, tmp_path / "c", SIZES).skipped) == 1
    path.write_bytes(content)
    built = build_pixel_cache(table, root, tmp_path / "c", SIZES)
    assert built.skipped.empty
    check_pixels(built, root)


def test_nothing_usable_and_nothing_at_all(tmp_path):
    table = pd.DataFrame({"path": ["a.png", "b.png"]})
    built = build_pixel_cache(table, tmp_path, tmp_path / "c", SIZES)
    assert built.pixels(32).shape == (0, 32, 32) and len(built.skipped) == 2
    built = build_pixel_cache(table.iloc[:0], tmp_path, tmp_path / "c", SIZES)
    assert built.pixels(32).shape == (0, 32, 32) and built.skipped.empty
    with pytest.raises(ImageError, match="built for"):
        built.pixels(99)
    with pytest.raises(ImageError, match="sizes"):
        build_pixel_cache(table, tmp_path, tmp_path / "c", [])


def test_progress_counts_up_to_the_number_of_images(data, tmp_path):
    root, table = data
    seen = []
    build_pixel_cache(table, root, tmp_path / "c", [32], lambda *done: seen.append(done))
    assert seen == [(32, 40), (40, 40)]


def test_a_folder_that_cannot_be_used_is_one_sentence(data, tmp_path):
    root, table = data
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ImageError, match="CXR_CACHE"):
        build_pixel_cache(table, root, tmp_path / "file" / "c", SIZES)


# --- interruption and damage --------------------------------------------------------------------


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
        patch.setattr(cache.os, "fsync", full)
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
        patch.setattr(cache, "_Store", busy)
        with pytest.raises(ImageError, match="disk I/O error"):
            build_pixel_cache(table, root, folder, SIZES)
    assert (folder / "index.sqlite").exists()


BUILD = """
import sys, time
import pandas as pd
from core import images
decode = images.decode_image
def slow(data):
    time.sleep(0.01)
    return decode(data)
images.decode_image = slow
root, folder, step = sys.argv[1:]
from core.images import build_pixel_cache
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


def test_memory_does_not_grow_with_the_images(tmp_path):
    root = tmp_path / "many"
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(256)]})
    for i, path in enumerate(table["path"]):
        write_picture(root / path, i, (32, 32))
    held = []
    tracemalloc.start()
    build_pixel_cache(
        table, root, tmp_path / "c", [224], lambda *_: held.append(tracemalloc.get_traced_memory())
    )
    tracemalloc.stop()
    # All pixels together are 12.8 MB, those of a batch 1.6 MB (two may be in hand at once).
    assert held[-1][0] - held[0][0] < 2_000_000, held
    assert held[-1][1] < 7_000_000, held


def test_the_index_holds_no_row_before_its_pixels(data, tmp_path, monkeypatch):
    """Index and pixels are written in the order that a crash between them forgives."""
    root, table = data
    events = []
    fsync = os.fsync
    monkeypatch.setattr(cache.os, "fsync", lambda handle: (events.append("fsync"), fsync(handle)))
    connect = sqlite3.connect

    class Recording(sqlite3.Connection):
        def executemany(self, statement, rows):
            events.append("index")
            return super().executemany(statement, rows)

    monkeypatch.setattr(cache.sqlite3, "connect", lambda path: connect(path, factory=Recording))
    build_pixel_cache(table.iloc[:5], root, tmp_path / "c", SIZES)
    assert events == ["fsync", "fsync", "index", "index", "index"]
