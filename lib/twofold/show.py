"""How results look on a terminal: tables, records, one line a part. Commands that print data print it here, or as JSON."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from twofold.record import Record
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


def shown(name: str, value: Any) -> str:
    """A value of the record as text for a terminal."""
    if value is None:
        return "-"
    if name.endswith("_at"):
        return show_time(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "-"
    return str(value)


_STATE_COLOURS = {"fresh": "green", "default": "green", "stale": "yellow", "batch_only": "yellow", "archive": "yellow"}


def show_record(record: Record) -> None:
    """A record as a table, with its freshness and whether the person may be written to."""
    f = record.freshness
    colour = _STATE_COLOURS.get(f.state, "red")
    lag = "" if f.lag_ms is None else f" · lag {f.lag_ms} ms"
    console.print(
        Text.assemble((record.person, "bold"), f"  at {show_time(f.t)}  ", (f.state, colour), lag, f" · snapshot {f.snapshot}")
    )
    sendable = Text("yes", "green") if record.sendable.ok else Text("no: " + ", ".join(record.sendable.reasons), "red")
    console.print(Text.assemble("may be written to: ", sendable))
    holds = (
        "until an event comes" if record.next_change_at is None else f"until {show_time(record.next_change_at)} or an event comes"
    )
    console.print(f"holds {holds} (decayed values apart)")
    console.print(f"segments: {', '.join(record.segments) or '-'}")
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in record.values.items():
        state = record.fields[name]
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
