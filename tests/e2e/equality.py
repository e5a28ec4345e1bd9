"""Library merge = naive oracle, for every person and every feature: the comparison that the equality tests share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from twofold.events import Entry
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.testing.oracle import by_person, record_of, winners


class Truth:
    """The winning entries of a log by person: recomputed once, presented at any instant."""

    def __init__(self, log: Iterable[Entry], topics: Sequence[str]) -> None:
        self.people = by_person(winners(log, topics))

    def values(self, person: str, t: int) -> dict[str, Any]:
        return record_of(person, self.people.get(person, ()), t)


def differences(
    settings: Settings, truth: Truth, t: int, seq: int | None = None, persons: Sequence[str] | None = None
) -> list[str]:
    """Every difference between records read at ``t`` and the truth: ``person field: got != want``."""
    found: list[str] = []
    seen = 0
    with Reader(settings, seq=seq) as reader:
        for record in reader.records(persons, t):
            seen += 1
            want = truth.values(record.person, t)
            found.extend(
                f"{record.person} {name} at {t}: {value!r} != {want['values'][name]!r} ({record.freshness.state})"
                for name, value in record.values.items()
                if value != want["values"][name]
            )
            assert record.values.keys() == want["values"].keys()
            assert set(record.fields.values()) == {"exact"}
            if record.freshness.state in ("fresh", "default"):
                got = (record.sendable.ok, list(record.sendable.reasons))
                reasons = (
                    want["sendable"]["reasons"]
                    if record.freshness.state == "fresh"
                    else ["state_default", *want["sendable"]["reasons"]]
                )
                if got != (not reasons, reasons):
                    found.append(f"{record.person} sendable at {t}: {got} != {reasons}")
    assert seen == (len(truth.people) if persons is None else len(persons)), f"{seen} records of {len(truth.people)} people"
    return found
