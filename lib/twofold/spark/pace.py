"""A table's writer and its reader on one machine: the next commit waits until the reader has taken in the one before.

Both want the same cores. A commit that the reader is not ready for makes the one that it works on later, and itself no earlier.
"""

from __future__ import annotations

from threading import Condition

from twofold.timeline import Offsets

#: A reader that has more to do than one commit is not waited for any longer.
_MOST_S = 10.0


class Pace:
    """How far the reader has come. Nobody waits before it has begun."""

    def __init__(self, most_s: float = _MOST_S) -> None:
        self._most_s = most_s
        self._taken: Offsets | None = None
        self._condition = Condition()

    def taken(self, end: Offsets) -> None:
        """The reader has taken in everything below ``end``."""
        with self._condition:
            self._taken = end if self._taken is None else self._taken.join(end)
            self._condition.notify_all()

    def committed(self, end: Offsets) -> None:
        """The writer has committed everything below ``end``: wait for the reader, or ``most_s`` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._taken is None or self._taken.covers(end), self._most_s)
