"""Archives: what is unpacked, what is refused with which sentence, and how much memory it takes."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import pytest

from core.imageio import zip_archive
from core.imageio.decode import ImageError
from core.imageio.zip_archive import Entry, is_zip, read_zip, shown_name
from tests.support import malicious_files
from tests.support.malicious_files import patch_central, patch_end, zip_link, zip_of


def entries(data: bytes) -> list[Entry]:
    found = list(read_zip(data))
    for entry in found:
        assert (entry.data is None) != (entry.problem is None)
        assert entry.problem is None or (entry.problem.endswith(".") and "\n" not in entry.problem)
        assert entry.name.isprintable() and ".." not in entry.name.split("/")
        assert not entry.name.startswith("/") and "\\" not in entry.name
    return found


def problem(data: bytes) -> str:
    (entry,) = entries(data)
    assert entry.data is None
    return entry.problem


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_zip(data)  # at once, not when the first entry is asked for
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_come_out_in_order_unchanged(method):
    files = [("a.png", b"first" * 1000), ("b/ä é.dcm", b"second"), ("B/c", bytes(range(256)))]
    data = zip_of(*files, method=method)
    assert is_zip(data)
    assert [(e.name, e.data) for e in entries(data)] == files


def test_what_is_no_zip():
    assert not is_zip(b"\x89PNG\r\n\x1a\n") and not is_zip(b"") and not is_zip(b"PK")
    assert "damaged or cut off" in refused(b"PK\x03\x04" + bytes(100))


def test_folders_and_what_systems_add_are_left_out():
    data = zip_of(
        ("x/", b""),
        ("__MACOSX/x/._a.png", b"mac"),
        ("x/.DS_Store", b"mac"),
        ("x/._a.png", b"mac"),
        ("x/Thumbs.db", b"win"),
        ("desktop.ini", b"win"),
        ("x/a.png", b"picture"),
    )
    assert [e.name for e in entries(data)] == ["x/a.png"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("a/../../b.png", "a/b.png"),
        ("..\\windows\\b.png", "windows/b.png"),
        ("C:/b.png", "b.png"),
        ("C:b.png", "b.png"),
        ("a\nb.png", "a?b.png"),
        ("a\x1b[31m.png", "a?[31m.png"),
        ("a\u202egnp.exe", "a?gnp.exe"),
        ("a\u2028b.png", "a?b.png"),
    ],
)
def test_names_that_lead_out_or_deceive(name, shown):
    data = zip_of((name, b"x"))
    (entry,) = entries(data)
    assert entry.name == shown
    assert "leads out of the archive or holds control characters" in entry.problem


def test_names_are_cut_for_showing():
    assert shown_name("a/" * 400 + "b.png").endswith("a/b.png")
    assert len(shown_name("x" * 60_000)) == zip_archive.MAX_NAME_CHARS
    assert shown_name("..") == "?"


def test_links_and_devices_are_no_files():
    assert "a link" in problem(zip_of(zip_link("a.png", "/etc/passwd")))
    info = zipfile.ZipInfo("pipe")
    info.create_system, info.external_attr = 3, 0o010644 << 16
    assert "a device or a pipe" in problem(zip_of((info, b"x")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_second_file_of_the_same_name():
    first, second, third = entries(zip_of(("a.png", b"1"), ("a.png", b"2"), ("A.PNG", b"3")))
    assert first.data == b"1"
    assert "same name" in second.problem and "same name" in third.problem


def test_encryption_and_other_methods():
    data = zip_of(("a.png", b"x" * 50), ("b.png", b"y"))
    encrypted, fine = entries(patch_central(data, "a.png", flags=1))
    assert "encrypted" in encrypted.problem and fine.data == b"y"
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert "stored and deflated" in problem(zip_of(("a.png", b"x" * 500), method=method))
    assert "method 99" in entries(patch_central(data, "a.png", method=99))[0].problem


@pytest.mark.parametrize(
    ("start", "kind"),
    [(b"PK\x03\x04", "ZIP"), (b"\x1f\x8b\x08", "gzip"), (b"7z\xbc\xaf\x27\x1c", "7z")],
)
def test_archives_inside_are_not_opened(start, kind):
    assert f"itself an archive ({kind})" in problem(zip_of(("a.png", start + bytes(99))))
    assert "itself an archive (ZIP)" in problem(zip_of(("in.zip", zip_of(("a", b"b")))))


def test_empty_and_damaged_entries_spare_the_others():
    data = zip_of(("a.png", b""), ("b.png", bytes(range(256)) * 40), ("c.png", b"fine"))
    at = data.index(b"b.png") + 60
    broken = data[:at] + b"\xff\xff\xff" + data[at + 3 :]
    empty, damaged, fine = entries(broken)
    assert "empty" in empty.problem and "damaged" in damaged.problem and fine.data == b"fine"


# --- bombs ------------------------------------------------------------------------------------


def test_sizes_are_counted_and_not_believed(monkeypatch):
    monkeypatch.setattr(zip_archive, "MAX_ENTRY_BYTES", 100_000)
    monkeypatch.setattr(zip_archive, "MAX_RATIO", 10_000)
    data = zip_of(("a.png", bytes(200_000)))
    assert "at most 0 MiB" in problem(data)
    # The directory claims 50 bytes: no more than those come out, and the checksum is then wrong.
    assert "damaged" in problem(patch_central(data, "a.png", file_size=50))
    assert entries(zip_of(("a.png", bytes(100_000))))[0].problem is None
    # The directory claims as much as is allowed and the content is longer.
    lying = patch_central(data, "a.png", file_size=100_000)
    assert "damaged" in problem(lying)


def test_a_ratio_as_of_a_bomb(monkeypatch):
    monkeypatch.setattr(zip_archive, "RATIO_FREE_BYTES", 100_000)
    assert "200 times its packed size" in problem(zip_of(("a.png", bytes(3_000_000))))
    # A small black picture packs as well as a bomb.
    assert entries(zip_of(("a.png", bytes(90_000))))[0].data == bytes(90_000)


def test_bytes_in_all_are_counted_and_end_the_archive(monkeypatch):
    monkeypatch.setattr(zip_archive, "MAX_UNPACKED_BYTES", 250_000)
    content = bytes(range(256)) * 400  # 102,400
    data = zip_of(*((f"{i}.png", content) for i in range(6)))
    found = entries(data)
    assert [e.data is not None for e in found] == [True, True, False]
    assert "unpacks to more than 0 MiB" in found[-1].problem and "left out" in found[-1].problem


def test_one_entry_at_a_time_is_in_memory():
    content = bytes(range(256)) * 4096  # 1 MiB
    data = zip_of(*((f"{i}.bin", content) for i in range(24)))
    tracemalloc.start()
    try:
        for entry in read_zip(data):
            assert len(entry.data) == len(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(content)


def test_a_bomb_stops_long_before_its_end():
    bomb = zip_of(("a.png", bytes(400_000_000)))
    assert len(bomb) < 500_000
    tracemalloc.start()
    try:
        assert "at most 64 MiB" in problem(bomb)
        lying = patch_central(bomb, "a.png", file_size=60_000_000)
        assert "200 times its packed size" in problem(lying) or "damaged" in problem(lying)
        assert tracemalloc.get_traced_memory()[1] < 300_000_000
    finally:
        tracemalloc.stop()


def test_unpacking_stops_at_the_limit_and_not_after_it(monkeypatch):
    data = zip_of(("a.png", bytes(60_000_000)))
    monkeypatch.setattr(zip_archive, "MAX_UNPACKED_BYTES", 1_000_000)
    tracemalloc.start()
    try:
        assert "unpacks to more than" in problem(data)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_overlapping_entries_are_refused():
    data = malicious_files.overlapping_zip(50, b"picture" * 100)
    assert "lie over one another" in refused(data)


def test_too_many_entries_are_refused_by_the_end_record(monkeypatch):
    data = zip_of(("a.png", b"x"))
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_args: pytest.fail("opened"))
    assert "65,000 entries, at most 2,000" in refused(
        patch_end(data, n_here=65_000, n_entries=65_000)
    )
    assert "at most 4,194,304 are read" in refused(patch_end(data, size=50_000_000))
    assert "split over several files" in refused(patch_end(data, n_here=2))
    assert "ZIP64" in refused(patch_end(data, start=0xFFFFFFFF))
    assert "something else stands before it" in refused(patch_end(data, size=10))
    assert "something else stands before it" in refused(b"#!/bin/sh\n" + data)


def test_lists_that_do_not_agree():
    data = zip_of(("a.png", b"x"), ("b.png", b"y"))
    assert "says that it has 1 entries and lists 2" in refused(
        patch_end(data, n_here=1, n_entries=1)
    )
    at = data.index(b"PK\x01\x02") + 42
    moved = data[:at] + (7).to_bytes(4, "little") + data[at + 4 :]
    assert "not where its directory says" in refused(moved)
    longer = patch_central(data, "b.png", packed=100)
    assert "over its directory" in refused(longer)


def test_archives_that_are_empty_or_too_large(monkeypatch):
    assert "is empty" in refused(zip_of())
    monkeypatch.setattr(zip_archive, "MAX_ZIP_BYTES", 50)
    assert "larger than 0 MiB" in refused(zip_of(("a.png", b"x")))


@pytest.mark.parametrize("tenth", range(1, 10))
def test_cut_off_at_every_tenth(tenth):
    data = zip_of(("a.png", bytes(range(256)) * 9), ("b.png", b"y"))
    assert "damaged or cut off" in refused(data[: len(data) * tenth // 10])


def test_something_behind_the_archive():
    data = zip_of(("a.png", b"x"))
    assert "damaged or cut off" in refused(data + b"<html>")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"a comment is part of it"
        archive.writestr("a.png", b"x")
    assert entries(buffer.getvalue())[0].data == b"x"
