"""How far a partition has been read without a hole: the rule by which ``high`` may rise.

An asynchronous producer can acknowledge 101 without 100, so "newest + 1" would claim what is not there. ``high`` rises only
over positions that were seen; earlier ones are ignored, later ones held until the hole is healed or proved legal.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Contiguity:
    """One partition. ``held`` are positions above ``high`` that were seen; ``high`` is the next position not yet folded."""

    high: int
    held: set[int] = field(default_factory=set)

    def see(self, offset: int) -> bool:
        """Note one position; ``False`` when it was known already (a replay)."""
        if offset < self.high or offset in self.held:
            return False
        if offset > self.high:
            self.held.add(offset)
            return True
        self.high = offset + 1
        self._advance()
        return True

    @property
    def hole(self) -> range | None:
        """Positions that are missing below the first held one; ``None`` when nothing is held."""
        return range(self.high, min(self.held)) if self.held else None

    def skip_to(self, offset: int) -> None:
        """Pass over positions below ``offset`` that the log itself does not hold (a legal hole)."""
        if offset > self.high:
            self.high = offset
            self.held = {held for held in self.held if held >= offset}
            self._advance()

    def _advance(self) -> None:
        while self.high in self.held:
            self.held.remove(self.high)
            self.high += 1
