"""Whether a JSON document is what its type in core.runs.schema says; one sentence where it is not.

A type says what a JSON value has to be:

    str, int, dict          text, a whole number, an object of any kind
    float, None             any finite number, null
    A | B                   one of these
    list[A]                 a list of such values
    dict[str, A]            an object that holds such a value under every name
    a TypedDict             an object with its keys; further keys are not looked at
    Annotated[A, B]         both at once
    Any                     not looked at
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}
_LARGEST = 1e300  # neither NaN nor infinite, and no whole number that a float cannot hold


def find_problem(value: Any, expected: Any, where: str = "") -> str | None:
    """ "`dataset.caveats` must be a list, not null" (where: a dotted path), None if all fits."""
    options = options_of(expected)
    fitting = [option for option in options if _is_kind(value, _kind_of(option))]
    if not fitting:
        words = " or ".join(dict.fromkeys(_WORDS[_kind_of(option)] for option in options))
        return f"`{where}` must be {words}, not {_found(value)}"
    problems = [next(_find_inside(value, option, where), None) for option in fitting]
    return None if None in problems else problems[0]


@cache
def options_of(expected: Any) -> tuple[Any, ...]:
    """The types of a union, one for what is no union."""
    return get_args(expected) if get_origin(expected) in (Union, UnionType) else (expected,)


@cache
def fields_of(document: Any) -> dict[str, tuple[Any, bool]]:
    """Each key of a TypedDict: what its value must be, and whether it has to be there."""
    fields = {}
    # __required_keys__ does not see NotRequired where annotations are postponed.
    for key, hint in get_type_hints(document, include_extras=True).items():
        optional = get_origin(hint) is NotRequired
        required = key in document.__required_keys__ and not optional
        fields[key] = (get_args(hint)[0] if optional else hint, required)
    return fields


def _find_inside(value: Any, expected: Any, where: str) -> Iterator[str]:
    """The problems among the items of a list or the keys of an object."""

    def path(key: object) -> str:
        return f"{where}.{key}" if where else str(key)

    inside: list[tuple[str, Any, Any]] = []
    if get_origin(expected) is Annotated:
        inside = [(where, value, both) for both in get_args(expected)]
    elif is_typeddict(expected):
        fields = fields_of(expected)
        for key, (_, required) in fields.items():
            if required and key not in value:
                yield f"`{path(key)}` is missing"
        inside = [
            (path(key), value[key], inner) for key, (inner, _) in fields.items() if key in value
        ]
    elif get_origin(expected) is list:
        inside = [(path(k), item, get_args(expected)[0]) for k, item in enumerate(value)]
    elif get_origin(expected) is dict:
        inside = [(path(key), item, get_args(expected)[1]) for key, item in value.items()]
    for name, item, inner in inside:
        problem = find_problem(item, inner, name)
        if problem:
            yield problem


def _kind_of(expected: Any) -> Any:
    """The Python type of a value that may fit."""
    if get_origin(expected) is Annotated:
        return _kind_of(get_args(expected)[0])
    return dict if is_typeddict(expected) else get_origin(expected) or expected


def _is_kind(value: Any, kind: Any) -> bool:
    """Whether the value is such a thing at all, whatever is inside."""
    if kind is Any:
        return True
    if isinstance(value, bool):
        return False
    if kind in (int, float):
        return isinstance(value, (int, kind)) and -_LARGEST < value < _LARGEST
    return isinstance(value, kind)


def _found(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return f"{value:g}" if isinstance(value, float) else _WORDS[type(value)]
