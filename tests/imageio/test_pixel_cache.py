"""The pixel cache: decoded once, only what is missing, bad files named, memory flat."""

import io
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.imageio import decode
from core.imageio.decode import ImageError
from core.imageio.pixel_cache import build_pixel_cache
from tests.support.files import SIZES, check_pixels, write_picture


def test_pixels_are_in_the_order_of_the_table(data, tmp_path):
    root, table = data
    built = build_pixel_cache(table.set_index("label"), root, tmp_path / "c", SIZES)
    assert list(built.table["path"]) == list(table["path"])
    assert list(built.table.index) == list(range(40))
    assert set(built.table.columns) == {"image_id", "path", "sha256", "width", "height", "format"}
    assert set(built.table["width"]) == {70} and set(built.table["height"]) == {50}
    assert list(built.skipped.columns) == ["path", "reason"] and built.skipped.empty
    check_pixels(built, root)
    assert built.sizes == (32, 48)
    assert isinstance(built.pixels(32), np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        built.pixels(32)[0] = 0


def test_a_second_build_decodes_and_reads_nothing(data, tmp_path, decoded, monkeypatch):
    root, table = data
    build_pixel_cache(table, root, tmp_path / "c", SIZES)
    assert len(decoded) == 40
    with monkeypatch.context() as patch:
        patch.setattr(decode, "read_bytes", lambda path: pytest.fail(f"{path} was read again"))
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
    monkeypatch.setattr(decode, "DECODER_VERSION", decode.DECODER_VERSION + 1)
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
        for file, (_, word) in bad.items():
            name = file.replace("\udcff", "\\udcff")
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
