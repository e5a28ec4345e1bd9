"""The wide tables of a night: every row F(person, as_of, cut), the same in every reader, in small row groups; `twofold table`."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise

import duckdb
import jsonschema
import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyspark.sql import Row

from tests.spark.test_batch import FEW, TOPIC, archive_row, commit, drawn_logs, offsets, page
from twofold.catalogue import CATALOGUE
from twofold.cli import main
from twofold.events import FactBody
from twofold.settings import Settings
from twofold.spark import wide
from twofold.spark.batch import rebuild
from twofold.spark.campaigns import CAMPAIGN_COLUMNS
from twofold.stores.home_log import HomeLog, write_home_log
from twofold.stores.manifest import current
from twofold.testing import oracle
from twofold.testing.strategies import NOW_MS, log_end

pytestmark = pytest.mark.spark

ROWS_A_GROUP = 8
PERSONS_A_FILE = 40


@pytest.fixture(scope="module")
def night(spark, tmp_path_factory):
    """One published night over generated histories: (settings, entries, manifest row). Files and row groups are tiny."""
    home = Settings(home=str(tmp_path_factory.mktemp("wide")), gate={"mode": "off"})
    write_home_log(home.home_path, HomeLog(TOPIC, offsets(0, 0, 0, 0), 1))
    log = drawn_logs(60)
    # Drawn campaigns and orders rarely meet: one person whose order counts for a click.
    log.append(page(0, "user:shop", 3, at_ms=NOW_MS - 9, facts=(FactBody("email_clicked", campaign="spring"),)))
    log.append(page(1, "user:shop", 3, at_ms=NOW_MS - 5, facts=(FactBody("order", amount_minor=250, currency="EUR"),)))
    commit(spark, home, [archive_row(e) for e in log], offsets(0, 0, 0, 0), log_end(log))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wide, "PERSONS_A_FILE", PERSONS_A_FILE)
        patch.setattr(wide, "PERSONS_A_ROW_GROUP", ROWS_A_GROUP)
        row = rebuild(spark, home, as_of_ms=NOW_MS)
    return home, log, row


def plain(value):
    """Decimals as integers and records as dicts, whichever reader gave them."""
    if isinstance(value, Decimal):
        return int(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Row):
        return plain(value.asDict())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def delta_table(home: Settings, row, name: str) -> DeltaTable:
    return DeltaTable(home.table(name), version=row.tables[name])


def delta_rows(home: Settings, row, name: str) -> list[dict]:
    found = delta_table(home, row, name).to_pyarrow_table().to_pylist(maps_as_pydicts="strict")
    return [{key: plain(value) for key, value in r.items()} for r in found]


def test_a_row_is_the_record_of_a_recomputation(night):
    home, log, row = night
    expected = {person: record["values"] for person, record in oracle.recompute_entries(log, None, NOW_MS, (TOPIC,), upto=row.cut)}
    found = {r["person"]: r for r in delta_rows(home, row, "wide_person")}
    assert sorted(found) == sorted(expected) and row.counts["persons"] == len(expected)
    for person, values in expected.items():
        r = dict(found[person])
        assert (r.pop("person"), r.pop("as_of_ms"), r.pop("snapshot")) == (person, NOW_MS, row.snapshot)
        # Until when they hold, and what moves: see test_personalize.
        assert set(r) - set(values) == {name for name, _comment in wide.HELD_COLUMNS}
        until = r.pop(wide.HOLDS_UNTIL)
        assert (until is None or until > NOW_MS) and r.pop(wide.MOVING)
        # In their order, too: a map of scores is a ranking.
        assert json.dumps(r) == json.dumps({name: values[name] for name in r}), person
        jsonschema.validate(r, CATALOGUE.schema())


def test_files_are_ranges_of_persons_in_small_row_groups(night):
    home, _log, row = night
    ranges = []
    for file in delta_table(home, row, "wide_person").file_uris():
        parquet = pq.ParquetFile(file)
        people = [person.encode() for person in parquet.read(["person"])["person"].to_pylist()]
        assert people == sorted(people)
        groups = [parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)]
        assert max(groups) <= ROWS_A_GROUP and sum(groups) == len(people)
        ranges.append((people[0], people[-1]))
    ranges.sort()
    assert len(ranges) >= 2, "one file only: nothing was tested"
    assert all(end < start for (_start, end), (start, _end) in pairwise(ranges))


@pytest.mark.parametrize("name", ["wide_person", "wide_campaign"])
def test_every_reader_gives_the_same_rows(spark, night, name):
    home, _log, row = night
    table = delta_table(home, row, name)
    key = ["person"] if name == "wide_person" else ["campaign", "day"]
    expected = {tuple(r[k] for k in key): r for r in delta_rows(home, row, name)}
    assert expected

    by_sql = spark.sql(f"SELECT * FROM delta.`{home.table(name)}` VERSION AS OF {row.tables[name]}").collect()
    assert {tuple(r[k] for k in key): {n: plain(v) for n, v in r.asDict().items()} for r in by_sql} == expected

    # DuckDB's own Delta reader is an extension that it fetches from outside: here it reads through the Arrow data set.
    dataset = table.to_pyarrow_dataset()  # noqa: F841
    result = duckdb.sql("SELECT * FROM dataset")
    names = result.columns
    by_duckdb = [dict(zip(names, values, strict=True)) for values in result.fetchall()]
    assert {tuple(r[k] for k in key): {n: plain(v) for n, v in r.items()} for r in by_duckdb} == expected

    by_polars = pl.read_delta(home.table(name), version=row.tables[name]).to_dicts()
    assert {tuple(r[k] for k in key): {n: plain(v) for n, v in r.items()} for r in by_polars} == expected


def test_protocol_and_comments(night):
    home, _log, row = night
    columns = {
        "wide_person": list(wide.person_comments(CATALOGUE).items()),
        "wide_campaign": [(name, comment) for name, _type, comment in CAMPAIGN_COLUMNS],
    }
    for name, expected in columns.items():
        table = delta_table(home, row, name)
        protocol = table.protocol()
        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
        comments = [(field.name, field.metadata["comment"]) for field in table.schema().fields]
        assert comments == expected
    assert [name for name, _doc in comments_of_features(night)] == list(CATALOGUE.features)


def comments_of_features(night) -> list[tuple[str, str]]:
    home, _log, row = night
    fields = delta_table(home, row, "wide_person").schema().fields
    found = [(field.name, field.metadata["comment"]) for field in fields[len(wide.PERSON_COLUMNS) : -len(wide.HELD_COLUMNS)]]
    assert found == [(name, feature.doc) for name, feature in CATALOGUE.features.items()]
    return found


def test_a_night_that_dies_leaves_what_is_published(spark, night):
    """It had already overwritten both tables, under another catalogue even: the manifest names the versions before."""
    home, _log, row = night
    before = delta_rows(home, row, "wide_person")

    def crash(step: str) -> None:
        if step == "snapshot":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(spark, home, as_of_ms=NOW_MS, catalogue=FEW, report=crash)
    newest = DeltaTable(home.table("wide_person"))
    assert newest.version() > row.tables["wide_person"]
    assert [field.name for field in newest.schema().fields] == list(wide.person_comments(FEW))
    assert current(home.table("manifest")) == row and delta_rows(home, row, "wide_person") == before


# --- `twofold table` ------------------------------------------------------------------------------------------------------------
def run(capsys, home: Settings, *arguments: str) -> tuple[int, list[str], str]:
    code = main(["table", *arguments, "--home", home.home])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_table_shows_rows_of_the_current_snapshot(night, capsys):
    home, _log, _row = night
    row = current(home.table("manifest"))
    code, lines, _err = run(capsys, home, "wide_campaign", "--json", "--where", "clicked > 0", "--limit", "1000")
    expected = [r for r in delta_rows(home, row, "wide_campaign") if r["clicked"]]
    found = [json.loads(line) for line in lines]
    assert code == 0 and found and len(found) == len(expected)
    assert {(r["campaign"], r["day"], r["clicked"]) for r in found} == {
        (r["campaign"], r["day"].isoformat(), r["clicked"]) for r in expected
    }
    assert [r["revenue"] for r in found if r["campaign"] == "spring"] == [{"EUR": 250}]

    code, lines, _err = run(capsys, home, "wide_person", "--columns", "person,as_of_ms", "--limit", "3")
    assert code == 0 and len(lines) == 5 and str(NOW_MS) in lines[-1]
    code, lines, _err = run(capsys, home, "manifest", "--json", "--columns", "seq,cut")
    assert {json.loads(line)["seq"] for line in lines} == set(range(1, row.seq + 1))
    code, lines, _err = run(capsys, home, "archive", "--limit", "2")
    assert code == 0 and any(line.startswith("verdict") for line in lines)


def test_table_tells_its_schema(night, capsys):
    home, _log, _row = night
    code, lines, _err = run(capsys, home, "wide_campaign", "--schema", "--json")
    schema = json.loads(lines[0])
    assert code == 0 and schema["properties"]["orders"]["description"].startswith("orders within 7 days")
    for line in run(capsys, home, "wide_campaign", "--json")[1]:
        jsonschema.validate(json.loads(line), schema)
    assert any("campaign id" in line for line in run(capsys, home, "wide_campaign", "--schema")[1])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nope",), 2, "there is no table 'nope' here: state, wide_person, wide_campaign"),
        (("personalization",), 1, "is not written yet"),
        (("wide_campaign", "--where", "clicks > 1"), 2, "cannot answer that"),
        (("wide_campaign", "--where", "clicked >"), 2, "cannot answer that"),
        (("wide_campaign", "--columns", "nope"), 2, "cannot answer that"),
    ],
)
def test_table_refuses_in_one_line(night, capsys, arguments, code, says):
    home, _log, _row = night
    found, lines, error = run(capsys, home, *arguments)
    assert (found, lines) == (code, []) and says in error and error.count("\n") == 1


def test_a_table_without_rows_is_a_version_of_every_night(spark, tmp_path):
    """A shop without e-mail has no campaign, tonight as last night: nothing is overwritten by nothing, and it is published."""
    home = Settings(home=str(tmp_path))
    write_home_log(home.home_path, HomeLog(TOPIC, offsets(0, 0, 0), 1))
    versions = []
    for number in range(2):
        ends = offsets(number, 0, 0), offsets(number + 1, 0, 0)
        commit(spark, home, [archive_row(page(number))], *ends)
        row = rebuild(spark, home, catalogue=FEW)
        versions.append(row.tables["wide_campaign"])
        assert delta_rows(home, row, "wide_campaign") == []
    assert versions[0] < versions[1]
