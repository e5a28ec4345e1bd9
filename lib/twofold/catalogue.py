"""The catalogue, second edition: every feature of the record, defined once; those of the families are in their modules."""

from __future__ import annotations

from twofold.families import FAMILIES
from twofold.features import Catalogue, Feature, Primary, Select
from twofold.rankings import Decayed, Distinct, Histogram, Recent, Top
from twofold.states import Count, Latest, MoneySum, Sum
from twofold.timeline import DAY_MS, HOUR_MS, Window

HOUR, DAY, WEEK, MONTH = Window(HOUR_MS), Window(DAY_MS), Window(7 * DAY_MS), Window(30 * DAY_MS)

MARKETING = "marketing"
GRANTED, DENIED = "granted", "denied"


def _trait(name: str) -> Select:
    return Select(("trait",), (("key", name),))


_PAGE, _VIEW, _CART_ADD = Select(("page",)), Select(("view",)), Select(("cart_add",))
_ORDER, _REFUND, _PURCHASE = Select(("order",)), Select(("refund",)), Select(("purchase",))
_SENT, _OPENED, _CLICKED = Select(("email_sent",)), Select(("email_opened",)), Select(("email_clicked",))
_CONSENT = Select(("consent",), (("key", MARKETING),))

PRIMARIES = (
    Primary("page_views_1h", Count(), _PAGE, HOUR),
    Primary("page_views_1d", Count(), _PAGE, DAY),
    Primary("page_views_7d", Count(), _PAGE, WEEK),
    Primary("page_views_30d", Count(), _PAGE, MONTH),
    Primary("product_views_30d", Count(), _VIEW, MONTH),
    Primary("products_viewed_7d", Distinct("product"), _VIEW, WEEK),
    Primary("recent_products", Recent("product", 5), _VIEW, MONTH),
    Primary("category_views_30d", Top("category"), _VIEW, MONTH),
    Primary("cart_adds_7d", Count(), _CART_ADD, WEEK),
    Primary("last_cart_add", Latest("at_ms"), _CART_ADD),
    Primary("orders_lifetime", Count(), _ORDER),
    Primary("orders_30d", Count(), _ORDER, MONTH),
    Primary("revenue_lifetime", MoneySum(), _ORDER),
    Primary("paid_orders_lifetime", MoneySum(counted=True), _ORDER),
    Primary("refunds_lifetime", MoneySum(), _REFUND),
    Primary("units_30d", Sum("quantity"), _PURCHASE, MONTH),
    Primary("first_order", Latest("at_ms", first=True), _ORDER),
    Primary("last_order", Latest("at_ms"), _ORDER),
    Primary("product_units_lifetime", Top("product", "quantity"), _PURCHASE),
    Primary("emails_sent_7d", Count(), _SENT, WEEK),
    Primary("email_opens_30d", Count(), _OPENED, MONTH),
    Primary("email_clicks_30d", Count(), _CLICKED, MONTH),
    Primary("last_email_click", Latest("at_ms"), _CLICKED),
    Primary("interest", Decayed("category", 7 * DAY_MS), _VIEW),
    Primary("active_hours_30d", Histogram("hour_of_week"), Select(("page", "view", "email_clicked")), MONTH),
    Primary("first_name", Latest("value"), _trait("first_name")),
    Primary("locale", Latest("value"), _trait("locale")),
    Primary("country", Latest("value"), _trait("country")),
    Primary("tier", Latest("value"), _trait("tier")),
    Primary("consent_marketing", Latest("value"), _CONSENT),
    # What only `sendable` reads.
    Primary("consent_denial", Latest("at_ms"), Select(("consent",), (("key", MARKETING), ("value", DENIED)))),
    Primary("unsubscribe", Latest("at_ms"), Select(("email_unsubscribed",))),
    Primary("complaint", Latest("at_ms"), Select(("email_complained",))),
    *(primary for family in FAMILIES.values() for primary in family.primaries),
)
#: Primaries on which permission to send rests: every one must be exact.
CONSENT_PRIMARIES = ("consent_marketing", "consent_denial", "unsubscribe", "complaint")

FEATURES = (
    Feature("page_views_1h", "Pages and screens viewed in the last hour", "page_views_1h"),
    Feature("page_views_1d", "Pages and screens viewed in the last 24 hours", "page_views_1d"),
    Feature("page_views_7d", "Pages and screens viewed in the last 7 days", "page_views_7d"),
    Feature("page_views_30d", "Pages and screens viewed in the last 30 days", "page_views_30d"),
    Feature("product_views_30d", "Product views in the last 30 days", "product_views_30d"),
    Feature("distinct_products_viewed_7d", "Distinct products viewed in the last 7 days", "products_viewed_7d"),
    Feature("recent_products", "Last 5 distinct products viewed within 30 days, newest first", "recent_products"),
    Feature("top_categories_30d", "3 categories with the most views in the last 30 days", "category_views_30d", k=3),
    Feature("cart_adds_7d", "Products added to the cart in the last 7 days", "cart_adds_7d"),
    Feature("last_cart_add_at", "When a product was last added to the cart, epoch ms", "last_cart_add"),
    Feature("orders_lifetime", "Orders completed", "orders_lifetime"),
    Feature("orders_30d", "Orders completed in the last 30 days", "orders_30d"),
    Feature("revenue_lifetime", "Order totals by currency, minor units", "revenue_lifetime"),
    Feature("refunds_lifetime", "Refunded and cancelled totals by currency, minor units", "refunds_lifetime"),
    Feature("units_30d", "Units purchased in the last 30 days", "units_30d"),
    Feature("first_order_at", "When the first order was completed, epoch ms", "first_order"),
    Feature("last_order_at", "When the last order was completed, epoch ms", "last_order"),
    Feature("top_products_lifetime", "5 products with the most units purchased", "product_units_lifetime", k=5),
    Feature(
        "average_order",
        "Revenue per order that carries an amount, by currency, minor units, half away from zero",
        "revenue_lifetime",
        per="paid_orders_lifetime",
    ),
    Feature("emails_sent_7d", "E-mails sent in the last 7 days", "emails_sent_7d"),
    Feature("email_opens_30d", "E-mails opened in the last 30 days", "email_opens_30d"),
    Feature("email_clicks_30d", "E-mail links clicked in the last 30 days", "email_clicks_30d"),
    Feature("last_email_click_at", "When an e-mail link was last clicked, epoch ms", "last_email_click"),
    Feature("interest", "Decayed product views of the 5 strongest categories, half-life 7 days", "interest", k=5),
    Feature(
        "active_hours_30d", "3 most active UTC hours of the week (0 = Monday 00h) in the last 30 days", "active_hours_30d", k=3
    ),
    Feature("first_name", "Latest first name", "first_name"),
    Feature("locale", "Latest locale", "locale"),
    Feature("country", "Latest country", "country"),
    Feature("tier", "Latest loyalty tier", "tier"),
    Feature("consent_marketing", "Latest consent for marketing: granted, denied or null", "consent_marketing"),
    *(feature for family in FAMILIES.values() for feature in family.features),
)

#: Features that rest on them: what is said of consent is always as it is now.
CONSENT_FEATURES = tuple(f.name for f in FEATURES if not set(f.reads).isdisjoint(CONSENT_PRIMARIES))

CATALOGUE = Catalogue(PRIMARIES, FEATURES)
VERSION = CATALOGUE.version
