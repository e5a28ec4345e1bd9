"""What a campaign's pin rests on: its snapshot, its definition, and where its entries above the cut are now."""

from __future__ import annotations

from typing import NamedTuple

from twofold.errors import DefinitionError, PinError, UsageError
from twofold.features import Catalogue
from twofold.pinned import Source, reaches
from twofold.settings import Settings
from twofold.stores.archive_log import archive_end
from twofold.stores.campaign_pins import CampaignPin, check_name, read_campaign_pins
from twofold.stores.manifest import rows
from twofold.stores.pins import read_pins
from twofold.timeline import Offsets, show_time
from twofold.views import HotView, ManifestRow


def make_pin(
    settings: Settings, name: str, row: ManifestRow, hot: HotView, catalogue: Catalogue, t: int, now_ms: int
) -> CampaignPin:
    """The pin of ``row`` at (t, O), where O is as far as the layers have come. Not stored yet.

    Raises :class:`UsageError` for a name or instant that cannot be, :class:`DefinitionError` for a snapshot of another definition,
    :class:`PinError` where no layer has all entries of O.
    """
    check_name(name)
    earliest_ms = row.earliest_ms(settings.batch.late_grace_days)
    if row.seq == 0 or earliest_ms is None:
        raise UsageError("nothing was published yet that could be pinned: run `twofold batch` first")
    if row.version != catalogue.version:
        raise DefinitionError(
            f"snapshot {row.snapshot} holds {_definition(row.version)}, installed is {_definition(catalogue.version)}: "
            "run `twofold batch`, then pin"
        )
    if t < earliest_ms:
        raise UsageError(
            f"snapshot {row.seq} cannot be read at {show_time(t)}, only from {show_time(earliest_ms)} on: "
            "pin an older one with --snapshot"
        )
    high = row.cut.join(hot.high)
    strange = next((key.topic_id for key in high if key.topic_id not in row.topics), None)
    if strange is not None:
        raise PinError(f"topic {strange} is in no snapshot's order of topics yet: run `twofold batch`, then pin")
    pin = CampaignPin(name, row.seq, row.snapshot, t, high.to_json(), row.version, now_ms)
    if source_of(settings, pin, row, hot) is None:
        raise not_there_yet(pin, row.cut.join(archive_end(settings.table("archive"))), high)
    return pin


def source_of(settings: Settings, pin: CampaignPin, row: ManifestRow, hot: HotView) -> Source | None:
    """Where entries of a pin are read now; ``None``: neither layer, nor both together, has them all (yet)."""
    if reaches(hot, row.cut, pin.offsets, pin.version):
        return "hot"
    start = row.cut.join(archive_end(settings.table("archive")))
    return "archive" if reaches(hot, start, pin.offsets, pin.version) else None


def pinned_row(settings: Settings, pin: CampaignPin) -> ManifestRow:
    """The manifest row that a pin names. Raises :class:`PinError` when the manifest has another or none."""
    for row in rows(settings.table("manifest")):
        if (row.seq, row.snapshot) == (pin.seq, pin.snapshot):
            return row
    raise PinError(f"pin {pin.name} is of snapshot {pin.snapshot}, which these tables never published: `twofold unpin {pin.name}`")


def check_definition(pin: CampaignPin, catalogue: Catalogue) -> None:
    """Raises :class:`DefinitionError` unless the pin's admission and catalogue are the installed ones."""
    if pin.version != catalogue.version:
        raise DefinitionError(
            f"pin {pin.name} holds {_definition(pin.version)}, installed is {_definition(catalogue.version)}: "
            f"install the release that has it, or let it go with `twofold unpin {pin.name}` and pin again"
        )


def _definition(version: str) -> str:
    admission, _, fingerprint = version.partition("/")
    return f"definition {fingerprint} of admission {admission}"


def not_there_yet(pin: CampaignPin, start: Offsets, high: Offsets) -> PinError:
    """Entries of O in ``[start, high)`` are in no layer: `archive` is behind, and the hot store was trimmed or made anew."""
    behind = [f"{key.partition} from {start.next(key)} to {high[key]}" for key in start.behind(high)]
    return PinError(
        f"pin {pin.name}: `archive` has not come to entries of O that the hot store does not hold either (partition "
        f"{', '.join(behind)}); wait until `twofold status` shows archive_end there, then ask again"
    )


class ListedPin(NamedTuple):
    """A pin as `twofold pins` shows it. One of a snapshot's number has no t, O or time.

    ``read_from``: where its entries above the cut are now; ``None``: no layer has them all.
    """

    name: str
    seq: int
    snapshot: str
    t: int | None
    high: dict[str, dict[str, int]] | None
    version: str
    pinned_ms: int | None
    installed: bool
    read_from: Source | None


def listed_pins(settings: Settings, version: str, hot: HotView) -> list[ListedPin]:
    """Pins of campaigns by name, then those of snapshots by number. ``version``: the installed one; ``hot``: the vectors now."""
    published = {row.seq: row for row in rows(settings.table("manifest"))}
    out = []
    for pin in read_campaign_pins(settings):
        source = source_of(settings, pin, published[pin.seq], hot) if pin.seq in published else None
        terms = (pin.name, pin.seq, pin.snapshot, pin.t, pin.high, pin.version, pin.pinned_ms)
        out.append(ListedPin(*terms, pin.version == version, source))
    for row in (published[seq] for seq in sorted(read_pins(settings) & published.keys())):
        out.append(ListedPin(str(row.seq), row.seq, row.snapshot, None, None, row.version, None, row.version == version, None))
    return out
