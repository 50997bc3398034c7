"""Filters as Odoo's search domains: prefix notation, values as JSON values, wildcards of texts escaped. Pure.

Source: Odoo's "ORM API", Search domains. Versions differ in what a negation makes of an empty field and in how a time is
compared (19 by whole seconds, before by microseconds), so a domain leaves them no choice (docs/adr/0006).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from crm_core.connectors.odoo.models.common import Domain
from crm_core.model.fields import NATIVE_PREFIX
from crm_core.model.filters import AnyOf, Both, Compare, Either, Function, Kind, Match, Node, Not, Operator
from crm_core.model.literals import SERIAL_TYPE, check_compare, check_match, unknown_name

NEVER: Domain = [[0, "=", 1]]
ALWAYS: Domain = [[1, "=", 1]]
MAX_ID = 2**31 - 1
_SIGNS = {
    Operator.EQ: "=",
    Operator.NE: "!=",
    Operator.GT: ">",
    Operator.GE: ">=",
    Operator.LT: "<",
    Operator.LE: "<=",
}
_OPPOSITE = {
    Operator.EQ: Operator.NE,
    Operator.NE: Operator.EQ,
    Operator.GT: Operator.LE,
    Operator.LE: Operator.GT,
    Operator.GE: Operator.LT,
    Operator.LT: Operator.GE,
}


@dataclass(frozen=True)
class Column:
    """What can be asked for. `path`: as a condition names it. `type`: a `Type`, or SERIAL_TYPE.

    `values`: canonical name -> its values there. `states`: canonical name -> the records that have it. `empty`, `filled`:
    the records without, and with, a value; a column with neither always has one. `guard`: also holds for a reference
    that is meant. `days`: it holds times, of which a date means the whole day. `dates`: it holds days, each of which means
    its first moment in UTC. `nothing`: a value that is read as none.
    """

    name: str
    path: str
    type: str
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    states: Mapping[str, Domain] = field(default_factory=dict)
    empty: Domain = field(default_factory=list)
    filled: Domain = field(default_factory=list)
    guarded: bool = False
    days: bool = False
    nothing: str = ""
    dates: bool = False


def joined(sign: str, parts: Sequence[Domain]) -> Domain:
    """One expression of several: all of them ("&") or one at least ("|")."""
    found: Domain = []
    for part in reversed(parts):
        found = [sign, *part, *found] if found else list(part)
    return found


def whole(domain: Domain) -> Domain:
    """Conditions that all hold, as one expression."""
    parts: list[Domain] = []
    rest = list(domain)
    while rest:
        part, rest = _first(rest)
        parts.append(part)
    return joined("&", parts)


def _first(domain: Domain) -> tuple[Domain, Domain]:
    head, *rest = domain
    if head not in ("&", "|", "!"):
        return [head], rest
    left, rest = _first(rest)
    if head == "!":
        return [head, *left], rest
    right, rest = _first(rest)
    return [head, *left, *right], rest


def domain_of(node: Node, column: Callable[[str], Column], *, negated: bool = False) -> Domain:
    """The domain of a tree, one expression. `column` resolves names and raises BadRequest for unknown ones."""
    if isinstance(node, Not):
        return domain_of(node.node, column, negated=not negated)
    if isinstance(node, Both | Either):
        sign = "&" if isinstance(node, Both) is not negated else "|"
        return joined(sign, [domain_of(each, column, negated=negated) for each in (node.left, node.right)])
    if isinstance(node, AnyOf):
        each = [
            _compare(Compare(node.field, Operator.EQ, one), column(node.field), negated=negated)
            for one in node.values
        ]
        if not each:
            column(node.field)
            return ALWAYS if negated else NEVER
        return joined("&" if negated else "|", each)
    if isinstance(node, Compare):
        return _compare(node, column(node.field), negated=negated)
    found = column(node.field)
    check_match(node, found.type, found.values or found.states)
    return _match(node, found, negated=negated)


def escaped(text: str) -> str:
    """A text whose wildcards are themselves."""
    return re.sub(r"[\\%_]", r"\\\g<0>", text)


def _like(column: Column, pattern: str, *, negated: bool) -> Domain:
    found: Domain = [[column.path, "=ilike", pattern]]
    return joined("|", [column.empty, ["!", *found]]) if negated else found


def _match(node: Match, column: Column, *, negated: bool) -> Domain:
    part = escaped(node.value.text)
    pattern = {
        Function.CONTAINS: f"%{part}%",
        Function.STARTSWITH: f"{part}%",
        Function.ENDSWITH: f"%{part}",
    }[node.function]
    if not part:  # true of every text
        return column.empty if negated else column.filled
    return _like(column, pattern, negated=negated)


def _compare(node: Compare, column: Column, *, negated: bool) -> Domain:
    value = check_compare(node, column.type, column.values or column.states)
    operator = _OPPOSITE[node.operator] if negated else node.operator
    named = node.value.kind is Kind.TEXT and isinstance(value, str)
    if value is None:
        if not column.empty:
            return ALWAYS if operator is Operator.NE else NEVER
        return column.filled if operator is Operator.NE else column.empty
    if column.states and named:
        return _in_state(column, operator, str(value))
    if column.values and named:
        return _named(column, operator, str(value))
    if isinstance(value, datetime):
        found = (_moment_of_day if column.dates else _instant)(column.path, operator, value)
    elif column.days and isinstance(value, date):
        found = _day(column.path, operator, value)
    elif isinstance(value, date):
        found = [[column.path, _SIGNS[operator], value.isoformat()]]
    elif column.type == SERIAL_TYPE:
        return _reference(column, operator, str(value))
    elif isinstance(value, bool):
        return [[column.path, "=", value is (operator is Operator.EQ)]]
    elif isinstance(value, str):
        if operator in (Operator.EQ, Operator.NE):
            return _like(column, escaped(value), negated=operator is Operator.NE)
        found = [[column.path, _SIGNS[operator], value]]
    else:
        return _number(column, operator, value)
    # An empty field is not equal to any value, and `not` turns every false into true.
    lacking = operator is Operator.NE or (negated and operator is not Operator.EQ)
    return joined("|", [column.empty, found]) if lacking and column.empty else found


def _number(column: Column, operator: Operator, value: int | Decimal) -> Domain:
    """A number that was never set reads as 0, and the database keeps it as nothing."""
    found: Domain = [[column.path, _SIGNS[operator], value]]
    as_zero = {
        Operator.EQ: value == 0,
        Operator.NE: value != 0,
        Operator.GT: value < 0,
        Operator.GE: value <= 0,
        Operator.LT: value > 0,
        Operator.LE: value >= 0,
    }[operator]
    return joined("|", [found, [[column.path, "=", False]]]) if as_zero else found


def _reference(column: Column, operator: Operator, rid: str) -> Domain:
    if int(rid) > MAX_ID:
        return NEVER if operator is Operator.EQ else ALWAYS
    found: Domain = [[column.path, "=", int(rid)]]
    if operator is Operator.EQ:
        return joined("&", [column.filled, found]) if column.guarded else found
    differs: Domain = [[column.path, "!=", int(rid)]]
    return joined("|", [column.empty, differs]) if column.empty else differs


def _in_state(column: Column, operator: Operator, name: str) -> Domain:
    if name not in column.states:
        if name.startswith(NATIVE_PREFIX):
            return NEVER if operator is Operator.EQ else ALWAYS
        raise unknown_name(column.name, name, column.states)
    if operator is Operator.EQ:
        return whole(column.states[name])
    return joined("|", [whole(each) for other, each in column.states.items() if other != name])


def _named(column: Column, operator: Operator, name: str) -> Domain:
    kind = type(next(iter(column.values.values()))[0])
    if column.nothing and name == f"{NATIVE_PREFIX}{column.nothing}":
        return NEVER if operator is Operator.EQ else ALWAYS
    native = name.removeprefix(NATIVE_PREFIX)
    values: Sequence[Any] = column.values.get(name, ())
    if native != name and kind is str:
        values = (native,)
    elif native != name and kind is bool and native in ("true", "false"):
        values = (native == "true",)
    if not values:
        raise unknown_name(column.name, name, column.values)
    each: list[Domain] = [[[column.path, _SIGNS[operator], value]] for value in values]
    found = joined("|" if operator is Operator.EQ else "&", each)
    return joined("|", [column.empty, found]) if operator is Operator.NE and column.empty else found


def _instant(path: str, operator: Operator, moment: datetime) -> Domain:
    """A condition on a time by the whole seconds that every version shows of it."""
    floor = moment.replace(microsecond=0)
    after = _moment(floor, 1)
    at = _moment(floor, 0)
    exact = floor == moment
    begin = at if exact else after
    if operator is Operator.EQ:
        return joined("&", [[[path, ">=", at]], [[path, "<", after]]]) if exact else NEVER
    if operator is Operator.NE:
        return joined("|", [[[path, "<", at]], [[path, ">=", after]]]) if exact else [[path, "!=", False]]
    return {
        Operator.GT: [[path, ">=", after]],
        Operator.GE: [[path, ">=", begin]],
        Operator.LT: [[path, "<", begin]],
        Operator.LE: [[path, "<", after]],
    }[operator]


def _moment_of_day(path: str, operator: Operator, moment: datetime) -> Domain:
    """A condition on the first moment of a day, by that day."""
    day = moment.date().isoformat()
    exact = moment.time() == datetime.min.time()
    if operator is Operator.EQ:
        return [[path, "=", day]] if exact else NEVER
    if operator is Operator.NE:
        return [[path, "!=", day]] if exact else [[path, "!=", False]]
    if exact:
        return [[path, _SIGNS[operator], day]]
    return [[path, ">" if operator in (Operator.GT, Operator.GE) else "<=", day]]


def _day(path: str, operator: Operator, day: date) -> Domain:
    begin = datetime.combine(day, datetime.min.time())
    at = _moment(begin, 0)
    after = _moment(begin, 86400)
    return {
        Operator.EQ: joined("&", [[[path, ">=", at]], [[path, "<", after]]]),
        Operator.NE: joined("|", [[[path, "<", at]], [[path, ">=", after]]]),
        Operator.GT: [[path, ">=", after]],
        Operator.GE: [[path, ">=", at]],
        Operator.LT: [[path, "<", at]],
        Operator.LE: [[path, "<", after]],
    }[operator]


def _moment(moment: datetime, seconds: int) -> str:
    """A time as Odoo compares it: UTC without a zone. Nothing follows the calendar's last day."""
    plain = moment.replace(tzinfo=None, microsecond=0)
    with suppress(OverflowError):
        plain += timedelta(seconds=seconds)
    return plain.isoformat(sep=" ")
