"""A home with published rows and small tables, written without Spark."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake

from twofold.events import ADMISSION_VERSION, Entry
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


def write_archive(
    settings: Settings,
    entries: Sequence[Entry],
    start: Offsets,
    end: Offsets,
    value: Callable[[Entry], bytes] = lambda _entry: b"",
    admission_version: int = ADMISSION_VERSION,
) -> None:
    """One commit of the archive's stream: these entries, and the range that it says."""
    fields = [(name, pa.string()) for name in ("kind", "product", "category", "campaign", "currency", "key", "value")]
    body = pa.struct([*fields, ("amount_minor", pa.int64()), ("quantity", pa.int64())])
    columns: dict[str, Any] = {"value": pa.binary(), "admission_version": pa.int32(), "facts": pa.list_(body)}
    columns |= {name: pa.string() for name in ("verdict", "person", "event_id", "channel", "device", "topic_id")}
    columns |= {name: pa.int64() for name in ("at_ms", "partition", "offset", "broker_ms")}
    rows = []
    for entry in entries:
        facts = [{name: getattr(fact, name) for name in fact.__struct_fields__} for fact in entry.facts] or None
        own = {name: getattr(entry, name) for name in columns if hasattr(entry, name)}
        rows.append({**own, "facts": facts, "value": value(entry), "admission_version": admission_version})
    said = {"userMetadata": json.dumps({"start": start.to_json(), "end": end.to_json()})}
    table = pa.Table.from_pylist(rows, pa.schema(columns))
    write_deltalake(settings.table("archive"), table, mode="append", commit_properties=CommitProperties(custom_metadata=said))
