"""The command of the audit: what was served, against the raw log."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from twofold import show
from twofold.commands.options import Config, Debug, Home, Json, instant, now_ms, settings_of
from twofold.timeline import show_time

_COLOURS = {"bug": "red", "lag": "yellow", "late": "cyan"}
#: Features of a kind that are shown; the report has all.
_FEATURES = 8


def audit(
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    since: Annotated[str | None, typer.Option("--since", help="Whatever was served since: RFC 3339 or epoch ms")] = None,
    again: Annotated[bool, typer.Option("--again", help="Whatever is still there, judged before or not")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Admit every entry of the archive again, not only the sample's")] = False,
    values: Annotated[bool, typer.Option("--values", help="Name persons and show values: personal data")] = False,
) -> None:
    """Recompute logged records from raw bytes: one that was wrong is a bug (exit 3), one that came too early is lag."""
    from twofold.local.served_audit import ServedAudit, raise_for_bugs

    settings = settings_of(home, config, debug)
    with show.progress_bar() as bar:
        task = bar.add_task("auditing", total=None)
        audited = ServedAudit(
            settings,
            now_ms(),
            instant(since),
            again,
            whole,
            lambda step, done, total: bar.update(task, description=step, completed=done, total=total),
        ).run()
    report = audited.report
    if as_json:
        import msgspec

        plain = dict(msgspec.to_builtins(report))
        more = {"records": [_values(judged) for judged in audited.worst]} if values else {}
        show.json_line({**plain, "report": audited.file and str(audited.file), **more})
    else:
        _show(report, settings.audit.sample_share)
        if values:
            _show_values(audited.worst)
    raise_for_bugs(settings, audited)


def _values(judged: Any) -> dict[str, Any]:
    served = judged.served
    fields = {name: {"served": served.values.get(name), "recomputed": judged.recomputed.get(name)} for name in judged.wrong}
    return {"person": served.person, "t": served.t, "served_ms": served.served_ms, "verdict": judged.verdict, "wrong": fields}


def _show(report: Any, share: float) -> None:
    found = report.summary
    told = f"{found.judged} served records judged at archive version {report.archive_version}, in {report.took_s} s"
    show.console.print(f"{told}: {found.equal} equal, {found.bugs} wrong, {found.lag.records} lag, {found.late.records} late")
    if not found.judged and not share:
        show.console.print("nothing is logged: audit.sample_share is 0")
    for what, counts in (("not judged", report.not_judged), ("not logged", report.not_logged)):
        if counts:
            show.console.print(f"{what}: " + ", ".join(f"{count} {reason}" for reason, count in counts.items()), soft_wrap=True)
    if found.inexact_fields:
        show.console.print(f"fields not said to be exact, not held to anything: {found.inexact_fields}")
    kinds = (("lag", found.lag), ("late", found.late))
    rows = [[_text(name), *map(_spread, (kind.entries, kind.seconds))] for name, kind in kinds if kind.records]
    if rows:
        show.show_rows("\nbehind what is known now (p50 / p99 / max)", ["what", "entries", "seconds"], rows)
    moved = [("bug", found.bug_features), *((name, kind.features) for name, kind in kinds)]
    features = [
        [_text(name), feature, one.records, _difference(feature, one.largest)]
        for name, of in moved
        for feature, one in list(of.items())[:_FEATURES]
    ]
    if features:
        show.show_rows("\nfeatures", ["what", "feature", "records", "largest difference"], features)
    if report.worst:
        show.show_rows(
            "\nthe worst", ["what", "person", "t", "state", "entries", "seconds", "fields"], [_worst(w) for w in report.worst]
        )


def _text(verdict: str) -> Text:
    return Text(verdict, _COLOURS[verdict])


def _spread(spread: Any) -> str:
    return f"{spread.p50:g} / {spread.p99:g} / {spread.max:g}"


def _worst(named: Any) -> list[Any]:
    by = next(of for of in (named.wrong, named.lag, named.late) if of)
    fields = ", ".join(f"{field} {_difference(field, value)}" for field, value in list(by.items())[:3])
    more = "" if len(by) <= 3 else f" and {len(by) - 3} more"
    behind = [named.entries, f"{named.seconds:g}"] if named.entries else ["", ""]
    return [_text(named.verdict), named.person, show_time(named.t), named.state, *behind, fields + more]


def _difference(feature: str, by: Any) -> str:
    """A difference in its unit: instants in seconds, money in minor units."""
    if by is None:
        return "changed"
    if isinstance(by, dict):
        return " ".join(f"{key} {value:+}" for key, value in by.items())
    return f"{by / 1000:+.0f} s" if feature.endswith("_at") else f"{by:+}"


def _show_values(worst: list[Any]) -> None:
    rows = []
    for judged in worst:
        for name in judged.wrong:
            served, recomputed = (show.shown(name, of.get(name)) for of in (judged.served.values, judged.recomputed))
            rows.append([judged.served.person, judged.served.t, name, served, recomputed])
    if rows:
        show.show_rows("\nserved and recomputed", ["person", "t", "field", "served", "recomputed"], rows)


COMMANDS = (audit,)
