"""When a campaign pin can be had and read, what it keeps, and its commands."""

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

from tests.unit.layered_home import KEYS, START
from tests.unit.manifests import TOPIC, nights, publish
from tests.unit.pinned_home import Home, consent, said, small
from twofold.catalogue import CATALOGUE, VERSION
from twofold.cli import main
from twofold.errors import DefinitionError, PinError, StoreError, UsageError
from twofold.events import ADMISSION_VERSION
from twofold.pinned import reaches
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
from twofold.stores.manifest import rows
from twofold.stores.pins import read_pins
from twofold.stores.readable import grant_campaign_pin, pin_readable, survey_manifest
from twofold.stores.table_files import check_whole
from twofold.stores.vacuum import vacuum
from twofold.testing.script import START_MS
from twofold.testing.world import SMALLER
from twofold.timeline import DAY_MS, EMPTY_OFFSETS, Offsets
from twofold.views import HotView, VersionRange


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
