"""Who of one writer's threads works next: live batches before everything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Turns:
    """One piece of work at a time; a piece in the background waits while a live one wants its turn."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._busy = False
        self._live = 0

    @contextmanager
    def live(self) -> Iterator[None]:
        """The turn of a live batch: the next one to be had."""
        with self._condition:
            self._live += 1
            try:
                self._condition.wait_for(lambda: not self._busy)
            finally:
                self._live -= 1
            self._busy = True
        try:
            yield
        finally:
            self._release()

    @contextmanager
    def background(self) -> Iterator[None]:
        """A turn that lets live batches go first: ask for one a chunk of work."""
        with self._condition:
            self._condition.wait_for(lambda: not self._busy and not self._live)
            self._busy = True
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        with self._condition:
            self._busy = False
            self._condition.notify_all()
