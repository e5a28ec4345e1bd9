"""The audit of served records: every logged line that was not judged yet, recomputed from the archive's raw bytes.

One pass over the log says whose entries are wanted, one over `archive` admits those again, a second one over the log judges. Only
the entries of the persons of the sample are in memory.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from twofold.audit import Judged, Recomputation, Served, Tally, judge
from twofold.catalogue import VERSION
from twofold.errors import ServedWrong, StoreError
from twofold.events import Entry
from twofold.settings import Settings
from twofold.stores.archive_entries import readmitted_entries
from twofold.stores.archive_log import archive_end, deletions
from twofold.stores.audit_reports import AuditReport, Named, write_audit_report
from twofold.stores.home_log import shared_home_log
from twofold.stores.manifest import current
from twofold.stores.person_hash import PersonHash
from twofold.stores.places import file_names, open_table, table_exists
from twofold.stores.served_log import (
    Line,
    Lost,
    Progress,
    ServedFile,
    read_lines,
    read_progress,
    remove_judged,
    served_files,
    write_progress,
)
from twofold.testing.oracle import ORACLE_VERSION, values, winners
from twofold.timeline import DAY_MS, EMPTY_OFFSETS, Position, show_time

#: Gets a step's name, how far it is, and of how much (``None``: nobody knows).
Tell = Callable[[str, int, int | None], None]
_TOLD_EVERY = 500
_NAMED = 3


@dataclass(frozen=True)
class Audited:
    """What an audit found: its report, where that was kept (``None``: a look), and the worst records with all that they hold."""

    report: AuditReport
    file: Path | None
    worst: list[Judged]


class ServedAudit:
    """One audit of a home's served log.

    Without ``since_ms`` and ``again`` it judges what no audit has judged, remembers that, and removes old files. ``since_ms``
    (epoch ms) judges whatever was served since, ``again`` whatever is still there; both are looks that write nothing.
    ``whole`` trusts no column of `archive`, and takes longer.
    """

    def __init__(
        self,
        settings: Settings,
        now_ms: int,
        since_ms: int | None = None,
        again: bool = False,
        whole: bool = False,
        tell: Tell | None = None,
    ) -> None:
        self._settings, self._now_ms, self._since_ms, self._whole = settings, now_ms, since_ms, whole
        self._look = again or since_ms is not None
        self._tell: Tell = tell or (lambda _step, _done, _total: None)
        self._archive = settings.table("archive")
        self._table_version = int(open_table(self._archive).version()) if table_exists(self._archive) else None
        log_start = shared_home_log(settings).log_start
        row = current(settings.table("manifest"))
        self._topics = row.topics if row is not None else tuple(dict.fromkeys(key.topic_id for key in log_start))
        end = EMPTY_OFFSETS if self._table_version is None else archive_end(self._archive, self._table_version)
        # A cut is what the archive had committed, of topics too that it no longer reads; below the log's start there is nothing.
        self._reached = end.join(log_start).join(row.cut if row is not None else EMPTY_OFFSETS)
        self._known = {} if self._look else read_progress(settings.served_path)
        # Sizes of now: what is logged meanwhile is the next audit's.
        self._files = served_files(settings.served_path)
        self._recomputation = Recomputation(lambda entries: winners(entries, self._topics), values)

    def run(self) -> Audited:
        """Judge, keep a report, remember. Raises :class:`StoreError` where the log or the archive cannot be read."""
        began = time.monotonic()
        self._judged_lines = 0
        self._persons = self._wanted()
        self._entries = self._admitted()
        tally, not_judged, not_logged = Tally(), Counter[str](), Counter[str]()
        progress: dict[str, Progress] = {}
        for file in self._files:
            progress[file.path.name] = self._judge_file(file, tally, not_judged, not_logged)
        gone = 0
        if not self._look:
            gone = remove_judged(self._settings.served_path, progress, self._settings.audit.keep_days, self._now_ms)
            if progress or self._known:
                write_progress(self._settings.served_path, progress)
        hashed = PersonHash(self._settings.home_path)
        worst = tally.worst()
        report = AuditReport(
            made_ms=self._now_ms,
            archive_version=self._table_version,
            since_ms=self._since_ms,
            took_s=round(time.monotonic() - began, 1),
            summary=tally.summary(),
            not_judged=dict(sorted(not_judged.items())),
            not_logged=dict(sorted(not_logged.items())),
            files_removed=gone,
            worst=tuple(_named(judged, hashed) for judged in worst),
        )
        return Audited(report, None if self._look else write_audit_report(self._settings, report), worst)

    # --- the log ----------------------------------------------------------------------------------------------------------------
    def _lines(self, file: ServedFile) -> Iterator[Line]:
        for line in read_lines(file, self._known.get(file.path.name, Progress())):
            if not (self._since_ms is not None and isinstance(line.found, Served) and line.found.served_ms < self._since_ms):
                yield line

    def _why_not(self, served: Served) -> str | None:
        """Why a record cannot be judged now; ``None``: it can."""
        if (served.version, served.installed) != (VERSION, VERSION):
            return "definition"
        return None if self._reached.covers(served.offsets) else "waiting"

    def _wanted(self) -> set[str]:
        persons = set()
        for file in self._files:
            for line in self._lines(file):
                if isinstance(line.found, Served) and self._why_not(line.found) is None:
                    persons.add(line.found.person)
                    self._judged_lines += 1
        return persons

    def _judge_file(self, file: ServedFile, tally: Tally, not_judged: Counter[str], not_logged: Counter[str]) -> Progress:
        known = self._known.get(file.path.name, Progress())
        read, waiting, torn = known.read, [], False
        for line in self._lines(file):
            if not line.whole:
                torn = True
                if not known.torn:
                    not_judged["unreadable"] += 1
                continue
            # A line that waited stands below.
            read = max(read, line.end)
            if line.found is None:
                not_judged["unreadable"] += 1
            elif isinstance(line.found, Lost):
                not_logged[line.found.reason] += line.found.lost
            else:
                why = self._why_not(line.found) or self._judge(line.found, tally)
                if why is not None:
                    not_judged[why] += 1
                if why == "waiting":
                    waiting.append(line.start)
        return Progress(read, waiting, torn)

    # --- judging ----------------------------------------------------------------------------------------------------------------
    def _admitted(self, table_version: int | None = None) -> dict[str, list[Entry]]:
        """Every ok entry of the sample's persons; of a topic that no manifest names nobody knows how it ranks."""
        found: dict[str, list[Entry]] = {}
        if not self._persons:
            return found
        version = self._table_version if table_version is None else table_version
        entries = readmitted_entries(self._archive, ORACLE_VERSION, self._persons, version, self._whole)
        for count, entry in enumerate(entries, start=1):
            if entry.topic_id in self._topics and entry.person is not None:
                found.setdefault(entry.person, []).append(entry)
            if count % _TOLD_EVERY == 0:
                self._tell("entries", count, None)
        return found

    @cached_property
    def _counted(self) -> dict[str, list[Entry]]:
        return {person: self._recomputation.winners(entries) for person, entries in self._entries.items()}

    def _judge(self, served: Served, tally: Tally) -> str | None:
        person = served.person
        judged = judge(served, self._entries.get(person, ()), self._counted.get(person, ()), self._recomputation)
        if judged.wrong and self._was_erased(served):
            return "erasure"
        tally.add(judged)
        done = tally.judged
        if done % _TOLD_EVERY == 0:
            self._tell("records", done, self._judged_lines)
        return None

    def _was_erased(self, served: Served) -> bool:
        """Whether entries that the record had folded were deleted from the archive."""
        if self._erased is None:
            return not any(served.offsets.holds(entry.position) for entry in self._entries.get(served.person, ()))
        return any(served.offsets.holds(position) for position in self._erased.get(served.person, ()))

    @cached_property
    def _erased(self) -> dict[str, set[Position]] | None:
        """Positions of the sample's entries that a DELETE removed, by person; ``None``: one did, and its files are gone."""
        deleted = deletions(self._archive, self._now_ms - self._settings.retention.stream_days * DAY_MS)
        for version in deleted:
            try:
                file_names(self._archive, version - 1)
                before = self._admitted(version - 1)
            except (StoreError, OSError):
                continue
            return {
                person: {entry.position for entry in entries} - {entry.position for entry in self._entries.get(person, ())}
                for person, entries in before.items()
            }
        return None if deleted else {}


def _named(judged: Judged, hashed: PersonHash) -> Named:
    served, shift = judged.served, judged.lag or judged.late
    return Named(
        person=hashed(served.person),
        t=served.t,
        served_ms=served.served_ms,
        snapshot=served.snapshot,
        state=served.state,
        verdict=judged.verdict,
        wrong=judged.wrong,
        lag=judged.lag.features if judged.lag is not None else {},
        late=judged.late.features if judged.late is not None else {},
        entries=shift.entries if shift is not None else 0,
        seconds=shift.ms / 1000 if shift is not None else 0.0,
    )


def raise_for_bugs(settings: Settings, audited: Audited) -> None:
    """Raises :class:`ServedWrong` where a record was wrong, and leaves its line in ``logs/audit.log`` for whoever is alerted."""
    report = audited.report
    if not report.summary.bugs:
        return
    wrong = [named for named in report.worst if named.verdict == "bug"][:_NAMED]
    told = "; ".join(f"{named.person} at t={show_time(named.t)}: {', '.join(named.wrong)}" for named in wrong)
    line = (
        f"{report.summary.bugs} of {report.summary.judged} served records are not what the raw log gives at their own (t, O): "
        f"{told}; `twofold audit --again --values` shows what was served, "
        "`twofold record PERSON --explain FIELD` on what it rests"
    )
    if audited.file is None:
        raise ServedWrong(line)
    log = settings.home_path / "logs" / "audit.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as lines:
        lines.write(f"audit: {line}\n")
    raise ServedWrong(f"{line}; report: {audited.file}")


__all__ = ["Audited", "ServedAudit", "raise_for_bugs"]
