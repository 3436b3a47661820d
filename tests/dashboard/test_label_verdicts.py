"""Verdicts on labels as a file: exact rows, undo, sessions at the same time, damage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from core.config import annotations_root
from core.files import write_text
from core.runs.run import Run
from dashboard.data import label_verdicts
from dashboard.data.label_verdicts import (
    AnnotationError,
    LabelVerdict,
    load_verdicts,
    now,
    save_verdict,
    undo_verdict,
    verdicts_file,
)

HEAD = "image_id,label,suggested,verdict,at\n"
AT = "2026-03-01T10:00:00+00:00"


def verdict(image_id: str = "a", said: str = "keep", at: str = AT) -> LabelVerdict:
    return LabelVerdict(image_id, "normal", "pneumonia", said, at)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "annotations" / "demo" / "labels.csv"


def test_verdicts_lie_beside_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(Path("artifacts/demo"), {"name": "demo"})
    monkeypatch.delenv("CXR_ANNOTATIONS", raising=False)
    assert annotations_root() == Path("annotations")
    assert verdicts_file(run) == Path("annotations/demo/labels.csv")
    monkeypatch.setenv("CXR_ANNOTATIONS", "elsewhere")
    assert verdicts_file(run) == Path("elsewhere/demo/labels.csv")


def test_one_row_an_image_and_the_last_word_counts(file: Path) -> None:
    assert load_verdicts(file) == {} and not file.exists()
    assert save_verdict(file, verdict("a")) is None
    assert save_verdict(file, verdict('b, "c"\nd', "wrong")) is None
    assert save_verdict(file, verdict("a", "unsure")) == verdict("a")
    assert file.read_text(encoding="utf-8") == (
        f"{HEAD}a,normal,pneumonia,unsure,{AT}\n"
        f'"b, ""c""\nd",normal,pneumonia,wrong,{AT}\n'
    )  # fmt: skip
    assert load_verdicts(file) == {
        "a": verdict("a", "unsure"),
        'b, "c"\nd': verdict('b, "c"\nd', "wrong"),
    }
    assert [f.name for f in file.parent.iterdir()] == ["labels.csv"]


def test_the_time_is_utc() -> None:
    assert datetime.fromisoformat(now()).utcoffset() == timedelta(0)


def test_undo_puts_back_what_was_there(file: Path) -> None:
    save_verdict(file, verdict("a"))
    save_verdict(file, verdict("b"))
    changed = verdict("a", "wrong")
    earlier = save_verdict(file, changed)
    assert undo_verdict(file, changed, earlier)
    assert load_verdicts(file) == {"a": verdict("a"), "b": verdict("b")}
    assert undo_verdict(file, verdict("a"), None)
    assert load_verdicts(file) == {"b": verdict("b")}


def test_undo_leaves_what_another_session_said_since(file: Path) -> None:
    mine, theirs = verdict("a"), verdict("a", "keep", "2026-03-01T10:00:01+00:00")
    save_verdict(file, mine)
    save_verdict(file, theirs)
    assert not undo_verdict(file, mine, None)
    assert load_verdicts(file) == {"a": theirs}


def test_sessions_that_write_at_once_keep_each_others_rows(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_slowly(path: Path, text: str) -> None:
        label_verdicts.threading.Event().wait(0.002)
        write_text(path, text)

    monkeypatch.setattr(label_verdicts, "write_text", write_slowly)
    ids = [f"image-{k}" for k in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda image_id: save_verdict(file, verdict(image_id)), ids))
    assert sorted(load_verdicts(file)) == sorted(ids)


def test_a_file_that_a_spreadsheet_saved_is_read(file: Path) -> None:
    file.parent.mkdir(parents=True)
    text = f"\ufeff{HEAD}a,normal,pneumonia,keep,{AT}\n".replace("\n", "\r\n")
    file.write_bytes(text.encode())
    assert load_verdicts(file) == {"a": verdict("a")}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "its first line must be image_id,label,suggested,verdict,at"),
        (b"image_id,verdict\na,keep\n", "its first line must be"),
        (f"{HEAD}a,normal,pneumonia,keep\n".encode(), "row 2 has 4 cells instead of 5"),
        (f"{HEAD}a,normal,pneumonia,maybe,{AT}\n".encode(), "'maybe', which is none of keep"),
        (f"{HEAD},normal,pneumonia,keep,{AT}\n".encode(), "row 2 has no image_id"),
        (f"{HEAD}{f'a,n,p,keep,{AT}' + chr(10)}a,n,p,keep,{AT}\n".encode(), "row 3 is a second"),
        (f'{HEAD}"a,normal,pneumonia,keep,{AT}\n'.encode(), "it is no UTF-8 CSV"),
        (b"\xff\xfe\x00", "it is no UTF-8 CSV"),
    ],
)
def test_a_damaged_file_is_named_and_never_written_over(
    file: Path, content: bytes, problem: str
) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    attempts = (
        lambda: load_verdicts(file),
        lambda: save_verdict(file, verdict()),
        lambda: undo_verdict(file, verdict(), None),
    )
    for attempt in attempts:
        with pytest.raises(AnnotationError, match=r"is damaged: .* Mend it or move it") as raised:
            attempt()
        assert problem in str(raised.value)
    assert file.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_said(file: Path) -> None:
    file.parent.parent.mkdir()
    file.parent.write_text("a file where the folder should be")
    with pytest.raises(AnnotationError, match=r"not saved|cannot be read") as raised:
        save_verdict(file, verdict())
    assert str(file) in str(raised.value)
