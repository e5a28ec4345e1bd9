"""In which hours of the day, where the person lives, a mail is likeliest clicked."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from twofold.columns import Fact, FactColumns
from twofold.events import FactBody
from twofold.families.family import Example, Family, Integers, PastFact, Told
from twofold.features import Feature, Presentation, Primary, Select, divide_half_away
from twofold.states import Latest, Rows
from twofold.timeline import DAY_MS, HOUR_MS, MINUTE_MS, Window

if TYPE_CHECKING:
    from pyspark.sql import Column

HOURS = 24


def _read(name: str) -> str:
    return resources.files(__package__ or "").joinpath(name).read_text(encoding="utf-8")


#: Clicks that everybody is taken to have made beside their own, by hour of the day, in thousandths: a constant file.
PRIOR = tuple(int(line.split(",")[1]) for line in _read("send_hours_prior.csv").splitlines()[1:])
#: UTC offsets of every zone from 2000 to 2037, one history a line: Python and the JVM read no other (``testing.zone_file``).
_ZONES = _read("zones.csv")
assert len(PRIOR) == HOURS and sum(PRIOR) > 0 and min(PRIOR) >= 0
#: Before every event.
_EVER = -(2**40)


@lru_cache(maxsize=1)
def zones() -> tuple[dict[str, int], list[list[int]], list[list[int]]]:
    """Zone -> number of its history; of each history the instants (epoch ms) from which an offset (ms) holds, and the offsets.

    Before 2000 the first offset holds, after 2037 the last.
    """
    numbers: dict[str, int] = {}
    starts, offsets = [], []
    for number, line in enumerate(_ZONES.splitlines()):
        names, turns = line.split(",")
        numbers.update(dict.fromkeys(names.split(), number))
        pairs = [turn.split(":") for turn in turns.split()]
        starts.append([_EVER, *(int(at) * MINUTE_MS for at, _offset in pairs[1:])])
        offsets.append([int(offset) * MINUTE_MS for _at, offset in pairs])
    return numbers, starts, offsets


def local_hours(times: Sequence[int], zone: str | None) -> list[int]:
    """Hours of the day, 0 to 23, of instants in a zone; a zone that nobody knows is UTC."""
    numbers, starts, offsets = zones() if zone is not None else ({}, [], [])
    number = numbers.get(zone or "")
    if number is None:
        return [at // HOUR_MS % HOURS for at in times]
    return [(at + offsets[number][bisect_right(starts[number], at) - 1]) // HOUR_MS % HOURS for at in times]


def native_local_hours(times: Column, zone: Column) -> Column:
    """:func:`local_hours` of an array of instants."""
    from pyspark.sql import functions as F

    from twofold.spark.lower import floor_div, let

    numbers, starts, offsets = zones()

    def literal(values: Iterable[object], type_: str) -> Column:
        # One literal that is folded when the query is planned.
        return F.split(F.lit(",".join(map(str, values))), ",").cast(type_)

    ends = [0]
    for history in starts:
        ends.append(ends[-1] + len(history))
    names = literal(numbers, "array<string>")
    histories = literal(numbers.values(), "array<int>")
    bounds = literal(ends, "array<int>")
    every_start = literal((at for history in starts for at in history), "array<bigint>")
    every_offset = literal((offset for history in offsets for offset in history), "array<bigint>")

    def in_zone(history: Column) -> Column:
        first = F.get(bounds, history)
        own = F.slice(every_start, first + 1, F.get(bounds, history + 1) - first)

        def hours(own: Column) -> Column:
            def hour(at: Column) -> Column:
                offset = F.get(every_offset, first + F.size(F.filter(own, lambda start: start <= at)) - 1)
                # An event is of 1990 or later, so no sum is negative.
                return floor_div(at + offset, HOUR_MS) % HOURS

            return F.transform(times, hour)

        return let(own, hours)

    history = F.get(histories, (F.array_position(names, zone) - 1).cast("int"))
    in_utc = F.transform(times, lambda at: floor_div(at, HOUR_MS) % HOURS)
    return let(history, lambda history: F.when(history.isNull(), in_utc).otherwise(in_zone(history)))


@dataclass(frozen=True)
class Instants(Integers):
    """Every fact's instant, ascending, as often as there are facts."""

    id: ClassVar[str] = "instants"

    def lift(self, fact: Fact) -> tuple[int, ...]:
        return (fact.at_ms,)

    def plus(self, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(a + b)) if a and b else a or b

    def fold(self, facts: Iterable[Fact]) -> tuple[int, ...]:
        return tuple(sorted([fact[0] for fact in facts]))

    def fold_rows(self, columns: FactColumns, rows: Rows) -> tuple[int, ...]:
        return tuple(np.asarray(columns.at_ms[rows]).tolist())

    def contributing(self, facts: Sequence[Fact], older: Any) -> list[int]:  # noqa: ARG002
        return list(range(len(facts)))

    def native_fold(self, facts: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import field

        return F.when(F.size(facts) > 0, F.sort_array(F.transform(facts, lambda fact: field(fact, "at_ms"))))

    def native_plus(self, a: Column, b: Column) -> Column:
        from pyspark.sql import functions as F

        return F.sort_array(F.concat(a, b))


@dataclass(frozen=True)
class BestHours(Presentation):
    """The ``k`` hours of the day with the highest share of clicks, those of the prior (thousandths, by hour) counted in.

    States: the instants of clicks, and the latest trait that names the zone. ``zones`` is the fingerprint of the zone file.
    """

    k: int
    prior: tuple[int, ...]
    zones: str
    id: ClassVar[str] = "best_hours"
    type: ClassVar = "records"
    columns: ClassVar = (("hour", "integer"), ("n", "integer"), ("confidence", "number"))

    def value(self, _t: int, *states: Any) -> list[dict[str, Any]]:
        clicks, zone = states
        counts = [0] * HOURS
        for hour in local_hours(clicks, None if zone is None else zone[3]) if clicks else ():
            counts[hour] += 1
        whole = 1_000 * len(clicks) + sum(self.prior)
        best = sorted((-(1_000 * n + prior), hour) for hour, (n, prior) in enumerate(zip(counts, self.prior, strict=True)))
        return [
            {"hour": hour, "n": counts[hour], "confidence": divide_half_away(-1_000 * score, whole) / 1_000}
            for score, hour in best[: self.k]
        ]

    def native_value(self, _t: Column, *states: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import let

        clicks, zone = states
        # Of most people nothing is clicked: theirs is a literal.
        default = F.array(
            *(F.struct(*(F.lit(item[name]).alias(name) for name, _type in self.columns)) for item in self.value(0, (), None))
        ).cast("array<struct<hour:bigint,n:bigint,confidence:double>>")

        def of(hours: Column) -> Column:
            whole = F.size(hours).cast("bigint") * 1_000 + sum(self.prior)
            prior = F.array(*(F.lit(weight).cast("bigint") for weight in self.prior))

            def scored(weight: Column, hour: Column) -> Column:
                n = F.size(F.filter(hours, lambda own: own == hour)).cast("bigint")
                return F.struct((-(n * 1_000 + weight)).alias("score"), hour.cast("bigint").alias("hour"), n.alias("n"))

            def shown(item: Column) -> Column:
                rounded = F.call_function("div", -item["score"] * 2_000 + whole, whole * 2)
                confidence = rounded.cast("double") / F.lit(1_000.0)
                return F.struct(item["hour"].alias("hour"), item["n"].alias("n"), confidence.alias("confidence"))

            return F.transform(F.slice(F.sort_array(F.transform(prior, scored)), 1, self.k), shown)

        return F.when(clicks.isNull(), default).otherwise(let(native_local_hours(clicks, zone["value"]), of))


def naive_prior() -> list[int]:
    import importlib.resources as files

    text = files.files("twofold.families").joinpath("send_hours_prior.csv").read_text(encoding="utf-8")
    return [int(line.split(",")[1]) for line in text.splitlines() if not line.startswith("hour")]


def naive(past: Sequence[PastFact], t: int) -> dict[str, Any]:
    """By the machine's own zone database, of whatever version: zones differ only where their rules were changed of late."""
    from datetime import UTC, datetime, tzinfo
    from fractions import Fraction
    from zoneinfo import ZoneInfo

    named = [f for f in past if f.body.kind == "trait" and f.body.key == "timezone"]
    name = max(named, key=lambda f: (f.at_ms, f.event_id, f.ordinal)).body.value if named else None
    zone: tzinfo = UTC
    try:
        zone = ZoneInfo(name) if name else UTC
    except (KeyError, ValueError, OSError):
        zone = UTC
    clicks = [f.at_ms for f in past if f.body.kind == "email_clicked" and f.at_ms >= t - 30 * DAY_MS]
    hours = [datetime.fromtimestamp(at // 1_000, UTC).astimezone(zone).hour for at in clicks]
    prior = naive_prior()
    shares = {hour: Fraction(1_000 * hours.count(hour) + prior[hour], 1_000 * len(hours) + sum(prior)) for hour in range(24)}
    best = sorted(shares, key=lambda hour: (-shares[hour], hour))[:3]
    rounded = {hour: int(shares[hour] * 1_000 + Fraction(1, 2)) / 1_000 for hour in best}
    return {"best_send_hours": [{"hour": hour, "n": hours.count(hour), "confidence": rounded[hour]} for hour in best]}


_SHOW = BestHours(3, PRIOR, hashlib.sha256(_ZONES.encode()).hexdigest()[:16])
FAMILY = Family(
    primaries=(
        Primary("email_click_times_30d", Instants(), Select(("email_clicked",)), Window(30 * DAY_MS)),
        Primary("timezone", Latest("value"), Select(("trait",), (("key", "timezone"),))),
    ),
    features=(
        Feature(
            "best_send_hours",
            "3 hours of the day, in the person's zone, in which a mail is likeliest clicked",
            "email_click_times_30d",
            show=_SHOW,
            beside=("timezone",),
        ),
    ),
    told={
        "best_send_hours": Told(
            rule="The three hours of the day, in the person's zone (latest trait `timezone`, an IANA name; else UTC), in which a "
            "mail is likeliest clicked: `n` clicks in the hour, `confidence` = (n + prior of the hour) / (all clicks + whole "
            "prior), to three decimals. Highest first, the earlier hour first where they are equal. The prior is "
            "`families/send_hours_prior.csv`, in thousandths of a click; offsets from UTC are those of `families/zones.csv`, 2000 "
            "to 2037, in Python as in the JVM. Both files are part of the definition",
            nothing=_SHOW.value(0, (), None),
            example=Example(
                facts=(
                    ("2024-06-01T08:00:00Z", FactBody("trait", key="timezone", value="Europe/Berlin")),
                    ("2024-07-01T18:10:00Z", FactBody("email_clicked", key="m1")),
                    ("2024-07-02T18:20:00Z", FactBody("email_clicked", key="m2")),
                    ("2024-07-03T18:59:59.999Z", FactBody("email_clicked", key="m3")),
                ),
                at="2024-07-10T12:00:00Z",
                value=[
                    {"hour": 20, "n": 3, "confidence": 0.358},
                    {"hour": 10, "n": 0, "confidence": 0.062},
                    {"hour": 9, "n": 0, "confidence": 0.058},
                ],
                why="in summer 18 o'clock UTC is 20 o'clock in Berlin: (3 + 0.44) / (3 + 6.62); the others have the prior alone",
            ),
        )
    },
    naive=naive,
    edges_ms=(HOUR_MS,),
    traits={
        "timezone": (
            "Europe/Berlin",
            "America/St_Johns",
            "Asia/Kathmandu",
            "Pacific/Apia",
            "America/New_York",
            "Etc/GMT+5",
            "Mars/Base",
        )
    },
)
