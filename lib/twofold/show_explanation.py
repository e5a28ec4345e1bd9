"""How an explanation looks on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from twofold.explanation import Explanation, Older, Part, Place, RawEvent, Suppressed
from twofold.show import console, show_offsets, shown
from twofold.timeline import show_time

#: Lines of one list; ``--json`` has them all.
_LINES = 20
_WHY = {
    "later_copy": "a copy; counts: {winner}",
    "replaced": "folded by the batch; an earlier copy counts: {winner}",
    "doubtful": "may come before a copy that is folded; the next batch decides",
    "retracted": "retracted by {retraction}",
}


def _position(place: Place | None, unknown: str = "in the older part") -> str:
    if place is None:
        return unknown
    return f"{place.layer} {place.topic_id[:8]}… {place.partition}:{place.offset}"


def _why(suppressed: Suppressed) -> str:
    retraction = _position(suppressed.retraction, "a retraction below the cut")
    return _WHY[suppressed.why].format(winner=_position(suppressed.winner), retraction=retraction)


def _table(rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for _column in ("", *rows[0]):
        table.add_column(no_wrap=True, overflow="ellipsis")
    for row in rows[:_LINES]:
        table.add_row(*(Text(cell) for cell in (" ", *row)))
    console.print(table)
    if len(rows) > _LINES:
        console.print(f"  … and {len(rows) - _LINES} more: --json has them all")


def show_explanation(found: Explanation) -> None:
    """A field's value, then what it rests on: its parts, copies that do not count, and the events as they came."""
    f = found.freshness
    mark = Text("" if found.state == "exact" else f"  {found.state}", "red")
    console.print(
        Text.assemble((found.field, "bold cyan"), " of ", (found.person, "bold"), " = ", shown(found.field, found.value), mark)
    )
    console.print(found.doc, markup=False)
    console.print(
        f"at {show_time(f.t)}  {f.state} · snapshot {f.snapshot}, as of {show_time(f.as_of)} · definition {found.version}"
    )
    cut, high = show_offsets(f.cut) or "the log's start", show_offsets(f.high) or "not read"
    above = "archive" if f.state == "archive" else "hot store"
    console.print(f"cut {cut} · {above} up to {high}", markup=False)
    for part in found.parts:
        _show_part(part)
    if found.suppressed:
        console.print(f"copies that do not count: {len(found.suppressed)}")
        _table([(show_time(s.at_ms), s.event_id, _position(s.place), _why(s)) for s in found.suppressed])
    if found.nothing:
        console.print(f"retractions of nothing yet: {len(found.nothing)}")
        _table([(retraction.target, _position(retraction.place)) for retraction in found.nothing])
    if found.raw is not None:
        if found.parts and any(part.older is not None for part in found.parts):
            _show_raw("older part", found.raw.older)
        _show_raw("copies that do not count", found.raw.suppressed)
        if found.raw.retracted:
            _show_raw("retracted events", found.raw.retracted)
        _show_raw("contributing events", found.raw.events)
        if found.raw.missing:
            console.print(f"not in the archive yet: {', '.join(found.raw.missing[:_LINES])}", markup=False)


def _show_part(part: Part) -> None:
    kind = str(part.definition["state"])
    window = "lifetime" if part.start_ms is None else f"[{show_time(part.start_ms)}, {show_time(part.end_ms)})"
    kinds = ", ".join(part.definition["kinds"])
    equals = "".join(f", {column} = {text}" for column, text in part.definition["equals"])
    console.print(Text.assemble((part.primary, "cyan"), f": {kind} of {kinds}{equals} · {window}"))
    if part.older is not None:
        _show_older(part.older)
    console.print(f"contributing events: {len(part.contributions)}, facts in the window: {part.facts}")
    rows = []
    for c in part.contributions:
        facts = "" if c.ordinals == (0,) else "facts " + " ".join(map(str, c.ordinals[:5])) + (" …" if len(c.ordinals) > 5 else "")
        rows.append((show_time(c.at_ms), c.event_id, _position(c.place), facts, "late" if c.late else ""))
    _table(rows)


def _show_older(older: Older) -> None:
    facts = "how many is not kept" if older.facts is None else f"{older.facts} facts"
    times = f"first {show_time(older.first_ms)}, last {show_time(older.last_ms)}"
    ids = "".join(f", {known.event_id} of {show_time(known.at_ms)}" for known in older.events)
    console.print(f"older part: {facts}, {times}{ids}; {older.all_events} events of every kind", markup=False)
    for retraction in older.pending:
        console.print(
            f"  {retraction.target}: retracted by {_position(retraction.place)}, counts until the next batch", markup=False
        )


def _show_raw(title: str, events: Sequence[RawEvent]) -> None:
    console.print(f"in the archive, {title}: {len(events)}")
    _table([(show_time(raw.at_ms), raw.event_id, _position(raw.place), raw.value) for raw in events])


__all__ = ["show_explanation"]
