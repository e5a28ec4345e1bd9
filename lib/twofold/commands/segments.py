"""Commands of segments: which there are and how many are in each, who is in one, and why a person is in it or not."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from rich.text import Text

from twofold import show
from twofold.catalogue import CATALOGUE
from twofold.commands.options import At, Config, Debug, Home, Json, instant, now_ms, settings_of
from twofold.errors import UsageError, nearest
from twofold.membership import Membership
from twofold.rules import JOINS, Told
from twofold.segments import Segment, Segments
from twofold.timeline import HOUR_MS, show_time

_MOST = 20


def _named(segments: Segments, name: str) -> Segment:
    found = segments.get(name)
    if found is None:
        names = [segment.name for segment in segments]
        way = nearest(name, names, f"there are {', '.join(names) or 'none'}")
        raise UsageError(f"there is no segment {name!r}; {way}")
    return found


def _lapsed(count: int) -> str:
    return f" · {count} rows have lapsed: is the writer running?" if count else ""


def segments(home: Home = None, config: Config = None, as_json: Json = False, debug: Debug = False) -> None:
    """The segments: rule, version, and how many persons are in each."""
    from twofold.stores.segment_people import count_members, table_of
    from twofold.stores.segments_file import load_segments

    settings = settings_of(home, config, debug)
    rules = load_segments(settings, CATALOGUE)
    found = None
    if table_of(settings) is not None:
        found = count_members(settings, rules, now_ms())
    counts = {} if found is None else found.counts
    if as_json:
        show.json_line(
            {
                "version": rules.version,
                "table": None if found is None else found.table,
                "t": None if found is None else found.t,
                "persons": None if found is None else found.persons,
                "lapsed": None if found is None else found.lapsed,
                "segments": [
                    {
                        "name": segment.name,
                        "description": segment.description,
                        "rule": str(segment.rule),
                        "version": segment.version,
                        "persons": counts.get(segment.name),
                    }
                    for segment in rules
                ],
            }
        )
        return
    where = "no table to count in yet"
    if found is not None:
        where = f"{found.persons} persons in {found.table} at {show_time(found.t)}{_lapsed(found.lapsed)}"
    show.console.print(f"{settings.segments.file or 'no file'}, version {rules.version or '-'} · {where}", markup=False)
    show.show_rows(
        "",
        ["segment", "persons", "version", "rule"],
        [[Text(s.name, "cyan"), counts.get(s.name, "-"), s.version, Text(str(s.rule))] for s in rules],
    )


def preview(
    name: Annotated[str | None, typer.Argument(help="Name of a segment")] = None,
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    rule: Annotated[str | None, typer.Option("--rule", help='A rule instead, as in "orders_lifetime >= 3"')] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most so many persons", min=0)] = _MOST,
) -> None:
    """Persons in a segment, or of whom a rule would hold, with the values that the rule looks at."""
    from twofold.rule_grammar import parse_rule
    from twofold.rules import features_of
    from twofold.stores.segment_people import first_members, people
    from twofold.stores.segments_file import load_segments

    settings = settings_of(home, config, debug)
    if (name is None) == (rule is None):
        raise UsageError("name a segment, or give a rule with --rule")
    if rule is not None:
        segment = Segment("--rule", parse_rule(rule, CATALOGUE, "--rule"))
    else:
        segment = _named(load_segments(settings, CATALOGUE), name or "")
    features = features_of(segment.rule)
    everyone = people(settings, features, now_ms())
    shown, count = first_members(everyone, segment, limit)
    if as_json:
        for row in shown:
            show.json_line(row)
        return
    where = f"{everyone.table} at {show_time(everyone.t)}{_lapsed(everyone.lapsed)}"
    show.console.print(f"{segment.name}: {segment.rule}", markup=False)
    show.console.print(f"{count} person{'s' * (count != 1)} in {where}", markup=False)
    show.show_rows("", ["person", *features], [[row["person"], *(show.shown(f, row[f]) for f in features)] for row in shown])


def why(
    name: Annotated[str, typer.Argument(help="Name of a segment")],
    person: Annotated[str, typer.Argument(help="Person key: user:42, anon:7f…")],
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    at: At = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Since when from the whole archive: slower, and never `or earlier`")
    ] = False,
) -> None:
    """Why a person is in a segment or not, clause by clause, and since when."""
    from twofold.reader import Reader

    with Reader(settings_of(home, config, debug)) as reader:
        found = reader.membership(_named(reader.segments, name), person, instant(at), exact)
    if as_json:
        show.json_line(found)
        return
    answer = Text("in", "green") if found.member else Text("not in", "red")
    show.console.print(Text.assemble((person, "bold"), f" at {show_time(found.t)} is ", answer, f" {name}{_since(found)}"))
    lines = []
    for clause in found.clauses:
        mark = Text("true", "green") if clause.holds else Text("false", "red")
        lines.append([Text("  " * clause.depth + clause.rule), _seen(clause, found.t), mark])
    show.show_rows("", ["clause", "value", "holds"], lines)


def _seen(clause: Told, t: int) -> str:
    """The value that a clause saw; an instant with its age, because that is what rules ask for."""
    if clause.rule in JOINS:
        return ""
    feature = re.split(r"[ .]", clause.rule, maxsplit=1)[0]
    if clause.value is None or not feature.endswith("_at"):
        return show.shown(feature, clause.value)
    age_h = (t - clause.value) // HOUR_MS
    return f"{show_time(clause.value)} ({age_h // 24} d {age_h % 24} h ago)"


def _since(found: Membership) -> str:
    if found.entered_at is not None:
        return f", since {show_time(found.entered_at)}"
    if found.entered_before is not None:
        return f", since {show_time(found.entered_before)} or earlier ({found.note}; ask with --exact)"
    return f" ({found.note})" if found.note else ""


COMMANDS = (segments,)
#: Commands of one name's own: ``twofold segment why``.
GROUPS = {"segment": (preview, why)}
