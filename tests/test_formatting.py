"""What a person reads of a figure, letter by letter."""

import math

import pytest

from core.formatting import count, interval_text, join, number, percent, points, with_interval


def test_percent():
    assert percent(0.8484) == "84.8\u202f%"
    assert percent(0.8484, 0) == "85\u202f%"
    assert percent(0.8484, 2, unit="") == "84.84"
    assert percent(0.8484, unit=" %") == "84.8 %"
    assert percent(None) == percent(math.nan) == "–"


def test_number():
    assert number(1234.5) == "1\u202f234.50"
    assert number(1234.5, 1, thousands="") == "1234.5"
    assert number(None) == number(math.nan) == "–"


def test_points_have_a_sign():
    assert points(0.021) == "+2.1" and points(-0.021) == "\u22122.1"


@pytest.mark.parametrize(
    "bounds", [(0.821, 0.873), {"low": 0.821, "high": 0.873, "level": 0.95}, [0.821, 0.873]]
)
def test_an_interval_is_two_ends_or_an_entry_of_a_file(bounds):
    assert interval_text(bounds) == "82.1 to 87.3"
    assert interval_text(bounds, 3, scale=1) == "0.821 to 0.873"
    assert interval_text(bounds, to="\u00a0to\u00a0") == "82.1\u00a0to\u00a087.3"
    assert with_interval(0.848, bounds) == "84.8\u202f% (82.1 to 87.3)"
    assert with_interval(0.848, bounds, unit="%") == "84.8% (82.1 to 87.3)"


@pytest.mark.parametrize(
    "bounds", [None, {}, {"low": None, "high": None}, (0.8, None), (math.nan, 0.9)]
)
def test_no_interval(bounds):
    assert interval_text(bounds) == "no interval"
    assert interval_text(bounds, none="not defined") == "not defined"
    assert with_interval(0.848, bounds) == "84.8\u202f% (no interval)"


def test_count():
    assert count(1, "image") == "1 image" and count(0, "image") == "0 images"
    assert count(1125, "image") == "1,125 images" and count(1125, "image", "") == "1125 images"


def test_join():
    assert join(["a", "b", "c"]) == "a, b and c" and join(iter("ab"), "or") == "a or b"
    assert join(["a"]) == "a" and join([]) == ""
