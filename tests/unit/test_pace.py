"""A table's writer waits for its reader, and not for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from twofold.spark.pace import Pace
from twofold.timeline import Offsets, PartitionKey


def upto(*ends: int) -> Offsets:
    return Offsets({PartitionKey("t", number): end for number, end in enumerate(ends)})


@pytest.fixture
def writer():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_nobody_waits_for_a_reader_that_has_not_begun():
    Pace(most_s=3_600).committed(upto(1))


def test_a_commit_waits_until_it_is_taken_in(writer):
    pace = Pace(most_s=3_600)
    pace.taken(upto(1))
    waiting = writer.submit(pace.committed, upto(5, 2))
    pace.taken(upto(5))
    with pytest.raises(TimeoutError):
        waiting.result(0.05)
    pace.taken(upto(4, 2))
    assert waiting.result(60) is None


def test_a_reader_that_is_far_behind_is_waited_for_so_long_only():
    pace = Pace(most_s=0.01)
    pace.taken(upto(1))
    pace.committed(upto(2))
