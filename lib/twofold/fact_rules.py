"""Which facts an event yields: the facts table as data, interpreted by the plain admission and by the native one."""

from __future__ import annotations

from typing import Literal, NamedTuple

EVENT_TYPES = ("track", "identify", "page", "screen", "group", "alias", "email", "crm", "consent", "privacy", "retraction")
#: Types whose event must have a name.
NAMED_TYPES = ("track", "email")


class Source(NamedTuple):
    """Where a column's text comes from: a name inside ``properties`` (or a product), or the envelope's ``name``."""

    name: str
    envelope: bool = False


class FieldRule(NamedTuple):
    """One column of a fact: how it is read, and the sources of which the first that is present wins; all are judged."""

    column: str
    reads: Literal["text", "amount", "quantity", "currency"]
    sources: tuple[Source, ...]
    #: an event without a value here breaks the schema; of an event's own fields only, not of items
    required: bool = False


class FactRule(NamedTuple):
    """One row of the facts table: which events, the kind of their fact, its columns, and the further facts they yield."""

    kind: str
    types: tuple[str, ...]
    names: tuple[str, ...] = ()
    fields: tuple[FieldRule, ...] = ()
    #: kind of one further fact for each element of ``properties.products`` with these columns; its currency is the event's
    item_kind: str | None = None
    item_fields: tuple[FieldRule, ...] = ()
    #: the fact is repeated for each entry of this object: "traits" (scalars) or "purposes" (``properties.purposes``)
    entries_of: Literal["traits", "purposes"] | None = None


def _from(*names: str) -> tuple[Source, ...]:
    return tuple(Source(name) for name in names)


_EVENT_NAME = Source("name", envelope=True)
_PRODUCT = FieldRule("product", "text", _from("product_id"))
_CATEGORY = FieldRule("category", "text", _from("category"))
_QUANTITY = FieldRule("quantity", "quantity", _from("quantity"))
_ORDER_KEY = FieldRule("key", "text", _from("order_id"))
_CURRENCY = FieldRule("currency", "currency", _from("currency"))
_CART = (_PRODUCT, _CATEGORY, _QUANTITY)
_EMAIL = (FieldRule("campaign", "text", _from("campaign_id")), FieldRule("key", "text", _from("message_id")))

EMAIL_KINDS = {
    "Email Sent": "email_sent",
    "Email Delivered": "email_delivered",
    "Email Opened": "email_opened",
    "Email Link Clicked": "email_clicked",
    "Email Bounced": "email_bounced",
    "Email Unsubscribed": "email_unsubscribed",
    "Email Marked as Spam": "email_complained",
}

#: The fact of a retraction: its key is the id of the event that it takes back. See :mod:`twofold.retractions`.
RETRACTION_KIND = "retraction"

#: The first rule that fits an event's type and name is its rule.
FACT_RULES: tuple[FactRule, ...] = (
    FactRule("page", ("page", "screen"), fields=(FieldRule("key", "text", (*_from("path", "url"), _EVENT_NAME)),)),
    FactRule("view", ("track",), ("Product Viewed",), (_PRODUCT, _CATEGORY)),
    FactRule("cart_add", ("track",), ("Product Added",), _CART),
    FactRule("cart_remove", ("track",), ("Product Removed",), _CART),
    FactRule(
        "order",
        ("track",),
        ("Order Completed",),
        (_ORDER_KEY, FieldRule("amount_minor", "amount", _from("total", "revenue")), _CURRENCY),
        item_kind="purchase",
        item_fields=(_PRODUCT, _CATEGORY, _QUANTITY, FieldRule("amount_minor", "amount", _from("price"))),
    ),
    FactRule(
        "refund",
        ("track",),
        ("Order Refunded", "Order Cancelled"),
        (_ORDER_KEY, FieldRule("amount_minor", "amount", _from("total")), _CURRENCY),
    ),
    *(FactRule(kind, ("email",), (name,), _EMAIL) for name, kind in EMAIL_KINDS.items()),
    FactRule("trait", ("identify", "crm"), entries_of="traits"),
    FactRule("consent", ("consent",), entries_of="purposes"),
    FactRule(RETRACTION_KIND, ("retraction",), fields=(FieldRule("key", "text", _from("target_event_id"), required=True),)),
    FactRule("custom", ("track",), fields=(FieldRule("key", "text", (_EVENT_NAME,)),)),
)
#: The fact of an ok entry that no rule gives one: its key is the event's type.
OTHER_KIND = "other"

#: Kinds that came after ``OTHER_KIND``, in the order in which they came.
_LATER_KINDS = (RETRACTION_KIND,)
#: Every kind of fact; a kind's code in stored columns is its place here, so only ever append.
FACT_KINDS: tuple[str, ...] = (
    *dict.fromkeys(k for rule in FACT_RULES for k in (rule.kind, rule.item_kind) if k is not None and k not in _LATER_KINDS),
    OTHER_KIND,
    *_LATER_KINDS,
)
#: Text columns of a fact that its body carries (the envelope's are person, event_id, channel, device).
BODY_TEXT_COLUMNS = ("product", "category", "campaign", "currency", "key", "value")
