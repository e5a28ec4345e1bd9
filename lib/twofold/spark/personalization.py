"""The Delta table `personalization`: its columns, its rows from merged people, and what keeps it small. One process writes it."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold.errors import DefinitionError
from twofold.features import Catalogue
from twofold.record import Freshness
from twofold.segments import NO_SEGMENTS, Segments
from twofold.spark import present
from twofold.spark.present import TO_JSON, feature_columns, field_states, sendable_reasons
from twofold.spark.segments import SEGMENT_COLUMNS, next_change_ms, segment_names
from twofold.spark.tables import create_table
from twofold.stores.personalization import RECORD_COLUMN, ROW_COLUMNS, current_view_sql
from twofold.stores.places import table_exists
from twofold.timeline import Offsets
from twofold.views import ManifestRow

#: A log of rows: old commits and files are soon of no use, and at a commit a second a checkpoint of the log every ten would be
#: most of what is written. Statistics of what stands before the features only.
PROPERTIES = {
    "delta.enableDeletionVectors": "false",
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 1 hours",
    "delta.dataSkippingNumIndexedCols": str(len(ROW_COLUMNS)),
}
#: What is the same for every row of a batch: one row of these, so that the query stays the same from batch to batch.
_OFFSETS = pa.map_(pa.string(), pa.map_(pa.string(), pa.int64()))
_SHARED = pa.schema(
    {
        "t": pa.int64(),
        "_batch": pa.int64(),
        "_era": pa.int64(),
        "_seq": pa.int64(),
        "_snapshot": pa.string(),
        "_o": pa.string(),
        "_cut": _OFFSETS,
        "_high": _OFFSETS,
        "_as_of": pa.int64(),
        "_lag_ms": pa.int64(),
        "_state": pa.string(),
        "_sendable_until": pa.int64(),
    }
)
_OFFSETS_TYPE = "map<string,map<string,bigint>>"
_SPARK_TYPES = {pa.int64(): "bigint", pa.string(): "string", _OFFSETS: _OFFSETS_TYPE}
#: ``_SHARED`` as Spark reads it.
SHARED = ", ".join(f"{field.name} {_SPARK_TYPES[field.type]}" for field in _SHARED)
_ROWS_A_FILE = 100_000
#: Files of more bytes are left as they are.
_SMALL_FILE_BYTES = 32 << 20


def table_columns(catalogue: Catalogue) -> tuple[tuple[str, str, str], ...]:
    """(name, type, comment) of every column. Raises :class:`DefinitionError` where a feature has a name that is taken."""
    taken = {name for name, _type, _comment in (*ROW_COLUMNS, *SEGMENT_COLUMNS, RECORD_COLUMN)}
    for name in catalogue.features:
        if name in taken or name.startswith("_"):
            raise DefinitionError(f"a feature cannot be called {name!r}: the table `personalization` has such a column")
    return (*ROW_COLUMNS, *feature_columns(catalogue), *SEGMENT_COLUMNS, RECORD_COLUMN)


def column_names(catalogue: Catalogue) -> tuple[str, ...]:
    return tuple(name for name, _type, _comment in table_columns(catalogue))


def create_personalization(spark: Any, location: str, catalogue: Catalogue) -> bool:
    """Create the table; one of other columns is emptied and gets these. Whether it is new."""
    columns = table_columns(catalogue)
    if not table_exists(location):
        create_table(
            spark, location, "Personalization records; highest batch is current", columns, PROPERTIES, partitioned_by=["era"]
        )
        return True
    quoted = ((name, type_, comment.replace("'", "\\'")) for name, type_, comment in columns)
    wanted = spark.createDataFrame([], ", ".join(f"{name} {type_} COMMENT '{comment}'" for name, type_, comment in quoted))
    found = spark.read.format("delta").load(location).schema
    if [(f.name, f.dataType) for f in found] == [(f.name, f.dataType) for f in wanted.schema]:
        return False
    wanted.write.format("delta").mode("overwrite").option("overwriteSchema", "true").partitionBy("era").save(location)
    return True


def shared_row(row: ManifestRow, freshness: Freshness, o: Offsets, batch: int, era: int, consent_max_lag_ms: int) -> pa.Table:
    """The one row of what a batch's rows share."""
    lag_ms = freshness.lag_ms
    shared = {
        "t": freshness.t,
        "_batch": batch,
        "_era": era,
        "_seq": row.seq,
        "_snapshot": row.snapshot,
        "_o": json.dumps(o.to_json()),
        "_cut": _pairs(freshness.cut),
        "_high": _pairs(freshness.high),
        "_as_of": freshness.as_of,
        "_lag_ms": lag_ms,
        "_state": freshness.state,
        "_sendable_until": None if lag_ms is None else freshness.t + consent_max_lag_ms - lag_ms,
    }
    return pa.Table.from_pylist([shared], _SHARED)


def _pairs(vector: dict[str, dict[str, int]]) -> list[tuple[str, list[tuple[str, int]]]]:
    return [(topic, list(ends.items())) for topic, ends in vector.items()]


def personalization_rows(
    people: DataFrame, shared: DataFrame, catalogue: Catalogue, consent_max_lag_ms: int, segments: Segments = NO_SEGMENTS
) -> DataFrame:
    """Rows of the table from merged people (``set_merge.MERGED`` and ``t``) and the one row of what they share."""
    t, conflict, pending = F.col("t"), F.col("conflict"), F.col("pending")
    inexact = F.array_union(conflict, pending)
    reasons = sendable_reasons(F.col("states"), inexact, F.col("_state"), F.col("_lag_ms"), consent_max_lag_ms)
    judged = people.crossJoin(F.broadcast(shared.drop("t"))).select(
        "*",
        "values.*",
        present.next_change_ms(catalogue, F.col("edge_ms"), F.col("states"), t).alias("_next_change_ms"),
        reasons.alias("_reasons"),
        field_states(catalogue, conflict, pending).alias("_fields"),
    )
    judged = judged.select(
        "*",
        segment_names(segments, t).alias("segments"),
        F.lit(segments.version).alias("segments_version"),
        F.least(F.col("_next_change_ms"), next_change_ms(segments, t)).alias("_valid_until"),
    )
    sendable = F.size("_reasons") == 0
    columns: dict[str, Column] = {
        "batch": F.col("_batch"),
        "era": F.col("_era"),
        "valid_until": F.col("_valid_until"),
        "sendable": sendable,
        "sendable_until": F.when(sendable, F.col("_sendable_until")),
        "seq": F.col("_seq"),
        "snapshot": F.col("_snapshot"),
        "o": F.col("_o"),
        "record": F.to_json(_record(sendable), TO_JSON),
    }
    return judged.select(*(columns.get(name, F.col(name)).alias(name) for name in column_names(catalogue)))


def _record(sendable: Column) -> Column:
    """``record.Record`` as a struct, in the order of its fields."""
    freshness = F.struct(
        F.col("_snapshot").alias("snapshot"),
        F.col("_cut").alias("cut"),
        F.col("_high").alias("high"),
        F.col("_as_of").alias("as_of"),
        F.col("t"),
        F.col("newest_event_ms").alias("newest_event"),
        F.col("_lag_ms").alias("lag_ms"),
        F.col("_state").alias("state"),
    )
    return F.struct(
        F.col("person"),
        F.col("values"),
        F.struct(sendable.alias("ok"), F.col("_reasons").alias("reasons")).alias("sendable"),
        F.col("_fields").alias("fields"),
        freshness.alias("freshness"),
        F.col("segments"),
        F.col("segments_version"),
    )


def append_rows(rows: DataFrame, location: str, metadata: dict[str, Any]) -> None:
    """One commit; ``metadata`` says what it was: ``stores.personalization.Commit`` among it."""
    rows.write.format("delta").mode("append").option("userMetadata", json.dumps(metadata)).save(location)


def compact(spark: Any, location: str, era: int) -> None:
    """Leave one row a person of the eras up to ``era``, sorted by person, in few files; and remove files of an hour ago.

    No row of these eras may still be on its way; later eras may be appended to meanwhile. Whole partitions are replaced: a commit
    of another cannot fall between what was read and what is removed. Readers of the table as a stream see no change.
    """
    from delta.tables import DeltaTable

    old = spark.read.format("delta").load(location).where(F.col("era") <= era).coalesce(_tasks(spark))
    # A batch has one row a person. Most rows are older ones: all are read once more for it, but only the newest are sorted.
    newest = old.groupBy("person").agg(F.max("batch").alias("batch"))
    kept = old.join(F.broadcast(newest), ["person", "batch"], "left_semi").sortWithinPartitions("person")
    kept = kept.withColumn("era", F.lit(era).cast("bigint")).select(old.columns)
    (
        kept.write.format("delta")
        .mode("overwrite")
        .option("replaceWhere", f"era <= {era}")
        .option("dataChange", "false")
        .option("maxRecordsPerFile", _ROWS_A_FILE)
        .option("userMetadata", json.dumps({"compacted": era}))
        .save(location)
    )
    DeltaTable.forPath(spark, location).vacuum()


def gather_files(spark: Any, location: str) -> None:
    """Make few files of many small ones, rows as they are; and remove files of an hour ago."""
    from delta.tables import DeltaTable

    table = DeltaTable.forPath(spark, location)
    spark.conf.set("spark.databricks.delta.optimize.minFileSize", str(_SMALL_FILE_BYTES))
    spark.conf.set("spark.databricks.delta.optimize.maxFileSize", str(4 * _SMALL_FILE_BYTES))
    spark.conf.set("spark.databricks.delta.optimize.maxThreads", str(_tasks(spark)))
    table.optimize().executeCompaction()
    table.vacuum()


def _tasks(spark: Any) -> int:
    """Tasks of a tidying at a time: a running one cannot be held up, so half of the places are left to live batches."""
    return max(1, int(spark.sparkContext.defaultParallelism) // 2)


def current_view(spark: Any, location: str, catalogue: Catalogue, name: str = "personalization_current") -> DataFrame:
    """The current view as a temporary view of the session, and as a frame."""
    now = "unix_millis(current_timestamp())"
    frame = spark.sql(current_view_sql(f"delta.`{location}`", column_names(catalogue), now))
    frame.createOrReplaceTempView(name)
    return frame
