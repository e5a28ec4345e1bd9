"""Commands of tables: their rows and columns on a terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from twofold import show
from twofold.commands.options import Config, Debug, Home, Json, settings_of

#: More columns than these are shown below each other, a block a row.
_SIDE_BY_SIDE = 12


def table(
    name: Annotated[str, typer.Argument(help="wide_person, wide_campaign, state, personalization, archive or manifest")],
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    where: Annotated[str | None, typer.Option("--where", help='SQL condition, as in "orders_lifetime > 3"')] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most so many rows", min=0)] = 20,
    columns: Annotated[str | None, typer.Option("--columns", help="Only these, as in person,tier")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Columns with type and meaning; with --json a JSON schema")] = False,
) -> None:
    """Rows of a Delta table: a published one as of the current snapshot, a stream's as it is now."""
    from twofold.catalogue import CATALOGUE
    from twofold.stores import table_rows

    found = table_rows.open_named(settings_of(home, config, debug), name)
    if schema:
        if as_json:
            show.json_line(table_rows.json_schema(found, CATALOGUE))
        else:
            show.show_rows(
                f"{name}, version {found.version()}",
                ["column", "type", "meaning"],
                [[*column] for column in table_rows.columns(found)],
            )
        return
    only = [column.strip() for column in columns.split(",")] if columns else []
    rows = table_rows.select(found, name, where, limit, only)
    if as_json:
        for row in rows:
            show.json_line(row)
        return
    shown = list(rows)
    names = list(shown[0]) if shown else only or [column.name for column in table_rows.columns(found)]
    show.console.print(f"{name}, version {found.version()}: {len(shown)} rows")
    if len(names) <= _SIDE_BY_SIDE:
        show.show_rows("", names, [[show.shown(column, row[column]) for column in names] for row in shown])
        return
    for row in shown:
        show.console.print()
        show.show_rows("", ["column", "value"], [[column, show.shown(column, row[column])] for column in names])


COMMANDS = (table,)
