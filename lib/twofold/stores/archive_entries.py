"""Entries of the archive by person, without Spark: what a read below the snapshot's range is answered from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow.dataset as ds

from twofold.events import ADMISSION_VERSION, Entry, FactBody, make_entry
from twofold.stores.places import open_table, table_exists
from twofold.timeline import Position

_COLUMNS = [
    "value",
    "verdict",
    "person",
    "event_id",
    "at_ms",
    "channel",
    "device",
    "facts",
    "admission_version",
    "topic_id",
    "partition",
    "offset",
    "broker_ms",
]


def archive_entries(
    location: str, version: str, persons: Collection[str] | None = None, table_version: int | None = None
) -> Iterator[Entry]:
    """Every entry of the archive (rejected ones too, unless ``persons`` are given), stamped ``version``.

    Rows of another admission version are admitted again from their raw bytes.
    """
    return (entry for entry, _value in archive_events(location, version, persons, table_version))


def archive_events(
    location: str, version: str, persons: Collection[str] | None = None, table_version: int | None = None
) -> Iterator[tuple[Entry, bytes]]:
    """As :func:`archive_entries`, each entry with its raw bytes (empty where the log entry had none)."""
    table = open_table(location, version=table_version)
    wanted = (
        None if persons is None else (ds.field("person").isin(list(persons)) | (ds.field("admission_version") != ADMISSION_VERSION))
    )
    for batch in table.to_pyarrow_dataset().to_batches(columns=_COLUMNS, filter=wanted):
        for row in batch.to_pylist():
            position = Position(row["topic_id"], row["partition"], row["offset"])
            if row["admission_version"] != ADMISSION_VERSION:
                entry = make_entry(version, position, row["broker_ms"], row["value"])
                if persons is None or entry.person in persons:
                    yield entry, row["value"] or b""
                continue
            facts = tuple(FactBody(**fact) for fact in row["facts"] or ())
            envelope = (row["person"], row["event_id"], row["at_ms"], row["channel"], row["device"])
            yield Entry(version, *position, row["broker_ms"], row["verdict"], *envelope, facts), row["value"] or b""


def newest_rejection(location: str) -> dict[str, Any] | None:
    """Position, reason and broker time of the last rejected entry, or ``None``. Reads no bytes of any entry."""
    if not table_exists(location):
        return None
    columns = ["verdict", "partition", "offset", "broker_ms"]
    newest: dict[str, Any] | None = None
    for batch in open_table(location).to_pyarrow_dataset().to_batches(columns=columns, filter=ds.field("verdict") != "ok"):
        for row in batch.to_pylist():
            if newest is None or (row["broker_ms"], row["offset"]) > (newest["broker_ms"], newest["offset"]):
                newest = {"reason": row.pop("verdict"), **row}
    return newest
