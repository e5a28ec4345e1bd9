"""The grammar of rules: text -> tree, every name and type checked against the catalogue; an error names its line and column."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, cast

from twofold.errors import SegmentError, nearest
from twofold.features import Catalogue
from twofold.rules import (
    Age,
    AllOf,
    AnyOf,
    Compare,
    Comparison,
    Constant,
    Contains,
    IsEmpty,
    IsNull,
    Not,
    OneOf,
    Operand,
    OperandType,
    Rule,
    joined,
)
from twofold.timeline import DAY_MS, HOUR_MS, LATEST_MS, MINUTE_MS, SECOND_MS, parse_instant

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

#: In Lark's EBNF. Words are case-insensitive; ``not`` binds closest, then ``and``, then ``or``.
GRAMMAR = r"""
start: either
?either: both (_OR both)*
?both: negated (_AND negated)*
?negated: NOT negated                                  -> negation
        | "(" either ")"
        | operand COMPARISON constant                  -> compare
        | operand _IN "(" constant ("," constant)* ")" -> one_of
        | operand _CONTAINS constant                   -> contains
        | operand _IS NOT? NULL                        -> null_test
        | operand _IS NOT? EMPTY                       -> empty_test
        | operand OLDER _THAN NUMBER UNIT              -> age
        | operand WITHIN NUMBER UNIT                   -> age
operand: NAME ["." (NAME | TEXT)]
constant: NUMBER | TEXT | TRUE | FALSE

COMPARISON: /<=|>=|!=|=|<|>/
NAME: /[A-Za-z_][A-Za-z0-9_]*/
NUMBER: /-?[0-9]+(?:\.[0-9]+)?/
TEXT: /'(?:[^'\r\n]|'')*'|"(?:[^"\r\n]|"")*"/
UNIT: /(?:ms|s|seconds?|min|minutes?|h|hours?|d|days?|w|weeks?)\b/i
_OR.2: /or\b/i
_AND.2: /and\b/i
NOT.2: /not\b/i
_IN.2: /in\b/i
_CONTAINS.2: /contains\b/i
_IS.2: /is\b/i
NULL.2: /null\b/i
EMPTY.2: /empty\b/i
OLDER.2: /older\b/i
_THAN.2: /than\b/i
WITHIN.2: /within\b/i
TRUE.2: /true\b/i
FALSE.2: /false\b/i
%ignore /[ \t\r\n]+/
"""

#: Longest rule, in characters, and deepest nesting: what Spark compiles at once and a person still reads.
LONGEST_RULE = 4_000
DEEPEST_RULE = 30
LONGEST_AGE_MS = 36_525 * DAY_MS
_INT64 = range(-(2**63), 2**63)

#: By the first letter, but for ms.
_UNITS_MS = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
#: Terminals as a person names them.
_WORDS = {
    "COMPARISON": "a comparison (= != < <= > >=)",
    "NAME": "a name",
    "NUMBER": "a number",
    "TEXT": "a 'text'",
    "UNIT": "a unit (ms, s, min, h, d, w)",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": ",",
    "DOT": ".",
    "$END": "the end",
}


def parse_rule(text: str, catalogue: Catalogue, where: str = "the rule") -> Rule:
    """The rule that a text says. Raises :class:`SegmentError`: one line, ``<where> column N: what is wrong and the way out``."""
    return _Building(text, catalogue, where).rule()


@lru_cache(maxsize=1)
def _parser() -> Lark:
    # Here, because whoever reads no rules need not wait for it.
    from lark import Lark

    return Lark(GRAMMAR, parser="lalr", maybe_placeholders=False)


class _Building:
    """One text on its way to a tree."""

    def __init__(self, text: str, catalogue: Catalogue, where: str) -> None:
        self._text, self._catalogue, self._where = text, catalogue, where
        self._lines = text.rstrip("\n").count("\n")

    def rule(self) -> Rule:
        from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

        if len(self._text) > LONGEST_RULE:
            raise SegmentError(f"{self._where}: {len(self._text)} characters, at most {LONGEST_RULE}: make two segments of it")
        if not self._text.strip():
            raise SegmentError(f"{self._where} is empty: write a condition, as in orders_lifetime >= 3")
        try:
            tree = _parser().parse(self._text)
        except UnexpectedCharacters as error:
            self._unexpected(error.line, error.column, self._text[error.pos_in_stream or 0 :], error.allowed or ())
        except UnexpectedToken as error:
            rest = "" if error.token.type == "$END" else self._text[error.token.start_pos or 0 :]
            line, column = (error.line, error.column) if rest else self._end()
            self._unexpected(line, column, rest, error.accepts or error.expected)
        except UnexpectedInput as error:
            self._refuse(error.line, error.column, "it cannot be read")
        return self._build(cast("Tree[Token]", tree.children[0]), 1)

    # --- errors -----------------------------------------------------------------------------------------------------------------
    def _refuse(self, line: int, column: int, what: str) -> NoReturn:
        place = f"line {line} column {column}" if self._lines else f"column {column}"
        raise SegmentError(f"{self._where} {place}: {what}")

    def _refuse_at(self, token: Token, what: str) -> NoReturn:
        self._refuse(token.line or 1, token.column or 1, what)

    def _end(self) -> tuple[int, int]:
        lines = self._text.rstrip().split("\n")
        return len(lines), len(lines[-1]) + 1

    def _unexpected(self, line: int, column: int, rest: str, expected: Iterable[str]) -> NoReturn:
        found = re.match(r"[A-Za-z0-9_]+|&&|\|\||.", rest)
        word = found.group() if found is not None else ""
        instead = {"&&": "and", "||": "or", "!": "not"}.get(word)
        before = self._text[: len(self._text) - len(rest)]
        instead = {"==": "one =", "<>": "!=", "=>": ">=", "=<": "<="}.get(before[-1:] + word, instead)
        if instead is not None:
            self._refuse(line, column, f"found {word!r}: write {instead}")
        if word in ("'", '"'):
            self._refuse(line, column, f"the text that begins here has no closing {word}")
        if word.lower() == "not":
            self._refuse(line, column, "found 'not': write it before the feature, as in not tier in ('gold')")
        names = sorted({_WORDS.get(name, name.strip("_").lower()) for name in expected} - {"the end"} or {"the end"})
        expecting = ("one of: " if len(names) > 1 else "") + ", ".join(names)
        self._refuse(line, column, f"found {repr(word) if word else 'the end'}, expected {expecting}")

    # --- tree -------------------------------------------------------------------------------------------------------------------
    def _build(self, tree: Tree[Token], depth: int) -> Rule:
        if depth > DEEPEST_RULE:
            raise SegmentError(f"{self._where}: nested more than {DEEPEST_RULE} deep: make two segments of it")
        parts = cast("list[Any]", tree.children)
        match tree.data:
            case "either":
                return joined(AnyOf, [self._build(part, depth + 1) for part in parts])
            case "both":
                return joined(AllOf, [self._build(part, depth + 1) for part in parts])
            case "negation":
                return Not(self._build(parts[1], depth + 1))
        operand, name = self._operand(parts[0])
        match tree.data:
            case "compare":
                self._no_list(operand, name)
                return Compare(operand, cast(Comparison, str(parts[1])), self._constant(operand, operand.type, parts[2]))
            case "one_of":
                self._no_list(operand, name)
                return OneOf(operand, tuple(self._constant(operand, operand.type, part) for part in parts[1:]))
            case "contains":
                if operand.type not in ("texts", "integers"):
                    self._refuse_at(name, f"{operand} is no list: write =")
                return Contains(operand, self._constant(operand, "text" if operand.type == "texts" else "integer", parts[1]))
            case "null_test":
                if operand.type in ("texts", "integers", "money", "scores", "records"):
                    self._refuse_at(name, f"{operand} is never null: write is empty")
                if operand.key is None and not self._catalogue.nullable(self._catalogue.features[operand.feature]):
                    self._refuse_at(name, f"{operand} is never null: write = 0")
                return IsNull(operand, negated=len(parts) == 3)
            case "empty_test":
                if operand.type not in ("texts", "integers", "money", "scores", "records"):
                    self._refuse_at(name, f"{operand} is neither a list nor a map: write is null")
                return IsEmpty(operand, negated=len(parts) == 3)
        assert tree.data == "age", tree.data
        if operand.type != "time":
            self._refuse_at(name, f"{operand} is no time: older than and within need one, as in last_order_at")
        return Age(operand, parts[1].type == "OLDER", self._width_ms(parts[2], parts[3]))

    def _operand(self, tree: Tree[Token]) -> tuple[Operand, Token]:
        name, *keys = cast("list[Token]", tree.children)
        features = self._catalogue.features
        if name not in features:
            way = nearest(name, features, "`twofold table personalization --schema` lists them")
            self._refuse_at(name, f"unknown feature {str(name)!r}; {way}")
        type_ = self._catalogue.value_type(features[name])
        if not keys:
            return Operand(str(name), type_), name
        key = str(keys[0]) if keys[0].type == "NAME" else _unquoted(keys[0])
        if type_ == "money" and not re.fullmatch("[A-Z]{3}", key):
            near_key = re.fullmatch("[A-Za-z]{3}", key)
            way = f"; did you mean {key.upper()!r}?" if near_key else ": write three capitals, as in .EUR"
            self._refuse_at(keys[0], f"{key!r} is no currency{way}")
        if type_ not in ("money", "scores"):
            self._refuse_at(keys[0], f"{name} is no map: leave out .{keys[0]}")
        return Operand(str(name), "integer" if type_ == "money" else "score", key), name

    def _no_list(self, operand: Operand, name: Token) -> None:
        if operand.type in ("texts", "integers"):
            self._refuse_at(name, f"{operand} is a list: write contains, or is empty")
        if operand.type == "records":
            self._refuse_at(name, f"{operand} is a list of records: write is empty")
        if operand.type == "money":
            self._refuse_at(name, f"{operand} is a map by currency: name one, as in {operand}.EUR")
        if operand.type == "scores":
            self._refuse_at(name, f"{operand} is a map by name: name one, as in {operand}.'lamps'")

    def _constant(self, operand: Operand, type_: OperandType, tree: Tree[Token]) -> Constant:
        token = cast("Token", tree.children[0])
        text = token.type == "TEXT"
        match type_:
            case "text":
                if token.type == "NUMBER":
                    self._refuse_at(token, f"{operand} is text: write '{token}'")
                # A trait's true is the text `true`: so admission keeps it.
                return _unquoted(token) if text else str(token).lower()
            case "time":
                at = parse_instant(_unquoted(token)) if text else int(token) if re.fullmatch("[0-9]{1,15}", token) else None
                if at is None or not 0 <= at < LATEST_MS:
                    way = "write RFC 3339, as in '2026-01-31T08:00:00Z', or epoch milliseconds, up to 2200"
                    self._refuse_at(token, f"{operand} is a time and {token} is none: {way}")
                return at
        if token.type != "NUMBER":
            self._refuse_at(token, f"{operand} is a number and {token} is none" + (": leave out the quotes" if text else ""))
        if type_ in ("score", "number"):
            return float(token)
        if "." in token:
            minor = self._catalogue.value_type(self._catalogue.features[operand.feature]) == "money"
            way = "minor units: write 1050 for 10.50" if minor else "whole numbers: leave out the fraction"
            self._refuse_at(token, f"{operand} is in {way}")
        if int(token) not in _INT64:
            self._refuse_at(token, f"{token} does not fit 64 bits")
        return int(token)

    def _width_ms(self, number: Token, unit: Token) -> int:
        if not re.fullmatch("[0-9]+", number) or int(number) == 0:
            self._refuse_at(number, f"{number} is no duration: write a whole number above 0")
        width_ms = int(number) * (1 if unit.lower() == "ms" else _UNITS_MS[unit[0].lower()])
        if width_ms > LONGEST_AGE_MS:
            self._refuse_at(number, f"{number} {unit} is longer than {LONGEST_AGE_MS // DAY_MS} d")
        return width_ms


def _unquoted(token: str) -> str:
    quote = token[0]
    return token[1:-1].replace(quote * 2, quote)
