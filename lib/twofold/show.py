"""How results look on a terminal: tables, records, one line a part. Commands that print data print it here, or as JSON."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from twofold.catalogue import CATALOGUE
from twofold.pinned import PinnedRecord
from twofold.record import FieldState, Freshness, Record, Sendable
from twofold.timeline import show_time

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def json_line(data: Any) -> None:
    """One JSON value on one line of standard output."""
    sys.stdout.write(msgspec.json.encode(data).decode() + "\n")
    sys.stdout.flush()


def progress_bar() -> Progress:
    """A progress bar on standard error; silent where that is no terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)


#: Features that are instants.
_TIMES = frozenset(name for name, feature in CATALOGUE.features.items() if CATALOGUE.value_type(feature) == "time")


def shown(name: str, value: Any) -> str:
    """A value of the record as text for a terminal."""
    if value is None:
        return "-"
    if name.endswith("_at") or name in _TIMES:
        return show_time(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(" ".join(map(str, item.values())) if isinstance(item, dict) else str(item) for item in value) or "-"
    return str(value)


_STATE_COLOURS = {"fresh": "green", "default": "green", "stale": "yellow", "batch_only": "yellow", "archive": "yellow"}


def show_record(record: Record) -> None:
    """A record as a table, with its freshness and whether the person may be written to."""
    f = record.freshness
    console.print(Text.assemble((record.person, "bold"), "  ", *_freshness(f), f" · snapshot {f.snapshot}"))
    console.print(Text.assemble("may be written to: ", _sendable(record.sendable)))
    holds = (
        "until an event comes" if record.next_change_at is None else f"until {show_time(record.next_change_at)} or an event comes"
    )
    console.print(f"holds {holds} (decayed values apart)")
    console.print(f"segments: {', '.join(record.segments) or '-'}")
    _show_values(record.values, record.fields)


def show_pinned(record: PinnedRecord) -> None:
    """A record under a pin: what its values rest on, and whether the person may be written to now."""
    at = record.pinned
    where = f"pin {at.pin} at {show_time(at.t)}, from {at.source} · snapshot {at.snapshot}"
    console.print(Text.assemble((record.person, "bold"), f"  {where}"))
    now = Text.assemble(" (", *_freshness(record.freshness), ")")
    console.print(Text.assemble("may be written to: ", _sendable(record.sendable), now))
    console.print(f"segments: {', '.join(record.segments) or '-'}")
    _show_values(record.values, record.fields)


def _freshness(f: Freshness) -> list[Any]:
    lag = "" if f.lag_ms is None else f" · lag {f.lag_ms} ms"
    return [f"at {show_time(f.t)}  ", (f.state, _STATE_COLOURS.get(f.state, "red")), lag]


def _sendable(sendable: Sendable) -> Text:
    return Text("yes", "green") if sendable.ok else Text("no: " + ", ".join(sendable.reasons), "red")


def _show_values(values: dict[str, Any], fields: dict[str, FieldState]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in values.items():
        state = fields[name]
        table.add_row(Text(name, "cyan"), shown(name, value), "" if state == "exact" else Text(state, "red"))
    console.print(table)


def show_rows(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A table with a title."""
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else str(cell) for cell in row))
    console.print(table)


def show_offsets(offsets: dict[str, dict[str, int]]) -> str:
    """Vectors of one topic as ``p:next``; the topic id only where there are several."""
    several = len(offsets) > 1
    return "  ".join(
        (f"{topic[:8]}… " if several else "") + " ".join(f"{p}:{end}" for p, end in ends.items()) for topic, ends in offsets.items()
    )
