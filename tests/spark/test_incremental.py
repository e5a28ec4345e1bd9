"""Incremental nights against full rebuilds at the same cut and as_of, bit for bit; what a night refuses; the weekly comparison."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import reduce
from random import Random

import msgspec
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tests.spark.test_batch import FEW, SCHEMA, TOPIC, archive_row, assert_published, commit, offsets, page
from twofold.columns import id_hash
from twofold.errors import IncrementalDiffers, IncrementalRefused
from twofold.events import ADMISSION_VERSION, Entry, FactBody, make_entry
from twofold.features import Catalogue, Primary, Select
from twofold.rankings import Decayed, Distinct, Histogram, Recent, Top
from twofold.settings import Settings
from twofold.spark.batch import rebuild
from twofold.spark.cut import Pinned, Survey, archive_at, judged_entries
from twofold.spark.incremental import Night, differing, night_rows, pin_night
from twofold.spark.published import append_row, write_version
from twofold.spark.state_rows import STATE, ok_entries, state_rows
from twofold.states import Count, Extreme, Latest, MoneySum, Sum
from twofold.stores.home_log import HomeLog, write_home_log
from twofold.stores.manifest import current, rows
from twofold.testing.strategies import NOW_MS, log_end
from twofold.timeline import DAY_MS, HOUR_MS, Position
from twofold.views import ManifestRow

RETRACTED = ("retracted_ids", "awaited_ids")
pytestmark = pytest.mark.spark

_ORDER, _VIEW, _ANY = Select(("order",)), Select(("view",)), Select(("page", "view", "order", "purchase"))
#: Every kind of state over a lifetime: what a night must add to what is folded.
EVERY = Catalogue(
    [
        Primary("count", Count(), _ANY),
        Primary("units", Sum("quantity"), Select(("purchase",))),
        Primary("cents", Sum("amount_minor"), _ORDER),
        Primary("money", MoneySum(), _ORDER),
        Primary("paid", MoneySum(counted=True), _ORDER),
        Primary("least", Extreme("amount_minor"), _ORDER),
        Primary("most", Extreme("quantity", largest=True), Select(("purchase",))),
        Primary("first", Latest("at_ms", first=True), _ANY),
        Primary("last", Latest("product"), _ANY),
        Primary("products", Distinct("product"), _ANY),
        Primary("recent", Recent("product", 3), _VIEW),
        Primary("views", Top("category"), _VIEW),
        Primary("bought", Top("product", "quantity"), Select(("purchase",))),
        Primary("hours", Histogram("hour_of_week"), _ANY),
        # The index of its half-life passes 100,000 at NOW_MS: as texts its keys would sort another way.
        Primary("interest", Decayed("category", NOW_MS // 100_000), _VIEW),
    ],
    [],
)
NIGHTS = 30
QUIET = (8, 20)
BELOW_A_FOLDED_ONE = 13


@pytest.fixture
def home(tmp_path) -> Settings:
    write_home_log(tmp_path, HomeLog(TOPIC, offsets(0, 0, 0), 1))
    return Settings(home=str(tmp_path), batch={"wide_tables": False}, gate={"mode": "off"})


@pytest.fixture
def interpreted(spark):
    """Plans of few rows run as they are: compiling each night's would take most of the time."""
    names = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
    names["spark.sql.adaptive.enabled"] = "false"
    before = {name: spark.conf.get(name) for name in names}
    for name, value in names.items():
        spark.conf.set(name, value)
    yield spark
    for name, value in before.items():
        spark.conf.set(name, value)


# --- thirty nights ----------------------------------------------------------------------------------------------------------------
def _body(rng: Random) -> tuple[FactBody, ...]:
    product, category = rng.choice(("a", "b", "ä", "\U0001f600", "\uffff")), rng.choice(("x", "y", None))
    kind = rng.choice(("page", "view", "order", "order"))
    if kind == "page":
        return (FactBody("page", key="/"),)
    if kind == "view":
        return (FactBody("view", product=product, category=category),)
    amount = rng.choice((None, 0, 5, -5, 10**15))
    order = FactBody("order", amount_minor=amount, currency=rng.choice(("EUR", "USD", "BHD")))
    bought = [FactBody("purchase", product=p, quantity=rng.choice((1, -1, 2, -2))) for p in "ab"[: rng.randrange(3)]]
    return (order, *bought)


def as_of(night: int) -> int:
    return NOW_MS + night * DAY_MS


def _instant(rng: Random, broker_ms: int) -> int:
    choice = rng.random()
    if choice < 0.5:
        return broker_ms - rng.randrange(3 * HOUR_MS)
    if choice < 0.75:
        return broker_ms - rng.randrange(80 * DAY_MS)
    # On the edge of some night's horizon.
    return EVERY.horizon(as_of(rng.randrange(NIGHTS)), 5) + rng.choice((-1, 0, 1))


def _taken_back(rng: Random, sent: list[Entry]) -> Entry | None:
    """An entry that its person takes back; ``None``: nothing is, or what has not come yet."""
    return rng.choice(sent[-rng.choice((5, 60, 400)) :]) if sent and rng.random() < 0.85 else None


def simulated_nights(seed: int, persons: int = 9) -> list[list[Entry]]:
    """Entries by night: late ones, copies with other bodies, instants and partitions, retractions of whatever was sent, of what
    comes later and of nothing, rejected ones; nights without any.

    One night brings a copy, in a partition that is new and whose broker's clock is behind, below one that is folded.
    """
    rng = Random(seed)
    ends: Counter[int] = Counter()
    sent: list[Entry] = []
    nights = []
    for night in range(NIGHTS):
        entries = []
        for number in range(0 if night in QUIET else rng.randrange(6, 14)):
            partition = rng.randrange(3)
            # Monotone within a partition, skewed between them.
            broker_ms = as_of(night) - DAY_MS + number * HOUR_MS + (0, 2 * HOUR_MS, -HOUR_MS // 2)[partition]
            copied = rng.choice(sent[-60:]) if sent and rng.random() < 0.3 else None
            body = copied.facts if copied and rng.random() < 0.5 else _body(rng)
            of = copied
            if rng.random() < 0.15:
                target = _taken_back(rng, sent)
                body = (FactBody("retraction", key=target.event_id if target else f"e{len(sent) + rng.randrange(20)}"),)
                of = copied or target
            entry = page(
                ends[partition],
                of.person if of else f"user:{rng.randrange(persons)}",
                partition,
                broker_ms=broker_ms,
                event_id=copied.event_id if copied else f"e{len(sent)}",
                at_ms=copied.at_ms if copied and rng.random() < 0.5 else _instant(rng, broker_ms),
                facts=body,
            )
            if rng.random() < 0.1:
                entry = page(ends[partition], None, partition, broker_ms=broker_ms, verdict="schema", event_id=None, facts=())
            else:
                sent.append(entry)
            entries.append(entry)
            ends[partition] += 1
        if night == BELOW_A_FOLDED_ONE:
            gone = {(entry.person, entry.target) for entry in sent}
            horizon_ms = EVERY.horizon(as_of(night - 1), 5)
            folded = next(e for e in sent if e.at_ms < horizon_ms and (e.person, e.event_id) not in gone)
            entries.append(
                page(0, folded.person, 3, broker_ms=1_000, event_id=folded.event_id, at_ms=folded.at_ms, facts=_body(rng))
            )
            ends[3] += 1
        nights.append(entries)
    return nights


def state_of(spark, home: Settings, row):
    return spark.read.format("delta").option("versionAsOf", row.tables["state"]).load(home.table("state"))


class InMemory:
    """A log as one frame, and nights over it without tables."""

    def __init__(self, spark, nights: list[list[Entry]], catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        entries = [entry for night in nights for entry in night]
        self.archive = spark.createDataFrame([archive_row(entry) for entry in entries], SCHEMA).localCheckpoint()
        ends = offsets(0, 0, 0, 0)
        self.cuts = []
        for night in nights:
            ends = ends.join(log_end(night))
            self.cuts.append(ends)

    def row(self, night: int) -> ManifestRow:
        horizon_ms = self.catalogue.horizon(as_of(night), 5)
        return ManifestRow(
            night + 1, f"n{night}", self.cuts[night], self.catalogue.version, as_of(night), horizon_ms, topics=(TOPIC,)
        )

    def night(self, parent: int, number: int, state) -> Night:
        row, before = self.row(number), self.row(parent)
        judged = judged_entries(self.archive, row.cut)
        pinned = Pinned(judged, Survey({}, 0), row, self.catalogue, self.archive, before)
        return Night(pinned, state, judged_entries(self.archive, row.cut, before.cut), 0)

    def full(self, number: int):
        ok = ok_entries(judged_entries(self.archive, self.cuts[number]), (TOPIC,))
        return state_rows(ok, self.catalogue, self.catalogue.horizon(as_of(number), 5), 2).select(*STATE).localCheckpoint()


def all_full_rebuilds(spark, nights: list[list[Entry]], catalogue: Catalogue):
    """The full rebuilds of all nights in one: each person once a night, as ``<night>/<person>``."""
    copies = []
    for number in range(len(nights)):
        below = [entry for night in nights[: number + 1] for entry in night if entry.verdict == "ok"]
        copies += [archive_row(msgspec.structs.replace(entry, person=f"{number:02}/{entry.person}")) for entry in below]
    horizons = F.array(*(F.lit(catalogue.horizon(as_of(number), 5)) for number in range(len(nights))))
    horizon = F.get(horizons, F.substring("person", 1, 2).cast("int"))
    ok = ok_entries(spark.createDataFrame(copies, SCHEMA), (TOPIC,))
    return state_rows(ok, catalogue, horizon, 2).select(*STATE).localCheckpoint()


def test_thirty_nights_equal_full_rebuilds(interpreted):
    spark, nights = interpreted, simulated_nights(3)
    log = InMemory(spark, nights, FEW)
    fulls = all_full_rebuilds(spark, nights, FEW)

    def full(number: int):
        of_night = fulls.where(F.col("person").startswith(f"{number:02}/"))
        return of_night.withColumn("person", F.expr("substring(person, 4)"))

    def named(state, number: int):
        return state.withColumn("person", F.concat(F.lit(f"{number:02}/"), "person"))

    state = full(0)
    states, refused, recomputed, anew = [named(state, 0)], [], [], 0
    for number in range(1, NIGHTS):
        try:
            with night_rows(log.night(number - 1, number, state)) as (rows_, touched):
                state = rows_.select(*STATE).localCheckpoint()
            recomputed.append(touched.persons)
            anew += touched.anew
        except IncrementalRefused:
            refused.append(number)
            state = full(number)
        states.append(named(state, number))
    assert differing(reduce(DataFrame.unionByName, states), fulls).count() == 0
    assert refused == [BELOW_A_FOLDED_ONE]
    assert fulls.count() > 200 and len(set(recomputed)) > 3 and anew > 5


def test_every_kind_of_state_is_added_as_it_is_folded(interpreted):
    log = InMemory(interpreted, simulated_nights(4, persons=30), EVERY)
    with night_rows(log.night(19, NIGHTS - 1, log.full(19))) as (rows_, touched):
        assert differing(rows_.select(*STATE), log.full(NIGHTS - 1)).count() == 0
    assert touched.persons > 20 and touched.anew > 3


def back(offset: int, person: str, target: str, partition: int = 0) -> Entry:
    facts = (FactBody("retraction", key=target),)
    return page(offset, person, partition, broker_ms=NOW_MS + 70, event_id=f"r{partition}{offset}", facts=facts)


# --- the whole job ----------------------------------------------------------------------------------------------------------------
def test_a_night_publishes_what_a_full_rebuild_would(spark, home):
    """Copies, a late event, retractions, a new partition, another admission version; then maintenance and a quiet night."""
    horizon = FEW.horizon(NOW_MS, home.batch.late_grace_days)
    order = (FactBody("order", amount_minor=7, currency="EUR"), FactBody("purchase", product="p", quantity=2))
    entries = [
        *(page(n, f"user:{n}", at_ms=horizon + n - 1) for n in range(3)),
        page(3, "user:untouched"),
        page(4, "user:old", at_ms=horizon - DAY_MS, facts=order),
        *(page(n, "user:folded", 1, event_id=f"e1{n}", at_ms=horizon - DAY_MS + n, facts=order) for n in range(2)),
        page(2, "user:taken", 1, event_id="e12", facts=order),
        back(3, "user:untouched", "e3", 1),
        back(4, "user:untouched", "nothing", 1),
    ]
    commit(spark, home, [archive_row(entry) for entry in entries], offsets(0, 0, 0), offsets(5, 5, 0))
    first = rebuild(spark, home, as_of_ms=NOW_MS, catalogue=FEW)
    line = b'{"event_id":"e9","user_id":"1","type":"page","occurred_at":%d}' % NOW_MS
    new = [
        # Copies of an entry that stands in `recent`: the first beats it, and moves it before the horizon.
        page(5, "user:2", 0, broker_ms=NOW_MS - 1, event_id="e2", at_ms=horizon - 5, facts=order),
        page(6, "user:2", 0, broker_ms=NOW_MS + 50, event_id="e2"),
        # A copy of a folded one that loses, and a late event of the same person.
        page(7, "user:old", broker_ms=NOW_MS + 60, event_id="e4", facts=order),
        page(8, "user:old", broker_ms=NOW_MS + 61, at_ms=horizon - 2 * DAY_MS, facts=order),
        make_entry("1/x", Position(TOPIC, 0, 9), NOW_MS + 62, line),
        page(0, "user:new", 3, broker_ms=NOW_MS + 63),
        # Of what is folded, though a copy of it came as well; of what is recent, and of nothing, twice.
        back(1, "user:folded", "e10", 3),
        page(2, "user:folded", 3, broker_ms=NOW_MS + 64, event_id="e10", facts=order),
        back(3, "user:taken", "e12", 3),
        back(4, "user:new", "nothing", 3),
        back(5, "user:new", "nothing", 3),
    ]
    archived = [archive_row(entry) for entry in new]
    archived[4] = archive_row(page(9, "user:wrong", broker_ms=NOW_MS + 62), line, version=ADMISSION_VERSION - 1)
    commit(spark, home, archived, offsets(5, 5, 0), offsets(10, 5, 0, 6))

    row = rebuild(spark, home, as_of_ms=NOW_MS + 1, catalogue=FEW, mode="incremental")
    assert (row.seq, row.parent, row.archive_version) == (2, 1, DeltaTable(home.table("archive")).version())
    assert_published(home, row, [*entries, *new], FEW)
    assert_published(home, first, entries, FEW)
    # Of the slice: 2, old, the judged one's user:1, new, folded, taken. user:1 also crosses; user:0 is folded and user:untouched
    # far from it.
    assert row.counts["rows_recomputed"] == 6 and row.counts["persons"] == 8
    assert (row.counts["retracted"], row.counts["retractions"], row.counts["retractions_of_nothing"]) == (3, 5, 2)

    # Maintenance writes the old entries into new files; nothing came since, and nothing crosses: no row of `state` is written.
    spark.sql(f"OPTIMIZE delta.`{home.table('archive')}`")
    quiet = rebuild(spark, home, as_of_ms=NOW_MS + 1, catalogue=FEW, mode="incremental")
    assert quiet.tables == row.tables and quiet.counts == {**row.counts, "rows_recomputed": 0}
    assert_published(home, quiet, [*entries, *new], FEW)
    # A rebuild of everything counts as the nights did.
    full = rebuild(spark, home, as_of_ms=NOW_MS + 1, catalogue=FEW)
    assert {**full.counts, "rows_recomputed": 0} == quiet.counts


def _name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


# --- refusals ---------------------------------------------------------------------------------------------------------------------
def refused(spark, home, match, as_of_ms=None, catalogue=FEW) -> None:
    before = rows(home.table("manifest"))
    with pytest.raises(IncrementalRefused, match=f"{match}.*: run a full rebuild: twofold batch"):
        rebuild(spark, home, as_of_ms, catalogue=catalogue, mode="incremental")
    assert rows(home.table("manifest")) == before


def test_what_a_night_refuses(interpreted, home):
    spark = interpreted
    commit(spark, home, [archive_row(page(0, at_ms=NOW_MS - 9 * DAY_MS))], offsets(0, 0, 0), offsets(1, 0, 0))
    refused(spark, home, "there is no snapshot")
    assert IncrementalRefused.exit_code == 3
    row = rebuild(spark, home, NOW_MS, catalogue=FEW)
    refused(spark, home, "as_of .* lies before", NOW_MS - 1)
    refused(spark, home, "is of version", catalogue=EVERY)
    longer = Settings(home=home.home, batch={"late_grace_days": 6, "wide_tables": False}, gate={"mode": "off"})
    refused(spark, longer, "the horizon would go back", NOW_MS)

    # A copy of the folded event that would win; one that loses is no reason.
    commit(spark, home, [archive_row(page(1, event_id="e0", broker_ms=NOW_MS + 5))], offsets(1, 0, 0), offsets(2, 0, 0))
    night = pin_night(spark, home, NOW_MS, FEW)
    before = archive_at(spark, home, row.archive_version).inputFiles()
    assert before and not set(map(_name, before)) & set(map(_name, night.slice.inputFiles()))
    assert rebuild(spark, home, NOW_MS, catalogue=FEW, mode="incremental").counts["rows_recomputed"] == 1
    commit(spark, home, [archive_row(page(2, event_id="e0", broker_ms=NOW_MS - 1))], offsets(2, 0, 0), offsets(3, 0, 0))
    refused(spark, home, "1 new entries sort below", NOW_MS)

    # Another event whose hash is among the folded ones: as if two ids shared it.
    ids = f"sort_array(array(older_ids[0], {id_hash('e3')}L)) AS older_ids"
    forged = state_of(spark, home, row).selectExpr("person", "older", "older_json", ids, *RETRACTED, "recent")
    tables = {"state": write_version(forged, home.table("state"), "forged")}
    append_row(spark, home.table("manifest"), replace(row, seq=3, snapshot="forged", cut=offsets(3, 0, 0), tables=tables))
    commit(spark, home, [archive_row(page(3, broker_ms=NOW_MS + 9))], offsets(3, 0, 0), offsets(4, 0, 0))
    refused(spark, home, "1 new entries .* share their hash", NOW_MS)


# --- the weekly comparison --------------------------------------------------------------------------------------------------------
def test_a_full_rebuild_that_differs_from_its_nights_is_not_published(interpreted, home):
    spark = interpreted
    commit(spark, home, [archive_row(page(n, f"user:{n}")) for n in range(3)], offsets(0, 0, 0), offsets(3, 0, 0))
    row = rebuild(spark, home, catalogue=FEW, mode="compare")
    assert "there is no snapshot" in row.audit["incremental"]["skipped"]
    recent = "IF(person = 'user:1', slice(recent, 1, 0), recent) AS recent"
    damaged = state_of(spark, home, row).selectExpr("person", "older", "older_json", "older_ids", *RETRACTED, recent)
    tables = {"state": write_version(damaged, home.table("state"), "damaged")}
    append_row(spark, home.table("manifest"), replace(row, seq=2, snapshot="damaged", tables=tables))
    with pytest.raises(IncrementalDiffers, match="differ in 1 persons") as error:
        rebuild(spark, home, catalogue=FEW, mode="compare")
    assert IncrementalDiffers.exit_code == 3 and "user:1" not in str(error.value)
    assert current(home.table("manifest")).seq == 2
    # What the operator does then.
    assert rebuild(spark, home, catalogue=FEW).seq == 3
    commit(spark, home, [archive_row(page(3))], offsets(3, 0, 0), offsets(4, 0, 0))
    compared = rebuild(spark, home, catalogue=FEW, mode="compare")
    assert compared.audit["incremental"] == {"parent": 3, "rows_recomputed": 1, "differing": 0}
