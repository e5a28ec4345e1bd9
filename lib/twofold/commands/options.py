"""Options that every command has, and how a command comes to its settings."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from twofold.settings import Settings, load_settings
from twofold.timeline import read_time

Home = Annotated[str | None, typer.Option("--home", help="Folder of everything a local run writes [default: .twofold]")]
Config = Annotated[str | None, typer.Option("--config", help="Settings file (YAML); conf/reference.yaml lists every key")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output, one JSON value a line")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error")]
At = Annotated[str | None, typer.Option("--at", help="Instant: RFC 3339 or epoch ms [default: now]")]

_debug = False


def set_debug(debug: bool) -> None:
    """Whether errors of this process show their traceback."""
    global _debug
    _debug = debug


def is_debug() -> bool:
    return _debug


def settings_of(home: str | None, config: str | None, debug: bool, **overrides: Any) -> Settings:
    """The settings that a command's options name; what is ``None`` is left to the file and the environment."""
    set_debug(debug)
    return load_settings(config, home=home, **overrides)


def now_ms() -> int:
    """The edge's clock, epoch ms."""
    return time.time_ns() // 1_000_000


def instant(at: str | None) -> int | None:
    """Epoch ms of an option; ``None`` where it was left out."""
    return None if at is None else read_time(at)
