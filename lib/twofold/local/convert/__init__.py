"""Real or simulated data as canonical events: one generator per set, one writer. The mappings are in ``docs/mappings.md``.

An event is a mapping in the shape of the contract, money as ``Decimal``; the simulated shop also gives raw ``bytes`` for lines
that are meant to be broken. Same input and options, same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from twofold.local.convert.cdnow import convert_cdnow
from twofold.local.convert.online_retail import convert_online_retail
from twofold.local.convert.retentioneering import convert_retentioneering
from twofold.local.convert.shop import convert_shop

Event: TypeAlias = dict[str, Any] | bytes

#: Events between two calls of ``progress``.
PROGRESS_EVERY = 10_000


#: ``(file, **options)`` -> events. Raises :class:`twofold.errors.UsageError` for a file that is missing or of another shape.
Converter: TypeAlias = Callable[..., Iterator[Event]]

CONVERTERS: dict[str, Converter] = {
    "shop": convert_shop,
    "online-retail": convert_online_retail,
    "cdnow": convert_cdnow,
    "retentioneering": convert_retentioneering,
}

# Decimals become JSON numbers digit by digit: no amount ever passes through a float.
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def encode_event(event: Event) -> bytes:
    """One line without its line end: compact JSON in UTF-8, names in insertion order; raw bytes as they are."""
    return event if isinstance(event, bytes) else _ENCODER.encode(event)


def write_jsonl(events: Iterable[Event], out_path: str | Path, progress: Callable[[int], None] | None = None) -> int:
    """Write events one a line and return their number; the file appears under its name only when it is complete.

    ``progress`` gets the number written so far, every ``PROGRESS_EVERY`` events.
    """
    out = Path(out_path)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial")
    count = 0
    try:
        with partial.open("wb", buffering=1 << 20) as file:
            for event in events:
                file.write(encode_event(event))
                file.write(b"\n")
                count += 1
                if progress is not None and count % PROGRESS_EVERY == 0:
                    progress(count)
        os.replace(partial, out)  # noqa: PTH105
    finally:
        partial.unlink(missing_ok=True)
    return count
