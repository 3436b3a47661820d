"""Judging doubtful labels with the keyboard, in a real browser."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

from core.runs import additions, artifacts


def verdict_rows(root: Path) -> list[list[str]]:
    file = root / "annotations" / "demo" / "labels.csv"
    if not file.exists():
        return []
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))[1:]


def open_queue(tab) -> None:
    """The view of doubtful labels, chosen with the keyboard."""
    tab.open("labels", "Labels")
    view = tab.page.get_by_role("radio", name=re.compile("Doubtful labels"))
    view.focus()
    tab.page.keyboard.press("Enter")
    tab.page.get_by_text(re.compile(r"\d+ of \d+ judged")).first.wait_for()
    tab.settle()


def press(tab, key: str, expected: Callable[[], bool]) -> None:
    """Press a key and wait for what it brings about."""
    tab.page.keyboard.press(key)
    for _ in range(100):
        if expected():
            break
        tab.page.wait_for_timeout(100)
    tab.settle()
    assert expected()


def test_a_verdict_is_given_and_taken_back_by_keyboard(visit, browser_root: Path):
    audit = additions.load_audit(artifacts.open_run(browser_root / "artifacts" / "demo"))
    first, second = audit["doubtful_labels"]["images"][:2]
    n = len(audit["doubtful_labels"]["images"])
    tab = visit()
    open_queue(tab)
    main = tab.page.get_by_test_id("stMain")
    kind = "Drawn phantom, SYNTHETIC"
    image = main.get_by_role("img", name=f"{kind} {first['image_id']}", exact=True)
    after = main.get_by_role("img", name=f"{kind} {second['image_id']}", exact=True)
    image.first.wait_for()
    tab.page.get_by_text(f"0 of {n} judged").wait_for()

    press(tab, "w", lambda: len(verdict_rows(browser_root)) == 1)
    (row,) = verdict_rows(browser_root)
    assert row[:4] == [first["image_id"], first["label"], first["suggested"], "wrong"]
    tab.page.get_by_text(f"1 of {n} judged: 1 wrong").wait_for()
    after.first.wait_for()

    press(tab, "u", lambda: len(verdict_rows(browser_root)) == 2)
    assert verdict_rows(browser_root)[1][0] == second["image_id"]
    press(tab, "z", lambda: len(verdict_rows(browser_root)) == 1)
    press(tab, "z", lambda: verdict_rows(browser_root) == [])
    tab.page.get_by_text(f"0 of {n} judged").wait_for()
    image.first.wait_for()
    press(tab, "n", after.first.is_visible)
    press(tab, "p", image.first.is_visible)
    assert verdict_rows(browser_root) == []
    tab.assert_clean()
