"""A record under a pin: its values at the pinned (t, O), and what may be said of the person as it is now.

Consent, suppression and erasure are never pinned: fields that rest on consent, and ``sendable``, come from the current layers at
the instant of reading, and a person whom these no longer know is unknown under the pin too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import msgspec

from twofold.catalogue import CONSENT_FEATURES
from twofold.events import Entry
from twofold.features import Catalogue
from twofold.merge import Merged, merge
from twofold.record import (
    FieldState,
    Freshness,
    Sendable,
    freshness_state,
    inexact_fields,
    judge_sendable,
    lag_ms,
    make_freshness,
)
from twofold.segments import NO_SEGMENTS, Segments
from twofold.timeline import EMPTY_OFFSETS, Offsets
from twofold.views import HotView, ManifestRow, PersonSnapshot

#: Where the entries between the pinned snapshot's cut and O are read.
Source = Literal["hot", "archive"]


class PinnedAt(msgspec.Struct, frozen=True):
    """What values rest on: the pin, its snapshot, t (epoch ms), O as ``high``, the definition, and where entries were read."""

    pin: str
    snapshot: str
    cut: dict[str, dict[str, int]]
    high: dict[str, dict[str, int]]
    as_of: int | None
    t: int
    version: str
    source: Source


class PinnedRecord(msgspec.Struct, frozen=True):
    """The record of one person under a pin.

    ``values`` and ``fields``: of ``pinned``, but for the fields of consent. Those, and ``sendable``, are of ``freshness``: the
    current layers at the instant of reading. ``segments``: of these values at the pinned t, by the rules as they are now.
    """

    person: str
    values: dict[str, Any]
    sendable: Sendable
    fields: dict[str, FieldState]
    pinned: PinnedAt
    freshness: Freshness
    segments: tuple[str, ...] = ()
    segments_version: str = ""


class Standing(NamedTuple):
    """What is never pinned of a person, from everything below ``offsets``. ``known``: whether there is anything of the person."""

    values: Mapping[str, Any]
    fields: Mapping[str, FieldState]
    sendable: Sendable
    freshness: Freshness
    known: bool
    offsets: Offsets


def make_standing(
    catalogue: Catalogue,
    row: ManifestRow,
    merged: Merged,
    hot: HotView | None,
    t: int,
    now_ms: int,
    fresh_max_lag_ms: int,
    consent_max_lag_ms: int,
    high: Offsets = EMPTY_OFFSETS,
) -> Standing:
    """Consent and permission of merged states, which may be of the consent primaries alone. Judged as a record's are."""
    lag = lag_ms(row, hot, now_ms)
    state = freshness_state(merged, hot, lag, fresh_max_lag_ms)
    names = [name for name in CONSENT_FEATURES if name in catalogue.features]
    fields = inexact_fields(catalogue, merged)
    return Standing(
        values={name: catalogue.present(catalogue.features[name], merged.states, t) for name in names},
        fields={name: fields[name] for name in names},
        sendable=judge_sendable(merged.states, merged.inexact, state, lag, consent_max_lag_ms),
        freshness=make_freshness(row, merged, t, lag, state, high),
        known=merged.known,
        offsets=merged.offsets,
    )


def make_pinned(
    catalogue: Catalogue,
    person: str,
    at: PinnedAt,
    row: ManifestRow,
    merged: Merged,
    standing: Standing,
    segments: Segments = NO_SEGMENTS,
) -> PinnedRecord:
    """Present the states that were merged at (t, O) of a pin, beside the person's standing now."""
    if merged.known and not standing.known and standing.offsets.covers(merged.offsets):
        # All that the pin has folded, and more, and yet nothing of the person: it was erased since.
        merged = merge(catalogue, row, None, None, at.t)
    states, t = merged.states, at.t
    values = {
        name: standing.values[name] if name in standing.values else catalogue.present(feature, states, t)
        for name, feature in catalogue.features.items()
    }
    return PinnedRecord(
        person=person,
        values=values,
        sendable=standing.sendable,
        fields={**inexact_fields(catalogue, merged), **standing.fields},
        pinned=at,
        freshness=standing.freshness,
        segments=segments.names_at(values, t),
        segments_version=segments.version,
    )


def read_pinned(
    catalogue: Catalogue,
    person: str,
    at: PinnedAt,
    row: ManifestRow,
    snapshot: PersonSnapshot | None,
    high: Offsets,
    entries: Iterable[Entry],
    standing: Standing,
    segments: Segments = NO_SEGMENTS,
) -> PinnedRecord:
    """The record under a pin: ``snapshot`` of the pinned ``row`` merged with ``entries``, of which those at or above ``high`` and
    below the row's cut do not count.
    """
    # That t lies in the snapshot's range was seen when the pin was made, by the grace of that day.
    row = replace(row, as_of_ms=None)
    hot = HotView(high=high, low=row.cut, entries=tuple(entries))
    merged = merge(catalogue, row, snapshot, hot, at.t)
    return make_pinned(catalogue, person, at, row, merged, standing, segments)


def reaches(hot: HotView, start: Offsets, end: Offsets, version: str) -> bool:
    """Whether a hot store holds every fact of every entry in ``[start, end)``, all of it as admitted under ``version``."""
    for key, stop in end.items():
        first = start.next(key)
        if first >= stop:
            continue
        if key not in hot.low or hot.low[key] > first or hot.high.next(key) < stop:
            return False
        if any(p.version != version and max(p.start, first) < min(p.end, stop) for p in hot.versions.get(key, ())):
            return False
    return True


__all__ = ["PinnedAt", "PinnedRecord", "Source", "Standing", "make_pinned", "make_standing", "reaches", "read_pinned"]
