"""The command line. Each command parses, calls one function, and shows what it gave; no traceback without ``--debug``."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, Exit, TyperException

from twofold import show
from twofold.errors import TwofoldError, UsageError
from twofold.settings import Settings, load_settings
from twofold.timeline import read_time, show_time

app = typer.Typer(
    name="twofold",
    help="What an e-mail may say to a person: exact, at any instant.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Home = Annotated[str | None, typer.Option("--home", help="Folder of everything a local run writes [default: .twofold]")]
Config = Annotated[str | None, typer.Option("--config", help="Settings file (YAML); conf/reference.yaml lists every key")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output, one JSON value a line")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error")]
At = Annotated[str | None, typer.Option("--at", help="Instant: RFC 3339 or epoch ms [default: now]")]

_debug = False


def _settings(home: str | None, config: str | None, debug: bool, **overrides: Any) -> Settings:
    global _debug
    _debug = debug
    return load_settings(config, home=home, **overrides)


def _instant(at: str | None) -> int | None:
    return None if at is None else read_time(at)


def _part_event(as_json: bool) -> Any:
    def report(event: str, details: dict[str, Any]) -> None:
        if as_json:
            show.json_line({"event": event, **details})
        elif event == "ready":
            after_s = details["after_ms"] / 1000
            show.console.print(
                f"[green]ready[/]    {details['part']:<9} pid {details['pid']:<7} {after_s:5.1f} s  {details['log']}"
            )
        elif event == "up":
            show.console.print(f"[bold]up[/]       {details['home']}")
        else:
            colour = "red" if event in ("died", "not_ready") else "yellow"
            show.console.print(f"[{colour}]{event:<8}[/] " + "  ".join(f"{key} {value}" for key, value in details.items()))

    return report


# --- the local system -------------------------------------------------------------------------------------------------------------
@app.command()
def up(
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return once every part is ready; stop with `twofold down`")] = False,
    without: Annotated[list[str] | None, typer.Option("--without", help="Leave a part out: speed, archive, follower")] = None,
) -> None:
    """Start the local system: broker, topics, speed, archive, follower; Ctrl-C or `down` stops it."""
    from twofold.local import parts

    settings = _settings(home, config, debug)
    arguments = ["--config", str(Path(config).absolute())] if config else []
    start = parts.up_detached if detach else parts.up
    start(settings, _part_event(as_json), without or (), arguments)


@app.command()
def down(home: Home = None, config: Config = None, as_json: Json = False, debug: Debug = False) -> None:
    """Stop what `up` started on this home."""
    from twofold.local import parts

    settings = _settings(home, config, debug)
    if not parts.down(settings, _part_event(as_json)) and not as_json:
        show.console.print(f"nothing runs on {settings.home_path}")


@app.command()
def follow(home: Home = None, config: Config = None, as_json: Json = False, debug: Debug = False) -> None:
    """Run the follower alone: topic `facts` into the hot store, until Ctrl-C."""
    from twofold.catalogue import VERSION
    from twofold.kafka.address import broker_address
    from twofold.kafka.follow import Follower
    from twofold.kafka.home import ensure_home
    from twofold.stores.lmdb_hot import LmdbHot
    from twofold.stores.readable import survey_manifest
    from twofold.stores.ready import write_ready

    settings = _settings(home, config, debug)
    stopped = False

    def stop(_number: int, _frame: Any) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    log = ensure_home(settings)
    manifest, keep = settings.table("manifest"), settings.batch.keep_snapshots
    start = survey_manifest(manifest, keep)[0] or log.log_start

    def report(event: str, details: dict[str, Any]) -> None:
        if as_json:
            show.json_line({"event": event, **details})
        else:
            show.errors.print(f"{event}  " + "  ".join(f"{key} {value}" for key, value in details.items()))

    with LmdbHot(settings.hot_path, settings.hot.map_size_bytes, start) as hot:
        follower = Follower(
            settings,
            broker_address(settings),
            log.topic_id,
            hot,
            VERSION,
            published=lambda: survey_manifest(manifest, keep),
            report=report,
        )
        follower.run(lambda: stopped, lambda: write_ready(settings.home_path, "follower"))


@app.command()
def status(home: Home = None, config: Config = None, as_json: Json = False, debug: Debug = False) -> None:
    """Parts, vectors, snapshot, lag, and the newest rejection."""
    from twofold.local.survey import survey

    found = survey(_settings(home, config, debug))
    if as_json:
        show.json_line(found)
        return
    rows = [[name, "alive" if p["alive"] else "dead", p["pid"], p["log"]] for name, p in found["parts"].items()]
    show.show_rows("parts", ["part", "state", "pid", "log"], rows or [["none", "-", "-", "-"]])
    facts = [[key, show.show_offsets(found[key])] for key in ("log_end", "high", "archive_end", "cut")]
    facts += [[key, found[key]] for key in ("snapshot", "lag_entries", "lag_s")]
    newest = found["newest_rejection"]
    facts.append(["newest_rejection", "-" if newest is None else f"{newest['reason']} at {newest['partition']}:{newest['offset']}"])
    show.show_rows("\nlog", ["what", "value"], facts)


@app.command()
def wait(
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait at most")] = 120,
) -> None:
    """Wait until speed, follower and archive have passed the log end seen now."""
    from twofold.local.survey import wait_for_log_end

    with show.progress_bar() as bar:
        task = bar.add_task("waiting for the log end", total=None)
        vectors = wait_for_log_end(
            _settings(home, config, debug), timeout, lambda left: bar.update(task, description=f"{left} entries behind")
        )
    if as_json:
        show.json_line(vectors)
    else:
        show.show_rows("passed", ["what", "offsets"], [[name, show.show_offsets(offsets)] for name, offsets in vectors.items()])


# --- events -----------------------------------------------------------------------------------------------------------------------
@app.command()
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

    _settings(home, config, debug)
    if data not in CONVERTERS:
        raise UsageError(f"there is no data set {data!r}: {', '.join(CONVERTERS)}")
    options: dict[str, Any] = {}
    if data == "shop":
        options = {"seed": seed, "persons": persons, "events": events, "end_ms": _instant(end)}
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


@app.command()
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

    settings = _settings(home, config, debug)
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


@app.command()
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

    settings = _settings(home, config, debug)
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


# --- the batch --------------------------------------------------------------------------------------------------------------------
@app.command()
def batch(
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    as_of: Annotated[str | None, typer.Option("--as-of", help="Instant that splits history [default: newest broker time]")] = None,
) -> None:
    """One nightly rebuild and publish; prints the manifest row."""
    from twofold.local.night import run_batch

    settings = _settings(home, config, debug)
    night = run_batch(settings, _instant(as_of), config, lambda step: None if as_json else show.errors.print(f"  {step}"))
    if night.exit_code:
        show.errors.print(f"twofold: {night.error}", style="red", markup=False, soft_wrap=True)
        raise Exit(night.exit_code)
    if as_json:
        show.json_line(night.row)
    else:
        show.show_rows("published", ["what", "value"], [[key, value] for key, value in night.row.items()])


# --- records ----------------------------------------------------------------------------------------------------------------------
@app.command()
def record(
    person: Annotated[str, typer.Argument(help="Person key: user:42, anon:7f…")],
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    at: At = None,
) -> None:
    """The personalization record of a person: snapshot ⊕ hot facts."""
    from twofold.reader import Reader

    with Reader(_settings(home, config, debug)) as reader:
        found = reader.record(person, _instant(at))
    if as_json:
        show.json_line(found)
    else:
        show.show_record(found)


@app.command()
def records(
    out: Annotated[Path, typer.Option("--out", help="File of JSON lines to write")],
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    persons: Annotated[Path | None, typer.Option("--persons", help="File of person keys, one a line")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every person with an ok entry")] = False,
    at: At = None,
) -> None:
    """Records of many persons at one instant, from one snapshot."""
    from twofold.local.record_files import chosen_persons, write_records
    from twofold.reader import Reader

    settings = _settings(home, config, debug)
    chosen = chosen_persons(persons, everyone)
    with Reader(settings) as reader:
        count = write_records(reader.records(chosen, _instant(at)), out, None if chosen is None else len(chosen))
    if as_json:
        show.json_line({"records": count, "out": str(out)})
    else:
        show.console.print(f"{count} records in {out}")


@app.command()
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

    _settings(home, config, debug)
    chosen = chosen_persons(persons, everyone)
    found = (record for _person, record in recompute_lines(read_lines(files), chosen, read_time(at)))
    count = write_records(found, out, None if chosen is None else len(chosen))
    if as_json:
        show.json_line({"records": count, "out": str(out)})
    else:
        show.console.print(f"{count} records in {out}")


@app.command()
def demo(
    home: Home = ".twofold-demo",
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    data: Annotated[str, typer.Option("--data", help="shop, online-retail or cdnow")] = "shop",
    source: Annotated[Path | None, typer.Option("--from", help="Folder of the real data set")] = None,
) -> None:
    """The main job on real input: feed, nightly batch in the middle, feed on, read, compare, stop."""
    from twofold.local.demo import run_demo

    differing = run_demo(_settings(home, config, debug), data, source, as_json)
    if differing:
        raise Exit(1)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code. Errors are one line: what is wrong, where, and the way out."""
    global _debug
    _debug = "--debug" in (sys.argv if argv is None else argv)
    # What the broker refuses, commands tell in a line of their own.
    logging.getLogger("kafka").setLevel(logging.DEBUG if _debug else logging.CRITICAL)
    try:
        result: Any = app(args=argv, standalone_mode=False)
    except (Abort, KeyboardInterrupt):
        return 130
    except Exit as stop:
        return stop.exit_code
    except TyperException as error:
        message = " ".join(error.format_message().split())
        if message:
            show.errors.print(f"twofold: {message} (see `twofold --help`)", style="red", markup=False, soft_wrap=True)
        return 2
    except TwofoldError as error:
        if _debug:
            raise
        show.errors.print(f"twofold: {error}", style="red", markup=False, soft_wrap=True)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if _debug:
            raise
        show.errors.print(
            f"twofold: unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]} (run again with --debug)",
            style="red",
            markup=False,
            soft_wrap=True,
        )
        return 1
    return result if isinstance(result, int) else 0


def run() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    run()
