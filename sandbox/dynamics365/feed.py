"""Change tracking: the first read with a delta link, and deltas (use change tracking to synchronize data)."""

import bisect
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from sandbox.dynamics365.errors import EXPIRED, Refused, bad_query
from sandbox.dynamics365.options import Preferences, Query
from sandbox.dynamics365.org import Org
from sandbox.dynamics365.reading import read_skiptoken, skiptoken
from sandbox.dynamics365.schema import Entity
from sandbox.dynamics365.wire import answer, context, renderer, selected
from sandbox.frame import Response
from sandbox.store import Dead, Row, Values

FORBIDDEN = ("$filter", "$orderby", "$expand", "$top")
TOKEN = re.compile(r"(\d+)!(\d\d/\d\d/\d{4} \d\d:\d\d:\d\d)")


def write_token(version: int, at: datetime) -> str:
    """A delta token in the vendor's shape: a version, ``!``, and the time it was given out."""
    return f"{version}!{at:%m/%d/%Y %H:%M:%S}"


def read_token(org: Org, text: str) -> int:
    """The version of a token; one older than the window, or of another life of this sandbox, is an error."""
    match = TOKEN.fullmatch(text)
    if match is None:
        raise bad_query("Invalid delta token.")
    at = datetime.strptime(match[2], "%m/%d/%Y %H:%M:%S").replace(tzinfo=UTC)
    window = timedelta(days=float(org.options["tracking_days"]))
    known = org.first_version <= int(match[1]) <= org.store.version
    if org.now() - at > window or not known:
        raise Refused(
            400, EXPIRED, "Version stamp associated with the client has expired. Please perform a full sync."
        )
    return int(match[1])


def check(org: Org, entity: Entity, query: Query) -> None:
    """Whether this read can be tracked at all."""
    if not org.tracked(entity):
        raise Refused(400, "0x80060889", f"Change tracking is not enabled for the entity '{entity.name}'.")
    for name in FORBIDDEN:
        if query.get(name) is not None:
            raise bad_query(
                f"The query option '{name}' is not supported with the preference odata.track-changes."
            )


def tracked(
    org: Org, entity: Entity, url: str, base: str, query: Query, preferences: Preferences
) -> Response:
    """One page of a tracked read: a first read, or the changes since a token.

    All pages of one read have the same upper bound, which the delta link at their end starts from; whatever
    changes meanwhile comes with the next delta.
    """
    check(org, entity, query)
    table = org.store.table(entity.name)
    page = 1
    if (token := query.get("$skiptoken")) is not None:
        page, state, tracking = read_skiptoken(token)
        if not tracking:
            raise bad_query("Malformed XML in the Paging Cookie")
    else:
        since = None if (delta := query.get("$deltatoken")) is None else read_token(org, delta)
        state = {
            "since": since,
            "upto": org.store.version,
            "at": f"{org.now():%Y-%m-%dT%H:%M:%S}",
            "id": "",
            "n": 0,
        }
    if state["since"] is None:
        ids = table.ids()
        start = bisect.bisect_right(ids, state["id"])
        things: list[Row | Dead] = [table.rows[i] for i in ids[start:]]
    else:
        things = pending(org, entity, state["since"], state["upto"])
        things = [t for t in things if (isinstance(t, Dead), t.version) > (bool(state["id"]), state["n"])]
    return _page(org, entity, url, base, query, preferences, things, page, state)


def pending(org: Org, entity: Entity, since: int, upto: int) -> list[Row | Dead]:
    """Inserts and updates first, by version; deletes after them."""
    rows, dead = org.store.table(entity.name).changes(since, upto)
    return [*rows, *dead]


def _page(
    org: Org,
    entity: Entity,
    url: str,
    base: str,
    query: Query,
    preferences: Preferences,
    things: list[Row | Dead],
    page: int,
    state: Values,
) -> Response:
    cap = int(org.options["page_cap"])
    size = min(preferences.page_size or cap, cap)
    names = query.names("$select")
    render = renderer(org, selected(entity, names), preferences)
    delta = state["since"] is not None
    shown = things[:size]
    body: Values = {"@odata.context": context(base, entity, names, delta=delta)}
    body["value"] = [_deleted(base, entity, t) if isinstance(t, Dead) else render(t) for t in shown]
    if len(things) > size:
        last = shown[-1]
        # In a delta "id" says whether the deletes have begun and "n" is the version; else "id" is the last row's.
        place = (
            {"id": "d" if isinstance(last, Dead) else "", "n": last.version}
            if delta
            else {"id": last.id, "n": 0}
        )
        body["@odata.nextLink"] = query.link(url, skiptoken(page + 1, {**state, **place}, tracking=True))
    else:
        at = datetime.fromisoformat(state["at"])
        body["@odata.deltaLink"] = query.link(
            url, "$deltatoken=" + quote(write_token(state["upto"], at), safe="")
        )
    return answer(200, body, preferences.applied())


def _deleted(base: str, entity: Entity, dead: Dead) -> Values:
    return {
        "@odata.context": f"{base}/$metadata#{entity.set_name}/$deletedEntity",
        "id": dead.id,
        "reason": "deleted",
    }


def pending_count(org: Org, entity: Entity, query: Query) -> Response:
    """``/accounts/$count?$deltatoken=``: how many changes wait."""
    check(org, entity, query)
    since = read_token(org, query.get("$deltatoken") or "")
    total = len(pending(org, entity, since, org.store.version))
    return Response(200, {"Content-Type": "text/plain", "OData-Version": "4.0"}, str(total).encode())
