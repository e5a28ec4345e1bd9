"""Reports of audits of served records: one JSON file an audit, in the home.

Persons stand in them as salted hashes, values do not.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from twofold.audit import Difference, Summary, Verdict
from twofold.errors import StoreError
from twofold.settings import Settings
from twofold.stores.files import LocalFolder


class Named(msgspec.Struct, frozen=True):
    """One record that is not equal: who (salted hash), when, the worst of it, and fields by which difference.

    ``entries`` and ``seconds``: of the lag, else of the late events; ``state``: what the record said of itself.
    """

    person: str
    t: int
    served_ms: int
    snapshot: str
    state: str
    verdict: Verdict
    wrong: dict[str, Difference]
    lag: dict[str, Difference]
    late: dict[str, Difference]
    entries: int
    seconds: float


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one audit found. ``not_judged`` and ``not_logged``: reason -> records; ``archive_version``: what is known now."""

    made_ms: int
    archive_version: int | None
    since_ms: int | None
    took_s: float
    summary: Summary
    not_judged: dict[str, int]
    not_logged: dict[str, int]
    files_removed: int
    worst: tuple[Named, ...]


def _place(settings: Settings) -> Path:
    return settings.served_path / "reports"


def write_audit_report(settings: Settings, report: AuditReport) -> Path:
    """Keep a report; of the older ones the newest ``audit.keep_reports - 1`` stay. Returns where it is."""
    place, name = _place(settings), f"{report.made_ms:015d}.json"
    files = LocalFolder(place)
    files.write(name, msgspec.json.format(msgspec.json.encode(report), indent=1))
    others = [other for other in files.names() if other.endswith(".json") and other != name]
    for old in others[: max(0, len(others) - (settings.audit.keep_reports - 1))]:
        files.remove(old)
    return place / name


def newest_audit_report(settings: Settings) -> AuditReport | None:
    """The newest report; ``None`` before the first audit. Raises :class:`StoreError` for a damaged file."""
    files = LocalFolder(_place(settings))
    names = [name for name in files.names() if name.endswith(".json")]
    data = files.read(names[-1]) if names else None
    try:
        return None if data is None else msgspec.json.decode(data, type=AuditReport)
    except msgspec.DecodeError as error:
        raise StoreError(f"the report {_place(settings) / names[-1]} is damaged: {error}; remove it") from error
