"""One strict JSON object out of bytes, in native columns: the Spark side of ``events.parse_strict``.

Spark's own readers are lenient (tails, single quotes, a second object, lone surrogates), so the text is wrapped beside the
hash of its own bytes, which no text can contain, and parsed once into a variant.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

from twofold.events import MAX_DEPTH, MAX_ENTRY_BYTES, MAX_NUMBER_CHARS

# Possessive everywhere: the patterns run over a mebibyte of hostile text and may neither backtrack nor recurse.
_STRINGS = r'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_LONG_NUMBER = rf"[-+.0-9eE]{{{MAX_NUMBER_CHARS + 1}}}"
_ESCAPES_THAT_ARE_WHOLE = r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|[^u])"
_SURROGATE = r"\\u[dD][89a-fA-F]"


def text_of(value: Column) -> Column:
    """The bytes as text; null when they are null, above the size limit or no valid UTF-8."""
    text = value.cast("string")
    return F.when((F.length(value) <= MAX_ENTRY_BYTES) & F.is_valid_utf8(text), text)


def wrap(text: Column, digest: Column) -> Column:
    """The variant ``[text, digest]``; null when that is no JSON. ``digest``: md5 of the bytes that ``text`` stands for."""
    return F.try_parse_json(F.concat(F.lit("["), text, F.lit(',"'), digest, F.lit('"]')))


def holds_one_value(wrapped: Column, digest: Column) -> Column:
    """Whether the text was exactly one JSON value: the digest is the second of two elements."""
    second, third = F.try_variant_get(wrapped, "$[1]", "string"), F.try_variant_get(wrapped, "$[2]", "variant")
    return F.coalesce((second == digest) & third.isNull(), F.lit(False))


def is_too_deep(text: Column) -> Column:
    """Nesting above the limit, in a text that parses. Brackets are only walked where there are more openings than the limit."""
    brackets = F.split(F.regexp_replace(F.regexp_replace(text, _STRINGS, ""), r"[^\[\]{}]", ""), "")

    def step(depth: Column, char: Column) -> Column:
        # Above the limit it stays there: the answer is known.
        return F.when(depth > MAX_DEPTH, depth).otherwise(F.when(char.isin("[", "{"), depth + 1).otherwise(depth - 1))

    openings = F.octet_length(text) - F.octet_length(F.replace(F.replace(text, F.lit("["), F.lit("")), F.lit("{"), F.lit("")))
    return F.when(openings > MAX_DEPTH, F.aggregate(brackets, F.lit(0), step) > MAX_DEPTH).otherwise(False)


def has_lone_surrogate(text: Column) -> Column:
    """Whether an escape brings in half a surrogate pair (the variant would hold a question mark), in a text that parses."""
    rest = F.regexp_replace(text, _ESCAPES_THAT_ARE_WHOLE, "")
    return F.when(F.contains(text, F.lit("\\u")), rest.rlike(_SURROGATE)).otherwise(False)


def has_long_number(text: Column) -> Column:
    """Whether a number literal is above the limit (Jackson's own limit counts digits only), in a text that parses."""
    suspect = F.when(F.octet_length(text) > MAX_NUMBER_CHARS, text.rlike(_LONG_NUMBER)).otherwise(False)
    return F.when(suspect, F.regexp_replace(text, _STRINGS, "").rlike(_LONG_NUMBER)).otherwise(False)
