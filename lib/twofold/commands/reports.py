"""The command of the gate: what a rebuild's validation found."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from twofold import show
from twofold.commands.options import Config, Debug, Home, Json, settings_of
from twofold.errors import UsageError
from twofold.timeline import show_time

_COLOURS = {"met": "green", "failed": "red", "skipped": "yellow"}


def reports(
    seq: Annotated[int | None, typer.Argument(help="Sequence number of a rebuild, refused ones too [default: list them]")] = None,
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    latest: Annotated[bool, typer.Option("--latest", help="Show the newest report")] = False,
) -> None:
    """Validation reports: list them, or show one with its thresholds and the rows to blame."""
    from twofold.stores.reports import page_of, read_reports, report_of, reports_place

    settings = settings_of(home, config, debug)
    if seq is not None and latest:
        raise UsageError("name a sequence number or --latest, not both")
    place = reports_place(settings.table("manifest"))
    found = read_reports(place)
    if seq is None and not latest:
        _list(found, as_json)
        return
    report = report_of(found, seq)
    page = page_of(place, report)
    if as_json:
        show.json_line({**_plain(report), "page": page})
    else:
        _show(report)
        show.console.print(f"\npage: {page}", soft_wrap=True)


def _plain(report: Any) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(report))


def _verdict(report: Any) -> Text:
    if report.success:
        return Text("met", "green")
    return Text("refused" if report.refused else "failed, published", "red")


def _list(found: list[Any], as_json: bool) -> None:
    rows = []
    for report in found:
        failed = [f"{suite.suite}.{check.name}" for suite, check in report.failed()]
        if as_json:
            keys = ("seq", "snapshot", "made_ms", "success", "enforced")
            show.json_line({**{key: getattr(report, key) for key in keys}, "failed": failed})
        else:
            rows.append([report.seq, report.snapshot, show_time(report.made_ms), _verdict(report), ", ".join(failed) or "-"])
    if not as_json:
        show.show_rows(f"{len(rows)} reports", ["seq", "snapshot", "made", "outcome", "failed"], rows)


def _show(report: Any) -> None:
    from twofold.stores.report_page import limits, shown

    show.console.print(Text.assemble(("validation ", "bold"), f"of {report.snapshot}  ", show_time(report.made_ms), "  "), end="")
    show.console.print(_verdict(report))
    for suite in report.suites:
        rows: list[list[Any]] = []
        for check in suite.checks:
            outcome = Text(check.outcome, _COLOURS[check.outcome])
            rows.append([outcome, check.name, shown(check.observed), limits(check), check.note or check.reason])
        title = f"\n{suite.suite}: {suite.rows:,} rows, {suite.took_ms / 1000:.1f} s"
        show.show_rows(title, ["outcome", "expectation", "observed", "threshold", "why there"], rows)
        for check in suite.failed:
            what = "no single row is to blame" if check.unexpected is None else f"{check.unexpected:,} rows to blame"
            show.console.print(Text(f"{check.name}: {what}", "red"))
            if check.positions:
                show.console.print("  positions  " + "  ".join(":".join(map(str, place)) for place in check.positions))
            if check.persons:
                show.console.print("  persons    " + "  ".join(check.persons))


COMMANDS = (reports,)
