"""The zone file is what the pinned zone database says, and is read as it says."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from importlib.metadata import version
from random import Random

import pytest

from twofold.families.send_hours import local_hours, zones
from twofold.local.project import ROOT
from twofold.testing.zone_file import zone_file


@pytest.fixture
def package_only():
    """Zones of the package ``tzdata``, whatever the machine has."""
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(to=before)
    zoneinfo.ZoneInfo.clear_cache()


def test_the_package_is_the_pinned_one():
    assert f"tzdata=={version('tzdata')}" in (ROOT / "requirements.lock").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_file_is_what_the_pinned_package_gives():
    assert zone_file() == (ROOT / "lib" / "twofold" / "families" / "zones.csv").read_text(encoding="utf-8")


def test_hours_at_every_turn_and_at_random_are_those_of_the_package(package_only):
    numbers, starts, _offsets = zones()
    assert numbers.keys() == zoneinfo.available_timezones()
    first, last = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1_000 for year in (2000, 2038))
    for name, number in numbers.items():
        r = Random(name)
        times = [at + d for at in starts[number] if at > 0 for d in (-1, 0)] + [r.randrange(first, last) for _ in range(100)]
        zone = zoneinfo.ZoneInfo(name)
        assert local_hours(times, name) == [datetime.fromtimestamp(at // 1_000, UTC).astimezone(zone).hour for at in times], name


def test_a_zone_that_nobody_knows_is_utc():
    assert local_hours([0, 3_600_000], "Mars/Base") == local_hours([0, 3_600_000], None) == [0, 1]
