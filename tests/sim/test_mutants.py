"""Each mistake that the contract rules out is seen by the simulator, within a bounded number of reads."""

from __future__ import annotations

import pytest

from twofold.testing.mutants import MUTANTS
from twofold.testing.searching import check, simulate

SEED = 900
MOST_READS = 30_000


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulator_catches(name):
    with MUTANTS[name]() as parts:
        tally, found = simulate(MOST_READS, SEED, parts)
    assert found is not None, f"{name}: not caught in {tally.reads} reads from seed {SEED}"
    print(f"{name}: caught after {tally.reads} reads: {found.wrong}")
    # Put back: the same history is answered rightly by the product as it is.
    assert check(found.script)[1] is None
