"""A home with campaign pins, and what is read under them."""

from __future__ import annotations

from pathlib import Path

from tests.unit.layered_home import LayeredHome, drawn_log
from tests.unit.manifests import TOPIC
from twofold.catalogue import VERSION
from twofold.events import Entry, FactBody
from twofold.pinned import PinnedRecord
from twofold.stores.campaign_pins import CampaignPin
from twofold.stores.pin_terms import listed_pins
from twofold.testing.script import PERSONS, START_MS
from twofold.timeline import DAY_MS

ASKED = (*PERSONS, "user:nobody")


class Home(LayeredHome):
    def pin(self, name: str, at: int | None = None, **options) -> CampaignPin:
        with self.reader(**options) as reader:
            return reader.pin(name, at)

    def read(self, name: str, persons=ASKED) -> dict[str, PinnedRecord]:
        with self.reader() as reader, reader.pinned(name) as pinned:
            return {record.person: record for record in pinned.records(persons)}

    def read_from(self, name: str) -> str | None:
        with self.reader() as reader:
            (source,) = (pin.read_from for pin in listed_pins(self.settings, VERSION, reader.vectors()) if pin.name == name)
        return source


def drawn(folder: Path, seed: int) -> Home:
    return Home(folder, *drawn_log(seed))


def said(offset: int, at_ms: int, *bodies: FactBody, person: str = "user:1") -> Entry:
    return Entry(VERSION, TOPIC, 0, offset, at_ms, "ok", person, f"e{offset}", at_ms, "web", None, bodies)


def consent(value: str) -> FactBody:
    return FactBody("consent", key="marketing", value=value)


def small(folder: Path) -> Home:
    """Granted below the cut, a view above it; after the pin an order, a denial, and an unsubscribe of the other person."""
    day = [START_MS + n * DAY_MS // 24 for n in range(9)]
    home = Home(
        folder,
        [
            said(0, day[0], consent("granted")),
            said(1, day[1], consent("granted"), person="user:2"),
            said(2, day[2], FactBody("view", product="p1", category="c1")),
            said(3, day[3], FactBody("order", key="o1", amount_minor=5, currency="EUR")),
            said(4, day[4], consent("denied")),
            said(5, day[5], FactBody("email_unsubscribed", campaign="k"), person="user:2"),
            said(6, day[6], FactBody("page", key="/"), person="user:3"),
        ],
    )
    home.archive(3)
    home.night(2)
    home.follow(3)
    home.now += 1
    home.pin("spring")
    return home
