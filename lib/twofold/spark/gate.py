"""The gate of a rebuild: named suites over the archive slice and the tables just written, before the manifest row.

A failure stops the publish. The report then names the expectation, the count, and some of the rows to blame: their positions
in the log and salted hashes of their persons.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from twofold.errors import ValidationRefused
from twofold.settings import Settings
from twofold.spark.cut import archive_at, judged_entries
from twofold.spark.published import create_manifest
from twofold.spark.suites import Suite, load_suite
from twofold.spark.validate import Validated, open_context, validate, write_data_docs
from twofold.stores.manifest import rows
from twofold.stores.person_hash import PersonHash
from twofold.stores.report_page import page
from twofold.stores.reports import Check, LogPlace, Report, reports_place, write_report
from twofold.timeline import EMPTY_OFFSETS, Offsets
from twofold.views import ManifestRow

SLICE = "archive_slice"
#: Published tables with a suite of their own; one that a rebuild did not write is not looked at.
TABLES = ("state", "wide_person")
#: Rows and persons that a report names of one failed expectation.
NAMED = 10

Suites = Mapping[str, Suite]


def load_suites(settings: Settings) -> Suites:
    """The suites of a rebuild, by subject; none when the gate is off. Raises :class:`SuiteError` before anything was read."""
    if settings.gate.mode == "off":
        return {}
    return {name: load_suite(settings.gate.expectations, name) for name in (SLICE, *TABLES)}


def gated(spark: Any, settings: Settings, suites: Suites, row: ManifestRow, now_ms: Callable[[], int]) -> ManifestRow:
    """The row with what the suites found of it; both files of the report are written.

    Raises :class:`ValidationRefused` when an expectation failed and the gate is enforced, :class:`SuiteError` when a suite
    asks what cannot be computed.
    """
    started = time.monotonic()
    manifest = settings.table("manifest")
    parent = next((old for old in rows(manifest) if old.seq == row.parent), None)
    assert row.archive_version is not None
    entries = archive_at(spark, settings, row.archive_version)
    hashed = PersonHash(settings.home_path)
    context = open_context()
    found = []
    for name, suite in suites.items():
        frame = _subject(spark, settings, row, name, entries, parent)
        if frame is not None:
            validated = validate(frame, suite, name, _parameters(row, parent, name), context)
            found.append(blamed(validated, entries, row, hashed))
    report = Report(
        snapshot=row.snapshot,
        seq=row.seq,
        made_ms=now_ms(),
        success=all(suite.report.success for suite in found),
        enforced=settings.gate.mode == "enforce",
        suites=tuple(suite.report for suite in found),
    )
    # The reports lie in the manifest's folder, and Delta makes no table in a folder that holds something already.
    create_manifest(spark, manifest)
    if settings.gate.data_docs:
        write_data_docs(context, settings.home_path / "data_docs")
    file = write_report(reports_place(manifest), report, page(report), settings.gate.keep_reports)
    if report.refused:
        raise ValidationRefused(refusal(report, file, settings, "the snapshot", "the snapshot before it serves"))
    return replace(row, validation=_compact(report, int((time.monotonic() - started) * 1000)))


# --- what is looked at --------------------------------------------------------------------------------------------------------
def _subject(
    spark: Any, settings: Settings, row: ManifestRow, name: str, archive: DataFrame, parent: ManifestRow | None
) -> DataFrame | None:
    if name == SLICE:
        since = parent.cut if parent is not None else EMPTY_OFFSETS
        return judged_entries(_skipping(archive, since), row.cut, since)
    if name not in row.tables:
        return None
    return spark.read.format("delta").option("versionAsOf", row.tables[name]).load(settings.table(name))


def _skipping(archive: DataFrame, since: Offsets) -> DataFrame:
    """Without the files that end below a cut: said in plain comparisons, which a table's statistics can answer."""
    if not since or len(since) > 64:
        return archive
    above = F.lit(False)
    for key, end in since.items():
        above = above | ((F.col("topic_id") == key.topic_id) & (F.col("partition") == key.partition) & (F.col("offset") >= end))
    topics = {key.topic_id for key in since}
    highest = {topic: max(key.partition for key in since if key.topic_id == topic) for topic in topics}
    for topic, partition in highest.items():
        above = above | ((F.col("topic_id") == topic) & (F.col("partition") > partition))
    return archive.where(above | ~F.col("topic_id").isin(*topics))


def _parameters(row: ManifestRow, parent: ManifestRow | None, suite: str) -> dict[str, float]:
    """``now_…`` counts of this rebuild; of the snapshot before, its counts ``previous_…``, what was added ``slice_…``, and
    what the suite's expectations observed then ``was_…``."""
    known: dict[str, float] = {f"now_{name}": count for name, count in row.counts.items()}
    if parent is None:
        return known
    known |= {f"previous_{name}": count for name, count in parent.counts.items()}
    known |= {f"slice_{name}": count - parent.counts.get(name, 0) for name, count in row.counts.items()}
    observed = parent.validation.get("suites", {}).get(suite, {}).get("observed", {})
    return known | {f"was_{name}": value for name, value in observed.items()}


# --- what is told -------------------------------------------------------------------------------------------------------------
def blamed(validated: Validated, archive: DataFrame, row: ManifestRow, hashed: PersonHash) -> Validated:
    """The same with the rows to blame counted and some of them named."""
    named: dict[str, Check] = {}
    for offence in validated.offences:
        if offence.rows is None:
            continue
        in_log = "offset" in offence.rows.columns
        columns = ("topic_id", "partition", "offset", "person") if in_log else ("person",)
        some = offence.rows.select(*columns).distinct().orderBy(*columns).limit(NAMED).collect()
        persons = sorted({found.person for found in some if found.person is not None})
        places = some if in_log else _newest_entries(archive, row, persons)
        named[offence.check.name] = msgspec.structs.replace(
            offence.check,
            unexpected=offence.rows.count(),
            positions=tuple(_place(row, found) for found in places),
            persons=tuple(hashed(person) for person in persons),
        )
    checks = tuple(named.get(check.name, check) for check in validated.report.checks)
    return Validated(msgspec.structs.replace(validated.report, checks=checks), validated.offences)


def _newest_entries(archive: DataFrame, row: ManifestRow, persons: list[str]) -> list[Any]:
    """Where in the log the newest entries of some persons are: a row of a table has no place of its own."""
    if not persons:
        return []
    entries = judged_entries(archive, row.cut).where(F.col("person").isin(*persons))
    newest = entries.orderBy(F.desc("broker_ms"), F.desc("offset"))
    return list(newest.select("topic_id", "partition", "offset").limit(NAMED).collect())


def _place(row: ManifestRow, found: Any) -> LogPlace:
    return row.topic_ordinal(found.topic_id), found.partition, found.offset


def refusal(report: Report, file: str, settings: Settings, what: str, then: str) -> str:
    """One line: what was refused and why, what holds now, and the way out."""
    failed = report.failed()
    suite, check = failed[0]
    blame = "" if check.unexpected is None else f", {check.unexpected} rows to blame"
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return (
        f"the gate refused {what}: {suite.suite}.{check.name} (observed {check.observed}, {_limits(check)}{blame}){more}; "
        f"{then}. Report: {file}. If the data is right, change the threshold in "
        f"{settings.gate.expectations}/{suite.suite}.yaml, or go on once with TWOFOLD_GATE__MODE=report"
    )


def _limits(check: Check) -> str:
    return ", ".join(f"{key} {value}" for key, value in check.threshold.items()) or "no exception allowed"


def _compact(report: Report, took_ms: int) -> dict[str, Any]:
    """What a manifest row keeps: the outcome, where the report is, and the figures that the next night is held against."""
    return {
        "outcome": "met" if report.success else "failed, published all the same",
        "report": f"{report.snapshot}.json",
        "took_ms": took_ms,
        "suites": {
            suite.suite: {
                "rows": suite.rows,
                **{
                    outcome: [check.name for check in suite.checks if check.outcome == outcome]
                    for outcome in ("failed", "skipped")
                    if any(check.outcome == outcome for check in suite.checks)
                },
                "observed": {check.name: check.observed for check in suite.checks if isinstance(check.observed, int | float)},
            }
            for suite in report.suites
        },
    }
