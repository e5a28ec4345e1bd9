"""The hostile corpus: log entries that tempt an admission to be wrong, row by row of the contract.

Every implementation of admission must give the verdict and facts of ``events.admit`` for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from twofold import events as E
from twofold.currency import EXPONENTS
from twofold.testing.hostile_values import (
    ABSENT,
    AMOUNTS,
    CURRENCIES,
    QUANTITIES,
    SCALARS,
    TIMES,
    Raw,
    event,
    order,
    track,
)


def _malformed() -> Iterator[tuple[str, bytes]]:
    good = event()
    text = good.decode()
    yield "nothing", b""
    yield "spaces", b"  \n"
    for name, value in {"null": "null", "true": "true", "number": "1", "text": '"a"', "array": f"[{text}]", "nan": "NaN"}.items():
        yield f"top-{name}", value.encode()
    yield "bom", b"\xef\xbb\xbf" + good
    yield "bom-inside", text.replace("/home", "/\ufeffhome").encode()
    yield "utf16", text.encode("utf-16-le")
    yield "nul-after", good + b"\0"
    yield "nul-inside", good.replace(b"{", b"{\0", 1)
    yield "space-around", b" \t\r\n" + good + b"\n\r\t "
    for name, space in {"form-feed": "\f", "no-break": "\u00a0", "line-separator": "\u2028", "vertical-tab": "\v"}.items():
        yield f"space-{name}", (space + text).encode()
        yield f"space-after-{name}", (text + space).encode()
        yield f"space-inside-{name}", text.replace(":", ":" + space, 1).encode()
    for name, tail in {
        "word": " tail",
        "object": text,
        "comma": ",",
        "comma-object": "," + text,
        "bracket": "]",
        "brace": "}",
        "escape-wrap": '],"x"]',
        "escape-wrap-array": ",1] t",
        "comment": "/*c*/",
        "line-comment": "//c",
        "quote": '"',
        "number": "1",
    }.items():
        yield f"tail-{name}", (text + tail).encode()
    yield "comment-before", b"/*c*/" + good
    yield "hash-comment", b"#c\n" + good
    yield "cut-short", good[:-1]
    yield "cut-in-text", good[:20]
    yield "single-quotes", good.replace(b'"', b"'")
    yield "bare-names", good.replace(b'"event_id"', b"event_id")
    yield "dangling-comma", good[:-1] + b",}"
    yield "double-comma", good.replace(b",", b",,", 1)
    yield "no-colon", good.replace(b":", b" ", 1)
    yield "semicolon", good.replace(b",", b";", 1)
    for name, literal in {
        "nan": "NaN",
        "infinity": "Infinity",
        "minus-infinity": "-Infinity",
        "inf": "INF",
        "leading-zero": "01",
        "plus": "+1",
        "dot": "1.",
        "bare-dot": ".5",
        "minus": "-",
        "hex": "0x1",
        "exponent-nothing": "1e",
        "exponent-sign": "1e+",
        "underscore": "1_0",
        "minus-leading-zero": "-01",
        "double-minus": "--1",
        "undefined": "undefined",
        "True": "True",
        "nulL": "nulL",
        "suffix": "1L",
        "exponent-plus": "1e+2",
        "exponent-zeros": "1e0002",
        "point-exponent": "1.5E-7",
        "minus-point": "-.5",
    }.items():
        yield f"literal-{name}", event(extra=Raw(literal))
    for name, inner in {
        "bad-escape": r"\x41",
        "short-unicode": r"\u41",
        "bad-unicode": r"\u00zz",
        "unicode-sign": r"\u+041",
        "tab": "\t",
        "newline": "\n",
        "nul": "\0",
        "delete": "\x7f",
        "all-escapes": r"\"\\\/\b\f\n\r\t",
        "upper-escape": r"\N",
        "octal": r"\012",
        "quote-escape": r"\'",
        "high-surrogate": r"\ud800",
        "low-surrogate": r"\udc00",
        "pair": r"\ud83d\ude00",
        "upper-pair": r"\uD83D\uDE00",
        "reversed-pair": r"\ude00\ud83d",
        "high-then-text": r"\ud83dx",
        "two-highs-and-low": r"\ud83d\ud83d\ude00",
        "high-newline-low": r"\ud83d\n\ude00",
        "escaped-backslash-surrogate": r"\\ud800",
        "backslash-then-surrogate": r"\\\ud800",
        "pair-after-backslash": r"\\\ud83d\ude00",
        "low-after-pair": r"\ud83d\ude00\ude00",
        "escape-between": r"\ud83d\\ude00",
        "private-use": r"\ue000",
        "replacement": r"\ufffd",
        "question": "?",
        "noncharacter": r"\uffff",
        "d7ff": r"\ud7ff",
        "U": r"\Ud800",
    }.items():
        yield f"string-{name}", event(extra=Raw(f'"{inner}"'))
        yield f"name-{name}", event(extra={"x": 1, **{}}).replace(b'"x"', f'"{inner}"'.encode())
        yield f"id-{name}", event(user_id=Raw(f'"{inner}"'))
    for name, octets in {
        "overlong": b"\xc0\xaf",
        "overlong-nul": b"\xc0\x80",
        "surrogate": b"\xed\xa0\x80",
        "pair": b"\xed\xa0\xbd\xed\xb8\x80",
        "above": b"\xf4\x90\x80\x80",
        "f5": b"\xf5\x80\x80\x80",
        "ff": b"\xff",
        "lone": b"\x80",
        "cut": b"\xe2\x82",
        "max": b"\xf4\x8f\xbf\xbf",
        "latin-1": b"caf\xe9",
        "overlong-3": b"\xe0\x80\xaf",
        "overlong-4": b"\xf0\x80\x80\xaf",
        "fine": b"\xe2\x82\xac",
        "five": b"\xf8\x88\x80\x80\x80",
    }.items():
        yield f"utf8-{name}", good.replace(b"/home", octets)
    yield "duplicate-top", event(extra=1, **{"x": 2}).replace(b'"x"', b'"extra"')
    yield "duplicate-same-value", event(extra=1, **{"x": 1}).replace(b'"x"', b'"extra"')
    yield "duplicate-envelope", good[:-1] + b',"event_id":"e-2"}'
    yield "duplicate-nested", event(extra=Raw('[{"a":{"k":1,"k":2}}]'))
    yield "duplicate-by-escape", event(extra=Raw(r'{"a":1,"\u0061":2}'))
    yield "duplicate-empty", event(extra=Raw('{"":1,"":2}'))
    yield "duplicate-nul", event(extra=Raw(r'{"\u0000":1,"\u0000":2}'))
    yield "duplicate-far", event(extra=Raw("{" + ",".join(f'"k{i % 300}":1' for i in range(301)) + "}"))
    yield "no-duplicate-case", event(extra={"a": 1, "A": 2})
    yield "no-duplicate-depth", event(extra={"a": {"a": {"a": 1}}})
    yield "no-duplicate-normal-form", event(extra={"é": 1, "e\u0301": 2})
    for depth in (99, 100, 101, 102, 1000, 1001, 3000):
        yield f"depth-arrays-{depth}", event(extra=Raw("[" * (depth - 1) + "]" * (depth - 1)))
        yield f"depth-objects-{depth}", event(extra=Raw('{"a":' * (depth - 1) + "1" + "}" * (depth - 1)))
    yield "depth-in-text", event(extra="[{" * 200)
    yield "depth-in-text-and-quotes", event(extra=Raw('"' + r"\"[{" * 200 + '"'))
    yield "wide-not-deep", event(extra=[[]] * 300)
    yield "wide-and-deep", event(extra=Raw("[" + "[]," * 200 + "[" * 98 + "]" * 98 + "]"))
    yield "wide-and-too-deep", event(extra=Raw("[" + "[]," * 200 + "[" * 99 + "]" * 99 + "]"))
    yield "unbalanced-deep", event(extra=Raw("[" * 150 + "]" * 149))
    for size in (1000, 1001, 1002):
        yield f"number-{size}", event(extra=Raw("1" * size))
        yield f"number-minus-{size}", event(extra=Raw("-" + "1" * (size - 1)))
        yield f"number-point-{size}", event(extra=Raw("1." + "1" * (size - 2)))
        yield f"number-exponent-{size}", event(extra=Raw("1" * (size - 3) + "e-9"))
        yield f"number-zeros-{size}", event(extra=Raw("0." + "0" * (size - 2)))
        yield f"digits-in-text-{size}", event(extra="1" * size)
        yield f"digits-in-name-{size}", event(extra={"1" * size: 1})
        yield f"digits-after-quote-{size}", event(extra=Raw('"\\"' + "1" * size + '"'))
    for size in (50_000, 50_001):
        yield f"name-chars-{size}", event(extra={"n" * size: 1})
        yield f"name-two-bytes-{size}", event(extra={"é" * size: 1})
        yield f"name-escapes-{size}", event(extra=Raw('{"' + r"\u0041" * size + '":1}'))
    for size in (25_000, 25_001, 50_000):
        yield f"name-astral-{size}", event(extra={"😀" * size: 1})
    yield "case-of-names", good.replace(b'"event_id"', b'"Event_ID"')
    yield "names-with-dots", event(**{"properties.path": "/x", "context.device.type": "tv"})
    yield "name-with-escapes", good.replace(b'"event_id"', rb'"\u0065vent_id"')
    yield "brackets-1-mib", b"[" * E.MAX_ENTRY_BYTES
    yield "objects-1-mib", b'{"a":' * (E.MAX_ENTRY_BYTES // 5)
    yield "flat-brackets-1-mib", event(extra=Raw("[" + "[]," * 340_000 + "[]]"))
    yield "quotes-1-mib", event(extra=Raw('"' + r"\"" * 500_000 + '"'))


def _sizes() -> Iterator[tuple[str, bytes]]:
    good = event()
    for name, size in {"at-limit": E.MAX_ENTRY_BYTES, "above-limit": E.MAX_ENTRY_BYTES + 1}.items():
        yield f"bytes-{name}", good + b" " * (size - len(good))
        yield f"bytes-{name}-not-json", b"x" * size
    for count in (998, 999, 1_000, 1_500):
        yield f"products-{count}", order(*[{"product_id": "p"}] * count)
        yield f"products-broken-{count}", order(*[5] * count)
        yield f"products-last-broken-{count}", order(*[{"product_id": "p"}] * (count - 1), {"product_id": True})
        yield f"traits-{count + 1}", event(type="identify", traits={f"t{i}": i for i in range(count + 1)})
        yield f"traits-null-{count + 1}", event(type="identify", traits={"a": 1} | {f"t{i}": None for i in range(count + 1)})
        yield (
            f"purposes-{count + 1}",
            event(type="consent", properties={"purposes": {f"p{i}": "granted" for i in range(count + 1)}}),
        )
    yield "products-empty-100000", order(*[Raw("{}")] * 100_000)
    yield "products-null-1000", order(*[None] * 1_000, order_id=True)
    yield "oversize-before-schema", event(event_id=True, type="identify", traits={f"t{i}": i for i in range(1_001)})
    yield (
        "oversize-before-missing",
        event(event_id=ABSENT, user_id=ABSENT, type="identify", traits={f"t{i}": i for i in range(1_001)}),
    )
    yield "wrong-type-is-schema", event(type="nope", traits={f"t{i}": i for i in range(1_001)})
    # 512 KiB of text: kind, key, value, currency and the envelope's columns of every fact
    limit = E.MAX_FACT_TEXT_BYTES
    shared = len("user:u-1") + len("e-1") + len("web") + len("phone")
    for name, more in {"at": 0, "above": 1}.items():
        yield f"text-{name}", event(properties={"path": "x" * (limit - shared - len("page") + more)})
        yield (
            f"text-utf8-{name}",
            event(properties={"path": "é" * ((limit - shared - len("page")) // 2) + "x" * ((limit - shared) % 2 + more)}),
        )
        yield (
            f"text-shared-{name}",
            order(*[{}] * 511, order_id=ABSENT).replace(
                b'"web"', b'"' + b"w" * ((limit - 511 * (len("purchase") + 3) - len("order") - 3) // 512 - shared + 3 + more) + b'"'
            ),
        )
        yield f"text-broken-{name}", event(event_id=True, properties={"path": "x" * (limit - shared + 3 - len("page") + more)})
        yield f"text-value-{name}", event(type="identify", traits={"k": "v" * (limit - shared - len("trait") - 1 + more)})
        yield (
            f"text-anon-{name}",
            event(user_id=["x"], anonymous_id="a", properties={"path": "x" * (limit - shared + 2 - len("page") + more)}),
        )
    yield "text-not-a-fact", event(extra="x" * (limit + 1))
    yield "text-losing-fallback", event(properties={"path": "/", "url": "x" * (limit + 1)})
    yield "text-long-channel", event(source_kind="c" * 200_000)
    yield "text-long-channel-three-facts", order({}, {}, {}).replace(b'"web"', b'"' + b"c" * 200_000 + b'"')
    yield "identifier-600", event(event_id="x" * 600)


def _envelope() -> Iterator[tuple[str, bytes]]:
    for field in ("event_id", "type", "name", "source_kind", "occurred_at", "user_id", "anonymous_id"):
        for name, value in SCALARS.items():
            yield f"{field}-{name}", event(**{field: value})
    for field in ("properties", "traits", "context"):
        for name, value in SCALARS.items():
            yield f"{field}-{name}", event(**{field: value})
    for name, value in SCALARS.items():
        yield f"anonymous-only-{name}", event(user_id=ABSENT, anonymous_id=value)
        yield f"user-bad-anonymous-{name}", event(user_id=value, anonymous_id="a-1")
        yield f"device-{name}", event(context={"device": value})
        yield f"device-type-{name}", event(context={"device": {"type": value}})
        yield f"track-name-{name}", track(value)
        yield f"email-name-{name}", event(type="email", name=value)
        yield f"unjudged-{name}", event(properties={"product_id": value, "total": value, "products": value, "currency": value})
    for field in ("event_id", "user_id", "anonymous_id"):
        for size in (100, 101):
            yield f"{field}-chars-{size}", event(**{field: "x" * size})
            yield f"{field}-code-points-{size}", event(**{field: "😀" * size})
            yield f"{field}-combining-{size}", event(**{field: "e\u0301" * (size // 2) + "x" * (size % 2)})
    for type_ in (*E.EVENT_TYPES, "Track", "track ", "event", "other", "purchase"):
        yield f"type-is-{type_}", event(type=type_, name="Product Viewed")
        yield f"type-without-name-{type_}", event(type=type_)
        yield f"type-without-anything-{type_}", event(type=type_, name="n", properties=ABSENT, traits=ABSENT, context=ABSENT)
    for name, value in TIMES.items():
        yield f"time-{name}", event(occurred_at=value)
    yield "all-missing", b"{}"
    yield "order-of-reasons-id", event(event_id=ABSENT, user_id=ABSENT, occurred_at="x")
    yield "order-of-reasons-identity", event(user_id="", anonymous_id=None, occurred_at="x")
    yield "order-of-reasons-time", event(occurred_at=None)
    yield "order-of-reasons-schema", event(event_id=ABSENT, user_id=ABSENT, occurred_at="x", context=5)


def _facts() -> Iterator[tuple[str, bytes]]:
    fields: dict[tuple[str, str], str] = {}
    for rule in E.FACT_RULES:
        for type_ in rule.types:
            for name in rule.names or ("any",):
                for field in rule.fields:
                    for source in field.sources:
                        if not source.envelope:
                            fields[(type_, name)] = field.reads
                            for what, value in SCALARS.items():
                                if name not in E.EMAIL_KINDS or name == "Email Opened":
                                    yield (
                                        f"{name}-{source.name}-{what}",
                                        event(
                                            type=type_, name=name, properties={source.name: value} if value is not ABSENT else {}
                                        ),
                                    )
    for name in E.EMAIL_KINDS:
        yield f"email-{name}", event(type="email", name=name, properties={"campaign_id": "c", "message_id": 5})
        yield f"track-{name}", track(name, campaign_id="c")
    yield "email-unknown", event(type="email", name="Email Read")
    yield "email-lower", event(type="email", name="email opened")
    for type_ in ("page", "screen"):
        yield f"{type_}-url", event(type=type_, name="n", properties={"url": "https://example.org/"})
        yield f"{type_}-name", event(type=type_, name="n", properties={})
        yield f"{type_}-nothing", event(type=type_, properties={})
        yield f"{type_}-empty-path", event(type=type_, name="n", properties={"path": "", "url": "/u"})
        yield f"{type_}-broken-fallback", event(type=type_, properties={"path": "/", "url": True})
    for name, value in {**SCALARS, **AMOUNTS}.items():
        yield f"total-{name}", track("Order Completed", total=value)
        yield f"refund-total-{name}", track("Order Refunded", total=value, revenue=True)
        yield f"revenue-{name}", track("Order Completed", revenue=value, total=ABSENT)
        yield f"both-amounts-{name}", track("Order Completed", revenue=value, total=5)
        yield f"total-jpy-{name}", track("Order Completed", total=value, currency="JPY")
        yield f"total-bhd-{name}", track("Order Cancelled", total=value, currency="bhd")
        yield f"total-clf-{name}", track("Order Completed", total=value, currency="clf")
        yield f"price-{name}", order({"price": value} if value is not ABSENT else {})
    for name, value in {**SCALARS, **QUANTITIES}.items():
        yield f"quantity-{name}", track("Product Added", product_id="p", quantity=value)
        yield f"item-quantity-{name}", order({"quantity": value} if value is not ABSENT else {})
    for name, value in {**SCALARS, **CURRENCIES}.items():
        yield f"currency-{name}", order({"price": "1.005"}, currency=value)
        yield f"item-currency-ignored-{name}", order({"price": 1} | ({"currency": value} if value is not ABSENT else {}))
    for code in EXPONENTS:
        yield f"exponent-{code}", order({"price": "0.5"}, total=Raw("1.23455"), currency=code)
    for name, value in SCALARS.items():
        yield f"item-product-{name}", order({"product_id": value} if value is not ABSENT else {})
        yield f"item-{name}", order(*([] if value is ABSENT else [{"product_id": "a"}, value]))
        yield f"products-{name}", order(products=value)
        yield f"products-unjudged-{name}", track("Order Refunded", total=1, products=value)
        yield f"purposes-{name}", event(type="consent", properties={"purposes": value} if value is not ABSENT else {})
        yield f"purpose-{name}", event(type="consent", properties={"purposes": {"m": value} if value is not ABSENT else {}})
        yield f"trait-{name}", event(type="identify", traits={"t": value} if value is not ABSENT else {})
        yield f"crm-traits-{name}", event(type="crm", traits=value)
    names = ["b", "a", "", "é", "z", "Z", "\uffff", "😀", "\ue000", "\u0000", "a\u0000", "ab", "10", "9"]
    yield "trait-order", event(type="identify", traits={name: name for name in names})
    yield "purpose-order", event(type="consent", properties={"purposes": dict.fromkeys(names, "granted")})
    yield "trait-of-every-type", event(type="crm", traits={k: v for k, v in SCALARS.items() if v is not ABSENT})
    yield "trait-none-left", event(type="identify", traits={"a": None, "b": {}, "c": [], "d": Raw("1e2")})
    yield (
        "consent-case",
        event(type="consent", properties={"purposes": {"a": "Granted", "b": "granted ", "c": ["granted"], "d": "granted"}}),
    )
    yield "purpose-long-names", event(type="consent", properties={"purposes": {"n" * 40_000: "granted"}})
    yield (
        "order-everything",
        order(
            {"product_id": 1, "category": "c", "quantity": "2", "price": "3.335", "extra": {}},
            {"product_id": "", "category": None},
            {},
            currency="eur",
            revenue=7,
        ),
    )
    yield "order-no-products", track("Order Completed", order_id="o")
    yield "order-broken-currency-and-price", order({"price": 1}, currency="x", total="y")
    yield "order-minor-above-bound-in-item", order({"price": "100000000000000"})
    yield "custom", track("Something Else", product_id={"a": 1}, products=5)
    yield "custom-name-number", event(type="track", name=5)
    yield "custom-case", track("product viewed", product_id=True)
    yield "traits-unjudged", event(type="page", traits={"a": 1})
    yield "retraction-nothing", event(type="retraction", properties=ABSENT)
    yield "retraction-null-properties", event(type="retraction", properties=None)
    yield "retraction-text-properties", event(type="retraction", properties="e-1")
    yield "retraction-of-itself", event(type="retraction", properties={"target_event_id": "e-1"})
    yield "retraction-of-many", event(type="retraction", properties={"target_event_id": ["e-1", "e-2"]})
    yield "retraction-outside", event(type="retraction", properties={}, target_event_id="e-1")
    yield "retraction-case", event(type="retraction", properties={"Target_Event_Id": "e-1"})
    yield "retraction-with-more", event(type="retraction", name=5, properties={"target_event_id": 7, "total": True, "products": 5})
    yield "retraction-no-id", event(type="retraction", event_id=ABSENT, properties={"target_event_id": "e-1"})
    yield "retraction-no-id-no-target", event(type="retraction", event_id=ABSENT, properties={})
    yield "retraction-long", event(type="retraction", properties={"target_event_id": "x" * 101})
    yield "retraction-oversize", event(type="retraction", properties={"target_event_id": "x" * (E.MAX_FACT_TEXT_BYTES + 1)})
    yield "retraction-track", track("retraction", target_event_id=True)


def corpus() -> list[tuple[str, bytes]]:
    """All cases as (name, log entry); names are unique. About 2,000, the largest one mebibyte."""
    cases: dict[str, bytes] = {}
    for room, generate in {"malformed": _malformed, "size": _sizes, "envelope": _envelope, "facts": _facts}.items():
        for name, value in generate():
            cases[f"{room}/{name}"] = value
    return list(cases.items())
