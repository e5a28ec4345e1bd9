"""What is held to the plain recomputation at the end of a run: every record, every read, every row, and the ledger."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from deltalake import DeltaTable

from tests.chaos.reads import Read, wrong_reads
from tests.chaos.system import ChaosSystem
from tests.e2e.equality import Truth, assert_rows_hold, differences, topics
from twofold.events import REASONS, Entry
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.stores.archive_log import archive_end, committed_ranges
from twofold.stores.listing import listing
from twofold.timeline import Position

#: Differences of one kind that are named.
NAMED = 20


class Verdict:
    """Differences by what they are of, and the counts that the run is told by."""

    def __init__(self) -> None:
        self.differences: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}

    def add(self, what: str, found: Iterable[str]) -> None:
        self.differences.setdefault(what, []).extend(found)

    @property
    def total(self) -> int:
        return sum(map(len, self.differences.values()))

    def show(self) -> list[str]:
        out = []
        for what, found in self.differences.items():
            out += [f"{what}: {line}" for line in found[:NAMED]]
            if len(found) > NAMED:
                out.append(f"{what}: … and {len(found) - NAMED} more")
        return out


def missing_lines(lines: Iterable[bytes], logged: Iterable[bytes]) -> list[str]:
    """Lines that were acknowledged and do not stand in the log as often as they were given out, or lines that nobody sent."""
    sent, found = Counter(lines), Counter(logged)
    gone = [f"acknowledged and not in the log: {line[:120]!r}" for line, count in (sent - found).items() for _ in range(count)]
    return gone + [f"in the log and never sent: {line[:120]!r}" for line in found.keys() - sent.keys()]


def unequal_ledger(log: Sequence[Entry], archived: Sequence[dict[str, Any]], facts: Sequence[Entry]) -> list[str]:
    """Where the log, `archive` and `facts` disagree: a position that is missing, twice or unknown, another verdict or fact.

    ``archived``: rows of ``topic_id, partition, offset, verdict, person, event_id``.
    """
    want = {entry.position: entry for entry in log}
    stored = Counter(Position(row["topic_id"], row["partition"], row["offset"]) for row in archived)
    out = [f"archive holds {position} {count} times" for position, count in stored.items() if count > 1]
    out += [f"archive lacks {position}" for position in want.keys() - stored.keys()]
    out += [f"archive holds {position}, which the log does not" for position in stored.keys() - want.keys()]
    for row in archived:
        entry = want.get(Position(row["topic_id"], row["partition"], row["offset"]))
        told = (row["verdict"], row["person"], row["event_id"])
        if entry is not None and told != (entry.verdict, entry.person, entry.event_id):
            out.append(f"archive says {told} of {entry.position}, admission {(entry.verdict, entry.person, entry.event_id)}")
    seen = {entry.position for entry in facts}
    out += [f"facts lacks {position}" for position in want.keys() - seen]
    out += [f"facts says otherwise of {fact.position}" for fact in facts if want.get(fact.position) != fact]
    return out


def unequal_counts(log: Sequence[Entry], counts: dict[str, int]) -> list[str]:
    """Where a night over the whole log counted otherwise: entries = ok + rejected by reason."""
    verdicts = Counter(entry.verdict for entry in log)
    want = {"entries": len(log), "ok": verdicts["ok"], "rejected": len(log) - verdicts["ok"]}
    want |= {f"rejected_{reason}": verdicts[reason] for reason in REASONS if verdicts[reason]}
    got = {name: count for name, count in counts.items() if name in want or name.startswith("rejected_")}
    out = [] if got == want else [f"the night counted {got}, the log holds {want}"]
    by_reason = sum(count for name, count in counts.items() if name.startswith("rejected_"))
    if counts["entries"] != counts["ok"] + by_reason:
        out.append(f"{counts['entries']} entries are not {counts['ok']} ok and {by_reason} rejected by reason")
    return out


def _broken_chain(settings: Settings) -> list[str]:
    """Commits of `archive` that do not begin where the one before ended."""
    ranges = committed_ranges(settings.table("archive"))
    return [
        f"the commit of version {after.version} begins at {after.start.to_json()}, the one before ended at {before.end.to_json()}"
        for before, after in pairwise(ranges)
        if any(after.start.next(key) != before.end.next(key) for key in after.start)
    ]


def _exact_differences(settings: Settings, truth: Truth, t: int, seq: int) -> list[str]:
    """Differences of records read at ``t`` from one snapshot in the fields that they call exact."""
    found = []
    with Reader(settings, seq=seq) as reader:
        for record in reader.records(None, t):
            want = truth.values(record.person, t)["values"]
            found += [
                f"{record.person} {name} at {t} from snapshot {seq}: {value!r} != {want[name]!r} ({record.freshness.state})"
                for name, value in record.values.items()
                if record.fields[name] == "exact" and value != want[name]
            ]
    return found


def judge_before_the_night(system: ChaosSystem, verdict: Verdict) -> None:
    """Every person and field, from every readable snapshot and the hot facts above it."""
    log = system.log()
    truth, t = Truth(log, topics(system)), time.time_ns() // 1_000_000
    readable = {one.row.seq for one in listing(system.settings) if one.readable}
    if len(readable) < system.settings.batch.keep_snapshots:
        # The empty snapshot is still one of them.
        readable.add(0)
    for seq in sorted(readable):
        verdict.add("records before the last night", _exact_differences(system.settings, truth, t, seq))
        verdict.counts["compared"] = verdict.counts.get("compared", 0) + len(truth.people)


def judge(system: ChaosSystem, lines: Sequence[bytes], reads: Sequence[Read], counts: dict[str, int], verdict: Verdict) -> None:
    """All there is to judge once a last night was published over the whole log; ``counts`` are its row's."""
    settings = system.settings
    raw = system.raw_log()
    log = system.log()
    order = topics(system)
    truth = Truth(log, order)
    now_ms = time.time_ns() // 1_000_000
    newest_ms = max(entry.at_ms or 0 for entries in truth.people.values() for entry in entries)
    for t in (now_ms, newest_ms + 1):
        verdict.add("records", _asserted(lambda t=t: differences(settings, truth, t)))
        verdict.counts["compared"] = verdict.counts.get("compared", 0) + len(truth.people)
    verdict.add("reads", wrong_reads(reads, log, order, settings.serving.consent_max_lag_ms))
    verdict.add("producer", missing_lines(lines, raw))
    columns = ["topic_id", "partition", "offset", "verdict", "person", "event_id"]
    archived = DeltaTable(settings.table("archive")).to_pyarrow_table(columns=columns).to_pylist()
    verdict.add("ledger", unequal_ledger(log, archived, system.facts()))
    verdict.add("ledger", _broken_chain(settings))
    if archive_end(settings.table("archive")) != system.log_end():
        verdict.add("ledger", ["archive does not end where the log does"])
    verdict.add("ledger", unequal_counts(log, counts))
    found: list[Any] = []
    verdict.add("personalization", _asserted(lambda: found.extend(assert_rows_hold(system)) or []))
    verdicts = Counter(entry.verdict for entry in log)
    verdict.counts |= {"entries": len(log), "ok": verdicts["ok"], "rejected": len(log) - verdicts["ok"], "reads": len(reads)}
    verdict.counts |= {"persons": len(truth.people), "rows": len(found)}


def _asserted(look: Callable[[], list[str]]) -> list[str]:
    """What a look finds; an assertion of it that fails is one difference."""
    try:
        return look()
    except AssertionError as error:
        return [str(error).strip()[:500] or "an assertion failed"]
