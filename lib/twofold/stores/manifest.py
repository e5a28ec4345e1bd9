"""The Delta table `manifest`, read without Spark: one row a publish, the only point at which a snapshot comes to be."""

from __future__ import annotations

import json
from typing import Any

from twofold.stores.places import open_table, table_exists
from twofold.timeline import Offsets
from twofold.views import ManifestRow


def manifest_row(row: dict[str, Any]) -> ManifestRow:
    """A row of the table as the core's value."""
    return ManifestRow(
        seq=row["seq"],
        snapshot=row["snapshot"],
        cut=Offsets.from_json(json.loads(row["cut"])),
        version=row["version"],
        as_of_ms=row["as_of_ms"],
        horizon_ms=row["horizon_ms"],
        cut_time_ms=row["cut_time_ms"],
        topics=tuple(row["topics"] or ()),
        parent=row["parent"],
        archive_version=row["archive_version"],
        tables=dict(row["tables"] or ()),
        counts=dict(row["counts"] or ()),
        validation=json.loads(row["validation"] or "{}"),
        audit=json.loads(row["audit"] or "{}"),
        published_ms=row["published_ms"],
    )


def rows(location: str) -> list[ManifestRow]:
    """Every published row by sequence number; empty when nothing was published yet."""
    if not table_exists(location):
        return []
    found = open_table(location).to_pyarrow_table().to_pylist()
    return sorted((manifest_row(row) for row in found), key=lambda row: row.seq)


def current(location: str) -> ManifestRow | None:
    """The row with the highest sequence number, or ``None``."""
    published = rows(location)
    return published[-1] if published else None
