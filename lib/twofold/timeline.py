"""Instants, durations, half-open ranges, log positions, offsets vectors.

Two axes, never mixed: a *position* says which layer an entry belongs to, an *instant* says which window it falls into.
No clock is read here: every instant is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from twofold.errors import TimeFormatError

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

#: Bounds of every event time (UTC), half-open: [1990-01-01, 2200-01-01).
EARLIEST_MS = 631_152_000_000
LATEST_MS = 7_258_118_400_000

#: RFC 3339 with upper-case T and Z, up to nine fraction digits, offset to 18:00; the same text is the pattern in Spark.
INSTANT_PATTERN = (
    r"^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(?:\.[0-9]{1,9})?(?:Z|[+-](?:(?:0[0-9]|1[0-7]):[0-5][0-9]|18:00))\z"
)
_INSTANT = re.compile(INSTANT_PATTERN.replace(r"\z", r"\Z"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_instant(text: str) -> int | None:
    """Epoch milliseconds of an RFC 3339 instant, floored; ``None`` when it is not one (or not a day of the calendar)."""
    if not _INSTANT.match(text):
        return None
    zone_at = len(text) - (1 if text[-1] == "Z" else 6)
    body, zone = text[:zone_at], text[zone_at:]
    fraction = body[20:] if len(body) > 19 else ""
    try:
        moment = datetime(
            int(body[0:4]), int(body[5:7]), int(body[8:10]), int(body[11:13]), int(body[14:16]), int(body[17:19]), tzinfo=UTC
        )
    except ValueError:
        return None
    offset = 0 if zone == "Z" else (int(zone[1:3]) * 60 + int(zone[4:6])) * (-1 if zone[0] == "-" else 1)
    whole = (moment - _EPOCH) // timedelta(seconds=1)
    return (whole - offset * 60) * SECOND_MS + int((fraction + "000")[:3])


def read_time(text: str) -> int:
    """A time a person typed: RFC 3339 or epoch milliseconds, as epoch ms. Raises :class:`TimeFormatError`."""
    if re.fullmatch(r"-?[0-9]{1,15}", text):
        return int(text)
    at = parse_instant(text)
    if at is None:
        raise TimeFormatError(f"{text!r} is not a time: write RFC 3339 (2026-01-31T08:00:00Z) or epoch milliseconds")
    return at


def show_time(at_ms: int | None) -> str:
    """RFC 3339 in UTC with milliseconds, for a terminal; ``-`` for no time."""
    if at_ms is None:
        return "-"
    moment = _EPOCH + timedelta(milliseconds=at_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"


@dataclass(frozen=True, slots=True)
class Window:
    """The half-open range ``[t - width_ms, t)``; ``width_ms=None`` is lifetime: every instant before ``t``."""

    width_ms: int | None

    def start(self, t: int) -> int | None:
        return None if self.width_ms is None else t - self.width_ms

    def holds(self, at_ms: int, t: int) -> bool:
        return at_ms < t and (self.width_ms is None or at_ms >= t - self.width_ms)


LIFETIME = Window(None)


class Position(NamedTuple):
    """Where a log entry stands: topic id, partition, offset."""

    topic_id: str
    partition: int
    offset: int


class PartitionKey(NamedTuple):
    """One partition of one topic incarnation."""

    topic_id: str
    partition: int


class Offsets(Mapping[PartitionKey, int]):
    """An offsets vector: partition -> next offset, half-open (entries with ``offset < next`` are in). Immutable."""

    __slots__ = ("_next",)

    def __init__(self, entries: Mapping[PartitionKey, int] | Iterable[tuple[PartitionKey, int]] = ()) -> None:
        self._next: dict[PartitionKey, int] = dict(entries)

    def __getitem__(self, key: PartitionKey) -> int:
        return self._next[key]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._next)

    def __len__(self) -> int:
        return len(self._next)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Offsets) and self._next == other._next

    def __hash__(self) -> int:
        return hash(frozenset(self._next.items()))

    def __repr__(self) -> str:
        return f"Offsets({self._next!r})"

    def next(self, key: PartitionKey) -> int:
        """Next offset of a partition; a partition that the vector does not name has 0."""
        return self._next.get(key, 0)

    def holds(self, position: Position) -> bool:
        return position.offset < self.next(PartitionKey(position.topic_id, position.partition))

    def join(self, other: Offsets) -> Offsets:
        """Partition-wise maximum: O of a read is ``cut.join(high)``."""
        return Offsets({key: max(self.next(key), other.next(key)) for key in {**self._next, **other._next}})

    def covers(self, other: Offsets) -> bool:
        """True when nothing that ``other`` has folded is missing here."""
        return all(self.next(key) >= end for key, end in other._next.items())

    def behind(self, other: Offsets) -> list[PartitionKey]:
        """Partitions in which this vector stands below ``other``."""
        return sorted(key for key, end in other._next.items() if self.next(key) < end)

    def entries_since(self, other: Offsets) -> int:
        """Number of positions in this vector that are not in ``other``."""
        return sum(max(0, end - other.next(key)) for key, end in self._next.items())

    def to_json(self) -> dict[str, dict[str, int]]:
        """``{topic id: {partition: next offset}}``, ordered."""
        out: dict[str, dict[str, int]] = {}
        for key in sorted(self._next):
            out.setdefault(key.topic_id, {})[str(key.partition)] = self._next[key]
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, int]]) -> Offsets:
        return cls({PartitionKey(topic, int(p)): int(end) for topic, ends in data.items() for p, end in ends.items()})


EMPTY_OFFSETS = Offsets()
