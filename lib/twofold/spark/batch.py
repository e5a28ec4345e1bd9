"""The nightly rebuild: `archive` at a pinned version and its cut -> `state`, the wide tables, the snapshot file, one appended
manifest row.

A night is full, incremental (`incremental`: the parent's `state` ⊕ the slice since its cut) or compared (full, and held to what
the incremental one would have written).

Until that row is there nothing has happened: a crash at any step leaves the snapshot before it serving, and whatever the dead
rebuild left behind is overwritten or removed by a later one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from pyspark.sql import Observation
from pyspark.sql import functions as F

from twofold.catalogue import CATALOGUE
from twofold.errors import RebuildRunning
from twofold.features import Catalogue
from twofold.settings import Settings
from twofold.spark.cut import Pinned, pin
from twofold.spark.drift import audit
from twofold.spark.gate import gated, load_suites
from twofold.spark.incremental import compare_night, fold_night, pin_night
from twofold.spark.published import append_row, write_version
from twofold.spark.state_rows import STATE, counts_of, held, ok_entries, state_rows, tasks_of
from twofold.spark.wide import write_wide
from twofold.stores import snapshot_file
from twofold.stores.manifest import rows
from twofold.stores.one_writer import Writer, take_writer
from twofold.stores.person_hash import PersonHash
from twofold.stores.readable import kept
from twofold.stores.snapshot_place import publish_snapshot, remove_published
from twofold.views import ManifestRow

Mode = Literal["full", "incremental", "compare"]


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


# --- the rebuild ------------------------------------------------------------------------------------------------------------------
def rebuild(
    spark: Any,
    settings: Settings,
    as_of_ms: int | None = None,
    report: Callable[[str], None] = lambda _step: None,
    now_ms: Callable[[], int] = _wall_ms,
    catalogue: Catalogue = CATALOGUE,
    mode: Mode = "full",
) -> ManifestRow:
    """Rebuild from the archive and publish; ``report`` gets each step as it begins, in order:
    pin, state, compare (where the mode is ``compare``), wide, gate, audit, snapshot, manifest, done.

    ``as_of_ms`` (default: the largest broker time below the cut) only places the horizon.
    Raises :class:`SuiteError`, :class:`RebuildRunning`, :class:`EmptyArchiveError`, :class:`ArchiveError`, :class:`CutRefused`,
    :class:`ValidationRefused`, :class:`PublishConflict`, :class:`IncrementalRefused`, :class:`IncrementalDiffers`; nothing is
    published then.
    """
    with take_writer(settings, "batch", RebuildRunning, "rebuild") as writer:
        return _rebuild(spark, settings, as_of_ms, report, now_ms, catalogue, writer, mode)


def fold_state(pinned: Pinned, location: str) -> ManifestRow:
    """Write the snapshot's persons as a new version of `state`; the row, with that version and the counts."""
    row = pinned.row
    assert row.horizon_ms is not None
    ok = ok_entries(pinned.judged, row.topics)
    people = Observation()
    folded = state_rows(ok, pinned.catalogue, row.horizon_ms, tasks_of(pinned.found.entries))
    observed = folded.observe(people, *held(), F.sum("facts").alias("facts"))
    version = write_version(observed.select(*STATE), location, row.snapshot)
    return replace(row, tables={"state": version}, counts=counts_of(pinned.found, people.get))


def _rebuild(
    spark: Any,
    settings: Settings,
    as_of_ms: int | None,
    report: Callable[[str], None],
    now_ms: Callable[[], int],
    catalogue: Catalogue,
    writer: Writer,
    mode: Mode,
) -> ManifestRow:
    suites = load_suites(settings)

    def step(name: str) -> None:
        report(name)
        # On S3: whoever lost the right to write commits nothing any more.
        writer.confirm()

    step("pin")
    night = pin_night(spark, settings, as_of_ms, catalogue) if mode == "incremental" else None
    pinned = night.pinned if night else pin(spark, settings, as_of_ms, catalogue)
    step("state")
    state = settings.table("state")
    row = fold_night(night, state) if night else fold_state(pinned, state)
    if mode == "compare":
        step("compare")
        found = compare_night(spark, settings, pinned, row.tables["state"], PersonHash(settings.home_path))
        row = replace(row, audit={**row.audit, "incremental": found})
    tasks = tasks_of(pinned.found.entries)
    if settings.batch.wide_tables:
        step("wide")
        row = write_wide(spark, settings, pinned, row, tasks)
    if suites:
        step("gate")
        row = gated(spark, settings, suites, row, now_ms)
    if settings.batch.wide_tables and settings.batch.drift_audit:
        step("audit")
        row = audit(spark, settings, pinned, row, tasks)
    step("snapshot")
    _remove_leftovers(settings, row)
    snapshot_file.build(snapshot_file.snapshot_path(settings.snapshots_path, row.snapshot), state, row.tables["state"], row)
    publish_snapshot(settings, row.snapshot)
    step("manifest")
    published = append_row(spark, settings.table("manifest"), replace(row, published_ms=now_ms()))
    report("done")
    return published


def _remove_leftovers(settings: Settings, row: ManifestRow) -> None:
    """Remove files of rebuilds that died, and of snapshots that will no longer be kept once ``row`` is published."""
    published = [*rows(settings.table("manifest")), row]
    stay = kept(settings, published, settings.batch.keep_snapshots + 1)
    remove_published(settings, {old.snapshot for old in stay})
