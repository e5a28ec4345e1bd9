"""Validation reports: what a gate found, one JSON file and one page a rebuild, in the manifest's folder. No Spark.

Their folder's name begins with an underscore, so Delta's readers and `vacuum` leave it alone. Persons stand in them as salted
hashes only.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from twofold.errors import StoreError, UsageError
from twofold.settings import Place
from twofold.stores.files import folder

#: met, failed, or skipped: what it is held against is not known yet, or there are too few rows for the figure to say anything.
Outcome = Literal["met", "failed", "skipped"]
#: (topic ordinal by first appearance in the manifests, partition, offset)
LogPlace = tuple[int, int, int]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one expectation. ``unexpected``: rows to blame; ``positions`` and ``persons``: at most some of them."""

    name: str
    expectation: str
    outcome: Outcome
    threshold: dict[str, Any]
    reason: str
    column: str | None = None
    observed: Any = None
    unexpected: int | None = None
    positions: tuple[LogPlace, ...] = ()
    persons: tuple[str, ...] = ()
    note: str = ""


class SuiteReport(msgspec.Struct, frozen=True, kw_only=True):
    """One suite over one table: how many rows it saw, how long it took."""

    suite: str
    about: str
    rows: int
    took_ms: int
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome == "failed")

    @property
    def success(self) -> bool:
        return not self.failed


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate found of one rebuild. ``enforced``: a failure stopped the publish."""

    snapshot: str
    seq: int
    made_ms: int
    success: bool
    enforced: bool
    suites: tuple[SuiteReport, ...]

    @property
    def refused(self) -> bool:
        return self.enforced and not self.success

    def failed(self) -> list[tuple[SuiteReport, Check]]:
        return [(suite, check) for suite in self.suites for check in suite.failed]


def reports_place(manifest: Place) -> Place:
    """Where the reports of a manifest lie."""
    return manifest / "_reports"


def page_of(place: Place, report: Report) -> str:
    """Where the report is as a page to look at."""
    return str(place / f"{report.snapshot}.html")


def write_report(place: Place, report: Report, page: str, keep: int) -> str:
    """Write both files, the JSON last; of the other reports the newest ``keep - 1`` stay. Returns where the JSON is."""
    files = folder(place)
    name = f"{report.snapshot}.json"
    files.write(f"{report.snapshot}.html", page.encode())
    files.write(name, msgspec.json.format(msgspec.json.encode(report), indent=1))
    # Snapshot ids begin with the sequence number: by name is by age.
    others = [other for other in _names(place) if other != name]
    for old in others[: max(0, len(others) - (keep - 1))]:
        files.remove(old)
        files.remove(f"{old.removesuffix('.json')}.html")
    return str(place / name)


def _names(place: Place) -> list[str]:
    return [name for name in folder(place).names() if name.endswith(".json")]


def read_reports(place: Place) -> list[Report]:
    """Every report, oldest first; empty when no gate has run yet. Raises :class:`StoreError` for a damaged file."""
    found = []
    for name in _names(place):
        data = folder(place).read(name)
        if data is None:
            # Removed by a rebuild meanwhile.
            continue
        try:
            found.append(msgspec.json.decode(data, type=Report))
        except msgspec.DecodeError as error:
            raise StoreError(f"the report {place}/{name} is damaged: {error}; remove it") from error
    return sorted(found, key=lambda report: (report.made_ms, report.seq))


def report_of(reports: list[Report], seq: int | None) -> Report:
    """The newest report, or the newest of a sequence number. Raises :class:`UsageError` when there is none."""
    chosen = [report for report in reports if seq in (None, report.seq)]
    if not chosen:
        which = "no report yet" if seq is None else f"no report of sequence number {seq}"
        raise UsageError(f"there is {which}: `twofold reports` lists them, `twofold batch` makes one")
    return chosen[-1]
