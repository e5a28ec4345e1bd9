"""How hard Hypothesis tries: `full` by default, `quick` for `make quick` (HYPOTHESIS_PROFILE)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No database: a run depends on nothing that an earlier one left, and a failure prints what it needs to be repeated.
_COMMON = {"deadline": None, "database": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("full", max_examples=100, **_COMMON)
settings.register_profile("quick", max_examples=10, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))
