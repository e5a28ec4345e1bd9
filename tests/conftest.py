"""How hard Hypothesis tries: `full` by default, `quick` for `make quick` (HYPOTHESIS_PROFILE)."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# No database: a run depends on nothing that an earlier one left, and a failure prints what it needs to be repeated.
_COMMON = {"deadline": None, "database": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("full", max_examples=100, **_COMMON)
settings.register_profile("quick", max_examples=10, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes share a run: one has the Spark session, one the systems that `up` starts; whatever is left goes to either."""
    for item in items:
        group = next((name for name in ("e2e", "spark") if item.get_closest_marker(name)), None)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
