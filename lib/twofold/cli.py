"""The command line: puts the commands together and runs one; no traceback without ``--debug``.

Each command parses, calls one function, and shows what it gave; the commands of a room stand in ``commands/<room>.py``.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import typer
from typer.exceptions import Abort, Exit, TyperException

from twofold import show
from twofold.commands import (
    audit,
    cluster,
    events,
    night,
    personalization,
    pins,
    records,
    reports,
    retention,
    segments,
    system,
    tables,
)
from twofold.commands.options import is_debug, set_debug
from twofold.errors import TwofoldError

app = typer.Typer(
    name="twofold",
    help="What an e-mail may say to a person: exact, at any instant.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

#: Rooms in the order in which the help shows them; each names its ``COMMANDS``.
ROOMS = (
    system,
    events,
    night,
    retention,
    records,
    pins,
    tables,
    personalization,
    segments,
    cluster,
    reports,
    audit,
)
for _room in ROOMS:
    for _command in _room.COMMANDS:
        app.command()(_command)
for _name, _commands in segments.GROUPS.items():
    _group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Who is in a segment, and why.")
    for _command in _commands:
        _group.command()(_command)
    app.add_typer(_group, name=_name)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code. Errors are one line: what is wrong, where, and the way out."""
    set_debug("--debug" in (sys.argv if argv is None else argv))
    # What the broker refuses, commands tell in a line of their own.
    logging.getLogger("kafka").setLevel(logging.DEBUG if is_debug() else logging.CRITICAL)
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
        if is_debug():
            raise
        show.errors.print(f"twofold: {error}", style="red", markup=False, soft_wrap=True)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if is_debug():
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
