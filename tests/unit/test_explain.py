"""`record --explain` on a home with a published snapshot, a hot store and an archive: the stores themselves, without Spark."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.manifests import TOPIC, create_manifest, write_archive
from twofold.catalogue import CATALOGUE, VERSION
from twofold.cli import main
from twofold.errors import UsageError
from twofold.events import Entry, FactBody, encode_entry
from twofold.explanation import Explanation
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.stores import snapshot_file
from twofold.stores.home_log import HomeLog, write_home_log
from twofold.stores.lmdb_hot import LmdbHot
from twofold.stores.manifest import append_without_spark
from twofold.testing.nights import rebuild
from twofold.timeline import DAY_MS, HOUR_MS, Offsets, PartitionKey
from twofold.views import empty_manifest

PERSON = "user:1"
KEY = PartitionKey(TOPIC, 0)
START, CUT, END = (Offsets({KEY: end}) for end in (0, 5, 10))
NOW = 1_780_000_000_000


def order(offset: int, event_id: str, at: int, minor: int, broker_ms: int | None = None, person: str = PERSON) -> Entry:
    bodies = (
        FactBody("order", key=event_id, amount_minor=minor, currency="EUR"),
        FactBody("purchase", product=f"p{offset}", quantity=1, currency="EUR"),
    )
    position = (TOPIC, 0, offset)
    return Entry(
        VERSION, *position, NOW + offset if broker_ms is None else broker_ms, "ok", person, event_id, at, "web", None, bodies
    )


#: Below the cut: two long before the horizon, one copied there, one since. Above it: a late one, copies of each, today's.
LOG = (
    order(0, "old-1", NOW - 400 * DAY_MS, 100),
    order(1, "old-2", NOW - 300 * DAY_MS, 200),
    order(2, "old-1", NOW - 400 * DAY_MS, 999),
    order(3, "new-1", NOW - 2 * DAY_MS, 300),
    order(4, "other", NOW - 2 * DAY_MS, 5, person="user:2"),
    order(5, "late", NOW - 200 * DAY_MS, 400),
    order(6, "old-2", NOW - 300 * DAY_MS, 888),
    order(7, "new-1", NOW - 2 * DAY_MS, 777, broker_ms=NOW + 2),
    order(8, "hot-1", NOW + 5, 500),
    order(9, "hot-1", NOW + 5, 666),
)
T = NOW + HOUR_MS


def text(entry: Entry) -> bytes:
    return json.dumps({"event_id": entry.event_id, "offset": entry.offset}).encode()


def make_home(folder: Path) -> Settings:
    settings = Settings(home=str(folder))
    write_home_log(folder, HomeLog(TOPIC, START, NOW))
    create_manifest(settings)
    snapshot = rebuild(CATALOGUE, VERSION, LOG, CUT, empty_manifest(START, VERSION), "s00000001-test")
    blobs = ((person, snapshot.blobs[person]) for person in snapshot.persons())
    snapshot_file.write(snapshot_file.snapshot_path(settings.snapshots_path, snapshot.row.snapshot), snapshot.row.snapshot, blobs)
    append_without_spark(settings.table("manifest"), snapshot.row)
    with LmdbHot(settings.hot_path, settings.hot.map_size_bytes, START) as hot:
        hot.raise_high(hot.partition(KEY), 10, VERSION, LOG[-1].broker_ms)
        hot.beat(T, END)
        hot.commit([(entry, encode_entry(entry)) for entry in LOG])
    write_archive(settings, LOG, START, END, text)
    return settings


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_home(tmp_path_factory.mktemp("home"))


def explained(home: Settings, field: str, at: int = T, raw: bool = False) -> Explanation:
    with Reader(home, clock=lambda: T) as reader:
        found = reader.explain(PERSON, field, at, raw)
        assert found.value == reader.record(PERSON, at).values[field]
    return found


def test_an_orders_story(home: Settings) -> None:
    found = explained(home, "revenue_lifetime")
    assert found.value == {"EUR": 100 + 200 + 400 + 500 + 777}
    (part,) = found.parts
    assert (part.start_ms, part.end_ms, part.facts) == (None, T, 3)
    told = [(c.event_id, c.place.layer, c.place.offset, c.late) for c in part.contributions]
    # The earlier copy of new-1 took the place of the folded one.
    assert told == [("hot-1", "hot", 8, False), ("new-1", "hot", 7, True), ("late", "hot", 5, True)]
    older = part.older
    assert older is not None
    assert (older.state, older.facts, older.all_events) == ({"EUR": 300}, 2, 2)
    assert (older.first_ms, older.last_ms) == (NOW - 400 * DAY_MS, NOW - 300 * DAY_MS)
    copies = {(s.event_id, s.place.layer, s.place.offset, s.why, s.winner and s.winner.offset) for s in found.suppressed}
    assert copies == {
        ("new-1", "batch", 3, "replaced", 7),
        ("old-2", "hot", 6, "later_copy", None),
        ("hot-1", "hot", 9, "later_copy", 8),
    }
    assert found.version == VERSION and found.freshness.snapshot == "s00000001-test"


def test_the_archive_tells_the_rest(home: Settings) -> None:
    raw = explained(home, "revenue_lifetime", raw=True).raw
    assert raw is not None and raw.end == END.to_json()
    assert [(event.event_id, event.place.offset) for event in raw.older] == [("old-1", 0), ("old-2", 1)]
    assert {event.place.offset for event in raw.suppressed} == {2, 3, 6, 9}
    assert [(event.event_id, event.place.offset) for event in raw.events] == [("late", 5), ("new-1", 7), ("hot-1", 8)]
    assert [event.value for event in raw.older] == [text(LOG[0]).decode(), text(LOG[1]).decode()]
    assert raw.missing == ()


def test_what_the_archive_lacks_is_named(tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path))
    make_home(tmp_path)
    shutil.rmtree(settings.table("archive"))
    write_archive(settings, LOG[:8], START, Offsets({KEY: 8}), text)
    raw = explained(settings, "revenue_lifetime", raw=True).raw
    assert raw is not None and raw.missing == ("hot-1",) and raw.end == {TOPIC: {"0": 8}}


def test_below_the_snapshots_range_the_archive_is_explained(home: Settings) -> None:
    found = explained(home, "orders_lifetime", at=NOW - 100 * DAY_MS, raw=True)
    assert (found.freshness.state, found.value) == ("archive", 3)
    (part,) = found.parts
    assert [(c.event_id, c.place.layer) for c in part.contributions] == [(e, "archive") for e in ("late", "old-2", "old-1")]
    assert part.older is None and found.raw is not None
    assert {event.event_id for event in found.raw.events} == {"late", "old-2", "old-1"} and found.raw.older == ()


def test_an_average_has_two_parts(home: Settings) -> None:
    found = explained(home, "average_order")
    assert [part.primary for part in found.parts] == ["revenue_lifetime", "paid_orders_lifetime"]
    assert found.parts[1].older is not None and found.parts[1].older.facts == 2


def test_the_command(home: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["record", PERSON, "--home", str(home.home_path), "--at", str(T)]
    assert main([*line, "--explain", "revenue_lifetime", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["field"] == "revenue_lifetime" and told["parts"][0]["contributions"][0]["event_id"] == "hot-1"
    assert told["raw"] is None
    assert main([*line, "--explain", "revenue_lifetime", "--raw"]) == 0
    shown = capsys.readouterr().out
    assert "older part: 2 facts" in shown and "copies that do not count: 3" in shown and "late" in shown
    assert main([*line, "--explain", "first_name", "--raw"]) == 0
    assert main([*line, "--json"]) == 0
    # When the last order is a day old.
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["next_change_at"] == NOW + 5 + DAY_MS
    assert main(line) == 0
    assert "or an event comes" in capsys.readouterr().out


def test_errors_are_one_line(home: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["record", PERSON, "--home", str(home.home_path)]
    assert main([*line, "--explain", "shoe_size"]) == 2
    assert "there is no field 'shoe_size'" in capsys.readouterr().err
    assert main([*line, "--raw"]) == 2
    assert "--explain" in capsys.readouterr().err
    with Reader(home) as reader, pytest.raises(UsageError):
        reader.explain(PERSON, "shoe_size")


def test_a_person_nobody_knows(home: Settings) -> None:
    with Reader(home, clock=lambda: T) as reader:
        found = reader.explain("user:nobody", "orders_lifetime", raw=True)
    assert (found.value, found.parts[0].contributions, found.parts[0].older) == (0, (), None)
    assert found.raw is not None and (found.raw.older, found.raw.suppressed, found.raw.events) == ((), (), ())
