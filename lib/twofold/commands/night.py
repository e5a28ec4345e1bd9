"""The command of the night: rebuild and publish."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.exceptions import Exit

from twofold import show
from twofold.commands.options import Config, Debug, Home, Json, instant, settings_of


def batch(
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    as_of: Annotated[str | None, typer.Option("--as-of", help="Instant that splits history [default: newest broker time]")] = None,
) -> None:
    """One nightly rebuild and publish; prints the manifest row."""
    from twofold.local.night import run_batch

    settings = settings_of(home, config, debug)
    night = run_batch(settings, instant(as_of), config, lambda step: None if as_json else show.errors.print(f"  {step}"))
    if night.exit_code:
        show.errors.print(f"twofold: {night.error}", style="red", markup=False, soft_wrap=True)
        raise Exit(night.exit_code)
    if as_json:
        show.json_line(night.row)
    else:
        show.show_rows("published", ["what", "value"], [[key, value] for key, value in night.row.items()])


COMMANDS = (batch,)
