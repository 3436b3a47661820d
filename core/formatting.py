"""Figures and lists as a person reads them: the one place for percent, intervals, counts, "and"."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NARROW_SPACE = "\u202f"  # narrow, and no line breaks at it
NO_VALUE = "–"
NO_INTERVAL = "no interval"
PERCENT = f"{NARROW_SPACE}%"

# {"low": ..., "high": ...} as it lies in files, or the two ends; either may be None or NaN.
Bounds = Mapping[str, Any] | Sequence[float | None] | None


def percent(value: float | None, decimals: int = 1, unit: str = PERCENT) -> str:
    """0.848 -> "84.8 %"; a dash where there is no value."""
    if value is None or math.isnan(value):
        return NO_VALUE
    return f"{100 * value:.{decimals}f}{unit}"


def number(value: float | None, decimals: int = 2, thousands: str = NARROW_SPACE) -> str:
    """1234.5 -> "1 234.50"; a dash where there is no value."""
    if value is None or math.isnan(value):
        return NO_VALUE
    return _grouped(f"{value:,.{decimals}f}", thousands)


def points(value: float) -> str:
    """A difference of fractions in points with its sign: 0.021 -> "+2.1"."""
    return f"{100 * value:+.1f}".replace("-", "\u2212")


def interval_text(
    bounds: Bounds,
    decimals: int = 1,
    *,
    scale: float = 100,
    to: str = " to ",
    none: str = NO_INTERVAL,
) -> str:
    """(0.821, 0.873) -> "82.1 to 87.3"; `none` where an end is not known."""
    low, high = _ends(bounds)
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return none
    return f"{scale * low:.{decimals}f}{to}{scale * high:.{decimals}f}"


def with_interval(value: float | None, bounds: Bounds, unit: str = PERCENT) -> str:
    """ "84.8 % (82.1 to 87.3)"."""
    return f"{percent(value, unit=unit)} ({interval_text(bounds)})"


def count(n: int, noun: str, thousands: str = ",") -> str:
    """1 -> "1 image", 1125 -> "1,125 images"."""
    return f"{_grouped(f'{n:,}', thousands)} {noun}{'' if n == 1 else 's'}"


def join(words: Iterable[str], last: str = "and") -> str:
    """ "a, b and c"; "" of nothing."""
    *others, end = list(words) or [""]
    return f"{', '.join(others)} {last} {end}" if others else end


def _ends(bounds: Bounds) -> Sequence[float | None]:
    if isinstance(bounds, Mapping):
        return bounds.get("low"), bounds.get("high")
    return bounds if bounds is not None else (None, None)


def _grouped(digits: str, thousands: str) -> str:
    return digits if thousands == "," else digits.replace(",", thousands)
