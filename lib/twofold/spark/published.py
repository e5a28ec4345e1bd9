"""The tables that the batch publishes: `state`, overwritten each night as a new version, and `manifest`, one appended row."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pyspark.sql import DataFrame

from twofold.errors import PublishConflict, StoreError
from twofold.spark.tables import PROPERTIES, create_table
from twofold.stores.manifest import rows
from twofold.stores.places import open_table
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
_APP = "manifest"


def row_json(row: ManifestRow) -> dict[str, Any]:
    """A manifest row as JSON values, in the order of the table's columns."""
    data = {**asdict(row), "cut": row.cut.to_json(), "topics": list(row.topics)}
    return {name: data[name] for name, _type, _comment in MANIFEST_COLUMNS}


def write_version(frame: DataFrame, location: str, snapshot: str) -> int:
    """Overwrite a published table; returns its new version. Raises :class:`PublishConflict` when another wrote it too."""
    writer = frame.write.format("delta").mode("overwrite").option("overwriteSchema", "true")
    for key, value in PROPERTIES.items():
        writer = writer.option(key, value)
    # Under an application id of its own: without one Delta leaves out the commit when nothing was there and nothing comes.
    writer = writer.option("txnAppId", snapshot).option("txnVersion", 0)
    writer.option("userMetadata", json.dumps({"snapshot": snapshot})).save(location)
    table = open_table(location)
    (commit,) = table.history(1)
    if json.loads(commit.get("userMetadata") or "{}").get("snapshot") != snapshot:
        raise PublishConflict(f"another writer changed the table {location} meanwhile: run the batch again")
    return int(table.version())


def create_manifest(spark: Any, location: str) -> None:
    """Create the table `manifest` where it is missing; without rows nothing is published yet."""
    create_table(spark, location, "One row a published snapshot; highest seq is current", MANIFEST_COLUMNS)


def append_row(spark: Any, location: str, row: ManifestRow) -> ManifestRow:
    """Publish: append the row under its sequence number and read it back.

    Raises :class:`PublishConflict` when the row of that number is another's; the snapshot before it keeps serving.
    """
    from delta.exceptions import DeltaConcurrentModificationException

    create_manifest(spark, location)
    data = row_json(row)
    texts = {name: json.dumps(data[name]) for name in ("cut", "validation", "audit")}
    schema = ",".join(f"{name} {type_}" for name, type_, _comment in MANIFEST_COLUMNS)
    values = tuple({**data, **texts}[name] for name, _type, _comment in MANIFEST_COLUMNS)
    frame = spark.createDataFrame([values], schema).coalesce(1)
    conflict = PublishConflict(
        f"the manifest row {row.seq} is another writer's: its snapshot serves, nothing of this rebuild does; run the batch again"
    )
    try:
        # A number that is taken is not written a second time: Delta skips it, and the row read back is the other's.
        frame.write.format("delta").mode("append").option("txnAppId", _APP).option("txnVersion", row.seq).save(location)
    except DeltaConcurrentModificationException as error:
        raise conflict from error
    found = [published for published in rows(location) if published.seq == row.seq]
    if not found:
        raise StoreError(f"the manifest {location} lost row {row.seq}: see its Delta log")
    if len(found) > 1 or found[0].snapshot != row.snapshot:
        raise conflict
    return found[0]
