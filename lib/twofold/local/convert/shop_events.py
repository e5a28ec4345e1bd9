"""What happens in the simulated shop: its people, its goods, and one event of each kind.

Everything is drawn from the ``random.Random`` that is passed in, or worked out from the seed and a number; there is no clock.
"""

from __future__ import annotations

from bisect import bisect
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from itertools import accumulate
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from twofold.currency import exponent
from twofold.timeline import DAY_MS, HOUR_MS, show_time

CATEGORIES = (
    "shoes", "shirts", "coats", "bags", "hats", "books", "toys", "garden", "Kaffee & Tee", "épicerie", "文具", "sale",
)  # fmt: skip
PRODUCTS = 400
#: country, currency, locale
PLACES = (
    ("US", "USD", "en-US"), ("GB", "GBP", "en-GB"), ("DE", "EUR", "de-DE"), ("FR", "EUR", "fr-FR"), ("JP", "JPY", "ja-JP"),
    ("KW", "KWD", "ar-KW"), ("PL", "PLN", "pl-PL"),
)  # fmt: skip
NAMES = ("Ada", "Zoë", "Łukasz", "美咲", "Grace", "Noor", "Søren", "Inês", "Tom", "Mia", "José", "O'Neil", 'Bo "Bee"')
TIERS = ("bronze", "silver", "gold")
DEVICES = ("desktop", "mobile", "tablet")
CHANNELS = ("web", "web", "web", "app", "store")
PATHS = ("/", "/sale", "/search", "/cart", "/account", "/help", "/blog/summer", "/checkout")
CUSTOM = ("Coupon Applied", "Wishlist Shared", "Review Written", "Products Searched", "Chat Started")
PURPOSES = ("analytics", "personalization", "sharing")


class Person(NamedTuple):
    """One visitor. ``user_id`` counts from the visit after ``joins_ms``; ``None``: never says who he is."""

    anonymous_id: str
    user_id: str | None
    joins_ms: int
    place: tuple[str, str, str]
    first_name: str
    device: str
    likes: int

    def known(self, at_ms: int) -> bool:
        return self.user_id is not None and at_ms >= self.joins_ms


class Scene(NamedTuple):
    """Who acts, and when."""

    number: int
    person: Person
    at_ms: int


class Product(NamedTuple):
    product_id: str
    category: str
    price_cents: int


class Order(NamedTuple):
    person: int
    order_id: str
    total: Decimal
    currency: str


def _products(seed: int) -> list[Product]:
    return [
        Product(
            f"sku-{number:04d}" if number % 10 else str(number),
            CATEGORIES[crc32(b"%d category %d" % (seed, number)) % len(CATEGORIES)],
            99 + crc32(b"%d price %d" % (seed, number)) % 20_000,
        )
        for number in range(PRODUCTS)
    ]


@lru_cache(maxsize=512)
def _date(day: int) -> str:
    return show_time(day * DAY_MS)[:11]


def timestamp(at_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    day, rest = divmod(at_ms, DAY_MS)
    hour, rest = divmod(rest, HOUR_MS)
    return f"{_date(day)}{hour:02d}:{rest // 60_000:02d}:{rest // 1000 % 60:02d}.{rest % 1000:03d}Z"


def timestamp_at_offset(at_ms: int, minutes: int) -> str:
    """The same instant as a clock shows it that is ``minutes`` ahead of UTC."""
    sign, away = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return f"{timestamp(at_ms + minutes * 60_000)[:-1]}{sign}{away // 60:02d}:{away % 60:02d}"


class Shop:
    """Makes events. ``start_ms``, ``end_ms``: the span in which those sign in who do some day."""

    def __init__(self, rng: Random, seed: int, start_ms: int, end_ms: int) -> None:
        self._rng = rng
        self._seed = seed
        self._span = (start_ms, end_ms)
        self._goods = _products(seed)
        self._orders: deque[Order] = deque(maxlen=500)
        self._count = 0
        self.person = lru_cache(maxsize=20_000)(self._person)
        makers: tuple[tuple[float, Callable[[], dict[str, Any]]], ...] = (
            (24, self.page), (6, self.screen), (28, self.view), (8, self.cart_add), (2, self.cart_remove), (6, self.order),
            (1, self.refund), (8, self.email_sent), (7, self.email_delivered), (3.5, self.email_opened), (2, self.email_clicked),
            (0.4, self.email_bounced), (0.4, self.email_unsubscribed), (0.1, self.email_complained), (2, self.identify),
            (1, self.crm), (2, self.consent), (2, self.custom), (0.3, self.group), (0.3, self.alias),
        )  # fmt: skip
        #: what only somebody with a name gets or does
        self._for_known = {maker for _weight, maker in makers[7:16]} | {self.alias}
        self._makers = [maker for _weight, maker in makers]
        self._weights = list(accumulate(weight for weight, _maker in makers))

    def _person(self, number: int) -> Person:
        tag = b"%d person %d " % (self._seed, number)
        dice = crc32(tag)
        start, end = self._span
        # Of ten: six known from the start, two who sign in some day, two who never do.
        kind = dice % 10
        joins = start - DAY_MS if kind < 6 else start + crc32(tag + b"joins") % max(1, end - start)
        return Person(
            anonymous_id=f"{crc32(tag + b'a'):08x}{crc32(tag + b'b'):08x}",
            user_id=str(1000 + number) if kind < 8 else None,
            joins_ms=joins,
            place=PLACES[crc32(tag + b"place") % len(PLACES)],
            first_name=NAMES[crc32(tag + b"name") % len(NAMES)],
            device=DEVICES[crc32(tag + b"device") % len(DEVICES)],
            likes=crc32(tag + b"likes") % PRODUCTS,
        )

    def _one_in(self, n: int) -> bool:
        return self._rng.random() * n < 1

    def _pick(self, among: tuple[Any, ...]) -> Any:
        return among[int(self._rng.random() * len(among))]

    def next_event(self, number: int, first: bool, at_ms: int) -> dict[str, Any]:
        """The next event of person ``number`` at ``at_ms``; on a ``first`` meeting known people say who they are or consent."""
        rng, person = self._rng, self.person(number)
        if first and person.known(at_ms):
            maker = self.consent if self._one_in(2) else self.identify
        else:
            maker = self._makers[bisect(self._weights, rng.random() * self._weights[-1])]
        self._count += 1
        event: dict[str, Any] = {"event_id": f"{self._count:x}-{rng.getrandbits(48):012x}", "type": None}
        if maker == self.refund:
            if self._orders:
                number = self._orders[0].person
                person = self.person(number)
            else:
                maker = self.page
        elif not person.known(at_ms) and maker in self._for_known:
            maker = self.page  # nobody can write to a visitor without a name
        self._scene = Scene(number, person, at_ms)
        event |= maker()
        event["source_kind"] = "email" if event["type"] == "email" else "crm" if event["type"] == "crm" else self._pick(CHANNELS)
        dice = rng.random()
        if dice < 0.9:
            event["occurred_at"] = timestamp(at_ms)
        elif dice < 0.95:
            event["occurred_at"] = at_ms
        else:
            event["occurred_at"] = timestamp_at_offset(at_ms, self._pick((60, 120, 330, -300, -480, 540)))
        if person.known(at_ms):
            assert person.user_id is not None
            # An id may be sent as a number: the same person.
            event["user_id"] = int(person.user_id) if self._one_in(30) else person.user_id
            if not self._one_in(4):
                event["anonymous_id"] = person.anonymous_id
        else:
            event["anonymous_id"] = person.anonymous_id
        if not self._one_in(10):
            event["context"] = {"device": {"type": self._pick(DEVICES) if self._one_in(5) else person.device}}
        return event

    # --- goods --------------------------------------------------------------------------------------------------------------
    def _good(self) -> Product:
        dice = self._rng.random()
        if self._rng.random() < 0.5:  # everybody's favourites, then one's own corner of the shelf
            return self._goods[int(PRODUCTS**dice) - 1]
        return self._goods[(self._scene.person.likes + int(12 * dice)) % PRODUCTS]

    def _price(self, good: Product, currency: str) -> Decimal:
        digits = exponent(currency)
        # The price list is in cents; a currency without them is cheap in units, one with mils dear.
        return Decimal(good.price_cents * (10 if digits == 3 else 1)).scaleb(-digits)

    def _amount(self, amount: Decimal) -> Decimal | str:
        return format(amount, "f") if self._one_in(5) else amount

    def _product(self, good: Product) -> dict[str, Any]:
        product_id: str | int = int(good.product_id) if good.product_id.isdigit() and self._one_in(2) else good.product_id
        out: dict[str, Any] = {"product_id": product_id}
        if not self._one_in(40):
            out["category"] = good.category
        return out

    def _quantity(self) -> int | str:
        pieces = 1 + int(4 * self._rng.random() ** 3)
        return str(pieces) if self._one_in(20) else pieces

    # --- one event of each kind ---------------------------------------------------------------------------------------------
    def page(self) -> dict[str, Any]:
        dice = self._rng.random()
        if dice < 0.8:
            return {"type": "page", "name": "Page", "properties": {"path": self._pick(PATHS), "title": "Shop"}}
        if dice < 0.95:
            return {"type": "page", "properties": {"url": f"https://shop.example{self._pick(PATHS)}"}}
        return {"type": "page", "name": "Landing"}

    def screen(self) -> dict[str, Any]:
        return {"type": "screen", "name": self._pick(("Home", "Basket", "Search", "Profile"))}

    def view(self) -> dict[str, Any]:
        return {"type": "track", "name": "Product Viewed", "properties": self._product(self._good())}

    def _cart(self, name: str) -> dict[str, Any]:
        properties = self._product(self._good())
        if not self._one_in(3):
            properties["quantity"] = self._quantity()
        return {"type": "track", "name": name, "properties": properties}

    def cart_add(self) -> dict[str, Any]:
        return self._cart("Product Added")

    def cart_remove(self) -> dict[str, Any]:
        return self._cart("Product Removed")

    def order(self) -> dict[str, Any]:
        currency = "EUR" if self._one_in(8) else self._scene.person.place[1]
        products: list[dict[str, Any]] = []
        total = Decimal(0)
        for _line in range(1 + int(4 * self._rng.random() ** 2)):
            good = self._good()
            price, quantity = self._price(good, currency), self._quantity()
            total += price * int(quantity)
            products.append({**self._product(good), "quantity": quantity, "price": self._amount(price)})
        order_id = f"o-{self._count:x}"
        self._orders.append(Order(self._scene.number, order_id, total, currency))
        properties: dict[str, Any] = {"order_id": order_id}
        dice = self._rng.random()
        if dice < 0.8:
            properties["total"] = self._amount(total)
        elif dice < 0.95:
            properties["revenue"] = self._amount(total)
        if currency != "USD" or not self._one_in(2):
            properties["currency"] = currency.lower() if self._one_in(10) else currency
        properties["products"] = products
        return {"type": "track", "name": "Order Completed", "properties": properties}

    def refund(self) -> dict[str, Any]:
        order = self._orders.popleft()
        total = order.total if self._one_in(2) else (order.total / 2).quantize(order.total)
        properties = {"order_id": order.order_id, "total": self._amount(total), "currency": order.currency}
        return {
            "type": "track",
            "name": self._pick(("Order Refunded", "Order Refunded", "Order Cancelled")),
            "properties": properties,
        }

    def _email(self, name: str) -> dict[str, Any]:
        # One campaign a week, one message of it to each person: what was opened is what was sent.
        campaign = f"week-{self._scene.at_ms // (7 * DAY_MS)}"
        return {
            "type": "email",
            "name": name,
            "properties": {"campaign_id": campaign, "message_id": f"{campaign}-{self._scene.number}"},
        }

    def email_sent(self) -> dict[str, Any]:
        return self._email("Email Sent")

    def email_delivered(self) -> dict[str, Any]:
        return self._email("Email Delivered")

    def email_opened(self) -> dict[str, Any]:
        return self._email("Email Opened")

    def email_clicked(self) -> dict[str, Any]:
        return self._email("Email Link Clicked")

    def email_bounced(self) -> dict[str, Any]:
        return self._email("Email Bounced")

    def email_unsubscribed(self) -> dict[str, Any]:
        return self._email("Email Unsubscribed")

    def email_complained(self) -> dict[str, Any]:
        return self._email("Email Marked as Spam")

    def identify(self) -> dict[str, Any]:
        traits: dict[str, Any] = {
            "first_name": self._scene.person.first_name,
            "locale": self._scene.person.place[2],
            "country": self._scene.person.place[0],
        }
        dice = self._rng.random()
        if dice < 0.2:
            traits |= {"country": self._pick(PLACES)[0], "age": 18 + int(60 * dice), "newsletter": dice < 0.1}
        elif dice < 0.3:
            traits |= {"first_name": None, "score": Decimal(int(1000 * dice)).scaleb(-1), "tags": ["a", "b"]}
        return {"type": "identify", "traits": traits}

    def crm(self) -> dict[str, Any]:
        return {"type": "crm", "traits": {"tier": self._pick(TIERS), "store": self._scene.number % 7}}

    def consent(self) -> dict[str, Any]:
        purposes: dict[str, Any] = {"marketing": "granted" if self._rng.random() < 0.8 else "denied"}
        if self._one_in(3):
            purposes[self._pick(PURPOSES)] = self._pick(("granted", "denied", True))
        return {"type": "consent", "properties": {"purposes": purposes}}

    def custom(self) -> dict[str, Any]:
        return {"type": "track", "name": self._pick(CUSTOM), "properties": {"note": self._pick(("", "ok", "größer > 100 €"))}}

    def group(self) -> dict[str, Any]:
        return {"type": "group", "traits": {"club": self._scene.number % 50}}

    def alias(self) -> dict[str, Any]:
        return {"type": "alias", "properties": {"previous_id": self._scene.person.anonymous_id}}
