"""The served-record audit: what was wrong is a bug, what came too early is lag, and one is never taken for the other."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import msgspec
import pytest
from deltalake import CommitProperties, DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.layered_home import drawn_log
from tests.unit.manifests import TOPIC
from tests.unit.served_home import EVERYONE, HOUR, Home, drawn, order, sent, small
from twofold.audit import Recomputation, Served, difference, differences, judge, spread
from twofold.catalogue import VERSION
from twofold.errors import ServedWrong
from twofold.families import FAMILIES
from twofold.local.served_audit import raise_for_bugs
from twofold.reader import Reader
from twofold.stores.audit_reports import newest_audit_report
from twofold.stores.person_hash import PersonHash
from twofold.stores.served_log import served_files
from twofold.testing.mutants import MUTANTS
from twofold.testing.oracle import values, winners
from twofold.testing.script import PERSONS
from twofold.testing.world import SMALLER
from twofold.timeline import DAY_MS, HOUR_MS


# --- nothing wrong ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(6))
def test_what_the_merge_serves_is_never_a_bug(tmp_path: Path, seed: int) -> None:
    home, rng = drawn(tmp_path, seed, keep_days=10_000), Random(seed)
    n = len(home.log)
    stops = [n * percent // 100 for percent in (40, 55, 70, 85, 100)]
    home.archive(n // 3)
    for stop in stops:
        home.follow(stop)
        home.serve((*PERSONS, "user:nobody"))
        for back_ms in (rng.randrange(3 * DAY_MS), 0, 40 * DAY_MS):
            home.serve(PERSONS, home.now - back_ms)
        if stop == stops[1]:
            home.archive(stop)
            home.night(stops[0])
            with home.reader() as reader:
                assert reader.snapshot.as_of_ms is not None
                early_ms = reader.snapshot.as_of_ms - 6 * DAY_MS
            home.serve(at=early_ms)
        if stop == stops[3]:
            for _ in range(3):
                home.archive(stop)
                home.night(stop)
            home.trim()
            # Behind a gap the snapshot alone answers, at its own O.
            home.serve(seq=1)
    lines = home.lines()
    assert {"archive", "gap"} <= {line["state"] for line in lines}
    home.archive(n)
    report = home.audit().report
    assert (report.summary.judged, report.summary.bugs, report.not_judged) == (len(lines), 0, {})
    assert report.summary.lag.records + report.summary.late.records >= report.summary.judged - report.summary.equal > 10
    assert report.summary.equal > 10
    assert home.audit().report.summary.judged == 0
    assert home.audit(again=True).report.summary == report.summary == home.audit(again=True, whole=True).report.summary


@pytest.mark.parametrize(
    "mutant",
    [
        "> for >= at the cut",
        "older_ids forgotten",
        "per-fact dedupe",
        "top-k truncated in plus",
        "duplicate winner by arrival",
        "last by arrival",
        "event-time cut",
        "hot retractions ignored",
        "retracted_ids forgotten",
        "target must come first",
        "losing copies do not retract",
        "pending not flagged",
    ],
)
def test_a_fault_of_the_merge_is_a_bug_and_no_lag(tmp_path: Path, mutant: str) -> None:
    """Each fault shows in some of a few histories, and without it the same reads are right."""
    found = 0
    for seed in range(60):
        home = drawn(tmp_path / str(seed), seed)
        n = len(home.log)
        home.archive(n)
        home.follow(n // 2)
        home.night(n // 3)
        home.night(n * 2 // 5)
        home.follow(n)
        with MUTANTS[mutant]():
            home.serve()
            home.serve(seq=1)
        summary = home.audit().report.summary
        # The archive ends where O does: nothing can be lag.
        assert summary.lag.records == summary.late.records == 0
        found += summary.bugs
        if found:
            break
        assert summary.equal == summary.judged == 6
    assert found, f"no record under {mutant!r} was called a bug"


# --- bug, lag and late, told apart ------------------------------------------------------------------------------------------------
LAG = {
    "orders_lifetime": 1,
    "orders_30d": 1,
    "revenue_lifetime": {"EUR": 750},
    "average_order": {"EUR": 125},
    "last_order_at": 2 * HOUR_MS,
    "product_views_30d": 1,
    "distinct_products_viewed_7d": 1,
    "recent_products": None,
    "active_hours_30d": None,
}
LATE = {
    "orders_lifetime": 1,
    "orders_30d": 1,
    "revenue_lifetime": {"USD": 100},
    "average_order": {"USD": 100},
    "last_order_at": HOUR_MS,
}


def without_interest(features: dict) -> dict:
    """Nor what the families make of it."""
    own = {name for family in FAMILIES.values() for name in family.told}
    return {name: by for name, by in features.items() if name != "interest" and name not in own}


def test_lag_in_entries_seconds_and_feature_units(tmp_path: Path) -> None:
    home = small(tmp_path)
    home.serve(["user:1"])
    home.archive(4)
    audited = home.audit()
    (judged,) = audited.worst
    assert judged.verdict == "lag" and not judged.wrong and judged.late is None
    assert (judged.lag.entries, judged.lag.ms) == (2, 2 * HOUR_MS)
    assert without_interest(judged.lag.features) == LAG
    # One more view an hour before t, at a half-life of seven days.
    assert judged.lag.features["interest"] == {"c1": pytest.approx(2 ** (-1 / 168), abs=1e-6)}
    summary = audited.report.summary
    assert (summary.lag.records, summary.late.records, summary.equal, summary.bugs) == (1, 0, 0, 0)
    assert summary.lag.seconds.max == summary.lag.seconds.p50 == 7_200 and summary.lag.entries.p99 == 2
    assert summary.lag.features["revenue_lifetime"].largest == {"EUR": 750}
    raise_for_bugs(home.settings, audited)


def test_late_events_are_not_the_systems_lag(tmp_path: Path) -> None:
    home = small(tmp_path)
    home.serve(["user:1"])
    home.follow(4)
    home.now = HOUR[5]
    home.serve(["user:1"])
    home.archive(6)
    audited = home.audit()
    first, second = sorted(audited.worst, key=lambda judged: len(judged.served.high[TOPIC]), reverse=True)
    both, late = (first, second) if first.lag is not None else (second, first)
    assert (both.verdict, late.verdict) == ("lag", "late")
    assert without_interest(both.lag.features) == LAG and both.lag.ms == 2 * HOUR_MS
    for judged in (both, late):
        assert (judged.late.entries, judged.late.ms, without_interest(judged.late.features)) == (1, 2 * HOUR_MS, LATE)
    assert late.lag is None
    assert audited.report.summary.lag.records == 1 and audited.report.summary.late.records == 2


def test_a_bug_and_a_lag_at_once_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = small(tmp_path)
    home.serve(["user:1", "user:1"])
    home.alter(0, lambda line: line["values"].update(revenue_lifetime={"EUR": 1250}, first_name="Ann"))
    home.archive(4)
    audited = home.audit()
    bug, lag = audited.worst
    assert (bug.verdict, lag.verdict) == ("bug", "lag")
    # What was served happens to be what lag hid: at its own (t, O) it is wrong all the same.
    assert bug.wrong == {"revenue_lifetime": {"EUR": 750}, "first_name": None}
    assert bug.lag == lag.lag and without_interest(lag.lag.features) == LAG
    assert audited.report.summary.bug_features["revenue_lifetime"].records == 1
    hashed = PersonHash(home.settings.home_path)("user:1")
    with pytest.raises(ServedWrong, match=rf"1 of 2 served records .*{hashed} at t=.*: revenue_lifetime, first_name") as wrong:
        raise_for_bugs(home.settings, audited)
    assert wrong.value.exit_code == 3 and "user:1" not in str(wrong.value) and "\n" not in str(wrong.value)
    line, report = str(wrong.value).split("; report: ")
    assert (tmp_path / "logs" / "audit.log").read_text() == f"audit: {line}\n" and report == str(audited.file)
    kept = newest_audit_report(home.settings)
    assert kept == audited.report and b"user:1" not in audited.file.read_bytes() and b"Ann" not in audited.file.read_bytes()
    # A look finds the same and writes nothing.
    look = home.audit(again=True)
    with pytest.raises(ServedWrong, match="1 of 2"):
        raise_for_bugs(home.settings, look)
    assert look.file is None and (tmp_path / "logs" / "audit.log").read_text().count("\n") == 1
    assert [file.name for file in audited.file.parent.iterdir()] == [audited.file.name]


def test_a_field_in_conflict_is_held_to_nothing(tmp_path: Path) -> None:
    home = small(tmp_path)
    home.archive(2)
    home.serve(["user:1"])
    home.alter(0, lambda line: line.update(values={**line["values"], "tier": "gold"}, inexact={"tier": "conflict"}))
    summary = home.audit().report.summary
    assert (summary.bugs, summary.equal, summary.inexact_fields) == (0, 1, 1)


@given(st.integers(0, 2**32 - 1))
def test_what_is_computed_at_its_own_offsets_is_right_and_its_differences_add_up(seed: int) -> None:
    rng = Random(seed)
    log, _values = drawn_log(rng.randrange(8))
    person = rng.choice(PERSONS)
    mine = [entry for entry in log if entry.verdict == "ok" and entry.person == person]
    ends: dict[str, int] = {"0": 0, "1": 0}
    for entry in log[: rng.randrange(len(log))]:
        ends[str(entry.partition)] = entry.offset + 1
    recomputation = Recomputation(lambda entries: winners(entries, (TOPIC,)), values)
    t, served_ms = (rng.choice(log).broker_ms + rng.randrange(-DAY_MS, DAY_MS) for _ in range(2))
    row = {
        "snapshot": "s",
        "seq": 1,
        "cut": {TOPIC: {"0": 0, "1": 0}},
        "high": {TOPIC: ends},
        "version": VERSION,
        "installed": VERSION,
    }
    blank = Served(person=person, t=t, served_ms=served_ms, state="fresh", values={}, **row)
    first = values(recomputation.winners(entry for entry in mine if blank.offsets.holds(entry.position)), t)
    counted = recomputation.winners(mine)
    judged = judge(msgspec.structs.replace(blank, values=first), mine, counted, recomputation)
    assert judged.wrong == {} and judged.recomputed == first
    hidden = [shift.features for shift in (judged.lag, judged.late) if shift is not None]
    second = values(counted, t)
    assert set().union(*hidden) >= differences(first, second).keys()
    for name, by in differences(first, second).items():
        # A value that was gone halfway has no two differences to add.
        parts = [features[name] for features in hidden if name in features]
        if isinstance(by, int) and None not in parts:
            assert sum(parts) == by
    if first == second:
        assert not hidden or len(hidden) == 2
    altered = {**first, "orders_lifetime": first["orders_lifetime"] + 1}
    assert judge(msgspec.structs.replace(blank, values=altered), mine, counted, recomputation).wrong == {"orders_lifetime": 1}


def test_a_copy_that_takes_the_place_of_a_counted_one_counts_though_it_lies_at_t() -> None:
    first, _ = sent(5, HOUR[1], HOUR[3], order("5.00", "EUR"))
    earlier, _ = sent(5, HOUR[2], HOUR[2], order("5.00", "EUR"))
    earlier = msgspec.structs.replace(earlier, partition=1)
    recomputation = Recomputation(lambda entries: winners(entries, (TOPIC,)), values)
    made = {"snapshot": "s", "seq": 1, "cut": {}, "high": {TOPIC: {"0": 6}}, "version": VERSION, "installed": VERSION}
    # What came in the very millisecond of the read was there.
    served = Served(person="user:1", t=HOUR[2], served_ms=HOUR[2], state="fresh", values=values([first], HOUR[2]), **made)
    judged = judge(served, [first, earlier], recomputation.winners([first, earlier]), recomputation)
    assert judged.verdict == "lag" and judged.lag.features["orders_lifetime"] == -1
    assert (judged.lag.entries, judged.lag.ms) == (1, 0)


def test_differences_in_their_own_units() -> None:
    assert difference(3, 5) == 2 and difference({"c": 0.1}, {"c": 0.3}) == {"c": 0.2}
    assert difference({"EUR": 5}, {"EUR": 5, "USD": -1}) == {"USD": -1}
    assert difference(None, 5) is None and difference(["a"], ["b"]) is None and difference("a", None) is None
    assert differences({"a": 1, "b": None}, {"a": 1, "c": 2}) == {"b": None, "c": None}
    assert spread([]) is None and (spread(range(1, 201)).p50, spread(range(1, 201)).p99) == (100, 198)


# --- not judged -------------------------------------------------------------------------------------------------------------------
def test_a_record_that_the_archive_has_not_reached_waits_and_is_judged_once(tmp_path: Path) -> None:
    home = small(tmp_path)
    home.serve(["user:1"])
    with home.reader() as reader:
        reader.record("user:nobody")
    report = home.audit().report
    assert (report.summary.judged, report.not_judged) == (0, {"waiting": 2})
    home.archive(3)
    report = home.audit().report
    assert (report.summary.judged, report.summary.lag.records, report.not_judged) == (2, 1, {})
    home.serve(["user:1"])
    assert home.audit().report.summary.judged == 1 and home.audit().report.summary.judged == 0
    assert home.audit(again=True).report.summary.judged == 3


def test_no_archive_yet_and_nothing_logged(tmp_path: Path) -> None:
    home = Home(tmp_path, *drawn_log(1), audit=EVERYONE)
    assert home.audit().report.summary.judged == 0
    home.follow(20)
    home.serve()
    report = home.audit().report
    assert report.not_judged == {"waiting": 3} and report.archive_version is None


def test_records_of_another_definition_are_counted_and_left(tmp_path: Path) -> None:
    home = small(tmp_path)
    home.archive(2)
    with Reader(home.settings, clock=lambda: home.now, catalogue=SMALLER) as reader:
        reader.record("user:1")
    home.serve(["user:1"])
    report = home.audit().report
    assert (report.summary.judged, report.not_judged) == (1, {"definition": 1})


def test_a_torn_last_line_is_counted_once_and_hides_nothing(tmp_path: Path) -> None:
    home = small(tmp_path)
    home.archive(2)
    home.serve(["user:1", "user:2"])
    (file,) = served_files(home.settings.served_path)
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-40])
    report = home.audit().report
    assert (report.summary.judged, report.not_judged) == (1, {"unreadable": 1})
    assert home.audit().report.not_judged == {}
    # Whoever was writing goes on.
    file.path.write_bytes(whole)
    assert home.audit().report.summary.judged == 1
    file.path.write_bytes(whole + b'{"kind":"served"}\n\xff\n' + whole)
    report = home.audit().report
    assert (report.summary.judged, report.not_judged) == (2, {"unreadable": 2})


def test_what_was_deleted_from_the_archive_is_erasure_and_no_bug(tmp_path: Path) -> None:
    pairs = [
        sent(0, HOUR[1], HOUR[1], order("5.00", "EUR")),
        sent(1, HOUR[1], HOUR[1], order("6.00", "EUR"), "2"),
        sent(2, HOUR[2], HOUR[2], order("7.00", "EUR"), "2"),
        sent(3, HOUR[2], HOUR[2], order("8.00", "EUR"), "3"),
    ]
    home = Home(tmp_path, [e for e, _ in pairs], {e.position: value for e, value in pairs}, audit=EVERYONE)
    for count in (2, 4):
        home.archive(count)
    home.follow(4)
    home.now = HOUR[5]
    table = DeltaTable(home.settings.table("archive"))
    home.serve(["user:1", "user:2", "user:3"])
    home.alter(2, lambda line: line["values"].update(orders_lifetime=9))
    end = json.dumps({"kind": "maintenance", "start": home.end(4).to_json(), "end": home.end(4).to_json()})
    # One person whole, one in part; of the third nothing, and that record is wrong.
    table.delete('"offset" IN (0, 1)', commit_properties=CommitProperties(custom_metadata={"userMetadata": end}))
    audited = home.audit()
    assert audited.report.not_judged == {"erasure": 2}
    (judged,) = audited.worst
    assert (judged.served.person, judged.wrong) == ("user:3", {"orders_lifetime": 8})
    # Where the older files are gone, only a person who is gone whole is known to be erased.
    for file in set(DeltaTable(home.settings.table("archive"), version=0).file_uris()) - set(
        DeltaTable(home.settings.table("archive")).file_uris()
    ):
        Path(file.removeprefix("file://")).unlink()
    audited = home.audit(again=True)
    assert audited.report.not_judged == {"erasure": 1}
    assert {judged.served.person for judged in audited.worst} == {"user:2", "user:3"}


def test_the_recomputation_is_of_the_bytes_and_of_no_stored_column(tmp_path: Path) -> None:
    home = small(tmp_path)
    spoiled = [
        msgspec.structs.replace(entry, verdict="schema", person=None, event_id=None, at_ms=None, facts=())
        if entry.offset == 1
        else msgspec.structs.replace(entry, facts=(), at_ms=0, event_id="same")
        for entry in home.log[1:4]
    ]
    right, home.log[1:4] = home.log[1:4], spoiled
    home.archive(4)
    home.log[1:4] = right
    home.serve(["user:1"])
    (judged,) = home.audit().worst
    assert judged.verdict == "lag" and without_interest(judged.lag.features) == LAG
    # An entry filed under another person is found by those who ask for the whole archive.
    home.log[4] = msgspec.structs.replace(home.log[4], person="user:2")
    home.archive(6)
    assert home.audit(again=True).worst[0].late is None
    assert home.audit(again=True, whole=True).worst[0].late.features == LATE
