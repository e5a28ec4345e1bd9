"""Readers during a run: what each record was, and at the end whether it was right.

A record is right when every field that it calls exact is what the plain recomputation gives at the record's own (t, O). It may
lie behind the log, which is no fault: it says by how much. A permission to send must hold at its (t, O), and against every entry
that was in the log for longer than the limit of consent when it was given.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from twofold.audit import Served, make_served
from twofold.catalogue import VERSION
from twofold.errors import TwofoldError
from twofold.events import Entry
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.testing.oracle import record_of, winners

_EVERY_S = 0.03
#: Reads of one reader before a new one is opened: both long-lived readers and new ones meet every fault.
_READS_A_READER = 250
#: A broker may stamp an entry, be paused, and show it when it goes on: the plan's longest pause.
_STAMPED_UNSEEN_MS = 15_000


class Read(NamedTuple):
    """A record as it was read, whether the person might be written to, and the lag that it told (ms)."""

    served: Served
    sendable: bool
    lag_ms: int | None


class Readers(threading.Thread):
    """Reads records of random persons until it is stopped, one after another."""

    def __init__(self, settings: Settings, persons: Sequence[str], seed: int) -> None:
        super().__init__(name="readers", daemon=True)
        self._settings, self._persons, self._rng = settings, persons, random.Random(seed)
        self._ended = threading.Event()
        self.reads: list[Read] = []
        #: What a reader died of: nobody may be answered with an error.
        self.errors: list[str] = []

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                with Reader(self._settings) as reader:
                    for _ in range(_READS_A_READER):
                        if self._ended.wait(_EVERY_S):
                            return
                        self._read(reader)
            except (TwofoldError, OSError, RuntimeError, ValueError, LookupError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                self._ended.wait(1)

    def _read(self, reader: Reader) -> None:
        record = reader.record(self._rng.choice(self._persons))
        served = make_served(record, reader.snapshot, VERSION, record.freshness.t)
        self.reads.append(Read(served, record.sendable.ok, record.freshness.lag_ms))

    def stop(self) -> None:
        self._ended.set()
        if self.is_alive():
            self.join(30)

    @property
    def states(self) -> Counter[str]:
        """Reads by the state that they told."""
        return Counter(read.served.state for read in self.reads)


def wrong_reads(reads: Iterable[Read], log: Iterable[Entry], topics: Sequence[str], consent_max_lag_ms: int) -> list[str]:
    """One line a wrong field or permission."""
    by_person: dict[str, list[Entry]] = defaultdict(list)
    for entry in log:
        if entry.verdict == "ok" and entry.person is not None:
            by_person[entry.person].append(entry)
    found: list[str] = []
    for served, sendable, lag_ms in reads:
        entries, o, t = by_person.get(served.person, []), served.offsets, served.t
        want = record_of(served.person, winners([e for e in entries if o.holds(e.position)], topics), t)
        where = f"{served.person} at {t}, snapshot {served.seq}, {served.state}"
        if served.values.keys() != want["values"].keys():
            found.append(f"{where}: other fields than the recomputation")
            continue
        found += [
            f"{where}: {name} was {value!r}, is {want['values'][name]!r}"
            for name, value in served.values.items()
            if name not in served.inexact and value != want["values"][name]
        ]
        if not sendable:
            continue
        known_ms = t - consent_max_lag_ms - _STAMPED_UNSEEN_MS
        known = [e for e in entries if o.holds(e.position) or e.broker_ms < known_ms]
        if served.state not in ("fresh", "stale") or lag_ms is None or lag_ms > consent_max_lag_ms:
            found.append(f"{where}: sendable at a lag of {lag_ms} ms")
        later = record_of(served.person, winners(known, topics), t)
        for truth, of in ((want, "its own offsets"), (later, "what was known")):
            if not truth["sendable"]["ok"]:
                found.append(f"{where}: sendable, against {of}: {truth['sendable']['reasons']}")
    return found
