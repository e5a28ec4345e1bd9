"""The Delta table `manifest` without Spark: one row a publish, the only point at which a snapshot comes to be.

Spark and delta-rs both write it on local disk. Each row goes under the transaction (``APP``, its sequence number), so that a number
is taken once, and under one lock: Spark's Delta gives a commit file its name by a look and a rename, and between the two another
process could come. On S3 only Spark writes it, as the one writer `batch`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from filelock import FileLock

from twofold.errors import PublishConflict, StoreError
from twofold.stores.places import append_once, dataset_of, open_table, table_exists, table_options
from twofold.timeline import Offsets
from twofold.views import ManifestRow

MANIFEST_COLUMNS = (
    ("seq", "bigint", "sequence number: the highest one is current"),
    ("snapshot", "string", "snapshot id"),
    ("parent", "bigint", "sequence number that this one followed; null for the first"),
    ("cut", "string", "offsets vector up to which the snapshot has folded: {topic id: {partition: next}}"),
    ("version", "string", "admission version / definition fingerprint"),
    ("as_of_ms", "bigint", "instant that places the horizon, epoch ms"),
    ("horizon_ms", "bigint", "facts before it are folded into older, epoch ms"),
    ("cut_time_ms", "bigint", "largest broker time below the cut, epoch ms"),
    ("topics", "array<string>", "topic ids by first appearance in the manifests"),
    ("archive_version", "bigint", "version of `archive` that was read"),
    ("tables", "map<string,bigint>", "version of every published table"),
    (
        "counts",
        "map<string,bigint>",
        "persons, entries, ok, rejected (in all and by reason), duplicates, facts; rows_recomputed: of a night",
    ),
    ("validation", "string", "results of the validation gate, JSON"),
    ("audit", "string", "results of the audit, JSON"),
    ("published_ms", "bigint", "when the row was written, epoch ms"),
)
APP = "manifest"
_IN_JSON = ("cut", "validation", "audit")


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


def row_json(row: ManifestRow) -> dict[str, Any]:
    """A manifest row as JSON values, in the order of the table's columns."""
    data = {**asdict(row), "cut": row.cut.to_json(), "topics": list(row.topics)}
    return {name: data[name] for name, _type, _comment in MANIFEST_COLUMNS}


def row_values(row: ManifestRow) -> dict[str, Any]:
    """A manifest row as values of the table's columns."""
    data = row_json(row)
    return {**data, **{name: json.dumps(data[name]) for name in _IN_JSON}}


def rows(location: str) -> list[ManifestRow]:
    """Every published row by sequence number; empty when nothing was published yet."""
    return _rows_of(open_table(location)) if table_exists(location) else []


def _rows_of(table: Any) -> list[ManifestRow]:
    return sorted((manifest_row(row) for row in dataset_of(table).to_table().to_pylist()), key=lambda row: row.seq)


def current(location: str) -> ManifestRow | None:
    """The row with the highest sequence number, or ``None``."""
    published = rows(location)
    return published[-1] if published else None


# --- publishing -------------------------------------------------------------------------------------------------------------------
@contextmanager
def publishing(location: str) -> Iterator[None]:
    """One publish at a time on this machine; the lock dies with its process."""
    if table_options(location) is not None:
        yield
        return
    lock = FileLock(f"{location}.lock")
    with lock:
        yield


def conflict_of(row: ManifestRow) -> PublishConflict:
    return PublishConflict(
        f"the manifest row {row.seq} is another writer's: its snapshot serves, nothing of this publish does; run it again"
    )


def read_back(location: str, row: ManifestRow) -> ManifestRow:
    """The row of this number, if it is this very one. Raises :class:`PublishConflict` when it is another's."""
    found = [published for published in rows(location) if published.seq == row.seq]
    if not found:
        raise StoreError(f"the manifest {location} lost row {row.seq}: see its Delta log")
    if len(found) > 1 or (found[0].snapshot, found[0].published_ms) != (row.snapshot, row.published_ms):
        raise conflict_of(row)
    return found[0]


def append_without_spark(location: str, row: ManifestRow) -> ManifestRow:
    """Publish a row on local disk: exactly one version after a table whose newest row is ``row.seq - 1``, or not at all.

    Raises :class:`PublishConflict` as the batch's own publish does.
    """
    with publishing(location):
        table = open_table(location)
        taken = max((published.seq for published in _rows_of(table)), default=0)
        if taken != row.seq - 1:
            raise conflict_of(row)
        if not append_once(table, row_values(row), APP, row.seq):
            raise conflict_of(row)
        return read_back(location, row)
