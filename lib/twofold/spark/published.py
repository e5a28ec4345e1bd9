"""The tables that the batch publishes: `state`, overwritten each night as a new version, and `manifest`, one appended row."""

from __future__ import annotations

import json
import uuid
from typing import Any

from pyspark.sql import DataFrame

from twofold.errors import PublishConflict
from twofold.spark.tables import PROPERTIES, create_table
from twofold.stores.creation import remove_torn
from twofold.stores.manifest import APP, MANIFEST_COLUMNS, conflict_of, publishing, read_back, row_values
from twofold.stores.places import open_table
from twofold.views import ManifestRow


def write_version(frame: DataFrame, location: str, snapshot: str) -> int:
    """Overwrite a published table; returns its new version. Raises :class:`PublishConflict` when another wrote it too."""
    # A night that died in its very first write left a log without a commit; nobody else writes here.
    remove_torn(location)
    writer = frame.write.format("delta").mode("overwrite").option("overwriteSchema", "true")
    for key, value in PROPERTIES.items():
        writer = writer.option(key, value)
    # A transaction makes an overwrite of nothing by nothing a commit too, which Delta else leaves out. Its id is of this one write:
    # under an id that was seen before, rows would be dropped without a word.
    writer = writer.option("txnAppId", f"version-{uuid.uuid4().hex}").option("txnVersion", 0)
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

    values = row_values(row)
    schema = ",".join(f"{name} {type_}" for name, type_, _comment in MANIFEST_COLUMNS)
    frame = spark.createDataFrame([tuple(values[name] for name, _type, _comment in MANIFEST_COLUMNS)], schema).coalesce(1)
    with publishing(location):
        create_manifest(spark, location)
        try:
            # A number that is taken is not written a second time: Delta skips it, and the row read back is the other's.
            frame.write.format("delta").mode("append").option("txnAppId", APP).option("txnVersion", row.seq).save(location)
        except DeltaConcurrentModificationException as error:
            raise conflict_of(row) from error
        return read_back(location, row)
