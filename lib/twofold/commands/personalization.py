"""The command of the table `personalization`: a person's current row, and the request for everyone's."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from twofold import show
from twofold.commands.options import Config, Debug, Home, Json, now_ms, settings_of
from twofold.errors import StoreError, UsageError


def personalization(
    person: Annotated[str | None, typer.Argument(help="Person key: user:42, anon:7f…")] = None,
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the running writer for a row of everyone from now")] = False,
) -> None:
    """The current row of a person in the table `personalization`, or a refresh of everyone's."""
    from twofold.stores.personalization import current_row
    from twofold.stores.places import table_exists
    from twofold.stores.refresh_request import request_refresh

    settings = settings_of(home, config, debug)
    if refresh == (person is not None):
        raise UsageError("name a person, or ask with --refresh for a row of everyone")
    if person is None:
        request_refresh(settings.home_path)
        if as_json:
            show.json_line({"requested": True})
        else:
            show.console.print("asked: the writer refreshes everyone between its live batches")
        return
    location = settings.table("personalization")
    found = None
    if table_exists(location):
        found = current_row(location, person, now_ms())
    if found is None:
        raise StoreError(f"the table {location} has no row of this person: is `twofold up` running, has the person an event?")
    row = {**found, "record": msgspec.json.decode(found["record"]), "o": msgspec.json.decode(found["o"])}
    if as_json:
        show.json_line(row)
    else:
        show.show_rows(person, ["column", "value"], [[name, show.shown(name, value)] for name, value in found.items()])


COMMANDS = (personalization,)
