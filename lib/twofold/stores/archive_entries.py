"""Entries of the archive by person, without Spark: what a read below the snapshot's range is answered from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from twofold.events import ADMISSION_VERSION, Entry, FactBody, make_entry
from twofold.stores.places import dataset_of, open_table, table_exists
from twofold.timeline import Position

#: Columns of an entry, in its order.
ENTRY_COLUMNS = (
    "topic_id",
    "partition",
    "offset",
    "broker_ms",
    "verdict",
    "person",
    "event_id",
    "at_ms",
    "channel",
    "device",
    "facts",
)
_RAW = ("admission_version", "value")
_COLUMNS = [*ENTRY_COLUMNS, *_RAW]
#: What an entry is admitted from again.
_READMITTED = ["topic_id", "partition", "offset", "broker_ms", "value"]


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
    for batch in dataset_of(table).to_batches(columns=_COLUMNS, filter=wanted):
        rows = zip(entries_of(batch, version), *(batch.column(name).to_pylist() for name in _RAW), strict=True)
        for entry, admission_version, value in rows:
            if admission_version != ADMISSION_VERSION:
                entry = make_entry(version, entry.position, entry.broker_ms, value)
                if persons is not None and entry.person not in persons:
                    continue
            yield entry, value or b""


def readmitted_entries(
    location: str, version: str, persons: Collection[str], table_version: int | None = None, whole: bool = False
) -> Iterator[Entry]:
    """Every ok entry of these persons, admitted anew by plain Python: of what is stored, position, broker time and bytes count.

    The stored person chooses which rows are admitted, beside all rejected ones; ``whole`` admits every row, which takes long.
    """
    chosen = (
        ds.field("person").isin(list(persons))
        | (ds.field("verdict") != "ok")
        | (ds.field("admission_version") != ADMISSION_VERSION)
    )
    return admitted_again(dataset_of(open_table(location, version=table_version)), None if whole else chosen, version, persons)


def admitted_again(table: Any, chosen: Any, version: str, persons: Collection[str] | None) -> Iterator[Entry]:
    """The ok entries of these persons (``None``: of everyone) among rows of an Arrow dataset of the archive, from their raw bytes.

    ``chosen``: the rows, as a filter of the dataset; ``None``: all.
    """
    for batch in table.to_batches(columns=_READMITTED, filter=chosen):
        for topic_id, partition, offset, broker_ms, value in zip(
            *(batch.column(name).to_pylist() for name in _READMITTED), strict=True
        ):
            entry = make_entry(version, Position(topic_id, partition, offset), broker_ms, value)
            if entry.verdict == "ok" and (persons is None or entry.person in persons):
                yield entry


def entries_of(rows: Any, version: str) -> list[Entry]:
    """Entries of an Arrow batch, or table of one chunk, with ``ENTRY_COLUMNS``, as admission left them, stamped ``version``.

    Column by column: a dict a row costs several times as much.
    """
    facts = rows.column("facts")
    facts = facts.combine_chunks() if isinstance(facts, pa.ChunkedArray) else facts
    starts, bodies = facts.offsets.to_pylist(), []
    if starts[-1] > starts[0]:
        flat = facts.values.slice(starts[0], starts[-1] - starts[0])
        columns = {flat.type.field(number).name: column for number, column in enumerate(flat.flatten())}
        bodies = list(map(FactBody, *(columns[name].to_pylist() for name in FactBody.__struct_fields__)))
    first = starts[0]
    of_entry = [tuple(bodies[low - first : high - first]) for low, high in pairwise(starts)]
    own = (rows.column(name).to_pylist() for name in ENTRY_COLUMNS[:-1])
    return [Entry(version, *columns) for columns in zip(*own, of_entry, strict=True)]


def newest_rejection(location: str) -> dict[str, Any] | None:
    """Position, reason and broker time of the last rejected entry, or ``None``. Reads no bytes of any entry."""
    if not table_exists(location):
        return None
    columns = ["verdict", "partition", "offset", "broker_ms"]
    newest: dict[str, Any] | None = None
    for batch in dataset_of(open_table(location)).to_batches(columns=columns, filter=ds.field("verdict") != "ok"):
        for row in batch.to_pylist():
            if newest is None or (row["broker_ms"], row["offset"]) > (newest["broker_ms"], newest["offset"]):
                newest = {"reason": row.pop("verdict"), **row}
    return newest
