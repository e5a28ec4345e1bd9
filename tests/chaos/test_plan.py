"""The plan is data: one seed, one plan; every kind of fault in every plan, and every victim across seeds."""

from __future__ import annotations

from tests.chaos.plan import KINDS, PARTS, STEPS, Upkeep, draw_plan

SEEDS = range(1, 101)


def test_a_seed_gives_one_plan_and_another_seed_another() -> None:
    assert draw_plan(1) == draw_plan(1)
    assert len({draw_plan(seed) for seed in SEEDS}) == len(SEEDS)


def test_every_plan_has_every_kind_and_the_seeds_every_victim_and_amount() -> None:
    plans = [draw_plan(seed) for seed in SEEDS]
    for plan in plans:
        kinds = [fault.kind for fault in plan.faults]
        assert {kind: kinds.count(kind) for kind in KINDS} == {name: kind.times for name, kind in KINDS.items()}
    faults = [fault for plan in plans for fault in plan.faults]
    for name, kind in KINDS.items():
        assert {fault.victim for fault in faults if fault.kind == name} == set(kind.victims)
        assert {fault.amount for fault in faults if fault.kind == name} == set(kind.amounts)


def test_three_seeds_meet_every_part_with_a_kill_or_a_pause_or_a_full_disk() -> None:
    for first in SEEDS:
        met = {fault.victim for seed in range(first, first + 3) for fault in draw_plan(seed).faults}
        assert met >= set(PARTS)


def test_faults_come_in_order_within_the_time_and_no_part_dies_too_often() -> None:
    for seed in SEEDS:
        plan = draw_plan(seed, seconds=90)
        assert [fault.at_s for fault in plan.faults] == sorted(fault.at_s for fault in plan.faults)
        assert all(0 <= fault.at_s <= 81 and 0 <= fault.for_s <= 15 for fault in plan.faults)
        for part in PARTS:
            assert sum(fault.victim == part for fault in plan.faults) <= 3


def test_upkeep_publishes_twice_before_anything_else_and_one_night_meets_a_fault() -> None:
    plans = [draw_plan(seed) for seed in SEEDS]
    for plan in plans:
        assert plan.upkeep[:2] == (Upkeep("night"), Upkeep("incremental"))
        assert [piece.what for piece in plan.upkeep].count("vacuum") == 2
        assert {"rollback", "compact"} <= {piece.what for piece in plan.upkeep}
    doomed = [piece for plan in plans for piece in plan.upkeep if piece.fault]
    assert len(doomed) == len(plans)
    assert {piece.step for piece in doomed} == set(STEPS)
    assert {piece.fault for piece in doomed} == {"kill", "pause", "limit"}


def test_a_plan_is_shown_line_by_line() -> None:
    plan = draw_plan(4)
    lines = plan.show().splitlines()
    assert lines[0] == "plan of seed 4: 120 s"
    assert len(lines) == 1 + len(plan.faults) + len(plan.upkeep)
    assert plan.faults[0].show() in lines[1]
