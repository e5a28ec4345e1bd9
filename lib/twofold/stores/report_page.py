"""A validation report as one static page: no script, no outside host, nothing but the report."""

from __future__ import annotations

from html import escape
from typing import Any

from twofold.stores.reports import Check, Report, SuiteReport
from twofold.timeline import show_time

_STYLE = """
:root { color-scheme: light dark; --line: #d9dde3; --soft: #667085; --back: #fff; --card: #f7f8fa; --text: #1d2433;
  --met: #1a7f4b; --failed: #c4320a; --skipped: #8a6d00; }
@media (prefers-color-scheme: dark) { :root { --line: #343b47; --soft: #98a2b3; --back: #14181f; --card: #1c222c; --text: #e6e9ef;
  --met: #4cc38a; --failed: #ff7a59; --skipped: #e0b93f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 2.5rem 1.5rem 4rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.6rem; } h2 { margin: 2.5rem 0 .25rem; font-size: 1.15rem; }
.soft { color: var(--soft); } code { font: .9em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin: 1.5rem 0; }
.card { padding: .75rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
.card b { display: block; font-size: 1.25rem; font-weight: 600; overflow-wrap: anywhere; }
.verdict { display: inline-block; padding: .1rem .6rem; border: 1px solid currentColor; border-radius: 1rem; font-weight: 600; }
.met { color: var(--met); } .failed { color: var(--failed); } .skipped { color: var(--skipped); }
.wide { overflow-x: auto; } table { width: 100%; margin-top: .75rem; border-collapse: collapse; }
th { text-align: left; font-weight: 600; color: var(--soft); } th, td { padding: .5rem .75rem .5rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); } td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
td.limits { max-width: 15rem; overflow-wrap: anywhere; }
td.reason { min-width: 20rem; max-width: 34rem; } td .soft { font-size: .9em; }
.blame { margin: 1rem 0; padding: .75rem 1rem; border-left: 4px solid var(--failed); background: var(--card);
  border-radius: 0 .5rem .5rem 0; } .blame p { margin: .35rem 0 0; }
"""


def page(report: Report) -> str:
    """The whole page, UTF-8 HTML."""
    checks = [check for suite in report.suites for check in suite.checks]
    counts = {outcome: sum(check.outcome == outcome for check in checks) for outcome in ("met", "failed", "skipped")}
    verdict = ("failed", "publish refused") if report.refused else ("failed", "failed, published all the same")
    if report.success:
        verdict = ("met", "met")
    cards = (
        ("snapshot", report.snapshot),
        ("sequence number", report.seq),
        ("met", counts["met"]),
        ("failed", counts["failed"]),
        ("skipped", counts["skipped"]),
        ("took", f"{sum(suite.took_ms for suite in report.suites) / 1000:.1f} s"),
    )
    shown = "".join(f'<div class="card"><span class="soft">{name}</span><b>{_text(value)}</b></div>' for name, value in cards)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Validation of {_text(report.snapshot)}</title><style>{_STYLE}</style></head><body>\n"
        f'<h1>Validation report</h1><p><span class="verdict {verdict[0]}">{verdict[1]}</span> '
        f'<span class="soft">{show_time(report.made_ms)}</span></p>\n<div class="cards">{shown}</div>\n'
        + "".join(map(_suite, report.suites))
        + '<p class="soft">Positions are topic ordinal:partition:offset; persons are salted hashes of this home.</p>'
        + "</body></html>\n"
    )


def _suite(suite: SuiteReport) -> str:
    rows = "".join(map(_row, sorted(suite.checks, key=lambda check: ("failed", "skipped", "met").index(check.outcome))))
    return (
        f'<h2>{_text(suite.suite)}</h2><span class="soft">{_text(suite.about)} · {suite.rows:,} rows · '
        f"{suite.took_ms / 1000:.1f} s</span>\n{''.join(map(_blame, suite.failed))}"
        '<div class="wide"><table><thead><tr><th>outcome</th><th>expectation</th><th>observed</th><th>threshold</th>'
        f"<th>why there</th></tr></thead><tbody>{rows}</tbody></table></div>\n"
    )


def _row(check: Check) -> str:
    about = f" of <code>{_text(check.column)}</code>" if check.column else ""
    note = f'<div class="soft">{_text(check.note)}</div>' if check.note else ""
    return (
        f'<tr><td><span class="{check.outcome}">{check.outcome}</span></td><td><b>{_text(check.name)}</b>'
        f'<div class="soft">{_text(_words(check.expectation))}{about}</div></td>'
        f'<td class="number">{_text(shown(check.observed))}</td><td class="limits">{_text(limits(check))}</td>'
        f'<td class="reason">{_text(check.reason)}{note}</td></tr>'
    )


def _blame(check: Check) -> str:
    what = "no single row is to blame" if check.unexpected is None else f"{check.unexpected:,} rows to blame"
    places = "".join(f" <code>{':'.join(map(str, place))}</code>" for place in check.positions)
    persons = "".join(f" <code>{_text(person)}</code>" for person in check.persons)
    lines = [f'<b class="failed">{_text(check.name)}</b>: observed {_text(shown(check.observed))}, {_text(limits(check))}; {what}']
    lines += [f"<p>positions:{places}</p>"] if places else []
    lines += [f"<p>persons:{persons}</p>"] if persons else []
    return f'<div class="blame">{"".join(lines)}</div>'


def limits(check: Check) -> str:
    """A check's threshold in words."""
    words = {"min_value": "at least", "max_value": "at most", "value": "exactly", "mostly": "share at least"}
    said = (f"{words.get(key, _words(key))} {shown(value)}" for key, value in check.threshold.items())
    return ", ".join(said) or "no exception"


def shown(value: Any) -> str:
    """A figure for people: shares with four digits, counts with separators."""
    if value is None:
        return "–"
    if isinstance(value, dict):
        return str(next(iter(value.values()), ""))
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    return escape(str(value))
