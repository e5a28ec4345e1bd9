"""The best query that we could write by hand for the columns of ``state``, without the catalogue: the rival of ``bench_batch``.

One shuffle by person; the window keeps an event's first entry; then two aggregates on the same partitioning: one per (person, kind,
name, half-life), in which sums and marks are plain built-ins, and one per person that turns its few rows into maps.
"""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame

from twofold.rankings import DECAY_BASE, DECAY_SCALE, decay_tables
from twofold.timeline import DAY_MS, Offsets

_HALF_LIFE_MS = 7 * DAY_MS
_TRAITS = ("first_name", "locale", "country", "tier")


def _mark(end: str, value: str, where: str) -> str:
    mark = f"{end}_mark"
    wanted = {"at_ms": f"{mark}.at_ms", "event_id": f"{mark}.event_id", "ordinal": f"{mark}.ordinal", "value": f"{mark}.{value}"}
    pairs = ", ".join(f"'{name}', {text}" for name, text in wanted.items())
    return f"{'min' if end == 'first' else 'max'}(named_struct({pairs})) FILTER (WHERE {where})"


def rival_rows(spark: Any, archive: str, version: int, cut: Offsets, horizon_ms: int, partitions: int) -> DataFrame:
    """The columns of ``state``, sorted by person within each of ``partitions`` partitions."""
    a, b, c = (f"array({','.join(f'{x!r}D' for x in table)})" for table in decay_tables(_HALF_LIFE_MS))
    ends = " OR ".join(f"(topic_id = '{k.topic_id}' AND partition = {k.partition} AND offset < {end})" for k, end in cut.items())
    base = DECAY_BASE
    rest = f"(at_ms % {_HALF_LIFE_MS})"
    places = (f"{rest} DIV {base * base}", f"{rest} DIV {base} % {base}", f"{rest} % {base}")
    weight = " * ".join(f"{table}[CAST({place} AS INT)]" for table, place in zip((a, b, c), places, strict=True))
    spark.read.format("delta").option("versionAsOf", version).load(archive).createOrReplaceTempView("rival_archive")
    marks = "named_struct('at_ms', at_ms, 'event_id', event_id, 'ordinal', ordinal, 'value', f.value)"

    def money(column: str, kind: str) -> str:
        return (
            f"map_from_entries(sort_array(collect_list(named_struct('key', name, 'value', {column})) "
            f"FILTER (WHERE kind = '{kind}' AND name IS NOT NULL)))"
        )

    def filled(maps: str) -> str:
        return f"IF(size({maps}) > 0, {maps}, NULL)"

    traits = ",\n".join(f"{_mark('last', 'value', f'''kind = 'trait' AND name = '{name}' ''')} AS {name}" for name in _TRAITS)
    consent = "kind = 'consent' AND name = 'marketing'"
    return spark.sql(f"""
        WITH entries AS (
          SELECT /*+ REPARTITION({partitions}, person) */
                 person, event_id, at_ms, broker_ms, 0 AS topic, partition, offset, channel, device, facts
          FROM rival_archive WHERE verdict = 'ok' AND ({ends})),
        winners AS (
          SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY person, event_id
                                                      ORDER BY broker_ms, topic, partition, offset) AS copy FROM entries)
          WHERE copy = 1),
        -- Before the horizon a row a fact, since it a row an entry.
        items AS (
          SELECT person, event_id, at_ms, xxhash64(event_id) AS id_hash, item.ordinal, item.f, item.entry
          FROM winners LATERAL VIEW explode(IF(at_ms < {horizon_ms},
            transform(facts, (f, n) -> named_struct('ordinal', n, 'f', f, 'entry',
              IF(false, named_struct('at_ms', at_ms, 'event_id', event_id, 'broker_ms', broker_ms, 'topic', topic,
                'partition', partition, 'offset', offset, 'channel', channel, 'device', device, 'facts', facts), NULL))),
            array(named_struct('ordinal', 0, 'f', IF(false, facts[0], NULL), 'entry',
              named_struct('at_ms', at_ms, 'event_id', event_id, 'broker_ms', broker_ms, 'topic', topic,
                'partition', partition, 'offset', offset, 'channel', channel, 'device', device, 'facts', facts))))) AS item),
        keyed AS (
          SELECT *, f.kind AS kind,
            CASE WHEN f.kind IN ('order', 'refund') THEN IF(f.amount_minor IS NULL, NULL, f.currency)
                 WHEN f.kind = 'purchase' THEN f.product
                 WHEN f.kind = 'view' THEN f.category
                 WHEN f.kind = 'trait' THEN f.key
                 WHEN f.kind = 'consent' THEN f.key END AS name,
            CASE WHEN f.kind = 'view' THEN at_ms DIV {_HALF_LIFE_MS}
                 WHEN f.kind = 'consent' AND f.value = 'denied' THEN 1L END AS slot,
            CASE WHEN f.kind = 'view' THEN floor({weight} * {DECAY_SCALE}D + 0.5D)
                 WHEN f.kind = 'purchase' THEN coalesce(f.quantity, 0)
                 WHEN f.kind IN ('order', 'refund') THEN f.amount_minor END AS weight
          FROM items),
        names AS (
          SELECT person, kind, name, slot, count(1) AS facts_n, CAST(sum(weight) AS DECIMAL(38, 0)) AS weight,
            max(at_ms) AS last_ms, min({marks}) AS first_mark, max({marks}) AS last_mark,
            collect_list(IF(entry IS NULL AND ordinal = 0, id_hash, NULL)) AS ids, collect_list(entry) AS recent
          FROM keyed GROUP BY person, kind, name, slot),
        people AS (
          SELECT person,
            {_mark("last", "at_ms", "kind = 'cart_add'")} AS last_cart_add,
            sum(facts_n) FILTER (WHERE kind = 'order') AS orders_lifetime,
            {money("weight", "order")} AS revenue_lifetime,
            {money("facts_n", "order")} AS paid_orders_lifetime,
            {money("weight", "refund")} AS refunds_lifetime,
            {_mark("first", "at_ms", "kind = 'order'")} AS first_order,
            {_mark("last", "at_ms", "kind = 'order'")} AS last_order,
            map_from_entries(sort_array(collect_list(named_struct('key', name, 'value',
                named_struct('weight', CAST(weight AS BIGINT), 'last_ms', last_ms)))
              FILTER (WHERE kind = 'purchase' AND name IS NOT NULL))) AS product_units_lifetime,
            {_mark("last", "at_ms", "kind = 'email_clicked'")} AS last_email_click,
            sort_array(collect_list(named_struct('name', name, 'slot', slot, 'weight', CAST(weight AS BIGINT)))
              FILTER (WHERE kind = 'view' AND name IS NOT NULL)) AS views,
            {traits},
            {_mark("last", "value", consent)} AS consent_marketing,
            {_mark("last", "at_ms", f"{consent} AND slot = 1")} AS consent_denial,
            {_mark("last", "at_ms", "kind = 'email_unsubscribed'")} AS unsubscribe,
            {_mark("last", "at_ms", "kind = 'email_complained'")} AS complaint,
            sort_array(flatten(collect_list(ids))) AS older_ids,
            sort_array(flatten(collect_list(recent))) AS recent
          FROM names GROUP BY person),
        shaped AS (
          SELECT person, older_ids, recent, named_struct(
            'last_cart_add', last_cart_add, 'orders_lifetime', orders_lifetime, 'revenue_lifetime', {filled("revenue_lifetime")},
            'paid_orders_lifetime', {filled("paid_orders_lifetime")}, 'refunds_lifetime', {filled("refunds_lifetime")},
            'first_order', first_order, 'last_order', last_order, 'product_units_lifetime', {filled("product_units_lifetime")},
            'last_email_click', last_email_click,
            'interest', IF(size(views) = 0, NULL, map_from_entries(transform(array_distinct(transform(views, v -> v.name)),
               n -> named_struct('key', n, 'value', map_from_entries(transform(filter(views, v -> v.name = n),
                    v -> named_struct('key', CAST(v.slot AS STRING), 'value', v.weight))))))),
            'first_name', first_name, 'locale', locale, 'country', country, 'tier', tier,
            'consent_marketing', consent_marketing, 'consent_denial', consent_denial, 'unsubscribe', unsubscribe,
            'complaint', complaint) AS older
          FROM people)
        SELECT person, older, to_json(older) AS older_json, older_ids,
          CAST(array() AS array<bigint>) AS retracted_ids, CAST(array() AS array<bigint>) AS awaited_ids, recent
        FROM shaped SORT BY person
        """)
