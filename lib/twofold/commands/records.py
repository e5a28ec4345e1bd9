"""Commands of records: one person, many persons, and what they must equal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twofold import show
from twofold.commands.options import At, Config, Debug, Home, Json, instant, settings_of
from twofold.errors import UsageError
from twofold.show_explanation import show_explanation
from twofold.timeline import read_time

Pin = Annotated[str | None, typer.Option("--pin", help="Under a pin: see `twofold pins`")]


def record(
    person: Annotated[str, typer.Argument(help="Person key: user:42, anon:7f…")],
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    at: At = None,
    explain: Annotated[str | None, typer.Option("--explain", help="Say why this field has its value: FIELD")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="With --explain: events as they came, from the archive")] = False,
    pin: Pin = None,
) -> None:
    """The personalization record of a person: snapshot ⊕ hot facts, now or under a pin; or what one of its fields rests on."""
    from twofold.reader import Reader

    settings = settings_of(home, config, debug)
    if pin is not None and (at is not None or explain is not None):
        raise UsageError("a pin has its own instant: --pin goes without --at and --explain")
    if raw and explain is None:
        raise UsageError("--raw goes with --explain FIELD")
    with Reader(settings) as reader:
        if pin is not None:
            with reader.pinned(pin) as pinned:
                under = pinned.record(person)
            if as_json:
                show.json_line(under)
            else:
                show.show_pinned(under)
            return
        if explain is not None:
            explained = reader.explain(person, explain, instant(at), raw)
            if as_json:
                show.json_line(explained)
            else:
                show_explanation(explained)
            return
        found = reader.record(person, instant(at))
    if as_json:
        show.json_line(found)
    else:
        show.show_record(found)


def records(
    out: Annotated[Path, typer.Option("--out", help="File of JSON lines to write")],
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    persons: Annotated[Path | None, typer.Option("--persons", help="File of person keys, one a line")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every person with an ok entry")] = False,
    at: At = None,
    pin: Pin = None,
) -> None:
    """Records of many persons at one instant, from one snapshot; or under a pin."""
    from twofold.local.record_files import chosen_persons, write_records
    from twofold.reader import Reader

    settings = settings_of(home, config, debug)
    chosen = chosen_persons(persons, everyone)
    if pin is not None and at is not None:
        raise UsageError("a pin has its own instant: --pin goes without --at")
    with Reader(settings) as reader:
        if pin is None:
            count = write_records(reader.records(chosen, instant(at)), out, None if chosen is None else len(chosen))
        else:
            with reader.pinned(pin) as pinned:
                chosen = pinned.persons() if chosen is None else chosen
                count = write_records(pinned.records(chosen), out, len(chosen))
    if as_json:
        show.json_line({"records": count, "out": str(out)})
    else:
        show.console.print(f"{count} records in {out}")


def oracle(
    files: Annotated[list[Path], typer.Argument(help="Files of JSON lines")],
    at: Annotated[str, typer.Option("--at", help="Instant: RFC 3339 or epoch ms")],
    out: Annotated[Path, typer.Option("--out", help="File of JSON lines to write")],
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    persons: Annotated[Path | None, typer.Option("--persons", help="File of person keys, one a line")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every person with an ok entry")] = False,
) -> None:
    """The naive recomputation in plain Python from JSON lines: what records must equal."""
    from twofold.local.record_files import chosen_persons, write_records
    from twofold.testing.oracle import read_lines, recompute_lines

    settings_of(home, config, debug)
    chosen = chosen_persons(persons, everyone)
    found = (record for _person, record in recompute_lines(read_lines(files), chosen, read_time(at)))
    count = write_records(found, out, None if chosen is None else len(chosen))
    if as_json:
        show.json_line({"records": count, "out": str(out)})
    else:
        show.console.print(f"{count} records in {out}")


COMMANDS = (record, records, oracle)
