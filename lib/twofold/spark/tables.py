"""The Delta tables that streams write: schemas and the properties that keep them readable by every reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from twofold.spark.admission import FACTS_TYPE
from twofold.stores.creation import creating

#: Numbers first: data skipping keeps statistics of a table's first columns.
ARCHIVE_COLUMNS = (
    ("topic_id", "string", "id of the topic incarnation"),
    ("partition", "int", "partition of the log"),
    ("offset", "bigint", "offset in the partition"),
    ("broker_ms", "bigint", "broker time, epoch ms"),
    ("verdict", "string", "ok, or the reason of the rejection"),
    ("admission_version", "int", "version of the admission that judged the entry"),
    ("person", "string", "person key the entry is filed under; null when rejected"),
    ("event_id", "string", "event id; null when rejected"),
    ("at_ms", "bigint", "event time, epoch ms; null when rejected"),
    ("channel", "string", "source kind"),
    ("device", "string", "device type"),
    ("facts", FACTS_TYPE, "facts of the entry, ordinals by place; null when rejected"),
    ("key", "binary", "Kafka key as sent"),
    ("value", "binary", "the entry's bytes, unchanged"),
    ("headers", "array<struct<key:string,value:binary>>", "Kafka headers as sent"),
)

#: Deletion vectors, column mapping and the like break one reader or another; the log of commits is the chain of offsets.
PROPERTIES = {
    "delta.enableDeletionVectors": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}


_NONE: Mapping[str, str] = MappingProxyType({})


def create_table(
    spark: Any,
    location: str,
    comment: str,
    columns: Sequence[tuple[str, str, str]],
    properties: Mapping[str, str] = _NONE,
    partitioned_by: Sequence[str] = (),
) -> None:
    """Create a table of (name, Spark type, comment) columns where it is missing; ``properties`` beside ``PROPERTIES``."""
    with creating(location):
        _create(spark, location, comment, columns, properties, partitioned_by)


def _create(
    spark: Any,
    location: str,
    comment: str,
    columns: Sequence[tuple[str, str, str]],
    properties: Mapping[str, str],
    partitioned_by: Sequence[str],
) -> None:
    from delta.tables import DeltaTable

    builder = DeltaTable.createIfNotExists(spark).location(str(location)).comment(comment)
    for name, type_, meaning in columns:
        builder = builder.addColumn(name, type_, comment=meaning)
    for key, value in {**PROPERTIES, **properties}.items():
        builder = builder.property(key, value)
    if partitioned_by:
        builder = builder.partitionedBy(*partitioned_by)
    builder.execute()


def create_archive(spark: Any, location: str) -> None:
    """Create the table `archive` where it is missing."""
    create_table(spark, location, "Every log entry: raw bytes, verdict and facts", ARCHIVE_COLUMNS)
