"""The Delta tables of a home as rows and columns, without Spark: what `twofold table` shows.

A published table is read at the version that the current manifest row names, so that two tables shown one after the other are
of one snapshot; a table that a stream writes, and the manifest itself, at their newest version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

import pyarrow as pa

from twofold.errors import StoreError, UsageError
from twofold.features import Catalogue
from twofold.settings import Settings
from twofold.stores.manifest import current
from twofold.stores.places import open_table, query_table, table_exists

#: Tables without a version in the manifest row.
STREAMED = ("archive", "personalization", "manifest")


class Column(NamedTuple):
    """A column of a table; ``type`` as Delta names it."""

    name: str
    type: str
    comment: str


def open_named(settings: Settings, name: str) -> Any:
    """The table as ``places.open_table`` gives it.

    Raises :class:`UsageError` for a name that is no table, :class:`StoreError` for one that is not there yet.
    """
    row = current(settings.table("manifest"))
    published = dict(row.tables) if row is not None else {}
    if name in published:
        return open_table(settings.table(name), published[name])
    if name not in STREAMED:
        raise UsageError(f"there is no table {name!r} here: {', '.join((*published, *STREAMED))}")
    if not table_exists(settings.table(name)):
        raise StoreError(f"the table {name} at {settings.table(name)} is not written yet: start the system with `twofold up`")
    return open_table(settings.table(name))


def _shape(type_: Any) -> str:
    if isinstance(type_, str):
        return type_
    if type_["type"] == "array":
        return f"array<{_shape(type_['elementType'])}>"
    if type_["type"] == "map":
        return f"map<{_shape(type_['keyType'])},{_shape(type_['valueType'])}>"
    return f"struct<{','.join(field['name'] + ':' + _shape(field['type']) for field in type_['fields'])}>"


_JSON_TYPES = {
    **dict.fromkeys(("byte", "short", "integer", "long", "decimal(38,0)"), "integer"),
    **dict.fromkeys(("float", "double"), "number"),
    "boolean": "boolean",
}


def _json_shape(type_: Any) -> dict[str, Any]:
    if isinstance(type_, str):
        return {"type": _JSON_TYPES.get(type_, "string")}
    if type_["type"] == "array":
        return {"type": "array", "items": _json_shape(type_["elementType"])}
    if type_["type"] == "map":
        return {"type": "object", "additionalProperties": _json_shape(type_["valueType"])}
    return {"type": "object", "properties": {field["name"]: _json_shape(field["type"]) for field in type_["fields"]}}


def _fields(table: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(table.schema().to_json())["fields"]
    return found


def columns(table: Any) -> list[Column]:
    """Every column with its type and comment."""
    return [Column(field["name"], _shape(field["type"]), field["metadata"].get("comment", "")) for field in _fields(table)]


def json_schema(table: Any, catalogue: Catalogue) -> dict[str, Any]:
    """JSON schema of a row as :func:`select` gives it. A feature is described as the catalogue describes it."""
    features = catalogue.schema()["properties"]
    properties = {}
    for field in _fields(table):
        shape = _json_shape(field["type"])
        shape["type"] = [shape["type"], "null"]
        comment = field["metadata"].get("comment", "")
        properties[field["name"]] = features.get(field["name"]) or ({**shape, "description": comment} if comment else shape)
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def plain_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    """Rows as JSON has them: decimals are integers, bytes text, days ISO 8601; maps are dicts."""
    for batch in batches:
        for row in batch.to_pylist(maps_as_pydicts="strict"):
            yield {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def select(
    table: Any, name: str, where: str | None = None, limit: int | None = None, only: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Rows as plain values: maps are dicts, decimals integers, bytes text. ``where`` is a SQL condition over the columns.

    Raises :class:`UsageError` for a condition or column that the table cannot answer.
    """
    chosen = ", ".join('"' + column.replace('"', '""') + '"' for column in only) or "*"
    query = f"SELECT {chosen} FROM {name}" + (f" WHERE ({where})" if where else "") + ("" if limit is None else f" LIMIT {limit:d}")
    yield from plain_rows(query_table(table, name, query))
