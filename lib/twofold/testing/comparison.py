"""Records against the naive recomputation, field by field: what the demo, the notebooks and whoever doubts compare with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from twofold.record import Record

#: The name under which a differing permission is counted among the fields; only persons in one of the two are counted so too.
SENDABLE, PERSON = "sendable", "person"


@dataclass(frozen=True)
class Comparison:
    """Persons compared, those who differ, and by field how many differ in it."""

    compared: int
    differing: list[str]
    fields: Counter[str]


def compare(records: Iterable[Record], truth: Iterable[tuple[str, dict[str, Any]]], permission: bool = True) -> Comparison:
    """Compare records with (person, recomputed record); a person whom only one of the two knows differs in ``PERSON``.

    ``permission``: compare ``sendable`` too, which equals the recomputation's only while the records are fresh.
    """
    wanted = dict(truth)
    differing: list[str] = []
    fields: Counter[str] = Counter()
    compared = 0
    for record in records:
        compared += 1
        want = wanted.pop(record.person, None)
        if want is None:
            wrong = [PERSON]
        else:
            got, right = record.values, want["values"]
            wrong = [name for name in got.keys() | right.keys() if not (name in got and name in right and got[name] == right[name])]
            if permission and (record.sendable.ok, list(record.sendable.reasons)) != (
                want["sendable"]["ok"],
                want["sendable"]["reasons"],
            ):
                wrong.append(SENDABLE)
        if wrong:
            differing.append(record.person)
            fields.update(wrong)
    fields.update([PERSON] * len(wanted))
    return Comparison(compared + len(wanted), differing + sorted(wanted), fields)
