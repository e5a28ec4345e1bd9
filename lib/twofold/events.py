"""Log entry -> verdict and facts, in plain Python.

Admission is a pure function of the entry's bytes, its broker time and ``ADMISSION_VERSION``. The facts table below is data:
this module and the native Spark admission both interpret it, so there is one meaning of an event.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

import msgspec

from twofold.currency import DEFAULT_CURRENCY, exponent
from twofold.fact_rules import BODY_TEXT_COLUMNS as BODY_TEXT_COLUMNS
from twofold.fact_rules import EMAIL_KINDS as EMAIL_KINDS
from twofold.fact_rules import EVENT_TYPES as EVENT_TYPES
from twofold.fact_rules import FACT_KINDS as FACT_KINDS
from twofold.fact_rules import FACT_RULES as FACT_RULES
from twofold.fact_rules import NAMED_TYPES as NAMED_TYPES
from twofold.fact_rules import OTHER_KIND as OTHER_KIND
from twofold.fact_rules import RETRACTION_KIND as RETRACTION_KIND
from twofold.fact_rules import FactRule as FactRule
from twofold.fact_rules import FieldRule as FieldRule
from twofold.fact_rules import Source as Source
from twofold.strict_json import MAX_DEPTH as MAX_DEPTH
from twofold.strict_json import MAX_NAME_CHARS as MAX_NAME_CHARS
from twofold.strict_json import MAX_NUMBER_CHARS as MAX_NUMBER_CHARS
from twofold.strict_json import Number, parse_strict
from twofold.timeline import EARLIEST_MS, LATEST_MS, MINUTE_MS, Position, parse_instant

#: Changes whenever any entry could get another verdict or other facts.
ADMISSION_VERSION = 2

# --- limits -----------------------------------------------------------------------------------------------------------------
MAX_ENTRY_BYTES = 1 << 20
MAX_FACTS = 1_000
MAX_FACT_TEXT_BYTES = 512 * 1024
MAX_ID_CHARS = 100
MAX_FUTURE_MS = 5 * MINUTE_MS
MAX_QUANTITY = 10**9
MAX_AMOUNT_MINOR = 10**15
MAX_NUMBER_DIGITS = 38
AMOUNT_INTEGER_DIGITS = 15
AMOUNT_FRACTION_DIGITS = 9

AMOUNT_PATTERN = r"^-?[0-9]{1,15}(?:\.[0-9]{1,9})?\z"
QUANTITY_PATTERN = r"^-?[0-9]{1,18}\z"
CURRENCY_PATTERN = r"^[A-Za-z]{3}\z"

#: Verdicts in the order in which the first failing reason wins; "ok" when none fails.
REASONS = ("oversize", "malformed", "schema", "missing_event_id", "missing_identity", "bad_time", "future")
Verdict = Literal["ok", "oversize", "malformed", "schema", "missing_event_id", "missing_identity", "bad_time", "future"]


# --- the result ----------------------------------------------------------------------------------------------------------------
class FactBody(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one fact says beyond its envelope. Money in minor units of ``currency``."""

    kind: str
    product: str | None = None
    category: str | None = None
    campaign: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    quantity: int | None = None
    key: str | None = None
    value: str | None = None


class Admission(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What admission says of one log entry. ``facts`` is empty unless the verdict is ok; a fact's ordinal is its place in it."""

    verdict: Verdict
    person: str | None = None
    event_id: str | None = None
    at_ms: int | None = None
    channel: str | None = None
    device: str | None = None
    facts: tuple[FactBody, ...] = ()


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One message of the topic ``facts``: an admission with the position, broker time and version it was made under.

    ``version`` is ``<admission version>/<definition fingerprint>``.
    """

    version: str
    topic_id: str
    partition: int
    offset: int
    broker_ms: int
    verdict: Verdict
    person: str | None = None
    event_id: str | None = None
    at_ms: int | None = None
    channel: str | None = None
    device: str | None = None
    facts: tuple[FactBody, ...] = ()

    @property
    def position(self) -> Position:
        return Position(self.topic_id, self.partition, self.offset)

    @property
    def target(self) -> str | None:
        """The id of the event that a retraction takes back; ``None`` of any other entry."""
        return self.facts[0].key if self.facts and self.facts[0].kind == RETRACTION_KIND else None


_ENTRY_DECODER = msgspec.json.Decoder(Entry)
_ENTRIES_DECODER = msgspec.json.Decoder(tuple[Entry, ...])
_ENTRY_ENCODER = msgspec.json.Encoder()


def decode_entry(message: bytes | memoryview) -> Entry:
    """The entry of a ``facts`` message. Raises ``msgspec.ValidationError`` or ``msgspec.DecodeError``."""
    return _ENTRY_DECODER.decode(message)


def decode_entries(messages: list[bytes]) -> tuple[Entry, ...]:
    """The entries of many ``facts`` messages at once, which costs less than one by one. Raises as :func:`decode_entry`."""
    return _ENTRIES_DECODER.decode(b"[" + b",".join(messages) + b"]")


def encode_entry(entry: Entry) -> bytes:
    """A ``facts`` message, as the speed job writes it (null fields left out)."""
    return _ENTRY_ENCODER.encode(entry)


def make_entry(version: str, position: Position, broker_ms: int, value: bytes | None) -> Entry:
    """Admit one log entry and stamp it with its position."""
    a = admit(value, broker_ms)
    return Entry(version, *position, broker_ms, a.verdict, a.person, a.event_id, a.at_ms, a.channel, a.device, a.facts)


# --- reading values ------------------------------------------------------------------------------------------------------
class _Schema(Exception):
    """A present value is of a type or range that the contract does not allow."""


_INTEGER = re.compile(r"-?[0-9]+\Z")


def _integer(value: Any) -> int | None:
    """The value of an integer literal within signed 64 bits, else ``None``."""
    if isinstance(value, Number) and _INTEGER.match(value):
        number = int(value)
        if -(2**63) <= number < 2**63:
            return number
    return None


def _decimal(literal: str) -> Decimal | None:
    """The exact value of a number literal without exponent, at most 38 digits and 38 of them after the point."""
    if "e" in literal or "E" in literal:
        return None
    number = Decimal(literal)
    _sign, digits, scale = number.as_tuple()
    assert isinstance(scale, int)
    if len(digits) > MAX_NUMBER_DIGITS or -scale > MAX_NUMBER_DIGITS:
        return None
    return number


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and not isinstance(value, Number)):
        return value or None
    number = _integer(value)
    if number is None:
        raise _Schema
    return str(number)


def _identifier(value: Any) -> str | None:
    text = _text(value)
    if text is not None and (len(text) > MAX_ID_CHARS or "\0" in text):
        raise _Schema
    return text


def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(r"\z", r"\Z"), re.ASCII)


_AMOUNT, _QUANTITY_TEXT, _CURRENCY_TEXT = _pattern(AMOUNT_PATTERN), _pattern(QUANTITY_PATTERN), _pattern(CURRENCY_PATTERN)


def _amount(value: Any) -> Decimal | None:
    if value is None:
        return None
    if isinstance(value, Number):
        number = _decimal(value)
    elif isinstance(value, str) and _AMOUNT.match(value):
        number = Decimal(value)
    else:
        number = None
    if number is None:
        raise _Schema
    if abs(number) >= 10**AMOUNT_INTEGER_DIGITS or number != round(number, AMOUNT_FRACTION_DIGITS):
        raise _Schema
    return number


def _minor(amount: Decimal | None, currency: str) -> int | None:
    if amount is None:
        return None
    minor = int((amount.scaleb(exponent(currency))).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    if abs(minor) > MAX_AMOUNT_MINOR:
        raise _Schema
    return minor


def _quantity(value: Any) -> int:
    if value is None:
        return 1
    number = _integer(value)
    if number is None and isinstance(value, str) and not isinstance(value, Number) and _QUANTITY_TEXT.match(value):
        number = int(value)
    if number is None or abs(number) > MAX_QUANTITY:
        raise _Schema
    return number


def _currency(value: Any) -> str:
    if value is None:
        return DEFAULT_CURRENCY
    if isinstance(value, str) and not isinstance(value, Number) and _CURRENCY_TEXT.match(value):
        return value.upper()
    raise _Schema


def _plain(number: Decimal) -> str:
    """Plain decimal notation without trailing zeros; zero is ``0``."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _trait_value(value: Any) -> str | None:
    """The text of a scalar trait; ``None`` for what yields no fact."""
    if isinstance(value, Number):
        number = _decimal(value)
        return None if number is None else _plain(number)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def _time(value: Any) -> int | None:
    at = _integer(value)
    if at is None and isinstance(value, str) and not isinstance(value, Number):
        at = parse_instant(value)
    return at if at is not None and EARLIEST_MS <= at < LATEST_MS else None


# --- admission -------------------------------------------------------------------------------------------------------------------
class _Reader:
    """Reads values and remembers whether one of them broke the schema: oversize is judged before schema, over all of them."""

    __slots__ = ("broken",)

    def __init__(self) -> None:
        self.broken = False

    def read(self, how: Any, *args: Any) -> Any:
        try:
            return how(*args)
        except _Schema:
            self.broken = True
            return None

    def mapping(self, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self.broken |= value is not None
        return {}

    def body(
        self, kind: str, rules: tuple[FieldRule, ...], values: dict[str, Any], name: str | None, currency: str | None
    ) -> FactBody:
        columns: dict[str, Any] = {}
        amount: Decimal | None = None
        for rule in rules:
            raw = [name if source.envelope else values.get(source.name) for source in rule.sources]
            if rule.reads == "text":
                texts = [self.read(_text, value) for value in raw]
                text = columns[rule.column] = next((text for text in texts if text is not None), None)
                self.broken |= rule.required and text is None
            elif rule.reads == "amount":
                amounts = [self.read(_amount, value) for value in raw]
                amount = next((value for value in amounts if value is not None), None)
            elif rule.reads == "quantity":
                columns[rule.column] = self.read(_quantity, raw[0])
            else:
                currency = self.read(_currency, raw[0])
        if currency is not None:
            columns["currency"] = currency
            columns["amount_minor"] = self.read(_minor, amount, currency)
        return FactBody(kind, **columns)


def _rule(event_type: str, name: str | None) -> FactRule | None:
    for rule in FACT_RULES:
        if event_type in rule.types and (not rule.names or name in rule.names):
            return rule
    return None


def _facts(
    reader: _Reader, event_type: str, name: str | None, properties: dict[str, Any], traits: dict[str, Any]
) -> tuple[FactBody, ...]:
    """The facts of an event; more than ``MAX_FACTS`` when it is oversize (then their bodies are not judged)."""
    rule = _rule(event_type, name)
    facts: list[FactBody] = []
    if rule is None:
        pass
    elif rule.entries_of == "traits":
        scalars = ((key, _trait_value(traits[key])) for key in sorted(traits))
        facts = [FactBody(rule.kind, key=key, value=value) for key, value in scalars if value is not None]
    elif rule.entries_of == "purposes":
        purposes = reader.mapping(properties.get("purposes"))
        for key in sorted(purposes):
            value = purposes[key]
            granted = isinstance(value, str) and not isinstance(value, Number) and value == "granted"
            facts.append(FactBody(rule.kind, key=key, value="granted" if granted else "denied"))
    else:
        facts = [reader.body(rule.kind, rule.fields, properties, name, None)]
        if rule.item_kind is not None:
            items = properties.get("products")
            if items is not None and not isinstance(items, list):
                reader.broken = True
                items = None
            items = items or []
            if len(items) + 1 > MAX_FACTS:
                return (facts[0],) * (len(items) + 1)
            for item in items:
                if isinstance(item, dict):
                    facts.append(reader.body(rule.item_kind, rule.item_fields, item, None, facts[0].currency))
                else:
                    reader.broken = True
    return tuple(facts) or (FactBody(OTHER_KIND, key=event_type),)


def _utf8(text: str | None) -> int:
    return 0 if text is None else len(text) if text.isascii() else len(text.encode("utf-8"))


def _text_bytes(facts: tuple[FactBody, ...], shared: int) -> int:
    total = (shared) * len(facts)
    for fact in facts:
        total += len(fact.kind)
        for column in BODY_TEXT_COLUMNS:
            total += _utf8(getattr(fact, column))
    return total


def admit(value: bytes | None, broker_ms: int) -> Admission:
    """Verdict and facts of one log entry: its bytes and the broker's time (epoch ms). Never raises."""
    if value is None:
        return Admission("malformed")
    if len(value) > MAX_ENTRY_BYTES:
        return Admission("oversize")
    event = parse_strict(value)
    if event is None:
        return Admission("malformed")

    reader = _Reader()
    event_id = reader.read(_identifier, event.get("event_id"))
    user_id = reader.read(_identifier, event.get("user_id"))
    anonymous_id = reader.read(_identifier, event.get("anonymous_id"))
    name = reader.read(_text, event.get("name"))
    channel = reader.read(_text, event.get("source_kind"))
    properties = reader.mapping(event.get("properties"))
    traits = reader.mapping(event.get("traits"))
    device_object = reader.mapping(event.get("context")).get("device")
    device = reader.read(_text, device_object.get("type")) if isinstance(device_object, dict) else None
    person = f"user:{user_id}" if user_id is not None else f"anon:{anonymous_id}" if anonymous_id is not None else None
    event_type = event.get("type")
    facts: tuple[FactBody, ...] = ()
    if isinstance(event_type, str) and not isinstance(event_type, Number) and event_type in EVENT_TYPES:
        reader.broken |= name is None and event_type in NAMED_TYPES
        facts = _facts(reader, event_type, name, properties, traits)
    else:
        reader.broken = True

    at = _time(event.get("occurred_at"))
    if (
        len(facts) > MAX_FACTS
        or _text_bytes(facts, _utf8(person) + _utf8(event_id) + _utf8(channel) + _utf8(device)) > MAX_FACT_TEXT_BYTES
    ):
        verdict: Verdict = "oversize"
    elif reader.broken:
        verdict = "schema"
    elif event_id is None:
        verdict = "missing_event_id"
    elif person is None:
        verdict = "missing_identity"
    elif at is None:
        verdict = "bad_time"
    elif at > broker_ms + MAX_FUTURE_MS:
        verdict = "future"
    else:
        return Admission("ok", person, event_id, at, channel, device, facts)
    return Admission(verdict)


def read_person_key(value: bytes) -> str | None:
    """The Kafka key of an event: its person key when one can be read, else ``None``. Judges nothing."""
    event = parse_strict(value)
    if event is None:
        return None
    reader = _Reader()
    user_id = reader.read(_identifier, event.get("user_id"))
    if user_id is not None:
        return f"user:{user_id}"
    anonymous_id = reader.read(_identifier, event.get("anonymous_id"))
    return f"anon:{anonymous_id}" if anonymous_id is not None and not reader.broken else None
