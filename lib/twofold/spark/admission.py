"""Admission in native columns: the same verdict and facts as ``events.admit`` for every log entry.

Nothing here says what an event means: the facts table, patterns and limits are read from :mod:`twofold.events` and turned into
expressions. No Python runs on a row, so it works in real-time mode and in a batch. Only ``try_`` functions cast: a hostile
entry may get a verdict, never stop a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from operator import or_
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold import currency as currencies
from twofold import events as E
from twofold.spark.strict_json import has_lone_surrogate, has_long_number, holds_one_value, is_too_deep, text_of, wrap
from twofold.timeline import EARLIEST_MS, INSTANT_PATTERN, LATEST_MS

#: Type of the column ``facts``: the fields of ``events.FactBody``; a fact's ordinal is its place in the array.
FACTS_TYPE = (
    "array<struct<kind:string,product:string,category:string,campaign:string,amount_minor:bigint,currency:string,"
    "quantity:bigint,key:string,value:string>>"
)
_FACT_COLUMNS = ("kind", "product", "category", "campaign", "amount_minor", "currency", "quantity", "key", "value")
_FACT_NUMBERS = ("amount_minor", "quantity")
#: What admission adds to a row.
ADMITTED = ("verdict", "person", "event_id", "at_ms", "channel", "device", "facts")

_ENVELOPE = ("event_id", "type", "name", "source_kind", "occurred_at", "user_id", "anonymous_id")
_PROPERTIES = tuple(
    dict.fromkeys(s.name for rule in E.FACT_RULES for field in rule.fields for s in field.sources if not s.envelope)
)
_ITEM = tuple(dict.fromkeys(s.name for rule in E.FACT_RULES for field in rule.item_fields for s in field.sources))
_NO_RULE, _NO_TYPE = len(E.FACT_RULES), -1
#: A field that no event has: casting to a struct of it tells an object from everything else.
_IS_OBJECT = "struct<`\u0000`:boolean>"
_AMOUNT_TYPE = f"decimal({E.AMOUNT_INTEGER_DIGITS + E.AMOUNT_FRACTION_DIGITS},{E.AMOUNT_FRACTION_DIGITS})"


class _Scalar(NamedTuple):
    """One JSON value as two columns: its type's name (null: absent) and its text."""

    type: Column
    text: Column

    @property
    def absent(self) -> Column:
        return F.coalesce(self.type == "VOID", F.lit(True))

    def is_a(self, *types: str) -> Column:
        return F.coalesce(self.type.isin(*types), F.lit(False))


class _Read(NamedTuple):
    """A value as the contract reads it (null: missing or broken), and whether it broke the schema."""

    value: Column
    broken: Column


def _scalar(variant: Column) -> _Scalar:
    return _Scalar(F.schema_of_variant(variant), F.try_variant_get(variant, "$", "string"))


def _none(type_: str = "string") -> Column:
    return F.lit(None).cast(type_)


def _any(conditions: Iterable[Column]) -> Column:
    return reduce(or_, conditions, F.lit(False))


# --- reading values: each mirrors the function of its name in events.py ---------------------------------------------------------
def _text(value: _Scalar) -> _Read:
    usable = value.is_a("STRING", "BIGINT")
    return _Read(F.when(usable & (value.text != ""), value.text), ~(value.absent | usable))


def _identifier(value: _Scalar) -> _Read:
    text, broken = _text(value)
    bad = F.coalesce((F.char_length(text) > E.MAX_ID_CHARS) | F.contains(text, F.lit("\0")), F.lit(False))
    return _Read(F.when(~bad, text), broken | bad)


def _amount(value: _Scalar) -> _Read:
    # A variant keeps a decimal literal exactly and prints it plainly without trailing zeros: the pattern then judges by value.
    is_number = value.is_a("BIGINT") | F.coalesce(value.type.startswith("DECIMAL"), F.lit(False))
    fits = F.coalesce((is_number | value.is_a("STRING")) & value.text.rlike(E.AMOUNT_PATTERN), F.lit(False))
    return _Read(F.when(fits, value.text.try_cast(_AMOUNT_TYPE)), ~(value.absent | fits))


def _quantity(value: _Scalar) -> _Read:
    # Every integer literal of 64 bits that is too long for the pattern is also above the bound.
    fits = F.coalesce(value.is_a("BIGINT", "STRING") & value.text.rlike(E.QUANTITY_PATTERN), F.lit(False))
    number = F.when(fits, value.text.try_cast("bigint"))
    fits = F.coalesce(F.abs(number) <= E.MAX_QUANTITY, F.lit(False))
    return _Read(F.when(value.absent, F.lit(1).cast("bigint")).when(fits, number), ~(value.absent | fits))


def _currency(value: _Scalar) -> _Read:
    fits = F.coalesce(value.is_a("STRING") & value.text.rlike(E.CURRENCY_PATTERN), F.lit(False))
    upper = F.translate(value.text, ascii_lowercase, ascii_uppercase)  # `upper` takes a JVM a second to read Unicode's tables
    return _Read(F.when(value.absent, F.lit(currencies.DEFAULT_CURRENCY)).when(fits, upper), ~(value.absent | fits))


def _power(currency: Column) -> Column:
    """Minor units in one major unit; null without a currency."""
    power = F.lit(10**currencies.DEFAULT_EXPONENT)
    for digits in sorted(set(currencies.EXPONENTS.values())):
        codes = [code for code, exponent in currencies.EXPONENTS.items() if exponent == digits]
        power = F.when(currency.isin(codes), 10**digits).otherwise(power)
    return F.when(currency.isNotNull(), power.cast("decimal(5,0)"))


def _rounded(amount: Column, power: Column) -> Column:
    """An amount in minor units, whatever its size: an exact decimal product, rounded half away from zero."""
    return F.round(amount * power, 0)


def _minor(rounded: Column) -> _Read:
    fits = F.abs(rounded) <= E.MAX_AMOUNT_MINOR
    return _Read(F.when(fits, rounded.try_cast("bigint")), F.coalesce(~fits, F.lit(False)))


def _time(value: _Scalar) -> Column:
    # The pattern first: a cast alone reads "T12:00:00Z" as today. After it the cast only has to refuse 30 February.
    at = F.when(value.is_a("BIGINT"), value.text.try_cast("bigint")).when(
        value.is_a("STRING") & value.text.rlike(INSTANT_PATTERN), F.unix_millis(value.text.try_cast("timestamp"))
    )
    return F.when((at >= EARLIEST_MS) & (at < LATEST_MS), at)


def _trait_value(value: Column) -> Column:
    """Text of a scalar trait; null for what yields no fact: a double is a number with an exponent or above 38 digits."""
    type_, text = _scalar(value)
    return F.when(type_.isin("STRING", "BOOLEAN", "BIGINT") | type_.startswith("DECIMAL"), text)


_READERS: dict[str, Callable[[_Scalar], _Read]] = {
    "text": _text,
    "amount": _amount,
    "quantity": _quantity,
    "currency": _currency,
}


# --- facts ------------------------------------------------------------------------------------------------------------------------
def _fact(kind: Column | str, **columns: Column) -> Column:
    """A fact struct; columns not named are null."""
    values = {"kind": F.lit(kind) if isinstance(kind, str) else kind, **columns}
    return F.struct(
        *(values.get(name, _none("bigint" if name in _FACT_NUMBERS else "string")).alias(name) for name in _FACT_COLUMNS)
    )


def _rule_of(event_type: Column, name: Column) -> Column:
    """Number of the first rule of the facts table that fits; ``_NO_RULE`` when none, ``_NO_TYPE`` for an unknown type."""
    chosen = F.when(~F.coalesce(event_type.isin(*E.EVENT_TYPES), F.lit(False)), _NO_TYPE)
    for number, rule in enumerate(E.FACT_RULES):
        fits = event_type.isin(*rule.types)
        if rule.names:
            fits = fits & F.coalesce(name.isin(*rule.names), F.lit(False))
        chosen = chosen.when(fits, number)
    return chosen.otherwise(_NO_RULE)


def _body(
    rules: list[tuple[int, tuple[E.FieldRule, ...]]], read: Callable[[E.Source, str], _Read], rule: Column
) -> tuple[dict[str, Column], Column]:
    """Columns of the facts of several rules, by rule number, and whether a judged source broke the schema.

    A column is one CASE over the rules that fill it; rules that read it alike share a branch.
    """
    fields: dict[E.FieldRule, list[int]] = {}
    for number, columns in rules:
        for field in columns:
            fields.setdefault(field, []).append(number)
    values: dict[str, Column] = {}
    broken: list[Column] = []
    judged: dict[tuple[E.Source, str], set[int]] = {}
    for field, numbers in fields.items():
        reads = [read(source, field.reads) for source in field.sources]
        value = reads[0].value if len(reads) == 1 else F.coalesce(*(one.value for one in reads))
        before = values.get(field.column)
        here = rule.isin(numbers)
        values[field.column] = F.when(here, value) if before is None else F.when(here, value).otherwise(before)
        if field.required:
            broken.append(here & value.isNull())
        for source in field.sources:
            judged.setdefault((source, field.reads), set()).update(numbers)
    for (source, reads_as), numbers_set in judged.items():
        broken.append(rule.isin(sorted(numbers_set)) & read(source, reads_as).broken)
    return values, _any(broken)


def _items(products: Column, currency: Column, power: Column) -> Column:
    """For each product a struct of its fact and whether it broke the schema; for what is no object only the latter.

    Functions over arrays are interpreted: a value that is used twice is computed twice, and a look into a row that came from
    another operator asks for the session's configuration. So all is one expression from the parsed JSON on, and each stage is an
    array whose values the next one only looks up.
    """
    kinds = {rule.item_kind: rule.item_fields for rule in E.FACT_RULES if rule.item_kind is not None}
    ((kind, fields),) = kinds.items()  # one rule of the table has items

    def scalars(product: Column) -> Column:
        columns = [product.isNull().alias("none")]
        for name in _ITEM:
            type_, text = _scalar(product.getField(name))
            columns += [type_.alias(f"t_{name}"), text.alias(f"s_{name}")]
        return F.struct(*columns)

    def values(item: Column) -> Column:
        columns: list[Column] = [item.getField("none").alias("none")]
        broken: list[Column] = []
        for field in fields:
            named = [_Scalar(item.getField(f"t_{source.name}"), item.getField(f"s_{source.name}")) for source in field.sources]
            reads = [_READERS[field.reads](scalar) for scalar in named]
            broken += [one.broken for one in reads]
            value = reads[0].value if len(reads) == 1 else F.coalesce(*(one.value for one in reads))
            columns.append((_rounded(value, power) if field.reads == "amount" else value).alias(field.column))
        return F.struct(*columns, _any(broken).alias("broken"))

    def fact(item: Column) -> Column:
        minor = _minor(item.getField("amount_minor"))
        plain = {field.column: item.getField(field.column) for field in fields}
        made = _fact(kind, **{**plain, "currency": currency, "amount_minor": minor.value})
        none = item.getField("none")
        return F.struct(F.when(~none, made).alias("fact"), (none | item.getField("broken") | minor.broken).alias("broken"))

    return reduce(F.transform, (scalars, values, fact), products)


def _text_bytes(facts: Column, shared: Column) -> Column:
    columns = ("kind", *E.BODY_TEXT_COLUMNS)

    def add(total: Column, fact: Column) -> Column:
        return reduce(lambda sum_, c: sum_ + F.coalesce(F.octet_length(fact.getField(c)), F.lit(0)), columns, total + shared)

    return F.aggregate(facts, F.lit(0), add)


def _sorted_pairs(pairs: Column) -> Column:
    """Entries by name; names are unique and compared as UTF-8 bytes, which is by code point."""
    return F.sort_array(pairs)


def admit(entries: DataFrame) -> DataFrame:
    """Add the columns of ``ADMITTED`` to ``entries``, which has ``value`` (binary) and ``broker_ms`` (bigint).

    ``facts`` is ``FACTS_TYPE``, null unless the verdict is ``ok``; so are all columns but ``verdict``.
    """
    kept = entries.columns
    by_name = {field: f"`{field}`:variant" for field in (*_ENVELOPE, *_PROPERTIES, *_ITEM, "type")}
    fields = [by_name[name] for name in _ENVELOPE]
    fields.append("properties:struct<" + ",".join(by_name[name] for name in _PROPERTIES) + ">")
    fields.append(f"traits:{_IS_OBJECT}")
    fields.append("context:struct<device:struct<type:variant>>")
    envelope_type = f"struct<{','.join(fields)}>"
    rule_of_items = next(number for number, rule in enumerate(E.FACT_RULES) if rule.item_kind is not None)
    rules_of = {what: [n for n, rule in enumerate(E.FACT_RULES) if rule.entries_of == what] for what in ("traits", "purposes")}

    # 1 · parse once
    rows = entries.select("*", text_of(F.col("value")).alias("_text"), F.md5("value").alias("_md5"))
    rows = rows.select("*", wrap(F.col("_text"), F.col("_md5")).alias("_json"))
    json, text = F.col("_json"), F.col("_text")
    rows = rows.select(
        *kept,
        "_json",
        F.octet_length("value").alias("_size"),
        F.when(
            holds_one_value(json, F.col("_md5")) & ~has_lone_surrogate(text) & ~has_long_number(text) & ~is_too_deep(text),
            F.try_variant_get(json, "$[0]", envelope_type),
        ).alias("_e"),
    )

    # 2 · every value that may be judged, as type and text
    def at(path: str) -> _Scalar:
        return _scalar(F.col(f"_e.{path}"))

    scalars = {name: at(name) for name in _ENVELOPE}
    scalars |= {f"p_{name}": at(f"properties.{name}") for name in _PROPERTIES}
    scalars["device"] = at("context.device.type")
    rows = rows.select(
        *kept,
        "_json",
        "_size",
        F.col("_e").isNotNull().alias("_is_object"),
        *(F.col(f"_e.{name}").isNull().alias(f"_no_{name}") for name in ("properties", "traits", "context")),
        *(column for name, s in scalars.items() for column in (s.type.alias(f"_t_{name}"), s.text.alias(f"_s_{name}"))),
    )
    scalars = {name: _Scalar(F.col(f"_t_{name}"), F.col(f"_s_{name}")) for name in scalars}

    # 3 · the envelope, and the rule of the facts table
    def misplaced(path: str, absent: Column) -> Column:
        """Present, and not of the type that it was cast to."""
        type_ = F.schema_of_variant(F.try_variant_get(json, f"$[0].{path}", "variant"))
        return F.when(absent, F.coalesce(type_ != "VOID", F.lit(False))).otherwise(False)

    event_id, user_id, anonymous_id = (_identifier(scalars[name]) for name in ("event_id", "user_id", "anonymous_id"))
    name, channel, device = (_text(scalars[key]) for key in ("name", "source_kind", "device"))
    event_type = F.when(scalars["type"].is_a("STRING"), scalars["type"].text)
    broken = [event_id, user_id, anonymous_id, name, channel, device]
    rows = rows.select(
        *kept,
        "_json",
        "_size",
        "_is_object",
        *(f"_{part}_p_{key}" for part in "ts" for key in _PROPERTIES),
        F.coalesce(F.concat(F.lit("user:"), user_id.value), F.concat(F.lit("anon:"), anonymous_id.value)).alias("_person"),
        event_id.value.alias("_event_id"),
        name.value.alias("_name"),
        channel.value.alias("_channel"),
        device.value.alias("_device"),
        _time(scalars["occurred_at"]).alias("_at"),
        event_type.alias("_type"),
        _any(
            [
                *(one.broken for one in broken),
                *(misplaced(key, F.col(f"_no_{key}")) for key in ("properties", "traits", "context")),
                name.value.isNull() & F.coalesce(event_type.isin(*E.NAMED_TYPES), F.lit(False)),
            ]
        ).alias("_broken"),
    )
    rows = rows.select("*", _rule_of(F.col("_type"), F.col("_name")).alias("_rule"))
    rule = F.col("_rule")

    # 4 · the fact's own columns; the event's entries (traits, purposes, products) only where its rule has them
    def read(source: E.Source, how: str) -> _Read:
        if source.envelope:
            return _Read(F.col(f"_{source.name}"), F.lit(False))  # judged with the envelope
        return _READERS[how](scalars[f"p_{source.name}"])

    plain = [(n, r.fields) for n, r in enumerate(E.FACT_RULES) if r.entries_of is None]
    values, body_broken = _body(plain, read, rule)
    traits = F.filter(
        F.transform(
            F.map_entries(F.try_variant_get(json, "$[0].traits", "map<string,variant>")),
            lambda e: F.struct(e.getField("key").alias("key"), _trait_value(e.getField("value")).alias("value")),
        ),
        lambda e: e.getField("value").isNotNull(),
    )
    purposes = F.transform(
        F.map_entries(F.try_variant_get(json, "$[0].properties.purposes", "map<string,string>")),
        lambda e: F.struct(
            e.getField("key").alias("key"),
            # Only the text itself prints as `granted`: numbers, objects and arrays print differently.
            F.when(e.getField("value") == "granted", "granted").otherwise("denied").alias("value"),
        ),
    )
    has_items, has_purposes = rule == rule_of_items, rule.isin(rules_of["purposes"])
    item_type = "array<struct<" + ",".join(by_name[name] for name in _ITEM) + ">>"
    rows = rows.select(
        *kept,
        "_json",
        "_size",
        "_is_object",
        *(f"_{name}" for name in ("person", "event_id", "channel", "device", "at", "type", "rule")),
        *(value.alias(f"_f_{column}") for column, value in values.items()),
        (F.col("_broken") | body_broken | (rule == _NO_TYPE)).alias("_broken"),
        F.when(rule.isin(rules_of["traits"]), _sorted_pairs(traits)).when(has_purposes, _sorted_pairs(purposes)).alias("_pairs"),
        _power(values["currency"]).alias("_power"),
    )
    products = F.try_variant_get(json, "$[0].properties.products", item_type)
    rows = rows.select("*", F.when(has_items, _items(products, F.col("_f_currency"), F.col("_power"))).alias("_items"))
    minor = _minor(_rounded(F.col("_f_amount_minor"), F.col("_power")))
    pairs, items = F.col("_pairs"), F.col("_items")
    rows = rows.select(
        "*",
        minor.value.alias("_minor"),
        F.greatest(F.lit(1), F.coalesce(F.array_size(pairs), F.lit(0)), F.coalesce(F.array_size(items) + 1, F.lit(1))).alias(
            "_count"
        ),
        (
            F.col("_broken")
            | minor.broken
            | F.when(has_purposes, misplaced("properties.purposes", pairs.isNull())).otherwise(False)
            | F.when(has_items, misplaced("properties.products", items.isNull())).otherwise(False)
        ).alias("_own_broken"),
    )

    # 5 · facts
    kinds = F.array(*(F.lit(r.kind) for r in E.FACT_RULES))
    own = _fact(
        F.get(kinds, rule),
        **{c: F.col(f"_f_{c}") for c in values if c != "amount_minor"},
        amount_minor=F.col("_minor"),
    )
    other = F.array(_fact(E.OTHER_KIND, key=F.col("_type")))
    of_items = F.array_compact(items.getField("fact"))
    of_pairs = F.transform(pairs, lambda e: _fact(F.get(kinds, rule), key=e.getField("key"), value=e.getField("value")))
    facts = (
        F.when(rule == _NO_TYPE, F.array().cast(FACTS_TYPE))
        .when(rule.isin(rules_of["traits"] + rules_of["purposes"]), F.when(F.array_size(pairs) > 0, of_pairs).otherwise(other))
        .when(rule == _NO_RULE, other)
        .when(items.isNotNull(), F.concat(F.array(own), of_items))
        .otherwise(F.array(own))
    )
    rows = rows.select("*", F.when(F.col("_count") <= E.MAX_FACTS, facts).alias("_facts"))

    # 6 · the verdict
    text_columns = ("_person", "_event_id", "_channel", "_device")
    shared = reduce(lambda sum_, c: sum_ + F.coalesce(F.octet_length(c), F.lit(0)), text_columns, F.lit(0))
    # A text of the entry comes at most once into its own fact's columns and once into those of its items or pairs, beside names of
    # kinds and currencies: only where this bound is passed need the bytes be counted.
    may_be_large = F.col("_count") * (shared + 64) + 3 * F.col("_size") > E.MAX_FACT_TEXT_BYTES
    too_large = F.when(may_be_large, _text_bytes(F.col("_facts"), shared) > E.MAX_FACT_TEXT_BYTES).otherwise(False)
    items_broken = F.coalesce(F.array_contains(items.getField("broken"), F.lit(True)), F.lit(False))
    verdict = (
        F.when(F.col("_size") > E.MAX_ENTRY_BYTES, "oversize")
        .when(~F.col("_is_object"), "malformed")
        .when((F.col("_count") > E.MAX_FACTS) | too_large, "oversize")
        .when(F.col("_own_broken") | items_broken, "schema")
        .when(F.col("_event_id").isNull(), "missing_event_id")
        .when(F.col("_person").isNull(), "missing_identity")
        .when(F.col("_at").isNull(), "bad_time")
        .when(F.col("_at") > F.col("broker_ms") + E.MAX_FUTURE_MS, "future")
        .otherwise("ok")
    )
    rows = rows.select("*", verdict.alias("verdict"))
    ok = F.col("verdict") == "ok"
    sources = {"person": "_person", "event_id": "_event_id", "at_ms": "_at", "channel": "_channel", "device": "_device"}
    return rows.select(
        *kept,
        "verdict",
        *(F.when(ok, F.col(source)).alias(name) for name, source in sources.items()),
        F.when(ok, F.col("_facts")).alias("facts"),
    )
