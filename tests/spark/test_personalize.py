"""The writer of `personalization` on archives written by hand: every row equals the library's record at the same (t, O)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import functions as F

from tests.spark.personalize_home import GRANTED, assert_equal_to_the_library, finish
from tests.spark.test_batch import drawn_logs, offsets, page
from twofold.catalogue import CATALOGUE
from twofold.errors import SecondWriter, ValidationRefused
from twofold.events import FactBody
from twofold.spark import standing
from twofold.spark.personalization import personalization_rows
from twofold.spark.published import append_row
from twofold.spark.wide import HELD_COLUMNS
from twofold.stores.one_writer import take_writer
from twofold.stores.person_hash import PersonHash
from twofold.stores.refresh_request import request_refresh
from twofold.stores.reports import read_reports, reports_place
from twofold.testing.strategies import NOW_MS, log_end
from twofold.timeline import DAY_MS, HOUR_MS, MINUTE_MS, Offsets

pytestmark = pytest.mark.spark


def test_touched_people_and_everyone_after_a_snapshot(spark, homes):
    """Random histories with late, duplicate and rejected entries: live rows, then everyone's from the next snapshot."""
    log = drawn_logs(40)
    ends = log_end(log)
    half, most = (Offsets({key: end * part // 4 for key, end in ends.items()}) for part in (2, 3))
    home = homes(catalogue=CATALOGUE, chunk_persons=50_000)
    home.archive([e for e in log if half.holds(e.position)], half)
    home.batch(as_of_ms=NOW_MS)
    home.archive([e for e in log if most.holds(e.position) and not half.holds(e.position)], most)
    home.open()
    finish(home)
    refreshed = assert_equal_to_the_library(home)
    assert {row["seq"] for row in refreshed.values()} == {1}

    home.clock.now_ms += 3 * DAY_MS
    rest = [e for e in log if not most.holds(e.position)]
    home.archive(rest, ends)
    home.live()
    rows = assert_equal_to_the_library(home)
    touched = {e.person for e in rest if e.verdict == "ok"}
    assert {person for person, row in rows.items() if row["t"] == home.clock.now_ms} == touched
    assert len(touched) < len(rows)

    # The law: the same (t, O) from the next snapshot.
    home.writer._emit("due", pa.array(sorted(rows)))
    before = home.rows()
    home.batch(as_of_ms=NOW_MS + 2 * DAY_MS)
    finish(home)
    after = assert_equal_to_the_library(home)
    assert {row["seq"] for row in before.values()} == {1} and {row["seq"] for row in after.values()} == {2}
    exact = 0
    for person, row in after.items():
        # What waited for the batch, a doubtful copy or a retraction, may have moved; nothing else has.
        said = json.loads(before[person]["record"])["fields"]
        same = ("t", "o", *(name for name in CATALOGUE.features if said[name] == "exact"))
        exact += len(same) == 2 + len(said)
        assert {name: row[name] for name in same} == {name: before[person][name] for name in same}
    assert exact > len(after) // 2


def test_a_refresh_takes_from_the_night_what_neither_an_entry_nor_an_edge_has_moved(homes, monkeypatch):
    log = drawn_logs(60)
    ends = log_end(log)
    most = Offsets({key: end * 3 // 4 for key, end in ends.items()})
    home = homes(catalogue=CATALOGUE, now_ms=NOW_MS, wide_tables=True)
    home.archive([e for e in log if most.holds(e.position)], most)
    home.batch(as_of_ms=NOW_MS)
    rest = [e for e in log if not most.holds(e.position)]
    home.archive(rest, ends)
    home.open()

    def refreshed(later_ms: int) -> dict[str, dict[str, Any]]:
        home.clock.now_ms = NOW_MS + later_ms
        request_refresh(home.settings.home_path)
        finish(home)
        rows = home.rows()
        assert {row["t"] for row in rows.values()} == {home.clock.now_ms}
        return rows

    honest = {}
    for later_ms in (0, 1, HOUR_MS, 8 * DAY_MS):
        honest[later_ms] = refreshed(later_ms)
        assert_equal_to_the_library(home)

    def marked(place: Any, rows: Any, files: int) -> None:
        """As if the night had counted a million orders of everyone."""
        number = rows.schema.get_field_index("orders_lifetime")
        standing.put_rows(place, rows.set_column(number, "orders_lifetime", pa.array([10**6] * len(rows), pa.int64())), files)

    monkeypatch.setattr("twofold.spark.held.put_rows", marked)
    touched, moving = {e.person for e in rest if e.verdict == "ok"}, {feature.name for feature in CATALOGUE.moving}
    assert {"interest", "streak_days", "days_since_last_order"} < moving < set(CATALOGUE.features)
    kept = {}
    for later_ms in (HOUR_MS, 8 * DAY_MS):
        rows = refreshed(later_ms)
        kept[later_ms] = {person for person, row in rows.items() if row["orders_lifetime"] == 10**6}
        assert kept[later_ms] and not kept[later_ms] & touched
        for person, row in rows.items():
            before, after = honest[0][person], honest[later_ms][person]
            if person in kept[later_ms]:
                staying = set(CATALOGUE.features) - moving - {"orders_lifetime"}
                assert {name: row[name] for name in staying} == {name: before[name] for name in staying}, person
                assert {name: row[name] for name in moving} == {name: after[name] for name in moving}, person
            else:
                assert {name: row[name] for name in CATALOGUE.features} == {name: after[name] for name in CATALOGUE.features}
    # The further from the night, the fewer; among them are people whom no entry has touched.
    assert kept[8 * DAY_MS] < kept[HOUR_MS] < honest[0].keys() - touched


def test_a_refresh_folds_everyone_where_the_night_does_not_say_until_when_it_holds(homes, monkeypatch):
    home = homes(now_ms=NOW_MS + 10, wide_tables=True)
    home.archive([page(n, f"user:{n}") for n in range(3)], offsets(3))
    first = home.batch(as_of_ms=NOW_MS)
    home.open()
    taken = []
    monkeypatch.setattr("twofold.spark.held.put_rows", lambda *rows: (taken.append(rows), standing.put_rows(*rows)))
    finish(home)
    assert len(taken) == 1, "taken over from the night"

    wide = DeltaTable(home.settings.table("wide_person"))
    older = wide.to_pyarrow_table().drop_columns([name for name, _comment in HELD_COLUMNS])
    write_deltalake(wide, older, mode="overwrite", schema_mode="overwrite")
    tables = {**first.tables, "wide_person": first.tables["wide_person"] + 1}
    append_row(home.spark, home.settings.table("manifest"), replace(first, seq=2, parent=1, tables=tables))
    home.clock.now_ms += 1
    finish(home)
    assert {row["seq"] for row in assert_equal_to_the_library(home).values()} == {2} and len(taken) == 1


def test_a_row_waits_for_a_retraction_of_what_is_folded_and_the_next_snapshot_ends_it(homes):
    def back(offset: int, person: str, target: str):
        return page(offset, person, event_id=f"r{offset}", facts=(FactBody("retraction", key=target),))

    home = homes(now_ms=NOW_MS + 10_000)
    order, old = (FactBody("order", amount_minor=7, currency="EUR"),), NOW_MS - 90 * DAY_MS
    entries = [page(n, "user:old", at_ms=old, facts=facts) for n, facts in enumerate((GRANTED, order, order))]
    home.archive([*entries, page(3, "user:new", facts=order), page(4, "user:new", facts=GRANTED)], offsets(5))
    home.batch(as_of_ms=NOW_MS)
    home.open()
    finish(home)

    def said() -> dict[str, tuple]:
        rows = assert_equal_to_the_library(home)
        states = {person: {**json.loads(row["record"])["fields"]} for person, row in rows.items()}
        return {
            person: (row["orders_lifetime"], row["sendable"], states[person]["orders_lifetime"]) for person, row in rows.items()
        }

    assert said() == {"user:old": (2, True, "exact"), "user:new": (1, True, "exact")}
    home.archive([back(5, "user:old", "e1"), back(6, "user:new", "e3"), back(7, "user:gone", "e9")], offsets(8))
    home.live()
    # Nobody knows that it was no consent that was taken back.
    gone = {"user:gone": (0, False, "exact")}
    assert said() == {"user:old": (2, False, "pending_retraction"), "user:new": (0, True, "exact"), **gone}
    home.batch(as_of_ms=NOW_MS)
    finish(home)
    assert said() == {"user:old": (1, True, "exact"), "user:new": (0, True, "exact"), **gone}


def test_before_the_first_snapshot_and_back_to_an_old_one(homes):
    home = homes()
    home.archive([page(n, f"user:{n}") for n in range(70)], offsets(70))
    home.open()
    finish(home)
    assert {row["snapshot"] for row in assert_equal_to_the_library(home).values()} == {"empty"}
    # Everyone once, in chunks of about 64.
    assert home.batches() == [1, 2] and DeltaTable(home.table).to_pyarrow_dataset().count_rows() == 70
    first = home.batch()
    home.archive([page(70, "user:0"), page(71, "user:new")], offsets(72))
    home.live()
    home.batch()
    finish(home)
    rows = assert_equal_to_the_library(home)
    assert {row["seq"] for row in rows.values()} == {2} and rows["user:0"]["page_views_1h"] == 2
    # A start from the second snapshot has no entries below its cut; the first one's need them.
    home.open()
    append_row(home.spark, home.settings.table("manifest"), replace(first, seq=3, parent=2))
    finish(home)
    rows = assert_equal_to_the_library(home)
    assert {row["seq"] for row in rows.values()} == {3} and {row["snapshot"] for row in rows.values()} == {first.snapshot}
    # A snapshot of other definitions is waited out.
    append_row(home.spark, home.settings.table("manifest"), replace(first, seq=4, parent=3, version="1/other"))
    request_refresh(home.settings.home_path)
    assert home.writer.tick() is False
    assert home.writer._emit("due", pa.array(["user:0"])) == 0
    assert home.rows() == rows


def test_people_whose_row_lapses_are_emitted_again(homes):
    home = homes(now_ms=NOW_MS + 10)
    home.archive([page(0, "user:a", at_ms=NOW_MS), page(1, "user:b", at_ms=NOW_MS + MINUTE_MS)], offsets(2))
    home.open()
    finish(home)
    rows = home.rows()
    assert {p: row["valid_until"] - NOW_MS for p, row in rows.items()} == {"user:a": HOUR_MS + 1, "user:b": MINUTE_MS + 1}
    assert [row["page_views_1h"] for row in rows.values()] == [1, 0]
    home.clock.now_ms = NOW_MS + MINUTE_MS + 1
    assert {p: row["stale"] for p, row in home.rows().items()} == {"user:a": False, "user:b": True}
    finish(home)
    rows = assert_equal_to_the_library(home)
    assert [(row["batch"], row["page_views_1h"], row["stale"]) for row in rows.values()] == [(1, 1, False), (2, 1, False)]
    # Far beyond what was known ahead: both have left the window, and then nothing lapses any more.
    home.clock.now_ms = NOW_MS + 2 * HOUR_MS
    finish(home)
    rows = assert_equal_to_the_library(home)
    assert [(row["page_views_1h"], row["valid_until"]) for row in rows.values()] == [(0, None), (0, None)]
    finish(home)
    assert home.batches() == [1, 2, 3]


def test_permission_fails_closed(homes):
    home = homes(now_ms=NOW_MS + 10_000)
    home.archive([page(0, "user:yes", facts=GRANTED), page(1, "user:no")], offsets(2))
    home.open()

    def said(person: str = "user:yes") -> tuple:
        row = home.rows()[person]
        freshness = json.loads(row["record"])["freshness"]
        return row["sendable"], row["sendable_until"], freshness["state"], freshness["lag_ms"]

    def emit() -> None:
        assert home.writer._emit("due", pa.array(["user:yes", "user:no"])) == 2

    t = home.clock.now_ms
    emit()
    assert said() == (True, t + 60_000, "fresh", 0)
    assert said("user:no")[:2] == (False, None)
    # What was permitted lapses by itself.
    home.clock.now_ms = t + 60_000
    assert said()[0] is False
    # The log has gone on: the row lies as far back as the newest entry that it knows of.
    home.clock.now_ms = t
    home.end = offsets(3, 0, 0)
    emit()
    lag = t - (NOW_MS + 1)
    assert said() == (True, t + 60_000 - lag, "stale", lag)
    home.clock.now_ms = NOW_MS + 61_002
    emit()
    assert said() == (False, None, "stale", 61_001)
    # Nobody can tell how far the log has gone.
    home.end = None
    emit()
    assert said() == (False, None, "batch_only", None)
    assert json.loads(home.rows()["user:yes"]["record"])["sendable"]["reasons"] == ["state_batch_only"]


def test_one_writer_which_tells_after_a_start_what_it_missed(homes):
    home = homes()
    home.archive([page(n, f"user:{n}") for n in range(4)], offsets(4))
    home.open()
    with pytest.raises(SecondWriter, match="another personalize is running") as refused:
        take_writer(home.settings, "personalize")
    assert refused.value.exit_code == 3
    finish(home)
    home.archive([page(4, "user:1"), page(5, "user:8"), page(6, None, verdict="malformed", event_id=None, facts=())], offsets(7))
    home.open()
    rows = assert_equal_to_the_library(home)
    assert {person: row["batch"] for person, row in rows.items()} == dict.fromkeys(rows, 1) | {"user:1": 2, "user:8": 2}
    home.open()
    finish(home)
    assert home.batches() == [1, 2]


# --- the gate -------------------------------------------------------------------------------------------------------------------
def everyone_sendable(*arguments: Any) -> Any:
    rows = personalization_rows(*arguments)
    return rows.withColumn("sendable", F.lit(True)).withColumn("sendable_until", F.col("t") + 1)


def test_a_sample_that_the_gate_refuses_is_not_written(homes, monkeypatch):
    home = homes(gate="enforce")
    people = [f"user:{n}" for n in range(12)]
    home.archive([page(n, person) for n, person in enumerate(people)], offsets(12))
    home.open()
    finish(home)
    before = home.batches()
    place = reports_place(home.settings.table("manifest"))
    assert before and read_reports(place) == [], "a sample that is met needs no report"

    monkeypatch.setattr("twofold.spark.personalize.personalization_rows", everyone_sendable)
    home.archive([page(12, "user:3"), page(13, "user:4")], offsets(14))
    with pytest.raises(ValidationRefused, match=r"personalization\.sendable_needs_consent .*2 rows to blame") as refused:
        home.open()
    assert refused.value.exit_code == 3 and "user:" not in str(refused.value)
    assert home.batches() == before
    (report,) = read_reports(place)
    ((suite, check),) = report.failed()
    hashed = PersonHash(home.settings.home_path)
    assert (suite.rows, check.unexpected, check.positions) == (2, 2, ((0, 0, 13), (0, 0, 12), (0, 0, 4), (0, 0, 3)))
    assert set(check.persons) == {hashed("user:3"), hashed("user:4")}


def test_a_live_batch_that_the_gate_refuses_says_so(homes, monkeypatch):
    """Within the interval nothing is looked at; after it, the writer names what its callback died of."""
    home = homes(gate="enforce")
    home.archive([page(0, "user:0")], offsets(1))
    home.open()
    finish(home)
    monkeypatch.setattr("twofold.spark.personalize.personalization_rows", everyone_sendable)
    home.writer._prepared.clear()
    home.archive([page(1, "user:1")], offsets(2))
    home.live()
    assert home.rows()["user:1"]["batch"] == 2
    home.clock.now_ms += home.settings.gate.sample_interval_ms
    home.archive([page(2, "user:2")], offsets(3))
    with pytest.raises(ValidationRefused):
        home.live()
    assert isinstance(home.writer.died_of, ValidationRefused) and "user:2" not in home.rows()
