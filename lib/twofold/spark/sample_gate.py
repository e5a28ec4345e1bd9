"""The gate of `personalization`: now and then a bounded sample of a batch, before it is appended.

A batch is a second's work, so not every one is looked at: one of `gate.sample_interval_ms`, and the first one of each snapshot,
because what a snapshot does to rows its first rows show. A refused batch is not written; its writer stops (exit 3), and the
rows before it lapse by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pyspark.sql import DataFrame

from twofold.errors import ValidationRefused
from twofold.settings import Settings
from twofold.spark.gate import blamed, refusal
from twofold.spark.published import create_manifest
from twofold.spark.suites import load_suite
from twofold.spark.validate import open_context, validate_sample
from twofold.stores.person_hash import PersonHash
from twofold.stores.report_page import page
from twofold.stores.reports import Report, reports_place, write_report
from twofold.timeline import Offsets
from twofold.views import ManifestRow

SUITE = "personalization"


class SampleGate:
    """Holds samples of batches to the suite `personalization`; ``gate.mode`` off: nothing is looked at."""

    def __init__(self, spark: Any, settings: Settings) -> None:
        """Raises :class:`SuiteError` for a mistyped suite, before anything is read or written."""
        self._spark, self._settings = spark, settings
        self._suite = None if settings.gate.mode == "off" else load_suite(settings.gate.expectations, SUITE)
        self._looked_ms, self._seq = 0, -1

    def is_due(self, row: ManifestRow, now_ms: int) -> bool:
        """Whether the next batch is one to look at."""
        if self._suite is None:
            return False
        return row.seq != self._seq or now_ms >= self._looked_ms + self._settings.gate.sample_interval_ms

    def look(self, rows: DataFrame, row: ManifestRow, o: Offsets, archive: Callable[[], DataFrame], now_ms: int) -> None:
        """Hold a sample of a batch's rows, which were made of the snapshot ``row`` at offsets ``o``.

        A failure writes a report. Raises :class:`ValidationRefused` where the gate is enforced: the batch is not to be written.
        """
        self._looked_ms, self._seq = now_ms, row.seq
        assert self._suite is not None
        # great-expectations keeps what it was asked in its context: a stream would fill one.
        validated = validate_sample(rows, self._settings, SUITE, loaded=self._suite, context=open_context())
        if validated.report.success:
            return
        settings, manifest = self._settings, self._settings.table("manifest")
        named = blamed(validated, archive(), replace(row, cut=o), PersonHash(settings.home_path))
        report = Report(
            snapshot=f"{row.snapshot}-{SUITE}",
            seq=row.seq,
            made_ms=now_ms,
            success=False,
            enforced=settings.gate.mode == "enforce",
            suites=(named.report,),
        )
        create_manifest(self._spark, manifest)
        file = write_report(reports_place(manifest), report, page(report), settings.gate.keep_reports)
        if report.refused:
            raise ValidationRefused(refusal(report, file, settings, "rows of personalization", "no row is written"))
