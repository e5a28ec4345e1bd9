"""Maintenance that needs Spark: joining small files, and a rollback where only Spark may write (tables on S3)."""

from __future__ import annotations

import time
from typing import Any

from twofold.catalogue import VERSION
from twofold.errors import ArchiveError, RebuildRunning, StoreError
from twofold.settings import Settings
from twofold.spark.archive_door import ArchiveDoor, optimize
from twofold.spark.published import append_row
from twofold.stores.archive_requests import answered, ask_compact
from twofold.stores.manifest import publishing
from twofold.stores.one_writer import take_writer
from twofold.stores.places import table_exists
from twofold.stores.rollback import restore_file, rollback_row
from twofold.views import ManifestRow


def compact_archive(spark: Any, settings: Settings) -> dict[str, Any]:
    """Join small files of `archive` while its stream is not running; whatever else was asked of the door is done too.

    Raises :class:`SecondWriter` when the stream runs: then it is asked through its door.
    """
    _there(settings, "archive")
    with take_writer(settings, "archive") as writer:
        request = ask_compact(settings.home_path)
        ArchiveDoor(spark, settings, writer.confirm).serve()
    found = answered(settings.home_path, request)
    if found is None:
        raise ArchiveError("the request to compact the archive has vanished: run it again")
    return found


def compact_manifest(spark: Any, settings: Settings) -> dict[str, Any]:
    """Join small files of `manifest`, as the one writer `batch`. Raises :class:`RebuildRunning`."""
    _there(settings, "manifest")
    location = settings.table("manifest")
    with take_writer(settings, "batch", RebuildRunning, "rebuild") as writer, publishing(location):
        writer.confirm()
        return dict(optimize(spark, location, {"kind": "maintenance"}))


def roll_back(spark: Any, settings: Settings, seq: int, version: str = VERSION) -> ManifestRow:
    """What ``stores.rollback.roll_back`` does, written by Spark as the one writer `batch`."""
    with take_writer(settings, "batch", RebuildRunning, "rebuild") as writer:
        row = rollback_row(settings, seq, version, time.time_ns() // 1_000_000)
        restore_file(settings, row)
        writer.confirm()
        return append_row(spark, settings.table("manifest"), row)


def _there(settings: Settings, name: str) -> None:
    if not table_exists(settings.table(name)):
        raise StoreError(f"there is no table {name} at {settings.table(name)} yet: nothing to compact")
