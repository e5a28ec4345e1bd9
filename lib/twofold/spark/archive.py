"""The archive stream: topic `events` -> Delta `archive`, every entry once, with the offsets of each commit in that commit.

Exactly once: a batch is written under (application id, batch id), which Delta refuses to write twice. The application id holds
the checkpoint's generation, because under an old id the batches of a fresh checkpoint would be dropped without a word.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyspark.sql import functions as F

from twofold.errors import ArchiveError
from twofold.events import ADMISSION_VERSION
from twofold.kafka.home import ensure_home
from twofold.kafka.topics import events_topic
from twofold.settings import Place, Settings
from twofold.spark.admission import admit
from twofold.spark.archive_door import ArchiveDoor
from twofold.spark.job import has_polled
from twofold.spark.source import read_log, starting_offsets
from twofold.spark.tables import ARCHIVE_COLUMNS, create_archive
from twofold.stores.archive_log import archive_end
from twofold.stores.files import folder
from twofold.stores.one_writer import process_writer
from twofold.timeline import Offsets, PartitionKey

#: Below this many entries a commit is one file: a table of many small files is slow to read.
_ONE_FILE_ENTRIES = 20_000
_GENERATION_FILE = "twofold-generation.json"


@dataclass(frozen=True)
class Generation:
    """One life of a checkpoint: its id, and the offsets at which its first batch began."""

    id: str
    start: Offsets

    @property
    def app(self) -> str:
        return f"archive-{self.id}"


def open_generation(checkpoint: Place, table: str, begin: Callable[[Offsets], Offsets]) -> Generation:
    """The checkpoint's generation; a new one starts at ``begin(last committed end)``, which is kept with it."""
    files = folder(checkpoint)
    kept = files.read(_GENERATION_FILE)
    if kept is not None:
        data = json.loads(kept)
        return Generation(data["generation"], Offsets.from_json(data["start"]))
    if files.names("offsets"):
        raise ArchiveError(
            f"the checkpoint {checkpoint} has lost its {_GENERATION_FILE}: remove the folder, the stream resumes from the table"
        )
    generation = Generation(uuid.uuid4().hex, begin(archive_end(table)))
    files.write(_GENERATION_FILE, json.dumps({"generation": generation.id, "start": generation.start.to_json()}).encode())
    return generation


def planned_offsets(checkpoint: Place, batch_id: int, topic: str, topic_id: str) -> Offsets | None:
    """End offsets that the checkpoint's log planned for a batch, or ``None`` when it holds no such batch."""
    written = folder(checkpoint).read(f"offsets/{batch_id}")
    if written is None:
        return None
    # Format: a version line, a metadata line, then one line of offsets a source.
    planned = json.loads(written.decode("utf-8").splitlines()[2])
    return Offsets({PartitionKey(topic_id, int(p)): end for p, end in planned[topic].items()})


def start_archive(spark: Any, settings: Settings, on_commit: Callable[[Offsets], None] = lambda _end: None) -> Any:
    """Start the stream; returns the running query. ``on_commit`` gets each commit's end, and the next batch begins after it."""
    log = ensure_home(settings)
    table, checkpoint = settings.table("archive"), settings.checkpoint("archive")
    topic = settings.kafka.events_topic
    writer = process_writer(settings, "archive")
    create_archive(spark, table)
    generation = open_generation(
        checkpoint, table, lambda reached: starting_offsets(settings, events_topic(settings), log.log_start, reached)
    )

    def write(frame: Any, batch_id: int) -> None:
        end = planned_offsets(checkpoint, batch_id, topic, log.topic_id)
        if end is None:
            raise ArchiveError(
                f"the checkpoint {checkpoint} has no offsets of batch {batch_id}: remove the folder, the stream resumes"
            )
        before = planned_offsets(checkpoint, batch_id - 1, topic, log.topic_id) if batch_id else None
        start = generation.start if before is None else before
        # A partition that is new in this batch began at its log start.
        start = Offsets({key: start.next(key) for key in end})
        metadata = {"start": start.to_json(), "end": end.to_json(), "app": generation.app, "batch": batch_id}
        rows = frame.coalesce(1) if end.entries_since(start) <= _ONE_FILE_ENTRIES else frame
        with door.changing():
            writer.confirm()
            (
                rows.write.format("delta")
                .mode("append")
                .option("txnAppId", generation.app)
                .option("txnVersion", batch_id)
                .option("userMetadata", json.dumps(metadata))
                .save(table)
            )
        on_commit(end)

    door = ArchiveDoor(spark, settings, writer.confirm)
    door.open()
    source = read_log(spark, settings, generation.start, maxOffsetsPerTrigger=settings.archive.max_offsets_per_trigger)
    # Admission belongs to the stream, not to the batch: building its columns costs seconds, and is done once here.
    judged = admit(source).withColumn("admission_version", F.lit(ADMISSION_VERSION))
    # A pool of its own, which the stream's thread inherits: where `personalize` runs in the same application its long batches
    # would else go first, and what they wait for is the archive.
    spark.sparkContext.setLocalProperty("spark.scheduler.pool", "archive")
    query = (
        judged.select(*(name for name, _type, _comment in ARCHIVE_COLUMNS))
        .writeStream.queryName("archive")
        .foreachBatch(write)
        .option("checkpointLocation", checkpoint)
        .trigger(processingTime=f"{settings.archive.trigger_ms} milliseconds")
        .start()
    )
    spark.sparkContext.setLocalProperty("spark.scheduler.pool", None)
    return query


def is_ready(_spark: Any, _settings: Settings, query: Any) -> bool:
    """Whether the stream has committed a batch or found nothing to commit."""
    return has_polled(query)
