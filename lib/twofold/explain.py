"""Why a field has its value: which facts make it up and where they lie, which copies were passed over, and by which definition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from twofold.columns import Fact, FactColumns, facts_of
from twofold.contributing import contributing
from twofold.events import RETRACTION_KIND, Entry
from twofold.explanation import (
    Contribution,
    Explanation,
    Known,
    Layer,
    Older,
    Part,
    Place,
    Raw,
    RawEvent,
    Retraction,
    Suppressed,
    Why,
)
from twofold.features import Catalogue, Primary
from twofold.merge import Merged, rank, recent_facts
from twofold.rankings import Histogram, Recent, Top
from twofold.record import Record
from twofold.states import Count, Latest
from twofold.timeline import Offsets
from twofold.views import HotView, ManifestRow


# --- the explanation ------------------------------------------------------------------------------------------------------------
def explain(catalogue: Catalogue, record: Record, field: str, row: ManifestRow, merged: Merged, hot: HotView | None) -> Explanation:
    """Explain a field of a record from the merge that the record was made of: the same row, hot view and instant."""
    t = record.freshness.t
    primaries = catalogue.primaries_of(field)
    above: Layer = "archive" if merged.outcome == "archive" else "hot"
    entries = () if hot is None else _in_range(row, hot, merged)
    return Explanation(
        person=record.person,
        field=field,
        doc=catalogue.features[field].doc,
        value=record.values[field],
        state=record.fields[field],
        version=row.version,
        horizon_ms=row.horizon_ms,
        freshness=record.freshness,
        parts=tuple(_part(catalogue, primary, row, merged, t, above) for primary in primaries),
        suppressed=tuple(_suppressed(primaries, row, merged, entries, t, above)),
        nothing=_retractions(row, merged, merged.counted.left_out.nothing, above),
    )


def _in_range(row: ManifestRow, hot: HotView, merged: Merged) -> tuple[Entry, ...]:
    """Hot entries that the merge looked at."""
    if merged.outcome not in ("ok", "archive"):
        return ()
    return tuple(e for e in hot.entries if e.verdict == "ok" and not row.cut.holds(e.position) and hot.high.holds(e.position))


def _place(entry: Entry, layer: Layer) -> Place:
    return Place(entry.topic_id, entry.partition, entry.offset, entry.broker_ms, layer)


def _batch_place(row: ManifestRow, merged: Merged, entry_row: int) -> Place:
    columns = merged.counted.person.recent
    ordinal = int(columns.topic[entry_row])
    place = (int(columns.partition[entry_row]), int(columns.offset[entry_row]), int(columns.broker_ms[entry_row]))
    return Place(row.topics[ordinal], *place, "batch")


def _retraction(row: ManifestRow, merged: Merged, target: str, above: Layer) -> Place | None:
    """Where the first retraction of an event stands: above the cut, or among the recent facts; else nobody knows."""
    counted = merged.counted
    hot = [entry for entry in counted.left_out.retractions if entry.target == target]
    if hot:
        return _place(min(hot, key=lambda entry: rank(entry, row)), above)
    columns = counted.recent
    found = (fact for fact in range(*columns.kind_range(RETRACTION_KIND)) if columns.text("key", fact) == target)
    places = [_batch_place(row, merged, int(columns.entry[fact])) for fact in found]
    return min(places, key=lambda place: place.broker_ms, default=None)


def _retractions(row: ManifestRow, merged: Merged, targets: Iterable[str], above: Layer) -> tuple[Retraction, ...]:
    """Hot retractions of some events."""
    found = ((target, _retraction(row, merged, target, above)) for target in targets)
    return tuple(Retraction(target, place) for target, place in found if place is not None)


def _part(catalogue: Catalogue, primary: Primary, row: ManifestRow, merged: Merged, t: int, above: Layer) -> Part:
    person, start_ms = merged.counted.person, primary.window.start(t)
    facts: list[Fact] = []
    entry_rows: list[int] = []
    for fact, entry_row in recent_facts(person.recent, primary.select, start_ms, t):
        facts.append(fact)
        entry_rows.append(entry_row)
    hot: list[Entry] = []
    for entry in merged.counted.added:
        if entry.at_ms is not None and primary.window.holds(entry.at_ms, t):
            for fact in facts_of(entry):
                if primary.select.holds(fact):
                    facts.append(fact)
                    hot.append(entry)
    older = person.older.get(primary.name) if primary.lifetime else None
    before = primary.state.zero() if older is None else primary.state.decode(older)
    of_event: dict[str, list[int]] = {}
    for place in contributing(primary.state, facts, before):
        of_event.setdefault(facts[place].event_id, []).append(place)
    as_of = row.as_of_ms
    contributions = []
    for event_id, places in of_event.items():
        first = places[0]
        is_hot = first >= len(entry_rows)
        at_ms = facts[first].at_ms
        where = _place(hot[first - len(entry_rows)], above) if is_hot else _batch_place(row, merged, entry_rows[first])
        late = is_hot and as_of is not None and at_ms < as_of
        contributions.append(Contribution(event_id, at_ms, tuple(facts[place].ordinal for place in places), where, late))
    contributions.sort(key=lambda found: (found.at_ms, found.event_id), reverse=True)
    return Part(
        primary=primary.name,
        definition=primary.definition(),
        start_ms=start_ms,
        end_ms=t,
        facts=len(facts),
        contributions=tuple(contributions),
        older=_older(catalogue, primary, row, merged, above) if primary.lifetime and len(person.older_ids) else None,
    )


def _older(catalogue: Catalogue, primary: Primary, row: ManifestRow, merged: Merged, above: Layer) -> Older:
    """What the older part's states say of a primary's facts: its own, and those of every primary of the same selection."""
    person = merged.counted.person
    facts: int | None = None
    first_ms: int | None = None
    last_ms: int | None = None
    for other in catalogue.lifetime:
        if other.select != primary.select:
            continue
        kind = other.state
        state = kind.decode(person.older[other.name]) if other.name in person.older else kind.zero()
        match kind:
            case Count():
                facts = state
            case Latest(_, first):
                if state is None:
                    facts = 0
                elif first:
                    first_ms = state[0]
                else:
                    last_ms = state[0]
            case Histogram():
                facts = sum(weight for weight, _last in state.values())
                last_ms = max((last for _weight, last in state.values()), default=None)
            case Top() if other is primary and last_ms is None:
                # Of the facts with a name, which are all that it reads.
                last_ms = max((last for _weight, last in state.values()), default=None)
    own = person.older.get(primary.name)
    decoded = primary.state.zero() if own is None else primary.state.decode(own)
    match primary.state:
        case Latest():
            marks = (decoded,) if decoded is not None and decoded == merged.states[primary.name] else ()
        case Recent():
            marks = tuple(mark for mark in decoded if mark in merged.states[primary.name])
        case _:
            marks = ()
    known = tuple(Known(mark[1], mark[0]) for mark in marks)
    targets = merged.counted.left_out.pending if primary.name in merged.pending else ()
    pending = _retractions(row, merged, targets, above)
    return Older(own, facts, first_ms, last_ms, known, len(person.older_ids), pending)


def _suppressed(
    primaries: Sequence[Primary], row: ManifestRow, merged: Merged, entries: Iterable[Entry], t: int, above: Layer
) -> Iterator[Suppressed]:
    """What does not count and would be in the window: copies above the cut, folded ones whose place a hot copy took, and
    retracted events.
    """
    counted, columns, left_out = merged.counted, merged.counted.recent, merged.counted.left_out
    winners = {entry.event_id: entry for entry in counted.added}
    chosen = {id(entry) for entry in counted.added}
    doubtful = {id(entry) for entry in counted.doubtful}
    passed = sorted((entry for entry in entries if id(entry) not in chosen), key=lambda entry: rank(entry, row))
    if not passed and not counted.replaced and not left_out.rows:
        return
    gone = {entry.event_id for entry in left_out.entries}
    folded = {name: entry_row for entry_row, name in enumerate(columns.names.many(columns.event.tolist()))}
    read = {found for p in primaries for _fact, found in recent_facts(columns, p.select, p.window.start(t), t)}
    for entry_row in counted.replaced:
        won = winners[columns.names[int(columns.event[entry_row])]]
        if entry_row in read or _reads(primaries, won, t):
            yield Suppressed(
                won.event_id or "", _at_ms(columns, entry_row), _batch_place(row, merged, entry_row), "replaced", _place(won, above)
            )
    for entry_row in left_out.rows:
        if entry_row in read:
            event_id = columns.names[int(columns.event[entry_row])]
            by = _retraction(row, merged, event_id, above)
            place = _batch_place(row, merged, entry_row)
            yield Suppressed(event_id, _at_ms(columns, entry_row), place, "retracted", None, by)
    for entry in passed:
        event_id = entry.event_id or ""
        counts: Place | None = None
        if event_id in gone:
            if _reads(primaries, entry, t):
                by = _retraction(row, merged, event_id, above)
                yield Suppressed(event_id, entry.at_ms or 0, _place(entry, above), "retracted", None, by)
            continue
        if event_id in winners:
            matters, counts = _reads(primaries, winners[event_id], t), _place(winners[event_id], above)
        elif event_id in folded:
            matters, counts = folded[event_id] in read, _batch_place(row, merged, folded[event_id])
        else:
            matters = False
        if matters or _reads(primaries, entry, t):
            why: Why = "doubtful" if id(entry) in doubtful else "later_copy"
            yield Suppressed(event_id, entry.at_ms or 0, _place(entry, above), why, counts)


def _at_ms(columns: FactColumns, entry_row: int) -> int:
    """The time of an entry of the recent columns, which its facts have."""
    return int(columns.at_ms[columns.entry == entry_row][0])


def _reads(primaries: Sequence[Primary], entry: Entry, t: int) -> bool:
    """Whether the entry, if it counts, has a fact of the selection in the window."""
    inside = [primary.select for primary in primaries if primary.window.holds(entry.at_ms or 0, t)]
    return any(select.holds(fact) for fact in (facts_of(entry) if inside else ()) for select in inside)


# --- from the archive -----------------------------------------------------------------------------------------------------------
def with_raw(
    catalogue: Catalogue,
    found: Explanation,
    row: ManifestRow,
    offsets: Offsets,
    archived: Iterable[tuple[Entry, bytes]],
    end: Offsets,
) -> Explanation:
    """The explanation with what the archive has of it: ``archived`` are the person's ok entries and their bytes, up to ``end``.

    ``offsets``: O of the read; later entries are none of its business.
    """
    primaries, t = catalogue.primaries_of(found.field), found.freshness.t
    above: Layer = "archive" if found.freshness.state == "archive" else "hot"
    # A position is one entry, however often the archive has it.
    entries = {entry.position: (entry, value) for entry, value in archived if offsets.holds(entry.position)}
    copies: dict[str, list[tuple[Entry, bytes]]] = {}
    for entry, value in entries.values():
        copies.setdefault(entry.event_id or "", []).append((entry, value))
    contributing_ids = {contribution.event_id for part in found.parts for contribution in part.contributions}
    lifetime = any(primary.lifetime for primary in primaries)
    older: list[RawEvent] = []
    suppressed: list[RawEvent] = []
    events: list[RawEvent] = []
    retracted: list[RawEvent] = []
    retractions: dict[str, list[Entry]] = {}
    for entry, _value in entries.values():
        if entry.target is not None:
            retractions.setdefault(entry.target, []).append(entry)
    for event_id, of_event in copies.items():
        of_event.sort(key=lambda copy: rank(copy[0], row))
        # What is folded into the older part stays: the first copy below the cut, whatever came since.
        first = next((copy for copy in of_event if row.cut.holds(copy[0].position)), None)
        folded = first is not None and row.horizon_ms is not None and (first[0].at_ms or 0) < row.horizon_ms
        by = sorted(retractions.get(event_id, ()), key=lambda entry: rank(entry, row))
        # So does a retracted event until the next batch, unless the batch knew of it.
        gone = bool(by) and not (folded and not any(row.cut.holds(entry.position) for entry in by))
        winner = first if folded and first is not None else of_event[0]
        for entry, value in of_event:
            layer = _layer(entry, row, above)
            place = _place(by[0], _layer(by[0], row, above)) if by else None
            raw = RawEvent(event_id, entry.at_ms or 0, _place(entry, layer), value.decode("utf-8"), place)
            if gone:
                if _reads(primaries, entry, t):
                    retracted.append(raw)
            elif entry is not winner[0]:
                if _reads(primaries, entry, t) or _reads(primaries, winner[0], t):
                    suppressed.append(raw)
            elif folded:
                if lifetime and _reads(primaries, entry, t):
                    older.append(raw)
            elif event_id in contributing_ids:
                events.append(raw)
    for listed in (older, suppressed, events, retracted):
        listed.sort(key=lambda raw: (raw.at_ms, raw.event_id, raw.place))
    missing = sorted(contributing_ids - {raw.event_id for raw in events})
    raw_found = Raw(end.to_json(), tuple(older), tuple(suppressed), tuple(events), tuple(missing), tuple(retracted))
    return msgspec.structs.replace(found, raw=raw_found)


def _layer(entry: Entry, row: ManifestRow, above: Layer) -> Layer:
    if not row.cut.holds(entry.position):
        return above
    return "older" if row.horizon_ms is not None and (entry.at_ms or 0) < row.horizon_ms else "batch"


__all__ = ["explain", "with_raw"]
