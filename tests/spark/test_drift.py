"""The drift audit: two ways to one answer agree, a difference is explained or stops the publish, and a refusal says where."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from tests.spark.test_batch import TOPIC, archive_row, commit, drawn_logs, offsets, page
from twofold.catalogue import CATALOGUE
from twofold.errors import DriftRefused
from twofold.events import FactBody
from twofold.features import Catalogue
from twofold.settings import Settings
from twofold.spark import batch
from twofold.spark.cut import pin
from twofold.spark.drift import audit
from twofold.spark.published import write_version
from twofold.spark.wide import read_state
from twofold.stores.home_log import HomeLog, write_home_log
from twofold.stores.manifest import rows
from twofold.stores.person_hash import PersonHash
from twofold.testing.strategies import NOW_MS, log_end
from twofold.timeline import DAY_MS, Offsets

pytestmark = pytest.mark.spark

_NAMES = ("orders_lifetime", "revenue_lifetime", "page_views_30d", "recent_products", "first_name")
#: A few kinds of feature, lifetime and windowed: compiling them all is most of a small rebuild.
SOME = Catalogue([CATALOGUE.primaries[name] for name in _NAMES], [CATALOGUE.features[name] for name in _NAMES])
LATE, PAID, REGRETS = "user:late", ("user:paid-1", "user:paid-2"), "user:regrets"


@pytest.fixture(scope="module")
def nights(spark, tmp_path_factory):
    """A home with two nights over one log, the second one audited: (settings, its manifest row)."""
    home = Settings(home=str(tmp_path_factory.mktemp("drift")), gate={"mode": "off"})
    write_home_log(home.home_path, HomeLog(TOPIC, offsets(0, 0, 0, 0), 1))
    log = drawn_logs(40)
    # A folded order, and a copy of it that comes later and was written earlier: the full fold lets the copy win. Two more orders.
    orders = (
        (0, LATE, "x", NOW_MS - 2 * DAY_MS),
        (1, PAID[0], "y", NOW_MS),
        (2, PAID[1], "z", NOW_MS),
        (3, REGRETS, "w", NOW_MS),
        (5, LATE, "x", NOW_MS - 3 * DAY_MS),
    )
    for offset, person, event_id, broker_ms in orders:
        fact = FactBody("order", amount_minor=700 + offset, currency="USD")
        log.append(page(offset, person, 3, event_id=event_id, at_ms=NOW_MS - 60 * DAY_MS, broker_ms=broker_ms, facts=(fact,)))
    # `w` is taken back in the second night, and a recent order, which needs no explanation.
    regretted = (
        (4, "v", FactBody("order", amount_minor=9, currency="USD")),
        (7, "back-v", FactBody("retraction", key="v")),
        (10, "back-w", FactBody("retraction", key="w")),
    )
    for offset, event_id, fact in regretted:
        log.append(page(offset, REGRETS, 3, event_id=event_id, at_ms=NOW_MS - 2 * DAY_MS, facts=(fact,)))
    start, end = offsets(0, 0, 0, 0), log_end(log)
    middle = Offsets({key: next_ // 2 for key, next_ in end.items()})
    commit(spark, home, [archive_row(e) for e in log if middle.holds(e.position)], start, middle)
    batch.rebuild(spark, home, as_of_ms=NOW_MS - DAY_MS, catalogue=SOME)
    commit(spark, home, [archive_row(e) for e in log if not middle.holds(e.position)], middle, end)
    return home, batch.rebuild(spark, home, as_of_ms=NOW_MS, catalogue=SOME)


def test_the_first_snapshot_has_nothing_to_be_held_to(nights):
    home, _row = nights
    assert rows(home.table("manifest"))[0].audit["drift"] == {"verdict": "first", "parent": 0, "t": NOW_MS - DAY_MS}


def test_every_person_and_field_is_compared(nights):
    """The late copy makes fields doubtful, of which one differs; what was folded and taken back differs too; nothing else does."""
    _home, row = nights
    drift = row.audit["drift"]
    assert (drift["verdict"], drift["parent"], drift["t"]) == ("equal", 1, NOW_MS)
    assert drift["persons"] == row.counts["persons"] > 50 and drift["fields"] == drift["persons"] * len(_NAMES)
    assert drift["conflict"] >= 1 and drift["retraction"] >= 2 and drift["unexplained"] == drift["erasure"] == 0


def test_a_corrupted_person_stops_the_publish(spark, nights, monkeypatch):
    """One person's revenue in `state`, another one's JSON, change after the fold: exit 3, the old snapshot serves."""
    home, row = nights

    def corrupt(pinned, location):
        folded = fold_state(pinned, location)
        state = read_state(spark, location, folded)
        more = F.transform_values("older.revenue_lifetime", lambda _currency, amount: (amount + 1).cast("decimal(38,0)"))
        changed = F.col("older").withField("revenue_lifetime", more)
        tampered = state.withColumn("older", F.when(F.col("person") == PAID[0], changed).otherwise(F.col("older")))
        text = F.when(F.col("person") == PAID[1], F.lit("{}")).otherwise(F.to_json("older"))
        # Read to its end before the table that it comes from is written.
        whole = tampered.withColumn("older_json", text).localCheckpoint()
        return replace(folded, tables={"state": write_version(whole, location, folded.snapshot)})

    fold_state = batch.fold_state
    monkeypatch.setattr(batch, "fold_state", corrupt)
    steps: list[str] = []
    with pytest.raises(DriftRefused) as refused:
        batch.rebuild(spark, home, as_of_ms=NOW_MS, catalogue=SOME, report=steps.append)
    assert DriftRefused.exit_code == 3 and steps[-1] == "audit"
    assert rows(home.table("manifest"))[-1] == row
    line = str(refused.value)
    assert f"2 of {row.counts['persons']} persons differ in 2 fields from snapshot 2" in line and "\n" not in line
    for person, field in zip(PAID, ("revenue_lifetime", "older_json"), strict=True):
        assert person not in line
        assert re.search(rf"{PersonHash(home.home_path)(person)} at (0/\d/\d+ ?)+: {field};", line)


def tampered_row(spark, home: Settings, row, change) -> object:
    """A row whose `wide_person` is a changed copy."""
    wide = spark.read.format("delta").option("versionAsOf", row.tables["wide_person"]).load(home.table("wide_person"))
    version = write_version(change(wide).localCheckpoint(), home.table("wide_person"), row.snapshot)
    return replace(row, tables={**row.tables, "wide_person": version})


def test_a_refusal_names_ten_and_erasure_explains(spark, nights):
    home, row = nights
    people = sorted(
        DeltaTable(home.table("wide_person")).to_pyarrow_table(columns=["person"])["person"].to_pylist(), key=str.encode
    )
    chosen, lost = people[:12], people[12]
    wrong = tampered_row(
        spark,
        home,
        row,
        lambda wide: wide.where(F.col("person") != lost).withColumn(
            "orders_lifetime", F.col("orders_lifetime") + F.col("person").isin(chosen).cast("bigint")
        ),
    )
    pinned = pin(spark, home, NOW_MS, SOME)
    # The cut has not moved since: the slice is empty, and the snapshot before is the one compared.
    with pytest.raises(DriftRefused, match=r"13 of \d+ persons differ in 13 fields from snapshot 2") as refused:
        audit(spark, home, pinned, wrong, 2)
    hashed = PersonHash(home.home_path)
    assert [hashed(person) in str(refused.value) for person in people[:13]] == [True] * 10 + [False] * 3

    erased = spark.createDataFrame([(person,) for person in (*chosen, lost)], "person string")
    drift = audit(spark, home, pinned, wrong, 2, erased).audit["drift"]
    assert (drift["verdict"], drift["erasure"], drift["unexplained"]) == ("equal", 13, 0)


def test_what_has_no_common_instant_is_not_compared(spark, nights):
    home, row = nights
    pinned = pin(spark, home, NOW_MS, SOME)
    verdicts = (
        audit(spark, home, pinned, changed, 2).audit["drift"]["verdict"]
        for changed in (replace(row, version="1/other"), replace(row, as_of_ms=NOW_MS - 5 * DAY_MS - 1))
    )
    assert [*verdicts] == ["definition", "below_range"]
