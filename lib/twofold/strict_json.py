"""One RFC 8259 object in valid UTF-8, or nothing: repeated names, constants, lone surrogates, tails, depth are malformed."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 100
MAX_NUMBER_CHARS = 1_000
#: in UTF-16 units
MAX_NAME_CHARS = 50_000


class Malformed(ValueError):
    pass


class Number(str):
    """A JSON number kept as its literal."""

    __slots__ = ()


def _number(literal: str) -> Number:
    if len(literal) > MAX_NUMBER_CHARS:
        raise Malformed
    return Number(literal)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs) or any(_is_long_name(name) for name in out):
        raise Malformed
    return out


def _is_long_name(name: str) -> bool:
    # Counted in UTF-16 units, as Spark's parser does: a character beyond the basic plane is two.
    return len(name) * 2 > MAX_NAME_CHARS and len(name.encode("utf-16-le", "surrogatepass")) > 2 * MAX_NAME_CHARS


def _constant(_name: str) -> Any:
    raise Malformed


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_number, parse_float=_number, parse_constant=_constant)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SURROGATE = re.compile("[\ud800-\udfff]")


def _depth(text: str) -> int:
    deepest = depth = 0
    for char in _STRING.sub("", text):
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _has_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return _SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(_has_surrogate(name) or _has_surrogate(item) for name, item in value.items())
    return isinstance(value, list) and any(_has_surrogate(item) for item in value)


def parse_strict(value: bytes) -> dict[str, Any] | None:
    """The object of one RFC 8259 text in valid UTF-8 (numbers as ``Number`` literals), or ``None`` when malformed."""
    try:
        text = value.decode("utf-8")
        if text.count("{") + text.count("[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
            return None
        start = len(text) - len(text.lstrip(" \t\n\r"))
        parsed, end = _DECODER.raw_decode(text, start)
        if not isinstance(parsed, dict) or text[end:].strip(" \t\n\r"):
            return None
        # Only a \u escape can bring a lone surrogate in: UTF-8 itself has none.
        if "\\u" in text and _has_surrogate(parsed):
            return None
    except (ValueError, RecursionError):
        return None
    return parsed
