"""Library merge = naive oracle, for every person and every feature: the comparison that the equality tests share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from deltalake import DeltaTable

from tests.e2e.conftest import System
from twofold.events import Entry
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.stores.archive_log import archive_end, committed_ranges
from twofold.stores.personalization import current_rows
from twofold.testing.oracle import by_person, record_of, winners
from twofold.timeline import Offsets
from twofold.views import ManifestRow


class Truth:
    """The winning entries of a log by person: recomputed once, presented at any instant."""

    def __init__(self, log: Iterable[Entry], topics: Sequence[str]) -> None:
        self._ok = [entry for entry in log if entry.verdict == "ok"]
        groups = by_person(winners(self._ok, topics))
        # Whoever has taken back everything is still somebody.
        self.people = {entry.person or "": groups.get(entry.person or "", []) for entry in self._ok}

    def waiting(self, row: ManifestRow) -> set[str]:
        """Who takes back, above a snapshot's cut, an event that may be folded before its horizon."""
        below = [e for e in self._ok if row.cut.holds(e.position) and (e.at_ms or 0) < (row.horizon_ms or 0)]
        folded = {(entry.person, entry.event_id) for entry in below}
        above = (entry for entry in self._ok if not row.cut.holds(entry.position))
        return {entry.person or "" for entry in above if (entry.person, entry.target) in folded}

    def values(self, person: str, t: int) -> dict[str, Any]:
        return record_of(person, self.people.get(person, ()), t)


def differences(
    settings: Settings, truth: Truth, t: int, seq: int | None = None, persons: Sequence[str] | None = None
) -> list[str]:
    """Every difference between records read at ``t`` and the truth: ``person field: got != want``.

    A field is exact, or waits for a retraction that only the next batch can do; then its value is held to nothing.
    """
    found: list[str] = []
    seen = 0
    with Reader(settings, seq=seq) as reader:
        waiting = truth.waiting(reader.snapshot)
        for record in reader.records(persons, t):
            seen += 1
            want = truth.values(record.person, t)
            found.extend(
                f"{record.person} {name} at {t}: {value!r} != {want['values'][name]!r} ({record.freshness.state})"
                for name, value in record.values.items()
                if value != want["values"][name] and record.fields[name] == "exact"
            )
            assert record.values.keys() == record.fields.keys() == want["values"].keys()
            states = set(record.fields.values())
            assert states == {"exact"} or (states == {"exact", "pending_retraction"} and record.person in waiting), record.person
            if "consent_inexact" in record.sendable.reasons:
                assert record.person in waiting and not record.sendable.ok
            elif record.freshness.state in ("fresh", "default"):
                got = (record.sendable.ok, list(record.sendable.reasons))
                reasons = (
                    want["sendable"]["reasons"]
                    if record.freshness.state == "fresh"
                    else ["state_default", *want["sendable"]["reasons"]]
                )
                if got != (not reasons, reasons):
                    found.append(f"{record.person} sendable at {t}: {got} != {reasons}")
    assert seen == (len(truth.people) if persons is None else len(persons)), f"{seen} records of {len(truth.people)} people"
    return found


def topics(system: System) -> list[str]:
    """Topic ids in the order of the manifests: a home has one."""
    return list(dict.fromkeys(key.topic_id for key in system.log_end()))


def conserved(system: System, log: list[Entry]) -> None:
    """Distinct positions = ok + rejected, per partition, in `archive` and in `facts`; verdicts and facts are plain Python's."""
    want = {entry.position: entry for entry in log}
    facts = {entry.position: entry for entry in system.facts()}
    assert facts == want
    table = DeltaTable(system.settings.table("archive")).to_pyarrow_table(
        columns=["topic_id", "partition", "offset", "verdict", "person", "event_id"]
    )
    rows = table.to_pylist()
    assert len(rows) == len(want), "an entry stands in the archive twice, or not at all"
    for row in rows:
        entry = want[(row["topic_id"], row["partition"], row["offset"])]
        assert (row["verdict"], row["person"], row["event_id"]) == (entry.verdict, entry.person, entry.event_id)
    ranges = committed_ranges(system.settings.table("archive"))
    for before, after in pairwise(ranges):
        assert after.start == type(after.start)({key: before.end.next(key) for key in after.start})
    assert archive_end(system.settings.table("archive")).covers(system.log_end())
    counted = Counter((entry.partition, entry.verdict == "ok") for entry in log)
    ends = {key.partition: end for key, end in system.log_end().items()}
    assert {p: counted[(p, True)] + counted[(p, False)] for p in ends} == ends


def assert_rows_hold(system: System) -> list[dict[str, Any]]:
    """Everybody has a row of `personalization`, each the plain recomputation at its own (t, O); nothing of its person's lies above
    that O. Returns the rows."""
    log = system.log()
    truths: dict[str, Truth] = {}
    rows = current_rows(system.settings.table("personalization"), 0).to_pylist()
    newest = Truth(log, topics(system))
    assert {row["person"] for row in rows} == set(newest.people)
    for row in rows:
        if row["o"] not in truths:
            o = Offsets.from_json(json.loads(row["o"]))
            truths[row["o"]] = Truth([entry for entry in log if o.holds(entry.position)], topics(system))
        want = truths[row["o"]].values(row["person"], row["t"])
        record = json.loads(row["record"])
        assert record["values"] == want["values"], f"{row['person']} at {row['t']}"
        assert set(record["fields"].values()) == {"exact"}
        assert truths[row["o"]].people[row["person"]] == newest.people[row["person"]]
        if record["sendable"]["ok"]:
            assert want["sendable"]["ok"] and record["freshness"]["state"] in ("fresh", "stale")
    assert any(Offsets.from_json(json.loads(row["o"])) == system.log_end() for row in rows)
    return rows
