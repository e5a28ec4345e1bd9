"""`twofold segments`, `segment preview`, `segment why`: on tables and a snapshot written without Spark."""

from __future__ import annotations

import json
from decimal import Decimal

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from tests.unit.histories import entry
from tests.unit.manifests import TOPIC, create_manifest, row_of
from twofold.catalogue import CATALOGUE
from twofold.cli import main
from twofold.events import FactBody
from twofold.settings import Settings, load_settings
from twofold.stores import segment_people, snapshot_file
from twofold.stores.home_log import HomeLog, write_home_log
from twofold.stores.manifest import append_without_spark
from twofold.stores.segments_file import load_segments
from twofold.testing.nights import rebuild
from twofold.timeline import DAY_MS, Offsets, PartitionKey
from twofold.views import empty_manifest

P0 = PartitionKey(TOPIC, 0)
T = 1_735_732_800_000
RULES = """
segments:
  loyal:
    description: Three orders or more, the last one long ago
    rule: orders_lifetime >= 3 and last_order_at older than 60 d
  euro:
    description: Any revenue in euros
    rule: revenue_lifetime.EUR > 0
"""
_TYPES = {
    "orders_lifetime": pa.int64(),
    "last_order_at": pa.int64(),
    "revenue_lifetime": pa.map_(pa.string(), pa.decimal128(38, 0)),
}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Settings:
    """A home with two rules, and the clock at T."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    folder = tmp_path / "home"
    write_home_log(folder, HomeLog(TOPIC, Offsets({P0: 0}), 1))
    monkeypatch.setenv("TWOFOLD_HOME", str(folder))
    monkeypatch.setenv("TWOFOLD_SEGMENTS__FILE", str(rules))
    monkeypatch.setattr("twofold.commands.options.time.time_ns", lambda: T * 1_000_000)
    return load_settings()


def values(orders: int, days: int | None, **revenue: int) -> dict:
    return {
        "orders_lifetime": orders,
        "last_order_at": None if days is None else T - days * DAY_MS,
        "revenue_lifetime": [(currency, Decimal(minor)) for currency, minor in revenue.items()],
    }


PEOPLE = {"user:a": values(3, 61, EUR=10**20), "user:b": values(3, 60), "user:c": values(0, None), "user:d": values(5, 90, USD=1)}


def write_personalization(home: Settings, version: str, segments=lambda _person: [], valid_until=None) -> None:
    rows = [
        {
            "person": person,
            "batch": batch,
            "t": T - 1,
            "valid_until": valid_until,
            "sendable_until": None,
            # An old row of a person does not count.
            **(found if batch == 2 else values(9, 99, EUR=1)),
            "segments": segments(person),
            "segments_version": version,
        }
        for batch in (1, 2)
        for person, found in PEOPLE.items()
    ]
    plain = {name: pa.int64() for name in ("batch", "t", "valid_until", "sendable_until")}
    schema = {"person": pa.string(), **plain, **_TYPES, "segments": pa.list_(pa.string()), "segments_version": pa.string()}
    write_deltalake(str(home.table("personalization")), pa.Table.from_pylist(rows, pa.schema(schema)))


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


# --- segments ---------------------------------------------------------------------------------------------------------------------
def test_without_a_table_the_rules_are_shown(home, capsys):
    code, out, _err = run(capsys, "segments")
    assert code == 0 and "no table to count in yet" in out and "revenue_lifetime.EUR > 0" in out
    found = json.loads(run(capsys, "segments", "--json")[1])
    assert found["table"] is None and [(s["name"], s["persons"]) for s in found["segments"]] == [("euro", None), ("loyal", None)]


def test_rows_of_these_very_rules_are_counted_by_their_column(home, capsys):
    version = load_segments(home, CATALOGUE).version
    write_personalization(home, version, lambda person: ["loyal"] if person == "user:c" else [])
    found = json.loads(run(capsys, "segments", "--json")[1])
    assert (found["version"], found["table"], found["t"], found["persons"], found["lapsed"]) == (
        version,
        "personalization",
        T,
        4,
        0,
    )
    assert {s["name"]: s["persons"] for s in found["segments"]} == {"euro": 0, "loyal": 1}


def test_rows_of_other_rules_are_evaluated_now(home, capsys):
    write_personalization(home, "older", lambda _person: ["gone"], valid_until=T)
    found = json.loads(run(capsys, "segments", "--json")[1])
    assert {s["name"]: s["persons"] for s in found["segments"]} == {"euro": 1, "loyal": 2} and found["lapsed"] == 4
    # Where lines break depends on how long the path of the rules is.
    assert "4 rows have lapsed: is the writer running?" in " ".join(run(capsys, "segments")[1].split())


def test_before_that_table_the_nightly_one_is_asked_at_its_own_instant(home, capsys):
    create_manifest(home)
    rows = [{"person": person, "as_of_ms": T - DAY_MS, **found} for person, found in PEOPLE.items()]
    schema = pa.schema({"person": pa.string(), "as_of_ms": pa.int64(), **_TYPES})
    write_deltalake(str(home.table("wide_person")), pa.Table.from_pylist(rows, schema))
    append_without_spark(home.table("manifest"), row_of(1, 0, tables={"wide_person": 0}, as_of_ms=T - DAY_MS))
    found = json.loads(run(capsys, "segments", "--json")[1])
    assert (found["table"], found["t"], found["persons"]) == ("wide_person", T - DAY_MS, 4)
    # A day earlier the third order of user:a was not yet old enough.
    assert {s["name"]: s["persons"] for s in found["segments"]} == {"euro": 1, "loyal": 1}
    people = segment_people.people(home, ["revenue_lifetime"], T)
    assert next(row["revenue_lifetime"] for row in people.rows) == {"EUR": 10**20}


# --- preview ----------------------------------------------------------------------------------------------------------------------
def test_a_preview_shows_what_the_rule_looks_at(home, capsys):
    write_personalization(home, "any")
    code, out, _err = run(capsys, "segment", "preview", "loyal", "--json")
    assert code == 0 and [json.loads(line) for line in out.splitlines()] == [
        {"person": "user:a", "orders_lifetime": 3, "last_order_at": T - 61 * DAY_MS},
        {"person": "user:d", "orders_lifetime": 5, "last_order_at": T - 90 * DAY_MS},
    ]
    code, out, _err = run(capsys, "segment", "preview", "--rule", "orders_lifetime >= 3 or last_order_at is null", "--limit", "1")
    assert code == 0 and "4 persons in personalization at 2025-01-01T12:00:00.000Z" in out
    assert "user:a" in out and "user:b" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["preview", "loyall"], "there is no segment 'loyall'; did you mean 'loyal'?"),
        (["preview"], "name a segment, or give a rule with --rule"),
        (["preview", "loyal", "--rule", "orders_lifetime = 1"], "name a segment, or give a rule with --rule"),
        (["preview", "--rule", "orders > 3"], "--rule column 1: unknown feature 'orders'; did you mean 'orders_30d'?"),
        (["why", "zzz", "user:a"], "there is no segment 'zzz'; there are euro, loyal"),
    ],
)
def test_what_cannot_be_asked_is_one_line(home, capsys, arguments, said):
    code, _out, err = run(capsys, "segment", *arguments)
    assert code == 2 and said in err and err.count("\n") == 1


def test_a_preview_needs_a_table_that_has_the_features(home, capsys):
    code, _out, err = run(capsys, "segment", "preview", "loyal")
    assert code == 1 and "neither `personalization` nor `wide_person` yet" in err
    write_personalization(home, "any")
    code, _out, err = run(capsys, "segment", "preview", "--rule", "tier = 'x'")
    assert code == 1 and "the table personalization is of other definitions, it has no tier" in err


@pytest.mark.parametrize("command", [["segments"], ["segment", "preview", "loyal"], ["record", "user:a"], ["up"]])
def test_a_bad_file_stops_whoever_reads_it(home, capsys, command):
    file = home.segments_path
    assert file is not None
    file.write_text(RULES.replace("orders_lifetime", "order_lifetime"))
    code, _out, err = run(capsys, *command)
    assert code == 2 and err.count("\n") == 1
    assert f"{file}:5: segment 'loyal', rule column 1: unknown feature 'order_lifetime'; did you mean 'orders_lifetime'?" in err


# --- why, and the record ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def published(home) -> Settings:
    """A snapshot with one person: three orders, the last one 61 days before T."""
    order = FactBody("order", amount_minor=100, currency="EUR")
    log = [
        entry(f"o{n}", T - (64 - n) * DAY_MS, order, topic=TOPIC, offset=n, broker_ms=T - 1, person="user:a") for n in range(1, 4)
    ]
    start = empty_manifest(Offsets({P0: 0}), CATALOGUE.version)
    night = rebuild(CATALOGUE, CATALOGUE.version, log, Offsets({P0: 4}), start, "s00000001-test", T)
    blob = night.person("user:a")
    assert blob is not None
    create_manifest(home)
    snapshot_file.write(
        snapshot_file.snapshot_path(home.snapshots_path, night.row.snapshot), night.row.snapshot, [("user:a", blob.pack())]
    )
    append_without_spark(home.table("manifest"), night.row)
    return home


def test_why_tells_each_clause_and_since_when(published, capsys):
    code, out, _err = run(capsys, "segment", "why", "loyal", "user:a", "--at", str(T))
    assert code == 0
    assert "user:a at 2025-01-01T12:00:00.000Z is in loyal, since 2024-12-31T12:00:00.001Z" in out
    assert "2024-11-01T12:00:00.000Z (61 d 0 h ago)" in out
    found = json.loads(run(capsys, "segment", "why", "loyal", "user:a", "--at", str(T), "--json")[1])
    assert (found["member"], found["entered_at"], found["entered_before"]) == (True, T - DAY_MS + 1, None)
    assert [(c["rule"], c["value"], c["holds"]) for c in found["clauses"]] == [
        ("all of", None, True),
        ("orders_lifetime >= 3", 3, True),
        ("last_order_at older than 60 d", T - 61 * DAY_MS, True),
    ]
    assert "is not in loyal" in run(capsys, "segment", "why", "loyal", "user:nobody", "--at", str(T))[1]
    # An earlier instant at which the age had not turned, and one below what is folded.
    assert "is not in loyal" in run(capsys, "segment", "why", "loyal", "user:a", "--at", str(T - DAY_MS))[1]
    out = run(capsys, "segment", "why", "euro", "user:a", "--at", str(T))[1]
    assert "is in euro, since 2024-11-27T12:00:00.000Z or earlier (what lies before is folded; ask with --exact)" in " ".join(
        out.split()
    )


def test_the_archive_knows_since_when(published, capsys, monkeypatch):
    """Of its entries those below the cut; above it only hot ones count, and there are none here."""
    order = FactBody("order", amount_minor=100, currency="EUR")
    log = [entry(f"o{n}", T - (64 - n) * DAY_MS, order, topic=TOPIC, offset=n, broker_ms=T - 1, person="user:a") for n in range(6)]
    monkeypatch.setattr("twofold.reader.archive_end", lambda _location: Offsets({P0: 6}))
    monkeypatch.setattr("twofold.reader.archive_entries", lambda _location, _version, _persons: iter(log[1:]))
    found = json.loads(run(capsys, "segment", "why", "euro", "user:a", "--at", str(T), "--json", "--exact")[1])
    assert (found["member"], found["entered_at"], found["entered_before"]) == (True, T - 63 * DAY_MS + 1, None)
    found = json.loads(run(capsys, "segment", "why", "loyal", "user:a", "--at", str(T), "--json", "--exact")[1])
    assert found["entered_at"] == T - DAY_MS + 1 and found["clauses"][1]["value"] == 3


def test_a_record_names_its_segments(published, capsys):
    found = json.loads(run(capsys, "record", "user:a", "--at", str(T), "--json")[1])
    assert found["segments"] == ["euro", "loyal"]
    assert found["segments_version"] == load_segments(published, CATALOGUE).version
    found = json.loads(run(capsys, "record", "user:a", "--at", str(T - DAY_MS), "--json")[1])
    assert found["segments"] == ["euro"]
    assert "segments: euro" in run(capsys, "record", "user:a", "--at", str(T - DAY_MS))[1]
