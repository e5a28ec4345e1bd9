"""Every command stands in one room of ``commands/``, is registered once, and has the options that all have."""

from __future__ import annotations

import importlib
from pathlib import Path

import typer

import twofold.commands
from twofold.cli import ROOMS, app


def test_every_room_of_commands_is_registered() -> None:
    files = Path(twofold.commands.__file__).parent.glob("*.py")
    modules = [file.stem for file in files if file.stem not in ("__init__", "options")]
    assert sorted(room.__name__ for room in ROOMS) == sorted(f"twofold.commands.{module}" for module in modules)
    for module in modules:
        assert importlib.import_module(f"twofold.commands.{module}").COMMANDS


def test_every_command_has_the_shared_options() -> None:
    commands = {}
    for name, command in typer.main.get_command(app).commands.items():
        below = getattr(command, "commands", {"": command})
        commands.update({f"{name} {inner}".strip(): found for inner, found in below.items()})
    grouped = sum(len(of) for room in ROOMS for of in getattr(room, "GROUPS", {}).values())
    assert len(commands) == sum(len(room.COMMANDS) for room in ROOMS) + grouped
    for name, command in commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--home", "--config", "--json", "--debug"} <= options, name
