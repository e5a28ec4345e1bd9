"""Eight features as DuckDB SQL straight from raw JSON lines: a second opinion that shares no code with Twofold.

For sets whose lines are well-formed or plainly not (what the converters write): a line counts when it is JSON with an event id, an
identity, a known type and a readable time. It does not judge schemas as admission does. See README.md in this folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

#: The lines that count: n, person, event_id, type, name, at_ms, doc, and what a retraction takes back.
_COUNTING = r"""
create table counting as
with line as (
    select unnest(lines) as text, generate_subscripts(lines, 1) as n
    from (select string_split(content, chr(10)) as lines from read_text(?))
), event as (
    select
        n,
        try_cast(text as json) as doc,
        nullif(doc ->> '$.event_id', '') as event_id,
        nullif(doc ->> '$.user_id', '') as user_id,
        nullif(doc ->> '$.anonymous_id', '') as anonymous_id,
        doc ->> '$.type' as type,
        doc ->> '$.name' as name,
        doc ->> '$.occurred_at' as occurred
    from line
    where doc is not null
), timed as (
    select *, case
        when regexp_full_match(occurred, '-?[0-9]+') then try_cast(occurred as bigint)
        when regexp_full_match(occurred, '\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)')
            -- a cast rounds to microseconds, an instant is floored to milliseconds
            then epoch_ms(try_cast(regexp_replace(occurred, '(\.[0-9]{3})[0-9]+', '\1') as timestamptz))
    end as at_ms
    from event
)
select n, coalesce('user:' || user_id, 'anon:' || anonymous_id) as person, event_id, type, name, at_ms, doc,
       case when type = 'retraction' then nullif(doc ->> '$.properties.target_event_id', '') end as target
from timed
where event_id is not null and person is not null and at_ms is not null
  and type in ('track', 'identify', 'page', 'screen', 'group', 'alias', 'email', 'crm', 'consent', 'privacy', 'retraction')
  and (type <> 'retraction' or target is not null)
"""
#: The first line of each (person, event id), unless a line of the same person takes that id back, wherever the two stand.
_WINNERS = """
create table winner as
select n, person, type, name, at_ms, doc from (
    from counting qualify row_number() over (partition by person, event_id order by n) = 1) as first
where not exists (from counting back where back.person = first.person and back.target = first.event_id)
"""

_VIEWS = r"""
create view "order" as
select person, at_ms, upper(coalesce(doc ->> '$.properties.currency', 'USD')) as currency,
       coalesce(doc ->> '$.properties.total', doc ->> '$.properties.revenue')::decimal(28, 9) as amount
from winner where type = 'track' and name = 'Order Completed';

create view purchase as
select person, at_ms, nullif(item ->> '$.product_id', '') as product, coalesce((item ->> '$.quantity')::bigint, 1) as quantity
from (select person, at_ms, unnest(json_extract(doc, '$.properties.products[*]')) as item
      from winner where type = 'track' and name = 'Order Completed');

create macro minor(amount, currency) as round(amount * case
    when currency in ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI', 'VND', 'VUV',
                      'XAF', 'XOF', 'XPF') then 1
    when currency in ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') then 1000
    when currency in ('CLF', 'UYW') then 10000
    else 100 end, 0)::bigint;
"""

#: feature -> (person, value) rows at $t.
FEATURES = {
    "page_views_7d": """
        select person, count(*) from winner
        where type in ('page', 'screen') and at_ms >= $t - 604800000 and at_ms < $t group by person""",
    "orders_lifetime": """select person, count(*) from "order" where at_ms < $t group by person""",
    "orders_30d": """select person, count(*) from "order" where at_ms >= $t - 2592000000 and at_ms < $t group by person""",
    "revenue_lifetime": """
        select person, map(list(currency), list(total)) from (
            select person, currency, sum(minor(amount, currency))::bigint as total from "order"
            where at_ms < $t and amount is not null group by person, currency)
        group by person""",
    "units_30d": """
        select person, sum(quantity)::bigint from purchase where at_ms >= $t - 2592000000 and at_ms < $t group by person""",
    "top_products_lifetime": """
        select person, list(product order by weight desc, last desc, product)[1:5] from (
            select person, product, sum(quantity) as weight, max(at_ms) as last from purchase
            where at_ms < $t and product is not null group by person, product having sum(quantity) > 0)
        group by person""",
    "emails_sent_7d": """
        select person, count(*) from winner
        where type = 'email' and name = 'Email Sent' and at_ms >= $t - 604800000 and at_ms < $t group by person""",
    "last_order_at": """select person, max(at_ms) from "order" where at_ms < $t group by person""",
}


def _absent(feature: str) -> Any:
    return {"revenue_lifetime": {}, "top_products_lifetime": [], "last_order_at": None}.get(feature, 0)


class DuckLog:
    """One file of JSON lines, read once, asked at many instants."""

    def __init__(self, path: Path) -> None:
        self._db = duckdb.connect(config={"threads": 2})
        self._db.execute(_COUNTING, [str(path)])
        self._db.execute(_WINNERS)
        self._db.execute(_VIEWS)

    def values(self, t: int, persons: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """person -> feature -> value at ``t`` (epoch ms); every person with a line that counts, or the persons named."""
        if persons is None:
            persons = [person for (person,) in self._db.execute("select distinct person from counting order by person").fetchall()]
        out: dict[str, dict[str, Any]] = {person: {feature: _absent(feature) for feature in FEATURES} for person in persons}
        for feature, sql in FEATURES.items():
            for person, value in self._db.execute(sql, {"t": t}).fetchall():
                if person in out:
                    out[person][feature] = value
        return out

    def close(self) -> None:
        self._db.close()


def duck_values(path: Path, t: int, persons: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """:meth:`DuckLog.values` of a file asked once."""
    log = DuckLog(path)
    try:
        return log.values(t, persons)
    finally:
        log.close()
