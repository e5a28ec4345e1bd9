"""Commands of events: make them, send them, see which were rejected."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import Exit

from twofold import show
from twofold.commands.options import Config, Debug, Home, Json, instant, settings_of
from twofold.errors import UsageError
from twofold.timeline import show_time


def convert(
    data: Annotated[str, typer.Argument(help="shop, online-retail, cdnow or retentioneering")],
    file: Annotated[Path | None, typer.Argument(help="The data set's file or folder (not for the shop)")] = None,
    out: Annotated[Path, typer.Option("--out", help="File of JSON lines to write")] = Path("events.jsonl"),
    as_json: Json = False,
    home: Home = None,
    config: Config = None,
    debug: Debug = False,
    seed: Annotated[int, typer.Option("--seed", help="shop: same seed, same bytes")] = 1,
    persons: Annotated[int | None, typer.Option("--persons", help="shop: how many people")] = None,
    events: Annotated[int | None, typer.Option("--events", help="shop: how many events; else: the first N")] = None,
    end: Annotated[str | None, typer.Option("--end", help="shop: the instant at which the feed ends")] = None,
) -> None:
    """Turn a real or simulated data set into canonical events."""
    from twofold.local.convert import CONVERTERS, write_jsonl

    settings_of(home, config, debug)
    if data not in CONVERTERS:
        raise UsageError(f"there is no data set {data!r}: {', '.join(CONVERTERS)}")
    options: dict[str, Any] = {}
    if data == "shop":
        options = {"seed": seed, "persons": persons, "events": events, "end_ms": instant(end)}
        options = {key: value for key, value in options.items() if value is not None}
    source: Iterator[Any] = iter(CONVERTERS[data](file, **options))
    if data != "shop" and events is not None:
        source = islice(source, events)
    with show.progress_bar() as bar:
        task = bar.add_task(f"converting {data}", total=events)
        count = write_jsonl(source, out, lambda done: bar.update(task, completed=done))
    if as_json:
        show.json_line({"events": count, "out": str(out)})
    else:
        show.console.print(f"{count} events in {out}")


def send(
    file: Annotated[str, typer.Argument(help="File of JSON lines, or - for standard input")],
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    rate: Annotated[float | None, typer.Option("--rate", help="Lines a second at most", min=0.001)] = None,
) -> None:
    """Send each non-empty line as one entry, its bytes unchanged, and wait for every acknowledgement."""
    from twofold.kafka.produce import read_lines
    from twofold.kafka.produce import send as send_lines

    settings = settings_of(home, config, debug)
    with contextlib.ExitStack() as stack:
        try:
            source = sys.stdin.buffer if file == "-" else stack.enter_context(Path(file).open("rb"))
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}") from error
        bar = stack.enter_context(show.progress_bar())
        task = bar.add_task("sending", total=None)
        report = send_lines(settings, read_lines(source), rate, lambda done: bar.update(task, completed=done))
    for number, reason in report.failed_lines[:20]:
        show.errors.print(f"line {number} was refused: {reason}")
    if len(report.failed_lines) > 20:
        show.errors.print(f"… and {len(report.failed_lines) - 20} more")
    counts = {"sent": report.sent, "acked": report.acked, "failed": report.failed}
    show.json_line({**counts, "failed_lines": report.failed_lines} if as_json else counts)
    if report.failed:
        raise Exit(1)


def quarantine(
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Only this reason")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="At most so many")] = None,
) -> None:
    """Rejected entries of the archive: position, reason, bytes."""
    from twofold.events import REASONS
    from twofold.stores.archive_log import quarantine as rejected

    settings = settings_of(home, config, debug)
    if reason is not None and reason not in REASONS:
        raise UsageError(f"there is no reason {reason!r}: {', '.join(REASONS)}")
    rows = []
    for row in islice(rejected(settings.table("archive"), reason), limit):
        text = (row["value"] or b"").decode("utf-8", "backslashreplace")
        if as_json:
            keys = ("topic_id", "partition", "offset", "broker_ms")
            show.json_line({**{key: row[key] for key in keys}, "reason": row["verdict"], "bytes": text})
        else:
            rows.append([f"{row['partition']}:{row['offset']}", row["verdict"], show_time(row["broker_ms"]), text[:100]])
    if not as_json:
        show.show_rows(f"{len(rows)} rejected", ["position", "reason", "broker time", "bytes"], rows)


COMMANDS = (convert, send, quarantine)
