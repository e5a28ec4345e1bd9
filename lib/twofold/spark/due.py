"""Persons whose row stops holding soon: what the writer emits again without any new event."""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class Due:
    """``{person: valid_until}`` of the rows that lapse before ``horizon_ms`` (epoch ms); later ones are not kept."""

    def __init__(self, horizon_ms: int = 0) -> None:
        self.horizon_ms = horizon_ms
        self._until: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._until)

    def put(self, rows: Iterable[tuple[str, int | None]]) -> None:
        """The newest row of each of these persons now holds until then (``None``: for ever)."""
        for person, until in rows:
            if until is None or until >= self.horizon_ms:
                self._until.pop(person, None)
            elif self._until.get(person) != until:
                self._until[person] = until
                heapq.heappush(self._heap, (until, person))

    def take(self, now_ms: int, limit: int) -> list[str]:
        """At most ``limit`` persons whose row has lapsed at ``now_ms``, the longest lapsed first; they are no longer kept."""
        out: list[str] = []
        while self._heap and self._heap[0][0] <= now_ms and len(out) < limit:
            until, person = heapq.heappop(self._heap)
            if self._until.get(person) == until:
                del self._until[person]
                out.append(person)
        return out
