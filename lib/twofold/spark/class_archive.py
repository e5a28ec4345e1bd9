"""``python -m twofold.spark.class_archive FILE``: what a job's JVM loads, written to a file that later JVMs map instead.

Loading its classes takes a Spark JVM about ten seconds of processor time. A short rehearsal loads them once, and the JVM archives
them as it ends (Java's class data sharing, JEP 350). `make setup` runs it. A JVM that finds no such file, or one of other jars,
starts as ever.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F

from twofold.catalogue import CATALOGUE
from twofold.settings import Settings
from twofold.spark.admission import admit
from twofold.spark.session import ARCHIVING_QUIETLY, COMPILED, open_session
from twofold.spark.state_rows import empty_state

_LINE = b'{"event_id":"e","type":"page","name":"p","user_id":"one","occurred_at":"2026-06-01T00:00:00Z"}'
_END_S = 300


def _rehearse(spark: Any, folder: Path) -> None:
    """Admission, a fold, Delta, and a stream, each over next to nothing."""
    entries = spark.createDataFrame([(bytearray(_LINE), 0)], "value binary, broker_ms bigint")
    admitted = str(folder / "admitted")
    admit(entries).write.format("delta").save(admitted)
    read = spark.read.format("delta").load(admitted)
    read.groupBy("person").agg(F.max("at_ms").alias("at_ms")).join(read.select("person"), "person").collect()
    empty_state(spark, CATALOGUE).write.format("delta").save(str(folder / "state"))
    stream = spark.readStream.format("delta").load(admitted).writeStream.foreachBatch(lambda rows, _batch: rows.count())
    stream.option("checkpointLocation", str(folder / "checkpoint")).trigger(availableNow=True).start().awaitTermination()


def write_class_archive(path: Path) -> None:
    """Write the archive to ``path``. Raises ``RuntimeError`` when the JVM wrote none."""
    from pyspark import SparkContext

    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # A JVM that maps one archive cannot write another.
        options = f"{COMPILED} {ARCHIVING_QUIETLY} -XX:ArchiveClassesAtExit={part}"
        spark = open_session(Settings(home=folder), "rehearsal", spark__driver__extraJavaOptions=options)
        _rehearse(spark, Path(folder))
        spark.stop()
        gateway = SparkContext._gateway
        assert gateway is not None
        gateway.shutdown()
        # The end of its input ends the JVM, and then it writes.
        gateway.proc.stdin.close()
        gateway.proc.wait(_END_S)
    if not part.is_file():
        raise RuntimeError(f"the JVM wrote no archive of its classes to {path}")
    part.replace(path)


if __name__ == "__main__":
    write_class_archive(Path(sys.argv[1]))
