"""The personalization record: presented values, what may be said, and how fresh it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from twofold.catalogue import CONSENT_PRIMARIES, GRANTED
from twofold.features import Catalogue
from twofold.merge import Merged
from twofold.next_change import next_change_at
from twofold.segments import NO_SEGMENTS, Segments, next_entry_or_exit_ms
from twofold.timeline import EMPTY_OFFSETS, Offsets
from twofold.views import HotView, ManifestRow

State = Literal["fresh", "stale", "batch_only", "gap", "definition", "archive", "default"]
FieldState = Literal["exact", "pending_retraction", "conflict"]

#: States in which a person may be written to; ``stale`` only up to the consent lag.
SENDABLE_STATES = ("fresh", "stale")


class Sendable(msgspec.Struct, frozen=True):
    """May this person be written to: computed last, a whitelist. ``reasons`` is empty iff ``ok``."""

    ok: bool
    reasons: tuple[str, ...]


class Freshness(msgspec.Struct, frozen=True):
    """Provenance of a record; offsets as ``{topic id: {partition: next offset}}``, times in epoch ms."""

    snapshot: str
    cut: dict[str, dict[str, int]]
    high: dict[str, dict[str, int]]
    as_of: int | None
    t: int
    newest_event: int | None
    lag_ms: int | None
    state: State


class Record(msgspec.Struct, frozen=True):
    """The personalization record of one person at one instant.

    ``next_change_at`` (epoch ms): when another value, permission or segment holds without a new event and at the same lag, decayed
    values apart; ``None``: never. See :func:`twofold.next_change.next_change_at`, and :mod:`twofold.segments`.
    """

    person: str
    values: dict[str, Any]
    sendable: Sendable
    fields: dict[str, FieldState]
    freshness: Freshness
    next_change_at: int | None = None
    #: Names of the segments that the person is in at t, sorted; and the version of the rules that say so ("": no rules).
    segments: tuple[str, ...] = ()
    segments_version: str = ""


def lag_ms(row: ManifestRow, hot: HotView | None, now_ms: int) -> int | None:
    """How far a read at ``now_ms`` may lie behind the log, ms; ``None`` when nobody can tell (no hot store, no heartbeat).

    0 where ``high`` had reached the log end at the follower's last heartbeat, else now - broker time of the entry at ``high``
    (the whole epoch where there is none);
    plus the heartbeat's age, so that a dead follower is a lag and an idle log is not.
    """
    if hot is None or hot.heartbeat is None:
        return None
    reached = row.cut.join(hot.high)
    behind = 0
    for key in reached.behind(hot.heartbeat.log_end):
        # Unknown where nothing below ``high`` was seen. The cut's time is no bound: it is another partition's, perhaps.
        behind = max(behind, now_ms - hot.high_broker_ms.get(key, 0))
    return max(0, behind) + max(0, now_ms - hot.heartbeat.at_ms)


def freshness_state(merged: Merged, hot: HotView | None, lag: int | None, fresh_max_lag_ms: int) -> State:
    """The state of a record from the merge's outcome and the lag."""
    if merged.outcome != "ok":
        return merged.outcome
    if hot is None or lag is None:
        return "batch_only"
    if lag > fresh_max_lag_ms or hot.heartbeat is None or hot.heartbeat.jumped:
        return "stale"
    return "fresh" if merged.known else "default"


def judge_sendable(
    states: Mapping[str, Any], inexact: frozenset[str], state: str, lag: int | None, consent_max_lag_ms: int
) -> Sendable:
    """Whitelist: consent granted, no opt-out as late as it, every input exact, and the record fresh enough. Fail-closed."""
    reasons: list[str] = []
    if state not in SENDABLE_STATES:
        reasons.append(f"state_{state}")
    elif state == "stale" and (lag is None or lag > consent_max_lag_ms):
        reasons.append("lag")
    if inexact.intersection(CONSENT_PRIMARIES):
        reasons.append("consent_inexact")
    consent, denial = states["consent_marketing"], states["consent_denial"]
    since = consent[0] if consent is not None else None
    if consent is None:
        reasons.append("consent_missing")
    elif consent[3] != GRANTED:
        reasons.append("consent_denied")
    elif denial is not None and denial[0] >= consent[0]:
        reasons.append("consent_conflicting")
    for primary, reason in (("unsubscribe", "unsubscribed"), ("complaint", "complained")):
        opt_out = states[primary]
        if opt_out is not None and (since is None or opt_out[0] >= since):
            reasons.append(reason)
    return Sendable(not reasons, tuple(reasons))


def make_freshness(
    row: ManifestRow, merged: Merged, t: int, lag: int | None, state: State, high: Offsets = EMPTY_OFFSETS
) -> Freshness:
    """Provenance of what was merged; ``high`` is what was read up to."""
    return Freshness(
        snapshot=row.snapshot,
        cut=row.cut.to_json(),
        high=high.to_json(),
        as_of=row.as_of_ms,
        t=t,
        newest_event=merged.newest_event_ms,
        lag_ms=lag,
        state=state,
    )


def inexact_fields(catalogue: Catalogue, merged: Merged) -> dict[str, FieldState]:
    """The state of every field. One that is both is in conflict, which promises less."""
    fields: dict[str, FieldState] = dict.fromkeys(catalogue.features, "exact")
    if merged.pending or merged.conflict:
        for name in fields:
            primaries = {p.name for p in catalogue.primaries_of(name)}
            if primaries & merged.conflict:
                fields[name] = "conflict"
            elif primaries & merged.pending:
                fields[name] = "pending_retraction"
    return fields


def make_record(
    catalogue: Catalogue,
    person: str,
    row: ManifestRow,
    merged: Merged,
    hot: HotView | None,
    t: int,
    now_ms: int,
    fresh_max_lag_ms: int,
    consent_max_lag_ms: int,
    high: Offsets = EMPTY_OFFSETS,
    segments: Segments = NO_SEGMENTS,
) -> Record:
    """Present the merged states. ``now_ms`` is the instant of reading, from the edge's clock; ``high`` is what was read up to."""
    lag = lag_ms(row, hot, now_ms)
    state = freshness_state(merged, hot, lag, fresh_max_lag_ms)
    values = {name: catalogue.present(f, merged.states, t) for name, f in catalogue.features.items()}
    inexact = merged.inexact

    def judged(states: Mapping[str, Any]) -> Sendable:
        return judge_sendable(states, inexact, state, lag, consent_max_lag_ms)

    sendable = judged(merged.states)
    changes = (
        next_change_at(catalogue, merged, values, t, lambda states: judged(states).ok != sendable.ok),
        # With these very values: where they change first, that is the earlier instant.
        next_entry_or_exit_ms(segments, values, t),
    )
    return Record(
        person=person,
        values=values,
        sendable=sendable,
        fields=inexact_fields(catalogue, merged),
        freshness=make_freshness(row, merged, t, lag, state, high),
        next_change_at=min((at for at in changes if at is not None), default=None),
        segments=segments.names_at(values, t),
        segments_version=segments.version,
    )


__all__ = [
    "FieldState",
    "Freshness",
    "Record",
    "Sendable",
    "State",
    "freshness_state",
    "inexact_fields",
    "judge_sendable",
    "lag_ms",
    "make_freshness",
    "make_record",
]
