"""The command of the night: rebuild and publish."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.exceptions import Exit

from twofold import show
from twofold.commands.options import Config, Debug, Home, Json, instant, settings_of
from twofold.errors import UsageError


def show_night(night: Any, title: str, as_json: bool) -> None:
    """What a Spark job of the command line gave, or its error and exit code."""
    if night.exit_code:
        show.errors.print(f"twofold: {night.error}", style="red", markup=False, soft_wrap=True)
        raise Exit(night.exit_code)
    if as_json:
        show.json_line(night.row)
    else:
        show.show_rows(title, ["what", "value"], [[key, value] for key, value in night.row.items()])


def batch(
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    as_of: Annotated[str | None, typer.Option("--as-of", help="Instant that splits history [default: newest broker time]")] = None,
    incremental: Annotated[bool, typer.Option("--incremental", help="Only what came since the last snapshot")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Full, and held to what the incremental one would write")] = False,
) -> None:
    """One nightly rebuild and publish; prints the manifest row."""
    from twofold.local.night import run_batch

    if incremental and compare:
        raise UsageError("--compare is a full rebuild: leave out --incremental")
    settings = settings_of(home, config, debug)
    mode = "incremental" if incremental else "compare" if compare else "full"
    night = run_batch(settings, instant(as_of), config, lambda step: None if as_json else show.errors.print(f"  {step}"), mode)
    show_night(night, "published", as_json)


COMMANDS = (batch,)
