"""Which failures of upkeep no fault explains: an operator would be right to complain of those."""

from __future__ import annotations

import pytest

from tests.chaos.plan import Upkeep
from tests.chaos.upkeep import UpkeepLane


class Scripted(UpkeepLane):
    """Its commands end as said."""

    def __init__(self, codes: list[int], disturbed: bool = False) -> None:
        super().__init__(None, lambda _began: disturbed, lambda _what, _how: None, lambda _seconds: None)  # type: ignore[arg-type]
        self._codes = codes

    def _rebuild(self, _piece: Upkeep, *_options: str) -> tuple[int, str]:
        return self._codes.pop(0), "said"

    def _command(self, *_arguments: str) -> tuple[int, str]:
        return self._codes.pop(0), "said"


@pytest.mark.parametrize(
    ("piece", "code", "disturbed", "explained"),
    [
        (Upkeep("night"), 0, False, True),
        (Upkeep("night"), 1, False, False),
        (Upkeep("night"), 3, False, False),
        (Upkeep("night"), 1, True, True),
        (Upkeep("night", "kill", "state"), -9, False, True),
        (Upkeep("night", "limit", "state"), 1, False, True),
        (Upkeep("night", "pause", "state"), 1, False, False),
        (Upkeep("vacuum"), 1, False, False),
    ],
)
def test_a_failure_is_explained_by_its_fault_or_by_a_full_disk(piece: Upkeep, code: int, disturbed: bool, explained: bool) -> None:
    lane = Scripted([code], disturbed)
    lane.carry_out(piece)
    assert (lane.unexplained == []) is explained
    assert sum(lane.done.values()) == 1


def test_compaction_is_asked_for_again_while_the_archive_is_down() -> None:
    lane = Scripted([1, 1, 0])
    lane.carry_out(Upkeep("compact"))
    assert lane.unexplained == [] and lane.done == {"compact done": 1}
    lane = Scripted([1] * 9)
    lane.carry_out(Upkeep("compact"))
    assert len(lane.unexplained) == 1
