"""One Spark session per process, opened only when a job or test asks for it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from twofold.errors import SettingsError
from twofold.settings import Settings
from twofold.stores.places import hadoop_conf

#: What our columns mean depends on these: set whatever the properties file says.
MEANING = {
    "spark.sql.session.timeZone": "UTC",
    # Admission tests what it casts, with the try_ functions: ANSI would only turn a mistake into a stopped stream.
    # The batch sums in decimal(38,0), where an overflow must stop the job instead of becoming null: see `lower`.
    "spark.sql.ansi.enabled": "true",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # A dangling comma, a second object, a repeated name must stay failures of the parser.
    "spark.sql.variant.allowDuplicateKeys": "false",
}

#: Admission compiles into methods above HotSpot's limit of 8,000 bytecodes, which it would interpret for ever. And what the queries
#: compile into fills the default of 240 MiB: then compiled code that has not run for a batch is thrown away, to be compiled again.
COMPILED = "-XX:-DontCompileHugeMethods -XX:ReservedCodeCacheSize=768m"
#: No word of classes that cannot be archived, or where nothing was archived.
ARCHIVING_QUIETLY = "-Xlog:cds=off -Xlog:cds+dynamic=off"
#: Classes that `make setup` archived: see `class_archive`.
ARCHIVED_CLASSES = f"-XX:SharedArchiveFile=build/spark.jsa {ARCHIVING_QUIETLY}"

#: Where and how wide a session runs; a properties file or the caller may say otherwise.
PLACE = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.driver.extraJavaOptions": f"{COMPILED} {ARCHIVED_CLASSES}",
    # One machine: the default of 50 tasks a snapshot made each Delta commit ten seconds.
    "spark.databricks.delta.snapshotPartitions": "1",
    # Delta's VACUUM lists folders in so many tasks, each some milliseconds of a core: of the default 10,000 a minute.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
    "spark.sql.streaming.checkpoint.fileChecksum.enabled": "false",
    # Each execution writes its plan out as text for a web page that is off: with admission's columns that is a second a batch.
    "spark.sql.ui.explainMode": "simple",
    "spark.sql.maxPlanStringLength": "10000",
    "spark.sql.debug.maxToStringFields": "5",
    # The default is looked up in the environment at every look into a row that an expression over an array takes.
    "spark.sql.types.framework.enabled": "false",
    # Java classes of the last 100 plans: a batch of two streams has more, and would compile all of them anew, into cold code.
    "spark.sql.codegen.cache.maxEntries": "2000",
    # One person's entries are gathered at a time where they come sorted, in place of a hash of them that spills and sorts.
    "spark.sql.execution.replaceHashWithSortAgg": "true",
    # Where in Python each column was written: two more calls into the JVM for every one, thousands for admission.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
}


def jar_list(folder: str | Path) -> str:
    """The folder's jars as ``spark.jars`` wants them. Raises :class:`SettingsError` when there are none."""
    jars = sorted(str(jar) for jar in Path(folder).absolute().glob("*.jar"))
    if not jars:
        raise SettingsError(f"setting spark.jars: no jars in {folder}; `make setup` copies them there")
    return ",".join(jars)


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def open_session(settings: Settings, app: str, slots: int = 0, **conf: Any) -> Any:
    """The process's Spark session, under ``spark-submit --properties-file`` as well as in plain Python.

    ``slots``: task slots that must be free at the same time; a smaller ``local[N]``, or share of a cluster, is widened to it.
    ``conf``: further options, ``__`` standing for a dot (``spark__driver__memory="1g"``).
    Raises :class:`SettingsError` when the jars are missing.
    """
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit started the JVM: its properties are only visible through it
        SparkContext._ensure_initialized()
    spark_conf = SparkConf().setAppName(f"twofold-{app}")
    given = {key.replace("__", "."): str(value) for key, value in conf.items()}
    place = {
        **PLACE,
        "spark.master": f"local[{max(cores(), slots)}]",
        "spark.driver.memory": settings.spark.driver_memory,
        "spark.sql.shuffle.partitions": str(cores()),
        "spark.sql.warehouse.dir": str(settings.home_path / "spark-warehouse"),
    }
    if not spark_conf.contains("spark.jars"):
        place["spark.jars"] = jar_list(settings.spark.jars)
    for key, value in {**MEANING, **hadoop_conf(settings), **given}.items():
        spark_conf.set(key, value)
    for key, value in place.items():
        if not spark_conf.contains(key):
            spark_conf.set(key, value)
    local = re.fullmatch(r"local\[(\d+)\]", spark_conf.get("spark.master") or "")
    if local and int(local.group(1)) < slots:
        spark_conf.set("spark.master", f"local[{slots}]")
    if not local and int(spark_conf.get("spark.cores.max") or slots) < slots:
        spark_conf.set("spark.cores.max", str(slots))
    return SparkSession.builder.config(conf=spark_conf).getOrCreate()
