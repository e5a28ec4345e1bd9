"""Pins of campaigns: the same values next week, from the hot store, from `archive`, from both; consent as it is now."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.unit.histories import EMPTY
from tests.unit.layered_home import KEYS
from tests.unit.manifests import TOPIC
from tests.unit.pinned_home import ASKED, Home, drawn, small
from twofold import pinned_reader
from twofold.catalogue import CATALOGUE, CONSENT_FEATURES, CONSENT_PRIMARIES, VERSION
from twofold.columns import facts_of
from twofold.errors import UsageError
from twofold.events import Entry, make_entry
from twofold.pinned import PinnedRecord
from twofold.reader import Reader
from twofold.stores.campaign_pins import CampaignPin
from twofold.stores.manifest import append_without_spark, rows
from twofold.testing.oracle import recompute_entries
from twofold.testing.script import PERSONS, START_MS
from twofold.timeline import DAY_MS, Offsets, Position
from twofold.views import HotView


def pinned_bytes(record: PinnedRecord) -> bytes:
    return msgspec.json.encode({name: value for name, value in record.values.items() if name not in CONSENT_FEATURES})


def at_the_oracle(home: Home, pin: CampaignPin, read: dict[str, PinnedRecord]) -> int:
    """Every exact value is that of a recomputation at the pin's (t, O); how many that were."""
    compared = 0
    for person, truth in recompute_entries(home.log, read, pin.t, (TOPIC,), upto=pin.offsets):
        for name, value in read[person].values.items():
            if name not in CONSENT_FEATURES and read[person].fields[name] == "exact":
                assert value == truth["values"][name], (person, name)
                compared += 1
    return compared


# --- the same values --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(8))
def test_values_are_the_same_bytes_from_hot_from_both_and_from_the_archive(tmp_path: Path, seed: int) -> None:
    home = drawn(tmp_path, seed)
    n = len(home.log)
    share = [n * percent // 100 for percent in (40, 45, 50, 60, 75, 100)]
    home.archive(share[2])
    home.follow(share[3])
    home.night(share[0])
    pin = home.pin("spring")
    assert pin.offsets == home.end(share[3]) and home.read_from("spring") == "hot"
    first = home.read("spring")
    assert {record.pinned.source for record in first.values()} == {"hot"}
    assert at_the_oracle(home, pin, first) > 30

    def same(source: str) -> None:
        assert home.read_from("spring") == source
        again = home.read("spring")
        assert {record.pinned.source for record in again.values()} == {source}
        assert {p: pinned_bytes(r) for p, r in again.items()} == {p: pinned_bytes(r) for p, r in first.items()}
        with home.reader() as reader, reader.pinned("spring") as pinned:
            everyone = {record.person: pinned_bytes(record) for record in pinned.records()}
            assert everyone.keys() == {e.person for e in home.log if e.verdict == "ok" and pin.offsets.holds(e.position)}
            # One after the other, of the slice that is in memory now.
            assert everyone == {person: pinned_bytes(pinned.record(person)) for person in everyone}
            assert everyone["user:1"] == pinned_bytes(first["user:1"])

    same("hot")
    # The hot store goes on; it is trimmed to a cut above the pinned one while the archive has not come to O.
    home.follow(share[4])
    for cut in (share[1], share[1], share[2]):
        home.night(cut)
    same("hot")
    home.trim()
    same("archive")
    # And a week later.
    home.archive(n)
    home.follow(n)
    for _ in range(4):
        home.night(n)
    home.trim()
    home.now += 7 * DAY_MS
    same("archive")


def take_back(home: Home, entries: list[Entry]) -> None:
    """Retractions at the end of the log, of these entries by their persons."""
    ends = home.end(len(home.log))
    for number, target in enumerate(entries):
        kind, who = target.person.split(":")
        event = {"type": "retraction", "event_id": f"back-{number}", "properties": {"target_event_id": target.event_id}}
        event |= {"user_id" if kind == "user" else "anonymous_id": who, "occurred_at": target.at_ms}
        position = Position(TOPIC, 0, ends.next(KEYS[0]) + number)
        home.values[position] = json.dumps(event).encode()
        home.log.append(make_entry(VERSION, position, home.log[-1].broker_ms + 1, home.values[position]))


def test_whatever_is_taken_back_after_the_pin_is_pinned_as_it_was(tmp_path: Path) -> None:
    home = drawn(tmp_path, 6)
    n = len(home.log)
    home.archive(n)
    home.night(n // 2)
    # Below O, one that is folded: its fields wait under the pin, and go on to.
    with home.reader() as reader:
        horizon_ms = reader.snapshot.horizon_ms
    lifetime = [primary for primary in CATALOGUE.lifetime if primary.name not in CONSENT_PRIMARIES]
    taken_back = {e.target for e in home.log}
    folded = next(
        e
        for e in home.log[: n // 3]
        if e.verdict == "ok"
        and e.person == PERSONS[0]
        and e.at_ms < horizon_ms
        and e.event_id not in taken_back
        and any(p.select.holds(fact) for p in lifetime for fact in facts_of(e))
    )
    take_back(home, [folded])
    home.follow(n + 1)
    pin = home.pin("spring")
    first = home.read("spring")
    assert at_the_oracle(home, pin, first) > 30
    waiting = {name for name, state in first[PERSONS[0]].fields.items() if state == "pending_retraction"} - {*CONSENT_FEATURES}
    assert waiting
    take_back(home, [entry for entry in home.log[:n] if entry.verdict == "ok" and entry.person in PERSONS])
    for steps in ((home.follow,), (home.archive, home.night), (home.night, home.night)):
        for step in steps:
            step(len(home.log))
        again = home.read("spring")
        assert {p: pinned_bytes(r) for p, r in again.items()} == {p: pinned_bytes(r) for p, r in first.items()}
        assert {name for name, state in again[PERSONS[0]].fields.items() if state == "pending_retraction"} >= waiting
        # What may be said now knows of it.
        assert not any(again[person].sendable.ok for person in PERSONS)
    home.trim()
    assert home.read_from("spring") == "archive"
    assert {p: pinned_bytes(r) for p, r in home.read("spring").items()} == {p: pinned_bytes(r) for p, r in first.items()}
    with home.reader() as reader:
        assert all(reader.record(person).values == EMPTY for person in PERSONS)


def test_rows_of_another_admission_are_admitted_again(tmp_path: Path) -> None:
    home = drawn(tmp_path, 3)
    n = len(home.log)
    home.archive(n // 2, admission_version=0)
    home.archive(n)
    home.night(n // 4)
    home.follow(n)
    pin = home.pin("spring")
    first = home.read("spring")
    shutil.rmtree(home.settings.hot_path)
    again = home.read("spring")
    assert {p: pinned_bytes(r) for p, r in again.items()} == {p: pinned_bytes(r) for p, r in first.items()}
    assert at_the_oracle(home, pin, again) > 30
    assert home.read("spring", ["user:1"])["user:1"] == again["user:1"]


def test_a_trim_in_the_middle_of_an_export_goes_unnoticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned_reader, "_CHUNK_PERSONS", 1)
    home = drawn(tmp_path, 1)
    n = len(home.log)
    home.archive(n)
    home.follow(n)
    home.night(n // 2)
    home.pin("spring")
    first = home.read("spring")

    class Trimmed(Reader):
        asked = 0

        def hot_view(self, person: str, since: Offsets) -> HotView:
            self.asked += 1
            view = super().hot_view(person, since)
            return view if self.asked <= 2 else replace(view, low=view.high, entries=())

    with Trimmed(home.settings, clock=lambda: home.now) as reader, reader.pinned("spring") as pinned:
        again = list(pinned.records(ASKED))
    assert [record.pinned.source for record in again] == ["hot", "hot", "archive", "archive"]
    assert [pinned_bytes(record) for record in again] == [pinned_bytes(first[person]) for person in ASKED]


def test_an_instant_and_an_older_snapshot(tmp_path: Path) -> None:
    home = drawn(tmp_path, 2)
    home.grace(10)
    n = len(home.log)
    home.archive(n)
    home.follow(n)
    for cut in (n // 3, n // 2):
        home.night(cut)
    first = rows(home.settings.table("manifest"))[0]
    t = home.now + 3 * DAY_MS
    pin = home.pin("later", at=t, seq=1)
    assert (pin.seq, pin.snapshot, pin.t, pin.offsets) == (1, first.snapshot, t, home.end(n))
    later, newest = home.read("later"), home.pin("newest", at=t)
    assert at_the_oracle(home, pin, later) > 30
    # The same (t, O) from two snapshots: the same values, where none is in conflict.
    for person, record in home.read("newest").items():
        assert newest.high == pin.high
        for name, value in record.values.items():
            if {record.fields[name], later[person].fields[name]} == {"exact"}:
                assert value == later[person].values[name]
    with pytest.raises(UsageError, match=r"cannot be read at .* pin an older one"):
        home.pin("early", at=(first.as_of_ms or 0) - 11 * DAY_MS)
    # What was granted under this grace is read under a smaller one.
    edge = home.pin("edge", at=(first.as_of_ms or 0) - 9 * DAY_MS, seq=1)
    home.grace(1)
    assert at_the_oracle(home, edge, home.read("edge")) > 30


# --- what is never pinned ---------------------------------------------------------------------------------------------------------
def test_consent_and_permission_are_the_current_ones(tmp_path: Path) -> None:
    home = small(tmp_path)
    before = home.read("spring", ["user:1", "user:2"])
    assert all(record.sendable.ok for record in before.values())
    assert before["user:1"].values["consent_marketing"] == "granted" and before["user:1"].freshness.state == "fresh"
    home.follow(7)
    home.now += 1
    after = home.read("spring", ["user:1", "user:2"])
    assert after["user:1"].values["consent_marketing"] == "denied"
    assert [after[p].sendable.reasons for p in after] == [("consent_denied",), ("unsubscribed",)]
    assert after["user:1"].freshness.t == home.now and after["user:1"].pinned == before["user:1"].pinned
    # The order came after O.
    assert after["user:1"].values["orders_lifetime"] == 0 and after["user:1"].values["product_views_30d"] == 1
    assert [pinned_bytes(after[p]) for p in after] == [pinned_bytes(before[p]) for p in after]
    # And as a record of now judges them: with its lag, with its gap.
    home.now += home.settings.serving.consent_max_lag_ms + 1
    with home.reader() as reader:
        for person, record in home.read("spring", ["user:1", "user:2"]).items():
            now = reader.record(person)
            assert (record.sendable, record.freshness) == (now.sendable, now.freshness)
            assert "lag" in record.sendable.reasons


def test_consent_below_the_current_snapshots_range_is_the_archives(tmp_path: Path) -> None:
    home = small(tmp_path)
    home.follow(7)
    home.archive(7)
    home.now = START_MS + 5 * DAY_MS // 24
    ahead = replace(rows(home.settings.table("manifest"))[0], seq=2, parent=1, as_of_ms=home.now + 90 * DAY_MS)
    append_without_spark(home.settings.table("manifest"), ahead)
    record = home.read("spring", ["user:1"])["user:1"]
    assert (record.values["consent_marketing"], record.sendable.reasons) == ("denied", ("state_archive", "consent_denied"))


def test_an_erased_person_is_unknown_under_the_pin_too(tmp_path: Path) -> None:
    home = small(tmp_path)
    assert home.read("spring", ["user:1"])["user:1"].values["product_views_30d"] == 1
    left = [entry for entry in home.log if entry.person != "user:1"]
    home.archive(7)
    shutil.rmtree(home.settings.hot_path)
    # A night that has not come to O says nothing yet.
    home.night(2, left)
    assert home.read("spring", ["user:1"])["user:1"].values["product_views_30d"] == 1
    home.night(7, left)
    assert home.read("spring", ["user:1"])["user:1"].values == EMPTY
    assert list(home.read("spring", None)) == ["user:2"]
