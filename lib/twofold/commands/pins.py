"""Commands of pins: a campaign's, under which records keep their values, and a snapshot's, which keeps it readable."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import structs

from twofold import show
from twofold.commands.options import At, Config, Debug, Home, Json, instant, settings_of
from twofold.errors import UsageError
from twofold.settings import Settings
from twofold.timeline import show_time

Name = Annotated[str, typer.Argument(help="Name of a pin; digits alone are the number of a snapshot: see `twofold snapshots`")]


def pin(
    name: Name,
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    snapshot: Annotated[int | None, typer.Option("--snapshot", help="Rest on this one [default: the current one]", min=1)] = None,
    at: At = None,
    remove: Annotated[bool, typer.Option("--remove", help="Let it go: what `unpin` does")] = False,
) -> None:
    """Keep the records of this instant under a name; or, by its number, keep a snapshot readable whatever is published after it."""
    from twofold.reader import Reader
    from twofold.stores.readable import pin_readable

    settings = settings_of(home, config, debug)
    seq = _seq(name)
    if remove or seq is not None:
        if snapshot is not None or at is not None:
            raise UsageError("--snapshot and --at go with the name of a new pin")
        if remove or seq is None:
            _let_go(settings, name)
        else:
            pin_readable(settings, seq)
        _show_snapshots(settings, as_json)
        return
    with Reader(settings, seq=snapshot) as reader:
        pinned = reader.pin(name, instant(at))
        lag_ms = reader.status().lag_ms
    if as_json:
        show.json_line({**structs.asdict(pinned), "lag_ms": lag_ms})
        return
    lag = "no hot store, so O is the snapshot's cut" if lag_ms is None else f"{lag_ms} ms behind the log"
    show.console.print(f"pinned {name}: snapshot {pinned.snapshot} at {show_time(pinned.t)}, {lag}")


def unpin(
    name: Name,
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Let a pin go: what it kept may be removed by the next vacuum."""
    from twofold.stores.pins import read_pins

    settings = settings_of(home, config, debug)
    seq = _seq(name)
    if seq is not None and seq not in read_pins(settings):
        raise UsageError(f"snapshot {name} is not pinned: `twofold pins` shows what is")
    _let_go(settings, name)
    if as_json:
        show.json_line({"unpinned": name})
    else:
        show.console.print(f"let go: {name}")


def pins(home: Home = None, config: Config = None, as_json: Json = False, debug: Debug = False) -> None:
    """Every pin: snapshot, t, O, definition, and where its entries above the cut are read now."""
    from twofold.catalogue import VERSION
    from twofold.reader import Reader
    from twofold.stores.pin_terms import listed_pins

    settings = settings_of(home, config, debug)
    with Reader(settings) as reader:
        found = listed_pins(settings, VERSION, reader.vectors())
    if as_json:
        for one in found:
            show.json_line(one._asdict())
        return
    lines = []
    for one in found:
        where = "" if one.high is None else (one.read_from or "not yet") if one.installed else "not installed"
        high = "" if one.high is None else show.show_offsets(one.high)
        lines.append([one.name, one.snapshot, show_time(one.t), high, one.version, where])
    show.show_rows("pins", ["name", "snapshot", "t", "high", "definition", "read from"], lines)


def _seq(name: str) -> int | None:
    """The number of a snapshot; ``None`` for a campaign's name."""
    return int(name) if name.isascii() and name.isdecimal() else None


def _let_go(settings: Settings, name: str) -> None:
    from twofold.stores.campaign_pins import remove_campaign_pin
    from twofold.stores.pins import remove_pin

    seq = _seq(name)
    if seq is not None:
        remove_pin(settings, seq)
    else:
        remove_campaign_pin(settings, name)


def _show_snapshots(settings: Settings, as_json: bool) -> None:
    from twofold.stores.pins import read_pins

    pinned = sorted(read_pins(settings))
    if as_json:
        show.json_line({"pinned": pinned})
    else:
        show.console.print(f"pinned: {', '.join(map(str, pinned)) or 'none'}")


COMMANDS = (pin, pins, unpin)
