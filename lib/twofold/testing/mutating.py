"""Seeded mutators of log entries: bytes that are nearly an event, and events that are nearly right."""

from __future__ import annotations

import random
from typing import Any

from twofold.strict_json import parse_strict
from twofold.testing.hostile_values import ABSENT, SCALARS, Raw, dump

_TOKENS = (
    *[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        "\\",
        "'",
        "null",
        "true",
        "false",
        "NaN",
        "-Infinity",
        "0",
        "-0",
        "1",
        "1.0",
        "1e3",
        "9223372036854775808",
        '""',
        "{}",
        "[]",
        "[{}]",
    ],
    *[
        r"\u0000",
        r"\ud800",
        r"\ud83d\ude00",
        r"\u0041",
        r"\\",
        r"\n",
        r"/*",
        r"//",
        r"12345678901234567890123456789012345678",
        r"0.5",
    ],
    *['"granted"', '"1.005"', '"user_id"', '"products"', '"event_id"', '"a":1,'],
    *(" ", "\n", "\t", "\0", "\ufeff", "é", "😀", "\u2028"),
)


def mutate(rng: random.Random, base: bytes) -> bytes:
    """``base`` with one to three small changes: a token set in, a slice dropped, doubled or moved, a byte changed."""
    out = bytearray(base)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((0, 0, 1, 1, 2, 5, 20)))
        kind = rng.randrange(6)
        if kind <= 2:
            out[at:end] = rng.choice(_TOKENS).encode()
        elif kind == 3:
            del out[at:end]
        elif kind == 4:
            out[at:at] = out[at:end]
        elif out:
            out[min(at, len(out) - 1)] = rng.randrange(256)
    return bytes(out)


def rewrite(rng: random.Random, base: bytes) -> bytes:
    """``base``, when it is an object, with one value somewhere in it replaced, so that the text stays JSON."""
    parsed = parse_strict(base)
    if parsed is None:
        return base
    spot: Any = _plain(parsed)
    top = spot
    value = rng.choice(tuple(SCALARS.values()))
    while True:
        keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        if not keys:
            return dump(top).encode()
        key = rng.choice(keys)
        if isinstance(spot[key], (dict, list)) and rng.random() < 0.7:
            spot = spot[key]
            continue
        if value is not ABSENT:
            spot[key] = value
        else:
            del spot[key]
        return dump(top).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return Raw(value) if isinstance(value, str) and type(value) is not str else value
