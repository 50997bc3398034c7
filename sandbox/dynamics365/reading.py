"""GET of rows: collections with pages, single rows, properties (Web API: query data, page results)."""

import base64
import binascii
import bisect
import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from sandbox.dynamics365.errors import Refused, bad_query, no_property
from sandbox.dynamics365.expression import Parser
from sandbox.dynamics365.filters import comparable, compile_filter
from sandbox.dynamics365.options import MAX_PAGE, Preferences, Query, positive, read_query
from sandbox.dynamics365.org import Org, RowScope
from sandbox.dynamics365.schema import TABLES, Column, Entity, collections
from sandbox.dynamics365.wire import Render, answer, context, etag, renderer, selected
from sandbox.frame import Response
from sandbox.store import Row, Values, from_json, to_json

COUNT_LIMIT = 5000
MAX_EXPAND = 15
Order = list[tuple[Callable[[Values], Any], bool]]  # (comparable value, descending)


def skiptoken(page: int, state: Any, *, tracking: bool = False) -> str:
    """The opaque place in a result, in the shape of the vendor's paging cookie."""
    cookie = base64.urlsafe_b64encode(to_json(state).encode()).decode()
    xml = f'<cookie pagenumber="{page}" pagingcookie="{cookie}" istracking="{tracking}" />'
    return "$skiptoken=" + quote(xml, safe="")


def read_skiptoken(text: str) -> tuple[int, Any, bool]:
    """Page number, state and whether it belongs to a tracked read; refuses what we did not make."""
    match = re.fullmatch(
        r'<cookie pagenumber="(\d+)" pagingcookie="([\w\-=]+)" istracking="(True|False)" />', text
    )
    if match is None:
        raise bad_query("Malformed XML in the Paging Cookie")
    try:
        state = from_json(base64.urlsafe_b64decode(match[2]).decode())
    except (ValueError, binascii.Error, json.JSONDecodeError):
        raise bad_query("Malformed XML in the Paging Cookie") from None
    return int(match[1]), state, match[3] == "True"


def matching(org: Org, entity: Entity, query: Query) -> tuple[list[Row], Order]:
    """All rows that the filter lets through, in order; the key decides ties, so pages are stable.

    The result is kept until something is written: following pages cost no new search.
    """
    table = org.store.table(entity.name)
    order = read_order(org, entity, query.get("$orderby") or "")
    text = query.get("$filter")
    moment = int(org.frame.clock.seconds()) if text and "Microsoft." in text else 0
    key = (entity.name, text, query.get("$orderby"), tuple(query.aliases.items()), org.store.version, moment)
    if key in org.results:
        return org.results[key], order
    rows = [table.rows[i] for i in table.ids()]
    if text is not None:
        test = compile_filter(Parser(text, query.aliases).parse(), RowScope(org, entity))
        rows = [r for r in rows if test(r.values)]
    for getter, descending in reversed(order):
        rows.sort(key=_sort_by(getter), reverse=descending)
    while len(org.results) >= 8:
        org.results.pop(next(iter(org.results)))
    org.results[key] = rows
    return rows, order


def _nulls_first(value: Any) -> tuple[bool, Any]:
    return (value is not None, 0 if value is None else value)


def _sort_by(getter: Callable[[Values], Any]) -> Callable[[Row], tuple[bool, Any]]:
    return lambda row: _nulls_first(getter(row.values))


def read_order(org: Org, entity: Entity, text: str) -> Order:
    order: Order = []
    scope = RowScope(org, entity)
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, direction = part.partition(" ")
        if direction.strip() not in ("", "asc", "desc"):
            raise bad_query(f"Syntax error at position {len(name) + 1} in '{text}'.")
        order.append((comparable(*scope.property(name)), direction.strip() == "desc"))
    return order


def _start(rows: list[Row], order: Order, state: Any) -> int:
    """Where a page begins: after the last row of the page before, wherever that row is now."""
    keys: list[Any] = state["keys"]
    last: str = state["id"]
    if not order:
        return bisect.bisect_right(rows, last, key=lambda r: r.id)

    def after(row: Row) -> bool:
        for (getter, descending), was in zip(order, keys, strict=True):
            a, b = _nulls_first(getter(row.values)), _nulls_first(was)
            if a != b:
                return bool((a > b) != descending)
        return row.id > last

    return next((i for i, row in enumerate(rows) if after(row)), len(rows))


def collection(
    org: Org, entity: Entity, url: str, base: str, query: Query, preferences: Preferences
) -> Response:
    """One page of a table."""
    rows, order = matching(org, entity, query)
    page, start = 1, 0
    if (token := query.get("$skiptoken")) is not None:
        page, state, _ = read_skiptoken(token)
        start = _start(rows, order, state)
    cap = int(org.options["page_cap"])
    size = min(preferences.page_size or cap, cap)
    top = query.get("$top")
    limited = top is not None and preferences.page_size is None  # with a page size, $top loses
    if top is not None:
        wanted = positive(top, "$top")
        size = min(wanted, cap) if limited else size
    chosen = rows[start : start + size]
    columns = selected(entity, query.names("$select"))
    render = expanding(org, entity, query, base, preferences, renderer(org, columns, preferences))
    body: Values = {"@odata.context": context(base, entity, query.names("$select"))}
    if query.get("$count") == "true":
        _count(body, len(rows), preferences)
    body["value"] = [render(row) for row in chosen]
    if chosen and not limited and start + size < len(rows):
        last = chosen[-1]
        state = {"keys": [getter(last.values) for getter, _ in order], "id": last.id}
        body["@odata.nextLink"] = query.link(url, skiptoken(page + 1, state))
    return answer(200, body, preferences.applied())


def _count(body: Values, total: int, preferences: Preferences) -> None:
    body["@odata.count"] = min(total, COUNT_LIMIT)
    if preferences.annotated("Microsoft.Dynamics.CRM.totalrecordcount"):
        body["@Microsoft.Dynamics.CRM.totalrecordcount"] = total if total <= COUNT_LIMIT else -1
        body["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] = total > COUNT_LIMIT


def plain_count(org: Org, entity: Entity, query: Query) -> Response:
    """``/accounts/$count``: a bare number, which also stops at 5,000."""
    rows, _ = matching(org, entity, query)
    return Response(
        200, {"Content-Type": "text/plain", "OData-Version": "4.0"}, str(min(len(rows), COUNT_LIMIT)).encode()
    )


def single(
    org: Org,
    entity: Entity,
    row: Row,
    base: str,
    query: Query,
    preferences: Preferences,
    none_match: str | None,
) -> Response:
    """One row; ``If-None-Match`` saves sending it again, but not together with expansion or annotations."""
    for name in ("$filter", "$orderby", "$top", "$count", "$skiptoken"):
        if query.get(name) is not None:
            raise bad_query(f"The query option '{name}' cannot be applied to a single resource.")
    columns = selected(entity, query.names("$select"))
    render = expanding(org, entity, query, base, preferences, renderer(org, columns, preferences))
    headers = {"ETag": etag(row), **preferences.applied()}
    simple = query.get("$expand") is None and not preferences.annotations
    if none_match == etag(row) and simple:
        return Response(304, {"ETag": etag(row), "OData-Version": "4.0"})
    return answer(
        200,
        {"@odata.context": context(base, entity, query.names("$select"), single=True), **render(row)},
        headers,
    )


def _split(text: str, separator: str) -> list[str]:
    """Split at separators outside parentheses and quotes."""
    parts, depth, quoted, start = [], 0, False, 0
    for i, char in enumerate(text):
        if char == "'":
            quoted = not quoted
        elif not quoted and char == "(":
            depth += 1
        elif not quoted and char == ")":
            depth -= 1
        elif char == separator and depth == 0 and not quoted:
            parts.append(text[start:i])
            start = i + 1
    return [p.strip() for p in [*parts, text[start:]] if p.strip()]


def expanding(
    org: Org, entity: Entity, query: Query, base: str, preferences: Preferences, render: Render
) -> Render:
    """Adds what ``$expand`` asks for, one level deep (Web API: join tables)."""
    parts = _split(query.get("$expand") or "", ",")
    if len(parts) > MAX_EXPAND:
        raise bad_query(f"Number of expand options exceeded the maximum limit of {MAX_EXPAND}.")
    steps = []
    for part in parts:
        name, _, inner = part.partition("(")
        options = dict(p.partition("=")[::2] for p in _split(inner.removesuffix(")"), ";"))
        if unknown := options.keys() - {"$select", "$filter", "$orderby", "$top"}:
            raise bad_query(f"The query option '{min(unknown)}' is not supported inside $expand.")
        if name in entity.navigation:
            steps.append(_lookup(org, entity, name, options, preferences))
        elif name in collections(entity):
            steps.append(_children(org, entity, name, options, base, preferences))
        else:
            raise no_property(name, entity.name)
    if not steps:
        return render

    def expanded(row: Row) -> Values:
        out = render(row)
        for step in steps:
            out |= step(row)
        return out

    return expanded


def _inner(options: dict[str, str]) -> Query:
    return read_query("&".join(f"{k}={quote(v)}" for k, v in options.items()))


def _lookup(org: Org, entity: Entity, name: str, options: dict[str, str], preferences: Preferences) -> Render:
    """The row behind a lookup, which comes without an etag."""
    if options.keys() & {"$orderby", "$top"}:
        raise bad_query(
            "Only $select and $filter clause can be provided while doing $expand on many-to-one relationship "
            "or nested one-to-many relationship."
        )
    if "$filter" in options:
        raise Refused(501, "", "$filter on a lookup is a part of Dataverse that this sandbox does not have.")
    lookup, target_name = entity.navigation[name]
    target = TABLES[target_name]
    org.allow("Read", target)
    render = renderer(org, selected(target, _inner(options).names("$select")), preferences)

    def step(row: Row) -> Values:
        other = related(org, row, lookup, target_name)
        if other is None:
            return {name: None}
        return {name: {key: value for key, value in render(other).items() if key != "@odata.etag"}}

    return step


def _children(
    org: Org, entity: Entity, name: str, options: dict[str, str], base: str, preferences: Preferences
) -> Render:
    """The rows of a collection: not paged, but always with a link to all of them, whether there are more or not."""
    query = _inner(options)
    other, back = collections(entity)[name]
    org.allow("Read", other)
    columns = selected(other, query.names("$select"))
    render = renderer(org, columns if back in columns else [*columns, back], preferences)
    rows, _ = matching(org, other, query)
    limit = min(positive(query.get("$top") or str(MAX_PAGE), "$top"), MAX_PAGE)
    by_parent: dict[str, list[Row]] = {}
    for row in rows:
        if row.values.get(back.type_key) in entity.names:
            by_parent.setdefault(row.values[back.wire], []).append(row)
    shown = "&".join(f"{key}={value}" for key, value in options.items())

    def step(row: Row) -> Values:
        link = f"{base}/{entity.set_name}({row.id})/{name}{'?' if shown else ''}{shown}"
        children = [render(r) for r in by_parent.get(row.id, [])[:limit]]
        return {name: children, f"{name}@odata.nextLink": link}

    return step


def related(org: Org, row: Row, lookup: Column, target: str) -> Row | None:
    """The row that a lookup points to, if it points into that table."""
    key = row.values.get(lookup.wire)
    if key is None or row.values.get(lookup.type_key) != target:
        return None
    return org.store.get(target, key)


def property_value(entity: Entity, row: Row, base: str, column: Column, *, raw: bool) -> Response:
    """``/accounts(id)/name`` and its ``/$value``; 204 when there is none."""
    value = row.values.get(column.wire)
    if value is None:
        return Response(204, {"OData-Version": "4.0"})
    if raw:
        text = str(value) if not isinstance(value, Decimal) else f"{value:f}"
        return Response(
            200, {"Content-Type": "text/plain; charset=utf-8", "OData-Version": "4.0"}, text.encode()
        )
    return answer(
        200, {"@odata.context": f"{base}/$metadata#{entity.set_name}({row.id})/{column.wire}", "value": value}
    )
