"""``families/zones.csv``: UTC offsets of every zone from 2000 to 2037, compiled from the pinned package ``tzdata``.

``python -m twofold.testing.zone_file > lib/twofold/families/zones.csv`` writes it. Python and the JVM each come with a zone
database of their own version; both read this file instead, so that an hour is the same hour on both sides.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta

START, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)


def _minutes(moment: datetime) -> int:
    return (moment - _EPOCH) // _MINUTE


def _offset(zone: zoneinfo.ZoneInfo, moment: datetime) -> int:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None and offset % _MINUTE == timedelta(0), (zone, moment)
    return offset // _MINUTE


def _turns(zone: zoneinfo.ZoneInfo) -> list[tuple[int, int]]:
    """(minute since 1970, offset in minutes from then on), the first one at ``START``."""
    turns = [(_minutes(START), _offset(zone, START))]
    step = timedelta(days=5)
    at = START
    while at < END:
        after = min(at + step, END)
        low, high = at, after
        # No zone turns twice within five days, or else the assertion below sees it.
        if _offset(zone, low) != _offset(zone, high):
            while high - low > _MINUTE:
                middle = low + (high - low) // 2 // _MINUTE * _MINUTE
                low, high = (middle, high) if _offset(zone, middle) == _offset(zone, at) else (low, middle)
            turns.append((_minutes(high), _offset(zone, high)))
        at = after
    return turns


def zone_file() -> str:
    """One line a history of offsets: names by space; then ``minute:offset`` by space, in minutes since 1970 and of offset."""
    before = zoneinfo.TZPATH
    # The package, whatever the machine has.
    zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()
    try:
        names: dict[str, list[str]] = {}
        for name in sorted(zoneinfo.available_timezones()):
            turns = " ".join(f"{at}:{offset}" for at, offset in _turns(zoneinfo.ZoneInfo(name)))
            names.setdefault(turns, []).append(name)
    finally:
        zoneinfo.reset_tzpath(to=before)
        zoneinfo.ZoneInfo.clear_cache()
    return "".join(f"{' '.join(group)},{turns}\n" for turns, group in sorted(names.items(), key=lambda item: item[1]))


if __name__ == "__main__":
    print(zone_file(), end="")
