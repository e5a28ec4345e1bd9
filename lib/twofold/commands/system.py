"""Commands of the local system: start and stop it, run a part alone, see how far it is, and the demo."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import Exit

from twofold import show
from twofold.commands.options import Config, Debug, Home, Json, settings_of
from twofold.timeline import show_time


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


def up(
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return once every part is ready; stop with `twofold down`")] = False,
    without: Annotated[list[str] | None, typer.Option("--without", help="Leave out: speed, archive, personalize, follower")] = None,
) -> None:
    """Start the local system: broker, topics, speed, archive with personalize, follower; Ctrl-C or `down` stops it."""
    from twofold.catalogue import CATALOGUE
    from twofold.local import parts
    from twofold.stores.segments_file import load_segments

    settings = settings_of(home, config, debug)
    # A rule that cannot be read is told here, in one line, and not by parts that die of it.
    load_segments(settings, CATALOGUE)
    arguments = ["--config", str(Path(config).absolute())] if config else []
    start = parts.up_detached if detach else parts.up
    start(settings, _part_event(as_json), without or (), arguments)


def down(home: Home = None, config: Config = None, as_json: Json = False, debug: Debug = False) -> None:
    """Stop what `up` started on this home."""
    from twofold.local import parts

    settings = settings_of(home, config, debug)
    if not parts.down(settings, _part_event(as_json)) and not as_json:
        show.console.print(f"nothing runs on {settings.home_path}")


def follow(home: Home = None, config: Config = None, as_json: Json = False, debug: Debug = False) -> None:
    """Run the follower alone: topic `facts` into the hot store, until Ctrl-C."""
    from twofold.catalogue import VERSION
    from twofold.kafka.address import broker_address
    from twofold.kafka.follow import Follower
    from twofold.kafka.home import ensure_home
    from twofold.stores.lmdb_hot import LmdbHot
    from twofold.stores.readable import survey_manifest
    from twofold.stores.ready import write_ready

    settings = settings_of(home, config, debug)
    stopped = False

    def stop(_number: int, _frame: Any) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    log = ensure_home(settings)
    start = survey_manifest(settings)[0] or log.log_start

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
            published=lambda: survey_manifest(settings),
            report=report,
        )
        follower.run(lambda: stopped, lambda: write_ready(settings.home_path, "follower"))


def status(home: Home = None, config: Config = None, as_json: Json = False, debug: Debug = False) -> None:
    """Parts, vectors, snapshot, lag, and the newest rejection."""
    from twofold.local.survey import survey

    found = survey(settings_of(home, config, debug))
    if as_json:
        show.json_line(found)
        return
    rows = [[name, "alive" if p["alive"] else "dead", p["pid"], p["log"]] for name, p in found["parts"].items()]
    show.show_rows("parts", ["part", "state", "pid", "log"], rows or [["none", "-", "-", "-"]])
    facts = [[key, show.show_offsets(found[key])] for key in ("log_end", "high", "archive_end", "cut")]
    facts += [[key, found[key]] for key in ("snapshot", "lag_entries", "lag_s")]
    newest = found["newest_rejection"]
    facts.append(["newest_rejection", "-" if newest is None else f"{newest['reason']} at {newest['partition']}:{newest['offset']}"])
    served, audit = found["served_log"], found["audit"]
    if served is not None:
        facts.append(
            ["served_log", f"{served['bytes'] / 1e6:.1f} of {served['max_bytes'] / 1e6:.0f} MB in {served['files']} files"]
        )
    if audit is not None:
        lost = sum(audit["not_logged"].values())
        told = f"{show_time(audit['made_ms'])}: {audit['judged']} judged, {audit['bugs']} wrong, {audit['lag']} lag"
        facts.append(["audit", told + (f", {lost} not logged" if lost else "")])
    show.show_rows("\nlog", ["what", "value"], facts)


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
            settings_of(home, config, debug), timeout, lambda left: bar.update(task, description=f"{left} entries behind")
        )
    if as_json:
        show.json_line(vectors)
    else:
        show.show_rows("passed", ["what", "offsets"], [[name, show.show_offsets(offsets)] for name, offsets in vectors.items()])


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

    differing = run_demo(settings_of(home, config, debug), data, source, as_json)
    if differing:
        raise Exit(1)


COMMANDS = (up, down, follow, status, wait, demo)
