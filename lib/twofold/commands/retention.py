"""Commands of what was published: what is there, back to an older one, and what may go."""

from __future__ import annotations

from typing import Annotated

import typer

from twofold import show
from twofold.commands.night import show_night
from twofold.commands.options import Config, Debug, Home, Json, now_ms, settings_of
from twofold.errors import UsageError
from twofold.timeline import show_time

Seq = Annotated[int, typer.Argument(help="Sequence number of a snapshot: see `twofold snapshots`")]


def snapshots(home: Home = None, config: Config = None, as_json: Json = False, debug: Debug = False) -> None:
    """Every published snapshot, the newest first: which is current, readable, pinned, or came back by a rollback."""
    from twofold.stores.listing import listing

    rows = []
    for found in listing(settings_of(home, config, debug)):
        row = found.row
        persons = row.counts.get("persons")
        if as_json:
            data = {"seq": row.seq, "snapshot": row.snapshot, "published_ms": row.published_ms, "as_of_ms": row.as_of_ms}
            flags = {name: getattr(found, name) for name in ("current", "readable", "pinned", "back_to", "campaigns")}
            more = {"parent": row.parent, "persons": persons, "version": row.version, "tables": dict(row.tables)}
            show.json_line({**data, **more, "cut": row.cut.to_json(), **flags})
            continue
        now = "current" if found.current else "readable" if found.readable else ""
        now += " pinned" * found.pinned + "".join(f" pin {name}" for name in found.campaigns)
        now += f" = {found.back_to}" if found.back_to is not None else ""
        # To the minute: a line of a terminal holds it all.
        times = [show_time(at_ms)[:16] for at_ms in (row.published_ms, row.as_of_ms)]
        rows.append([row.seq, row.snapshot, *times, "-" if persons is None else persons, now.strip()])
    if not as_json:
        show.show_rows("snapshots (= N: a rollback to N)", ["seq", "snapshot", "published", "as of", "persons", "now"], rows)


def rollback(seq: Seq, home: Home = None, config: Config = None, as_json: Json = False, debug: Debug = False) -> None:
    """Make an older readable snapshot current again: one more row that names its tables; prints the row."""
    from twofold.catalogue import VERSION
    from twofold.local.upkeep import roll_back

    settings = settings_of(home, config, debug)
    show_night(roll_back(settings, seq, VERSION, now_ms(), config), "current again", as_json)


def vacuum(
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would go; remove nothing")] = False,
) -> None:
    """Remove files that no readable snapshot, pin, audit or stream needs."""
    from twofold.stores.vacuum import vacuum as remove

    removed = remove(settings_of(home, config, debug), now_ms(), dry_run)
    if as_json:
        for one in removed:
            show.json_line({"dry_run": dry_run, **one._asdict()})
        return
    title = "would go" if dry_run else "removed"
    rows = [[one.place, one.files, f"{one.size_bytes / 1e6:.1f}", ", ".join(map(str, one.kept)) or "newest"] for one in removed]
    show.show_rows(title, ["what", "files", "MB", "versions kept"], rows)


def compact(
    table: Annotated[str | None, typer.Argument(help="archive or manifest [default: both]")] = None,
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for a running archive stream", min=1)] = 3600,
) -> None:
    """Join small files. A running archive stream does it itself; else a Spark job starts."""
    from twofold.local import upkeep

    settings = settings_of(home, config, debug)
    if table is not None and table not in upkeep.COMPACTED:
        raise UsageError(f"{table!r} is not compacted: {' and '.join(upkeep.COMPACTED)} are")
    for name in (table,) if table is not None else upkeep.COMPACTED:
        night = upkeep.compact(settings, name, timeout, config, lambda step: None if as_json else show.errors.print(f"  {step}"))
        if not night.exit_code:
            night.row.update(table=name)
        show_night(night, "compacted", as_json)


COMMANDS = (snapshots, rollback, vacuum, compact)
