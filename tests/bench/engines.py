"""`wide_person` by hand, without the catalogue: one query each for Spark, DuckDB and Polars, straight from the archive's files.

The thirty features that no family brings, at ``t``, in the columns and types of `wide_person`; the rivals of ``big_night``. Each
takes the first copy of an event, explodes facts, and joins what is grouped by a name to one aggregate a person.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from twofold.timeline import DAY_MS, HOUR_MS

_WEEK, _MONTH = 7 * DAY_MS, 30 * DAY_MS
_TRAITS = ("first_name", "locale", "country", "tier")
#: feature -> (kind, width in ms)
_COUNTS = {
    "page_views_1h": ("page", HOUR_MS),
    "page_views_1d": ("page", DAY_MS),
    "page_views_7d": ("page", _WEEK),
    "page_views_30d": ("page", _MONTH),
    "product_views_30d": ("view", _MONTH),
    "cart_adds_7d": ("cart_add", _WEEK),
    "orders_lifetime": ("order", None),
    "orders_30d": ("order", _MONTH),
    "emails_sent_7d": ("email_sent", _WEEK),
    "email_opens_30d": ("email_opened", _MONTH),
    "email_clicks_30d": ("email_clicked", _MONTH),
}
_LATEST = {"last_cart_add_at": "cart_add", "last_order_at": "order", "last_email_click_at": "email_clicked"}


_FACT = "f.kind, f.product, f.category, f.amount_minor, f.currency, f.quantity, f.key, f.value"


def _since(t: int, width: int | None) -> str:
    return "" if width is None else f" AND at_ms >= {t - width}"


def _selected(t: int, latest: str) -> str:
    """One aggregate a person; ``latest``: SQL of the newest fact's value under a condition ``{where}``."""
    columns = [
        f"count(*) FILTER (WHERE kind = '{kind}' AND at_ms < {t}{_since(t, width)}) AS {name}"
        for name, (kind, width) in _COUNTS.items()
    ]
    week, month = f"at_ms < {t}{_since(t, _WEEK)}", f"at_ms < {t}{_since(t, _MONTH)}"
    columns += [
        f"count(DISTINCT CASE WHEN kind = 'view' AND {week} THEN product END) AS distinct_products_viewed_7d",
        f"CAST(coalesce(sum(quantity) FILTER (WHERE kind = 'purchase' AND {month}), 0) AS BIGINT) AS units_30d",
        f"min(at_ms) FILTER (WHERE kind = 'order' AND at_ms < {t}) AS first_order_at",
    ]
    columns += [f"max(at_ms) FILTER (WHERE kind = '{kind}' AND at_ms < {t}) AS {name}" for name, kind in _LATEST.items()]
    wanted = {name: f"kind = 'trait' AND key = '{name}'" for name in _TRAITS}
    wanted["consent_marketing"] = "kind = 'consent' AND key = 'marketing'"
    columns += [f"{latest.format(where=f'{where} AND at_ms < {t}')} AS {name}" for name, where in wanted.items()]
    return ",\n".join(columns)


def _named(t: int) -> dict[str, str]:
    """CTEs of what is grouped by a name, in SQL that Spark and DuckDB share: person, name, and what a name is ranked by."""
    return {
        "money": f"""
            SELECT person, currency AS name, sum(amount_minor) FILTER (WHERE kind = 'order') AS revenue,
                   count(*) FILTER (WHERE kind = 'order') AS paid, sum(amount_minor) FILTER (WHERE kind = 'refund') AS refunds,
                   count(*) FILTER (WHERE kind = 'refund') AS refunded
            FROM facts WHERE kind IN ('order', 'refund') AND amount_minor IS NOT NULL AND at_ms < {t} GROUP BY person, currency""",
        "bought": f"""
            SELECT person, product AS name, sum(quantity) AS weight, max(at_ms) AS last_ms
            FROM facts WHERE kind = 'purchase' AND product IS NOT NULL AND at_ms < {t}
            GROUP BY person, product HAVING sum(quantity) > 0""",
        "viewed": f"""
            SELECT person, category AS name, count(*) FILTER (WHERE at_ms >= {t - _MONTH}) AS weight, max(at_ms) AS last_ms,
                   round(sum(pow(2.0, (at_ms - {t}) / {float(_WEEK)!r})), 6) AS score
            FROM facts WHERE kind = 'view' AND category IS NOT NULL AND at_ms < {t} GROUP BY person, category""",
        "hours": f"""
            SELECT person, CAST(bucket AS INT) AS name, count(*) AS weight, max(at_ms) AS last_ms
            FROM (SELECT person, at_ms, ((at_ms + {3 * DAY_MS}) - ((at_ms + {3 * DAY_MS}) % {HOUR_MS})) / {HOUR_MS} % 168 AS bucket
                  FROM facts WHERE kind IN ('page', 'view', 'email_clicked') AND at_ms >= {t - _MONTH} AND at_ms < {t}) AS active
            GROUP BY person, bucket""",
    }


def spark_rows(spark: Any, archive: str, version: int, t: int, partitions: int) -> Any:
    """The frame of Spark's hand-written query; every step keeps the one partitioning by person."""
    spark.read.format("delta").option("versionAsOf", version).load(archive).createOrReplaceTempView("engines_archive")
    named = _named(t)

    def ranked(of: str, k: int, keys: str = "-weight, -last_ms, name") -> str:
        return f"transform(slice(sort_array(collect_list(struct({keys}, name AS n)){of}), 1, {k}), x -> x.n)"

    def entries(value: str, where: str) -> str:
        pairs = f"collect_list(struct(name, CAST({value} AS DECIMAL(38, 0)))) FILTER (WHERE {where})"
        return f"map_from_entries(sort_array({pairs}))"

    latest = "max_by(value, struct(at_ms, event_id, ordinal)) FILTER (WHERE {where})"
    return spark.sql(f"""
        WITH entries AS (
          SELECT /*+ REPARTITION({partitions}, person) */ person, event_id, at_ms, broker_ms, partition, offset, facts
          FROM engines_archive WHERE verdict = 'ok'),
        winners AS (
          SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY person, event_id ORDER BY broker_ms, partition, offset) AS copy
                         FROM entries) WHERE copy = 1),
        facts AS (
          SELECT person, event_id, at_ms, ordinal, {_FACT}
          FROM winners LATERAL VIEW posexplode(facts) AS ordinal, f),
        people AS (SELECT person, {_selected(t, latest)} FROM facts GROUP BY person),
        money AS ({named["money"]}), bought AS ({named["bought"]}), viewed AS ({named["viewed"]}), hours AS ({named["hours"]}),
        seen AS (
          SELECT person, product AS name, max(struct(at_ms, event_id, ordinal)) AS mark FROM facts
          WHERE kind = 'view' AND product IS NOT NULL AND at_ms < {t} AND at_ms >= {t - _MONTH} GROUP BY person, product),
        by_money AS (
          SELECT person, {entries("revenue", "paid > 0")} AS revenue_lifetime,
                 {entries("refunds", "refunded > 0")} AS refunds_lifetime,
                 {entries("round(revenue / paid)", "paid > 0")} AS average_order
          FROM money GROUP BY person),
        by_bought AS (SELECT person, {ranked("", 5)} AS top_products_lifetime FROM bought GROUP BY person),
        by_viewed AS (
          SELECT person, {ranked(" FILTER (WHERE weight > 0)", 3)} AS top_categories_30d,
            map_from_entries(transform(
              slice(sort_array(collect_list(struct(-score AS s, name AS n)) FILTER (WHERE score > 0)), 1, 5),
              x -> struct(x.n, -x.s))) AS interest FROM viewed GROUP BY person),
        by_hours AS (SELECT person, {ranked("", 3)} AS active_hours_30d FROM hours GROUP BY person),
        by_seen AS (
          SELECT person,
            transform(slice(sort_array(collect_list(struct(mark, name AS n)), false), 1, 5), x -> x.n) AS recent_products
          FROM seen GROUP BY person)
        SELECT person, {", ".join(_FILLED.get(name, name) for name in WIDE)}
        FROM people LEFT JOIN by_money USING (person) LEFT JOIN by_bought USING (person) LEFT JOIN by_viewed USING (person)
          LEFT JOIN by_hours USING (person) LEFT JOIN by_seen USING (person)
        SORT BY person""")


def duckdb_rows(files: list[str], t: int, out: Path, memory: str, folder: Path) -> None:
    """Write DuckDB's rows as one Parquet file, sorted by person."""
    named = _named(t)
    latest = "arg_max(value, (at_ms, event_id, ordinal)) FILTER (WHERE {where})"

    def entries(value: str, where: str) -> str:
        return f"map_from_entries(list((name, CAST({value} AS DECIMAL(38, 0))) ORDER BY name) FILTER (WHERE {where}))"

    with duckdb.connect(config={"threads": 2, "memory_limit": memory, "temp_directory": str(folder)}) as db:
        db.execute(
            f"""
        COPY (
        WITH winners AS (
          SELECT person, event_id, at_ms, facts FROM read_parquet($files) WHERE verdict = 'ok'
          QUALIFY row_number() OVER (PARTITION BY person, event_id ORDER BY broker_ms, "partition", "offset") = 1),
        items AS (SELECT person, event_id, at_ms, unnest(facts) AS f, generate_subscripts(facts, 1) - 1 AS ordinal FROM winners),
        facts AS MATERIALIZED (
          SELECT person, event_id, at_ms, ordinal, {_FACT}
          FROM items),
        people AS (SELECT person, {_selected(t, latest)} FROM facts GROUP BY person),
        money AS ({named["money"]}), bought AS ({named["bought"]}), viewed AS ({named["viewed"]}), hours AS ({named["hours"]}),
        seen AS (
          SELECT person, product AS name, max((at_ms, event_id, ordinal)) AS mark FROM facts
          WHERE kind = 'view' AND product IS NOT NULL AND at_ms < {t} AND at_ms >= {t - _MONTH} GROUP BY person, product),
        by_money AS (
          SELECT person, {entries("revenue", "paid > 0")} AS revenue_lifetime,
                 {entries("refunds", "refunded > 0")} AS refunds_lifetime,
                 {entries("round(revenue / paid)", "paid > 0")} AS average_order
          FROM money GROUP BY person),
        by_bought AS (
          SELECT person, list(name ORDER BY weight DESC, last_ms DESC, name)[1:5] AS top_products_lifetime
          FROM bought GROUP BY person),
        by_viewed AS (
          SELECT person,
            (list(name ORDER BY weight DESC, last_ms DESC, name) FILTER (WHERE weight > 0))[1:3] AS top_categories_30d,
            map_from_entries((list((name, score) ORDER BY score DESC, name) FILTER (WHERE score > 0))[1:5]) AS interest
          FROM viewed GROUP BY person),
        by_hours AS (
          SELECT person, list(name ORDER BY weight DESC, last_ms DESC, name)[1:3] AS active_hours_30d FROM hours GROUP BY person),
        by_seen AS (SELECT person, list(name ORDER BY mark DESC)[1:5] AS recent_products FROM seen GROUP BY person)
        SELECT person, {", ".join(_FILLED_DUCKDB.get(name, name) for name in WIDE)}
        FROM people LEFT JOIN by_money USING (person) LEFT JOIN by_bought USING (person) LEFT JOIN by_viewed USING (person)
          LEFT JOIN by_hours USING (person) LEFT JOIN by_seen USING (person)
        ORDER BY person) TO '{out}' (FORMAT parquet)""",
            {"files": files},
        )


def polars_rows(files: list[str], t: int, out: Path) -> None:
    """Write Polars' rows as one Parquet file, sorted by person; maps are lists of entries, which is what it has."""
    facts = (
        pl.scan_parquet(files)
        .filter(pl.col("verdict") == "ok")
        .select("person", "event_id", "at_ms", "broker_ms", "partition", "offset", "facts")
        .sort("broker_ms", "partition", "offset")
        .unique(["person", "event_id"], keep="first", maintain_order=True)
        .select("person", "event_id", "at_ms", "facts", pl.int_ranges(pl.col("facts").list.len()).alias("ordinal"))
        .explode("facts", "ordinal")
        .unnest("facts")
        .collect()
        .lazy()
    )
    kind, at, before = pl.col("kind"), pl.col("at_ms"), pl.col("at_ms") < t

    def is_(name: str, width: int | None = None) -> pl.Expr:
        found = (kind == name) & before
        return found if width is None else found & (at >= t - width)

    def latest(where: pl.Expr) -> pl.Expr:
        return (
            pl.col("value").filter(where).sort_by(*(pl.col(name).filter(where) for name in ("at_ms", "event_id", "ordinal"))).last()
        )

    people = facts.group_by("person").agg(
        *(is_(of, width).sum().cast(pl.Int64).alias(name) for name, (of, width) in _COUNTS.items()),
        pl.col("product").filter(is_("view", _WEEK)).drop_nulls().n_unique().cast(pl.Int64).alias("distinct_products_viewed_7d"),
        pl.col("quantity").filter(is_("purchase", _MONTH)).sum().cast(pl.Int64).alias("units_30d"),
        at.filter(is_("order")).min().alias("first_order_at"),
        *(at.filter(is_(of)).max().alias(name) for name, of in _LATEST.items()),
        *(latest(is_("trait") & (pl.col("key") == name)).alias(name) for name in _TRAITS),
        latest(is_("consent") & (pl.col("key") == "marketing")).alias("consent_marketing"),
    )

    def entries(value: pl.Expr) -> pl.Expr:
        return pl.struct(pl.col("name").alias("key"), value.cast(pl.Int64, strict=False).alias("value"))

    money = (
        facts.filter(kind.is_in(["order", "refund"]) & pl.col("amount_minor").is_not_null() & before)
        .group_by("person", pl.col("currency").alias("name"))
        .agg(
            pl.col("amount_minor").filter(kind == "order").sum().alias("revenue"),
            (kind == "order").sum().alias("paid"),
            pl.col("amount_minor").filter(kind == "refund").sum().alias("refunds"),
            (kind == "refund").sum().alias("refunded"),
        )
        .sort("name")
        .group_by("person", maintain_order=True)
        .agg(
            entries(pl.col("revenue")).filter(pl.col("paid") > 0).alias("revenue_lifetime"),
            entries(pl.col("refunds")).filter(pl.col("refunded") > 0).alias("refunds_lifetime"),
            entries((pl.col("revenue") / pl.col("paid")).round(0, mode="half_away_from_zero"))
            .filter(pl.col("paid") > 0)
            .alias("average_order"),
        )
    )

    def ranked(frame: pl.LazyFrame, k: int, name: str) -> pl.LazyFrame:
        ordered = frame.sort("weight", "last_ms", "name", descending=[True, True, False])
        return ordered.group_by("person", maintain_order=True).agg(pl.col("name").head(k).alias(name))

    bought = (
        facts.filter((kind == "purchase") & pl.col("product").is_not_null() & before)
        .group_by("person", pl.col("product").alias("name"))
        .agg(pl.col("quantity").sum().alias("weight"), at.max().alias("last_ms"))
        .filter(pl.col("weight") > 0)
    )
    viewed = (
        facts.filter((kind == "view") & pl.col("category").is_not_null() & before)
        .group_by("person", pl.col("category").alias("name"))
        .agg(
            (at >= t - _MONTH).sum().alias("weight"),
            at.max().alias("last_ms"),
            pl.lit(2.0).pow((at - t) / float(_WEEK)).sum().round(6).alias("score"),
        )
    )
    interest = (
        viewed.filter(pl.col("score") > 0)
        .sort("score", "name", descending=[True, False])
        .group_by("person", maintain_order=True)
        .agg(pl.struct(pl.col("name").alias("key"), pl.col("score").alias("value")).head(5).alias("interest"))
    )
    hours = (
        facts.filter(kind.is_in(["page", "view", "email_clicked"]) & before & (at >= t - _MONTH))
        .group_by("person", ((at + 3 * DAY_MS) // HOUR_MS % 168).cast(pl.Int32).alias("name"))
        .agg(pl.len().alias("weight"), at.max().alias("last_ms"))
    )
    seen = (
        facts.filter((kind == "view") & pl.col("product").is_not_null() & before & (at >= t - _MONTH))
        .sort("at_ms", "event_id", "ordinal", descending=True)
        .unique(["person", "product"], keep="first", maintain_order=True)
        .group_by("person", maintain_order=True)
        .agg(pl.col("product").head(5).alias("recent_products"))
    )
    parts = (
        money,
        ranked(bought, 5, "top_products_lifetime"),
        ranked(viewed.filter(pl.col("weight") > 0), 3, "top_categories_30d"),
        interest,
        ranked(hours, 3, "active_hours_30d"),
        seen,
    )
    wide = people
    for part in parts:
        wide = wide.join(part, on="person", how="left")
    lists = [*_MAPS, *_LISTS]
    wide.select("person", *(pl.col(name).fill_null([]) if name in lists else pl.col(name) for name in WIDE)).sort(
        "person"
    ).collect().write_parquet(out)


_MAPS = ("revenue_lifetime", "refunds_lifetime", "average_order", "interest")
_LISTS = ("top_products_lifetime", "top_categories_30d", "active_hours_30d", "recent_products")
#: The columns of `wide_person` beside the person.
WIDE = (
    *_COUNTS, "distinct_products_viewed_7d", "units_30d", "first_order_at", *_LATEST, *_TRAITS, "consent_marketing",
    *_MAPS, *_LISTS,
)  # fmt: skip
_FILLED = {
    **{name: f"coalesce({name}, map()) AS {name}" for name in _MAPS},
    **{name: f"coalesce({name}, array()) AS {name}" for name in _LISTS},
}
_FILLED_DUCKDB = {
    **{name: f"coalesce({name}, MAP {{}}) AS {name}" for name in _MAPS},
    **{name: f"coalesce({name}, []) AS {name}" for name in _LISTS},
}


def differing(ours: list[str], theirs: list[str]) -> dict[str, int]:
    """Persons by column whose value is another; scores may differ by two in their last, sixth, decimal."""

    with duckdb.connect(config={"threads": 2}) as db:
        for name, files in (("a", ours), ("b", theirs)):
            db.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({files!r})")
        types = {row[0]: row[1] for row in db.execute("DESCRIBE b").fetchall()}

        def pairs(table: str, name: str) -> str:
            is_map = table == "a" or types[name].startswith("MAP")
            return f'map_entries({table}."{name}")' if is_map else f'{table}."{name}"'

        checks = []
        for name in WIDE:
            if name == "interest":
                a, b = (f"list_sort(list_transform({pairs(x, name)}, lambda e: e.value))" for x in "ab")
                far = f"len(list_filter(list_zip({a}, {b}), lambda z: abs(z[1] - z[2]) > 2e-6))"
                different = f"len({a}) <> len({b}) OR {far} > 0"
            elif name in _MAPS:
                a, b = (f"list_sort(list_transform({pairs(x, name)}, lambda e: (e.key, e.value::DECIMAL(38, 0))))" for x in "ab")
                different = f"{a} IS DISTINCT FROM {b}"
            else:
                different = f'a."{name}" IS DISTINCT FROM b."{name}"'
            checks.append(f'count(*) FILTER (WHERE {different}) AS "{name}"')
        checks.append("count(*) FILTER (WHERE a.person IS NULL OR b.person IS NULL) AS person")
        found = db.execute(f"SELECT {', '.join(checks)} FROM a FULL JOIN b USING (person)").fetchone()
        assert found is not None
        return {name: count for name, count in zip((*WIDE, "person"), found, strict=True) if count}
