"""How hard Hypothesis tries: `full` by default, `quick` for `make quick`, `ci` where a commit is judged (HYPOTHESIS_PROFILE)."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.side_by_side import REPORTS, SideBySide, Told

# No database: a run depends on nothing that an earlier one left, and a failure prints what it needs to be repeated.
_COMMON = {"deadline": None, "database": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("full", max_examples=100, **_COMMON)
settings.register_profile("quick", max_examples=10, **_COMMON)
# What is judged must not depend on luck: the same commit draws the same examples each time. The others look further.
settings.register_profile("ci", max_examples=100, derandomize=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--side-by-side", action="store_true", help="run the tests of the whole system in a second process")


def pytest_configure(config: pytest.Config) -> None:
    if REPORTS in os.environ:
        config.pluginmanager.register(Told(config, os.environ[REPORTS]), "told")
    elif config.getoption("side_by_side"):
        config.pluginmanager.register(SideBySide(config), "side-by-side")
