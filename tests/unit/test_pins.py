"""Pins of campaigns: the same values next week, from the hot store, from `archive`, from both; consent as it is now."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.unit.histories import EMPTY
from tests.unit.layered_home import KEYS, START, LayeredHome, drawn_log
from tests.unit.manifests import TOPIC, nights, publish
from twofold import pinned_reader
from twofold.catalogue import CATALOGUE, CONSENT_FEATURES, CONSENT_PRIMARIES, VERSION
from twofold.cli import main
from twofold.columns import facts_of
from twofold.errors import DefinitionError, PinError, StoreError, UsageError
from twofold.events import ADMISSION_VERSION, Entry, FactBody, make_entry
from twofold.pinned import PinnedRecord, reaches
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.stores import snapshot_file
from twofold.stores.campaign_pins import (
    CampaignPin,
    create_campaign_pin,
    kept_seqs,
    read_campaign_pin,
    read_campaign_pins,
    remove_campaign_pin,
)
from twofold.stores.home_log import HomeLog, write_home_log
from twofold.stores.listing import listing
from twofold.stores.lmdb_hot import LmdbHot
from twofold.stores.manifest import append_without_spark, rows
from twofold.stores.pin_terms import listed_pins
from twofold.stores.pins import read_pins
from twofold.stores.readable import grant_campaign_pin, pin_readable, survey_manifest
from twofold.stores.table_files import check_whole
from twofold.stores.vacuum import vacuum
from twofold.testing.oracle import recompute_entries
from twofold.testing.script import PERSONS, START_MS
from twofold.testing.world import SMALLER
from twofold.timeline import DAY_MS, EMPTY_OFFSETS, Offsets, Position
from twofold.views import HotView, VersionRange

ASKED = (*PERSONS, "user:nobody")


class Home(LayeredHome):
    def pin(self, name: str, at: int | None = None, **options) -> CampaignPin:
        with self.reader(**options) as reader:
            return reader.pin(name, at)

    def read(self, name: str, persons=ASKED) -> dict[str, PinnedRecord]:
        with self.reader() as reader, reader.pinned(name) as pinned:
            return {record.person: record for record in pinned.records(persons)}

    def read_from(self, name: str) -> str | None:
        with self.reader() as reader:
            (source,) = (pin.read_from for pin in listed_pins(self.settings, VERSION, reader.vectors()) if pin.name == name)
        return source


def pinned_bytes(record: PinnedRecord) -> bytes:
    return msgspec.json.encode({name: value for name, value in record.values.items() if name not in CONSENT_FEATURES})


def drawn(folder: Path, seed: int) -> Home:
    return Home(folder, *drawn_log(seed))


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
def said(offset: int, at_ms: int, *bodies: FactBody, person: str = "user:1") -> Entry:
    return Entry(VERSION, TOPIC, 0, offset, at_ms, "ok", person, f"e{offset}", at_ms, "web", None, bodies)


def consent(value: str) -> FactBody:
    return FactBody("consent", key="marketing", value=value)


def small(folder: Path) -> Home:
    """Granted below the cut, a view above it; after the pin an order, a denial, and an unsubscribe of the other person."""
    day = [START_MS + n * DAY_MS // 24 for n in range(9)]
    home = Home(
        folder,
        [
            said(0, day[0], consent("granted")),
            said(1, day[1], consent("granted"), person="user:2"),
            said(2, day[2], FactBody("view", product="p1", category="c1")),
            said(3, day[3], FactBody("order", key="o1", amount_minor=5, currency="EUR")),
            said(4, day[4], consent("denied")),
            said(5, day[5], FactBody("email_unsubscribed", campaign="k"), person="user:2"),
            said(6, day[6], FactBody("page", key="/"), person="user:3"),
        ],
    )
    home.archive(3)
    home.night(2)
    home.follow(3)
    home.now += 1
    home.pin("spring")
    return home


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


# --- no loss, and other refusals --------------------------------------------------------------------------------------------------
def test_what_no_layer_has_yet_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = small(tmp_path)
    home.follow(7)
    shutil.rmtree(home.settings.table("archive"))
    home.archived = 0
    home.archive(2)
    # A machine that crashed: the hot store begins anew above O.
    shutil.rmtree(home.settings.hot_path)
    with LmdbHot(home.settings.hot_path, 1 << 24, home.end(7)):
        pass
    assert home.read_from("spring") is None
    with pytest.raises(PinError, match=r"partition 0 from 2 to 3\); wait until .*archive_end"):
        home.read("spring")
    with pytest.raises(PinError, match="from 2 to 7"):
        home.pin("summer")
    assert main(["pins", "--home", home.settings.home]) == 0
    assert "not yet" in " ".join(capsys.readouterr().out.split())
    home.archive(7)
    assert home.read_from("spring") == "archive" and home.read("spring")["user:1"].values["product_views_30d"] == 1


def test_a_store_of_other_versions_is_not_read(tmp_path: Path) -> None:
    key = KEYS[0]
    end, mine = Offsets({key: 10}), VersionRange(0, 10, "1/x")
    hot = HotView(high=end, low=START, versions={key: (mine,)})
    cut = Offsets({key: 5})
    assert reaches(hot, cut, end, "1/x") and reaches(HotView(), end, end, "1/x")
    assert not reaches(hot, cut, Offsets({key: 11}), "1/x") and not reaches(hot, START, Offsets({KEYS[1]: 1}), "1/x")
    assert not reaches(replace(hot, low=Offsets({key: 6})), cut, end, "1/x")
    assert not reaches(replace(hot, low=EMPTY_OFFSETS), cut, end, "1/x")
    other = replace(hot, versions={key: (VersionRange(0, 6, "1/y"), VersionRange(6, 10, "1/x"))})
    assert not reaches(other, cut, end, "1/x") and reaches(other, Offsets({key: 6}), end, "1/x")


def test_another_definition_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = small(tmp_path)
    with home.reader(catalogue=SMALLER) as reader:
        with pytest.raises(
            DefinitionError,
            match=rf"pin spring holds definition {CATALOGUE.fingerprint} of admission {ADMISSION_VERSION}, installed",
        ):
            reader.pinned("spring")
        with pytest.raises(DefinitionError, match="run `twofold batch`, then pin"):
            reader.pin("summer")
    with pytest.raises(UsageError, match="no pin summer"):
        read_campaign_pin(home.settings, "summer")
    pin = read_campaign_pin(home.settings, "spring")
    create_campaign_pin(home.settings, msgspec.structs.replace(pin, name="old", version=f"0/{CATALOGUE.fingerprint}"))
    place = ["--home", home.settings.home]
    assert main(["record", "user:1", "--pin", "old", *place]) == 1
    error = capsys.readouterr().err
    assert "of admission 0, installed is" in error and "`twofold unpin old`" in error and error.count("\n") == 1
    assert main(["pins", *place]) == 0
    assert "not installed" in capsys.readouterr().out


def test_a_pin_never_moves(tmp_path: Path) -> None:
    home = small(tmp_path)
    before = read_campaign_pin(home.settings, "spring")
    home.follow(7)
    with pytest.raises(UsageError, match=r"there already.*unpin spring"):
        home.pin("spring")
    assert read_campaign_pins(home.settings) == [before]
    for name in ("Spring", "7", "", "a/b", "-x", "x.y", "x" * 65, "é"):
        with pytest.raises(UsageError, match="cannot be a pin's name"):
            home.pin(name)
    remove_campaign_pin(home.settings, "spring")
    with pytest.raises(UsageError, match="no pin spring"):
        remove_campaign_pin(home.settings, "spring")


def test_of_many_who_pin_one_name_one_wins(tmp_path: Path) -> None:
    home = nights(tmp_path, 3)
    for name in ("spring", "summer", "autumn"):
        start, won = threading.Barrier(4), []

        def pin(t: int, name: str = name, start: threading.Barrier = start, won: list[int] = won) -> None:
            start.wait()
            with contextlib.suppress(UsageError):
                grant_campaign_pin(home, msgspec.structs.replace(campaign(name, 3), t=t))
                won.append(t)

        threads = [threading.Thread(target=pin, args=(t,)) for t in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [read_campaign_pin(home, name).t]
    assert sorted(file.name for file in (tmp_path / "tables" / "pins").iterdir()) == ["autumn", "spring", "summer"]


def test_before_the_first_night_there_is_nothing_to_pin(tmp_path: Path) -> None:
    home = Home(tmp_path, [said(0, START_MS, consent("granted"))])
    home.follow(1)
    with pytest.raises(UsageError, match="run `twofold batch` first"):
        home.pin("spring")


# --- what a pin keeps -------------------------------------------------------------------------------------------------------------
def campaign(name: str, seq: int) -> CampaignPin:
    return CampaignPin(name, seq, f"s{seq:08d}-test", 1, {}, "1/x", 1)


def test_files_stay_for_a_pin_and_hot_facts_do_not(tmp_path: Path) -> None:
    home = nights(tmp_path, 3)
    grant_campaign_pin(home, campaign("spring", 1))
    trimmed = survey_manifest(publish_to(home, 6))
    assert trimmed == survey_manifest(home) and kept_seqs(home) == {1} and not read_pins(home)
    remove_campaign_pin(home, "spring")
    assert survey_manifest(home) == trimmed
    grant_campaign_pin(home, campaign("spring", 4))
    publish_to(home, 9)
    gone = {one.place: one.files for one in vacuum(home, 0)}
    # 4 stays beside 7, 8 and 9.
    assert (gone["state"], gone["snapshots"]) == (5, 5)
    (row,) = (row for row in rows(home.table("manifest")) if row.seq == 4)
    check_whole(home.table("state"), row.tables["state"])
    assert snapshot_file.snapshot_path(home.snapshots_path, row.snapshot).exists()
    shown = {found.row.seq: found for found in listing(home)}
    assert (shown[4].campaigns, shown[4].readable, shown[4].pinned) == (("spring",), False, False)
    # It has no hot facts, so it cannot be pinned by its number; but another campaign may rest on it.
    with pytest.raises(UsageError, match="not readable any more"):
        pin_readable(home, 4)
    grant_campaign_pin(home, campaign("summer", 4))
    with pytest.raises(UsageError, match="snapshot 5 is not kept any more"):
        grant_campaign_pin(home, campaign("autumn", 5))
    assert [pin.name for pin in read_campaign_pins(home)] == ["spring", "summer"]
    for name in ("spring", "summer"):
        remove_campaign_pin(home, name)
    assert {one.place: one.files for one in vacuum(home, 0)}["snapshots"] == 1


def publish_to(home: Settings, seq: int) -> Settings:
    for number in range(rows(home.table("manifest"))[-1].seq + 1, seq + 1):
        publish(home, number)
    return home


def test_a_number_that_is_pinned_stays_so(tmp_path: Path) -> None:
    home = nights(tmp_path, 3)
    pin_readable(home, 1)
    publish_to(home, 5)
    pin_readable(home, 1)
    assert read_pins(home) == {1}


def test_a_pin_that_cannot_be_read_lets_nothing_go(tmp_path: Path) -> None:
    home = nights(tmp_path, 5)
    (tmp_path / "tables" / "pins").mkdir()
    (tmp_path / "tables" / "pins" / "spring").write_bytes(b"{")
    with pytest.raises(StoreError, match="pin spring is damaged"):
        vacuum(home, 0)
    assert len(list(home.snapshots_path.glob("*.lmdb"))) == 5
    write_home_log(tmp_path, HomeLog(TOPIC, START, START_MS))
    with Reader(home) as reader:
        assert reader.snapshot.seq == 5
    remove_campaign_pin(home, "spring")
    assert vacuum(home, 0)


# --- commands ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def commanded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Home]:
    home = small(tmp_path)
    remove_campaign_pin(home.settings, "spring")
    capsys.readouterr()
    yield home


def test_the_commands(commanded: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, place = commanded, ["--home", commanded.settings.home]

    def ran(*words: str) -> str:
        assert main([*words, *place]) == 0
        return capsys.readouterr().out

    told = json.loads(ran("pin", "spring", "--json"))
    assert (told["name"], told["seq"], told["version"]) == ("spring", 1, VERSION) and told["lag_ms"] > 0
    assert "pinned summer: snapshot s00000001-test" in ran("pin", "summer", "--at", str(START_MS + DAY_MS), "--snapshot", "1")
    assert ran("pin", "1", "--json") == '{"pinned":[1]}\n'
    listed = [json.loads(line) for line in ran("pins", "--json").splitlines()]
    assert [(pin["name"], pin["read_from"], pin["installed"]) for pin in listed] == [
        ("spring", "hot", True),
        ("summer", "hot", True),
        ("1", None, True),
    ]
    assert listed[0]["high"] == {TOPIC: {"0": 3, "1": 0}} and listed[1]["t"] == START_MS + DAY_MS and listed[2]["t"] is None
    assert [line.split()[0] for line in ran("pins").splitlines()[2:]] == ["spring", "summer", "1"]
    assert "pin spring pin summer" in " ".join(ran("snapshots").split())
    record = json.loads(ran("record", "user:1", "--pin", "summer", "--json"))
    assert (record["values"]["product_views_30d"], record["pinned"]["pin"], record["pinned"]["t"]) == (
        1,
        "summer",
        START_MS + DAY_MS,
    )
    assert "pin summer at 2025-01-02T12:00:00.000Z, from hot" in ran("record", "user:1", "--pin", "summer")
    out, names = tmp_path / "out.jsonl", tmp_path / "names"
    names.write_text("user:2\nuser:nobody\n")
    home.follow(7)
    assert ran("records", "--all", "--pin", "summer", "--out", str(out)).startswith("2 records")
    assert [json.loads(line)["person"] for line in out.read_text().splitlines()] == ["user:1", "user:2"]
    assert json.loads(ran("records", "--persons", str(names), "--pin", "summer", "--out", str(out), "--json"))["records"] == 2
    assert [json.loads(line)["person"] for line in out.read_text().splitlines()] == ["user:2", "user:nobody"]
    assert ran("unpin", "summer") == "let go: summer\n" and ran("pin", "spring", "--remove") == "pinned: 1\n"
    assert ran("unpin", "1", "--json") == '{"unpinned":"1"}\n' and not read_pins(home.settings)
    for words in (
        ["unpin", "1"],
        ["unpin", "winter"],
        ["record", "user:1", "--pin", "winter"],
        ["record", "user:1", "--pin", "spring", "--at", "1"],
        ["records", "--all", "--pin", "spring", "--at", "1", "--out", str(out)],
        ["pin", "1", "--at", "1"],
        ["pin", "Winter"],
    ):
        assert main([*words, *place]) == 2, words
        assert capsys.readouterr().err.count("\n") == 1
