"""A home with published rows and small tables, written without Spark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from twofold.settings import Settings
from twofold.stores import snapshot_file
from twofold.stores.manifest import MANIFEST_COLUMNS, append_without_spark
from twofold.timeline import Offsets, PartitionKey
from twofold.views import ManifestRow

_TYPES = {
    "bigint": pa.int64(),
    "string": pa.string(),
    "array<string>": pa.list_(pa.string()),
    "map<string,bigint>": pa.map_(pa.string(), pa.int64()),
}
TOPIC = "topic-a"
VERSION = "1/x"


def cut(end: int) -> Offsets:
    return Offsets({PartitionKey(TOPIC, 0): end})


def create_manifest(home: Settings) -> None:
    schema = pa.schema([(name, _TYPES[type_]) for name, type_, _comment in MANIFEST_COLUMNS])
    DeltaTable.create(home.table("manifest"), schema)


def new_version(home: Settings, name: str, value: int) -> int:
    """Overwrite a table as a rebuild does; its version."""
    write_deltalake(home.table(name), pa.table({"value": [value] * 3}), mode="overwrite")
    return DeltaTable(home.table(name)).version()


def row_of(seq: int, state: int, **changes) -> ManifestRow:
    row = ManifestRow(
        seq,
        f"s{seq:08d}-test",
        cut(seq * 10),
        VERSION,
        as_of_ms=seq * 1_000,
        topics=(TOPIC,),
        parent=seq - 1 or None,
        tables={"state": state},
        published_ms=seq * 1_000,
    )
    return replace(row, **changes)


def publish(home: Settings, seq: int, **changes) -> ManifestRow:
    """A night: a new version of `state` that says its number, the snapshot file, the row."""
    row = row_of(seq, new_version(home, "state", seq), **changes)
    snapshot_file.write(snapshot_file.snapshot_path(home.snapshots_path, row.snapshot), row.snapshot, [])
    return append_without_spark(home.table("manifest"), row)


def nights(folder: Path, count: int, **settings) -> Settings:
    """A home in which so many nights were published, each night's file and version there."""
    home = Settings.model_validate({"home": str(folder), **settings})
    create_manifest(home)
    for seq in range(1, count + 1):
        publish(home, seq)
    return home
