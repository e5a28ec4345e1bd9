"""The gate: planted faults stop a publish, the report names what failed and whom, and a good night says what it observed."""

from __future__ import annotations

import json
import re
import shutil
import socket
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
import yaml
from deltalake import DeltaTable

from tests.spark.test_batch import FEW, archive_row, commit, offsets, page
from twofold.catalogue import CATALOGUE
from twofold.errors import SuiteError, ValidationRefused
from twofold.events import FactBody
from twofold.settings import Settings
from twofold.spark import batch
from twofold.spark.batch import rebuild
from twofold.spark.suites import Suite, load_suite
from twofold.spark.validate import validate, validate_sample
from twofold.stores.home_log import HomeLog, write_home_log
from twofold.stores.manifest import current, rows
from twofold.stores.person_hash import PersonHash
from twofold.stores.reports import Check, Report, page_of, read_reports, reports_place

pytestmark = pytest.mark.spark

ROOT = Path(__file__).resolve().parents[2]
SUITES = ROOT / "conf" / "expectations"
NIGHT = 1_200


@pytest.fixture(scope="module")
def first_night(spark, tmp_path_factory) -> Settings:
    """A home with one published snapshot of a good night, copied by every test that goes on from it."""
    home = tmp_path_factory.mktemp("gate") / "home"
    write_home_log(home, HomeLog("topic-a", offsets(0, 0, 0), 1))
    settings = Settings(home=str(home), gate={"expectations": str(SUITES)}, batch={"wide_tables": False})
    good = [page(n, f"user:{n % 40}", facts=(_order(n),) if n % 4 == 0 else (FactBody("page", key="/"),)) for n in range(NIGHT)]
    commit(spark, settings, [archive_row(entry) for entry in good], offsets(0, 0, 0), offsets(NIGHT, 0, 0))
    rebuild(spark, settings, catalogue=FEW)
    return settings


@pytest.fixture
def home(first_night, tmp_path) -> Settings:
    shutil.copytree(first_night.home, tmp_path / "home")
    return first_night.model_copy(update={"home": str(tmp_path / "home")})


def _order(amount: int) -> FactBody:
    return FactBody("order", amount_minor=amount, currency="USD")


def _night(spark, home: Settings, entries: list) -> None:
    """A second night of the archive, after the good first one."""
    commit(spark, home, [archive_row(e) for e in entries], offsets(NIGHT, 0, 0), offsets(NIGHT + len(entries), 0, 0))


def _reports(home: Settings) -> list[Report]:
    return read_reports(reports_place(home.table("manifest")))


def _refused(spark, home: Settings, check: str) -> Check:
    """The rebuild is refused by ``suite.check``; nothing is published, nobody is named. The failed check."""
    before = rows(home.table("manifest"))
    with pytest.raises(ValidationRefused) as refused:
        rebuild(spark, home, catalogue=FEW)
    assert refused.value.exit_code == 3 and check in str(refused.value) and "\n" not in str(refused.value)
    assert rows(home.table("manifest")) == before and len(list(home.snapshots_path.iterdir())) == 1
    report = _reports(home)[-1]
    assert report.refused and report.seq == before[-1].seq + 1 and report.snapshot in str(refused.value)
    place = reports_place(home.table("manifest"))
    for text in (str(refused.value), Path(place / f"{report.snapshot}.json").read_text(), Path(page_of(place, report)).read_text()):
        assert not re.search(r"user:\d", text), "a person key"
    return next(found for suite, found in report.failed() if f"{suite.suite}.{found.name}" == check)


# --- a good night -------------------------------------------------------------------------------------------------------------
def test_a_good_night_says_what_it_observed(spark, home):
    row = current(home.table("manifest"))
    assert row.validation["outcome"] == "met"
    archive = row.validation["suites"]["archive_slice"]
    assert archive["rows"] == NIGHT and archive["observed"]["rejection_rate"] == 0
    assert archive["observed"]["orders_without_amount"] == 0 and "rejection_rate_rise" in archive["skipped"]
    state = row.validation["suites"]["state"]
    assert state["rows"] == 40 and state["observed"]["events_conserved"] == NIGHT
    assert state["skipped"] == ["persons_against_previous"], "there was no snapshot before"

    # The second night, incremental, is held against the first.
    _night(spark, home, [page(NIGHT + n, f"user:{n % 50}") for n in range(NIGHT)])
    wide = home.model_copy(update={"batch": home.batch.model_copy(update={"wide_tables": True, "drift_audit": False})})
    later = rebuild(spark, wide, catalogue=FEW, now_ms=lambda: 7, mode="incremental")
    assert later.validation == current(home.table("manifest")).validation
    assert later.validation["suites"]["archive_slice"]["rows"] == NIGHT, "only what is new"
    assert "skipped" not in later.validation["suites"]["state"]
    assert later.validation["suites"]["wide_person"]["rows"] == 50
    report = next(found for found in _reports(home) if found.made_ms == 7)
    assert (report.seq, report.snapshot, report.success) == (2, later.snapshot, True)
    slice_, state_, _wide = report.suites
    by_name = {check.name: check for check in (*slice_.checks, *state_.checks)}
    assert by_name["rejection_rate_rise"].threshold == {"max_value": 0.25} and by_name["rejection_rate_rise"].outcome == "met"
    assert by_name["orders_without_amount"].note.startswith("0 rows"), "no orders came"
    assert by_name["persons_against_previous"].threshold == {"min_value": 39.2, "max_value": 40 + NIGHT}


def test_reports_survive_maintenance_of_the_manifest(spark, home):
    folder = Path(reports_place(home.table("manifest")))
    before = sorted(file.name for file in folder.iterdir())
    assert len(before) == 2 and {Path(name).suffix for name in before} == {".json", ".html"}
    # Listing a folder in ten thousand tasks, the default, takes a minute.
    options = {
        "spark.databricks.delta.retentionDurationCheck.enabled": "false",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "1",
    }
    for key, value in options.items():
        spark.conf.set(key, value)
    try:
        spark.sql(f"VACUUM delta.`{home.table('manifest')}` RETAIN 0 HOURS")
    finally:
        for key in options:
            spark.conf.unset(key)
    assert DeltaTable(home.table("manifest")).vacuum(0, dry_run=True, enforce_retention_duration=False) == []
    assert sorted(file.name for file in folder.iterdir()) == before
    assert len(rows(home.table("manifest"))) == 1
    text = next(folder.glob("*.html")).read_text()
    assert "://" not in text and "<script" not in text, "a page that needs nobody"


# --- planted faults -----------------------------------------------------------------------------------------------------------
def test_a_burst_of_rejections(spark, home):
    burst = [page(NIGHT + n, None, verdict="malformed", event_id=None, at_ms=None) for n in range(900)]
    _night(spark, home, burst + [page(NIGHT + 900 + n, f"user:{n}") for n in range(100)])
    check = _refused(spark, home, "archive_slice.rejection_rate")
    assert check.observed == 0.9 and check.threshold == {"max_value": 0.5} and check.unexpected == 900
    assert check.positions == tuple((0, 0, NIGHT + n) for n in range(10)) and check.persons == ()


def test_money_of_another_unit_and_consent_of_another_word(spark, home):
    consents = [FactBody("consent", key="marketing", value="maybe" if n == 5 else "granted") for n in range(20)]
    orders = [_order(10**13)] * 120
    _night(spark, home, [page(NIGHT + n, f"user:{n % 20}", facts=(fact,)) for n, fact in enumerate([*consents, *orders])])
    check = _refused(spark, home, "archive_slice.consent_values")
    hashed = PersonHash(home.home_path)
    assert check.positions == ((0, 0, NIGHT + 5),) and check.persons == (hashed("user:5"),) and check.unexpected == 1
    (_suite, consent), (_suite, money) = _reports(home)[-1].failed()
    assert consent == check and (money.name, money.observed, money.unexpected) == ("huge_amounts", 120 / 140, 120)
    assert money.positions == tuple((0, 0, NIGHT + n) for n in range(20, 30)) and set(money.persons) == {
        hashed(f"user:{n}") for n in range(10)
    }

    # Published once all the same, if somebody says so; the report says that it failed.
    lenient = home.model_copy(update={"gate": home.gate.model_copy(update={"mode": "report"})})
    row = rebuild(spark, lenient, catalogue=FEW)
    assert row.validation["outcome"].startswith("failed") and current(home.table("manifest")) == row
    assert row.validation["suites"]["archive_slice"]["failed"] == ["consent_values", "huge_amounts"]
    assert not _reports(home)[-1].refused


def test_a_person_in_two_rows(spark, home, monkeypatch):
    def doubled(frame, location, snapshot):
        return batch_write(frame.union(frame.where("person = 'user:7'")), location, snapshot)

    batch_write = batch.write_version
    monkeypatch.setattr(batch, "write_version", doubled)
    check = _refused(spark, home, "state.one_row_a_person")
    assert check.unexpected == 2 and check.persons == (PersonHash(home.home_path)("user:7"),)
    # A row of a table has no place in the log; its person's newest entries have.
    newest = [(0, 0, n) for n in reversed(range(NIGHT)) if n % 40 == 7]
    assert check.positions == tuple(newest[:10])
    failed = {found.name for _suite, found in _reports(home)[-1].failed()}
    assert failed == {"one_row_a_person", "persons_counted", "persons_against_previous", "events_conserved"}


# --- suites on frames -----------------------------------------------------------------------------------------------------------
WIDE = (
    "person string, page_views_1h bigint, page_views_1d bigint, page_views_7d bigint, page_views_30d bigint, "
    "orders_lifetime bigint, revenue_lifetime map<string,decimal(38,0)>, first_order_at bigint, last_order_at bigint, "
    "consent_marketing string, country string, first_name string"
)


def _wide(**changes) -> tuple:
    good = {
        "person": "user:1",
        **{f"page_views_{window}": n for n, window in enumerate(("1h", "1d", "7d", "30d"))},
        **{"orders_lifetime": 1, "revenue_lifetime": {"USD": Decimal(5)}, "first_order_at": 1, "last_order_at": 1},
        **{"consent_marketing": "granted", "country": None, "first_name": None},
    }
    assert set(changes) <= set(good)
    return tuple({**good, **changes}.values())


def test_the_wide_suite_sees_each_planted_fault(spark):
    suite = load_suite(SUITES, "wide_person")
    people = [_wide(person=f"user:{n}") for n in range(120)]
    planted = [
        _wide(person="user:1"),
        _wide(person="user:w", page_views_1h=2),
        _wide(person="user:n", orders_lifetime=-1),
        _wide(person="user:o", first_order_at=2),
        _wide(person="user:c", consent_marketing="Granted"),
        *(_wide(person=f"user:r{n}", revenue_lifetime={"EUR": Decimal(10**12)}) for n in range(3)),
    ]
    known = {"now_persons": 127, "was_country_known": 0, "was_consent_known": 128, "was_first_name_known": 3}
    found = validate(spark.createDataFrame([*people, *planted], WIDE).coalesce(1), suite, "wide_person", known)
    assert {check.name for check in found.report.failed} == {
        "one_row_a_person",
        "consent_values",
        "persons_counted",
        "counts_not_negative",
        "windows_nest",
        "first_order_before_last",
        "huge_revenue",
        "first_name_known",
    }
    blamed = {
        offence.check.name: sorted(row.person for row in offence.rows.collect())
        for offence in found.offences
        if offence.rows is not None
    }
    assert blamed["one_row_a_person"] == ["user:1", "user:1"] and blamed["consent_values"] == ["user:c"]
    assert blamed["windows_nest"] == ["user:w"] and blamed["huge_revenue"] == ["user:r0", "user:r1", "user:r2"]
    checks = {check.name: check for check in found.report.checks}
    assert checks["consent_values"].unexpected == 1, "counted only once it had failed"
    assert (checks["consent_known"].outcome, checks["consent_known"].observed) == ("met", 128)
    assert checks["first_name_known"].threshold == {"min_value": 2.94}, "two or three of three, never none"
    # A catalogue without a feature: what needs it is skipped, and said to be.
    fewer = spark.createDataFrame(people, WIDE).drop("revenue_lifetime", "consent_marketing")
    left = {check.name: check for check in validate(fewer, suite, "wide_person", {"now_persons": 120}).report.checks}
    assert left["huge_revenue"].note == "the table lacks a column that huge_revenue is computed from"
    assert left["consent_values"].note == "the table has no column consent_marketing"
    assert left["windows_nest"].outcome == "met"


def test_no_shipped_expectation_is_without_its_column() -> None:
    """Derived columns name real features: a renamed feature must not silence its expectation."""
    columns = {"person", *CATALOGUE.features}
    assert {name.split()[0] for name in WIDE.replace("<string,decimal(38,0)>", "").split(",")} <= columns


def _suite(*names: str, **entry) -> Suite:
    expected = {"expect": "expect_column_max_to_be_between", "reason": "a reason that is long enough", **entry}
    return Suite.model_validate({"about": "rows", "expectations": [{"name": name, **expected} for name in names or ("it",)]})


def test_what_cannot_be_computed_is_neither_yes_nor_no(spark):
    frame = spark.range(5)
    for entry, match in (
        ({"expect": "expect_column_values_to_be_pretty"}, "no expect_column_values_to_be_pretty"),
        ({"kwargs": {"column": "id"}, "threshold": {"most": 5}}, "expectation it: .*most"),
        ({"kwargs": {"column": "id"}, "rows": "id >", "threshold": {"max_value": 1}}, "rows"),
    ):
        with pytest.raises(SuiteError, match=match):
            validate(frame, _suite(**entry), "odd")
    broken = _suite(kwargs={"column": "x"}).model_copy(update={"columns": {"x": "id +"}})
    with pytest.raises(SuiteError, match="suite odd, column x cannot be computed"):
        validate(frame, broken, "odd")


def test_nothing_leaves_the_machine_and_a_sample_is_bounded(spark, tmp_path, monkeypatch):
    connect, called = socket.socket.connect, []

    def watched(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            called.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    settings = Settings(home=str(tmp_path), gate={"sample_rows": 10})
    suite = _suite(kwargs={"column": "id"}, threshold={"max_value": 3})
    found = validate_sample(spark.range(1000), settings, loaded=suite)
    assert found.report.rows == 10 and found.report.failed and not called
    assert validate_sample(spark.range(0), settings, loaded=suite).report.checks[0].note == "no row has a value"
    # Two of the same meaning, which great-expectations would drop one of, both have their result.
    same = _suite("one", "other", expect="expect_table_row_count_to_equal", threshold={"value": 7})
    checks = validate(spark.range(7), same, "twice").report.checks
    assert [(check.name, check.outcome, check.observed) for check in checks] == [("one", "met", 7), ("other", "met", 7)]


# --- files ----------------------------------------------------------------------------------------------------------------------
def test_a_mistyped_suite_stops_the_rebuild_before_it_reads(spark, home, tmp_path):
    folder = tmp_path / "suites"
    shutil.copytree(SUITES, folder)
    data = yaml.safe_load((folder / "state.yaml").read_text())
    data["expectations"][0]["reson"] = data["expectations"][0].pop("reason")
    (folder / "state.yaml").write_text(yaml.safe_dump(data))
    wrong = home.model_copy(update={"gate": home.gate.model_copy(update={"expectations": str(folder)})})
    steps: list[str] = []
    with pytest.raises(SuiteError, match=r"state\.yaml, expectation one_row_a_person, reason: Field required"):
        rebuild(spark, wrong, report=steps.append, catalogue=FEW)
    assert steps == [] and SuiteError.exit_code == 2


def test_old_reports_go_and_data_docs_are_an_option(spark, home):
    assert not (home.home_path / "data_docs").exists()
    gate = home.gate.model_copy(update={"keep_reports": 1, "data_docs": True})
    row = rebuild(spark, home.model_copy(update={"gate": gate}), catalogue=FEW)
    (report,) = _reports(home)
    assert report.snapshot == row.snapshot and len(list(Path(reports_place(home.table("manifest"))).iterdir())) == 2
    assert json.loads(msgspec.json.encode(report))["suites"][0]["rows"] == 0, "nothing new came"
    pages = list((home.home_path / "data_docs").rglob("*.html"))
    assert len(pages) > 4 and not any(re.search(r"user:\d", file.read_text()) for file in pages), "a person key"
