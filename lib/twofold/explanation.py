"""What an explanation says: the parts of a value, where their events lie, and what does not count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from twofold.record import FieldState, Freshness

#: ``older`` and ``batch``: below the cut, before and since the horizon; ``hot``: at or above it; ``archive``: the read went there.
Layer = Literal["older", "batch", "hot", "archive"]
Why = Literal["later_copy", "replaced", "doubtful", "retracted"]


class Place(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where a log entry stands, and its broker time (epoch ms)."""

    topic_id: str
    partition: int
    offset: int
    broker_ms: int
    layer: Layer


class Contribution(msgspec.Struct, frozen=True, gc=False):
    """One event that contributes: its facts by ordinal.

    ``late``: its time is before the snapshot's ``as_of``, and yet it stands above the cut.
    """

    event_id: str
    at_ms: int
    ordinals: tuple[int, ...]
    place: Place
    late: bool


class Retraction(msgspec.Struct, frozen=True):
    """A retraction: the id of the event that it takes back, and where it stands itself."""

    target: str
    place: Place


class Known(msgspec.Struct, frozen=True):
    """An event of the older part whose id its state keeps."""

    event_id: str
    at_ms: int


class Older(msgspec.Struct, frozen=True):
    """What lies before the horizon is a state: ``facts`` of the selection, their first and last time, where a state holds that.

    ``state``: this primary's own, encoded. ``events``: those that contribute and of which it keeps the id. ``all_events``: the
    person's events before the horizon, of any kind. ``pending``: of those, the ones that count until the next batch only, by what
    took them back.
    """

    state: Any
    facts: int | None
    first_ms: int | None
    last_ms: int | None
    events: tuple[Known, ...]
    all_events: int
    pending: tuple[Retraction, ...] = ()


class Part(msgspec.Struct, frozen=True):
    """One primary: its definition, the window ``[start_ms, end_ms)`` (no start: lifetime), and what is in it.

    ``facts``: how many of the selection lie in the window since the horizon, contributing or not. ``older``: lifetime only.
    """

    primary: str
    definition: Mapping[str, Any]
    start_ms: int | None
    end_ms: int
    facts: int
    contributions: tuple[Contribution, ...]
    older: Older | None


class Suppressed(msgspec.Struct, frozen=True):
    """An event or a copy that does not count. ``winner``: the copy that does; ``None`` where only the hash of its id is known
    (older part), and where none counts.

    ``later_copy``: the winner ranks before it; ``replaced``: folded by the batch, and a hot copy ranks before it; ``doubtful``: it
    may rank before a copy of the older part, so the field is in conflict until the next batch; ``retracted``: taken back by
    ``retraction``, ``None`` where the batch knows only the hash of the id.
    """

    event_id: str
    at_ms: int
    place: Place
    why: Why
    winner: Place | None
    retraction: Place | None = None


class RawEvent(msgspec.Struct, frozen=True):
    """An entry as it came. ``value``: its bytes, which are JSON in UTF-8. ``retraction``: the first that takes it back."""

    event_id: str
    at_ms: int
    place: Place
    value: str
    retraction: Place | None = None


class Raw(msgspec.Struct, frozen=True):
    """From the archive: the older part's events, every copy that does not count, and the contributing events.

    ``missing``: ids of contributing events that the archive does not have yet. ``retracted``: every copy of events that are taken
    back, but for those of the older part that are pending.
    """

    end: dict[str, dict[str, int]]
    older: tuple[RawEvent, ...]
    suppressed: tuple[RawEvent, ...]
    events: tuple[RawEvent, ...]
    missing: tuple[str, ...]
    retracted: tuple[RawEvent, ...] = ()


class Explanation(msgspec.Struct, frozen=True):
    """One field of one record, with everything that its value rests on. ``nothing``: retractions above the cut of the person that
    meet no event; they work when it comes.
    """

    person: str
    field: str
    doc: str
    value: Any
    state: FieldState
    version: str
    horizon_ms: int | None
    freshness: Freshness
    parts: tuple[Part, ...]
    suppressed: tuple[Suppressed, ...]
    raw: Raw | None = None
    nothing: tuple[Retraction, ...] = ()


__all__ = [
    "Contribution",
    "Explanation",
    "Known",
    "Layer",
    "Older",
    "Part",
    "Place",
    "Raw",
    "RawEvent",
    "Retraction",
    "Suppressed",
    "Why",
]
