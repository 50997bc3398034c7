"""The Web API's routes below ``/api/data/v9.x/``: from a request to the rule that answers it."""

import re
from collections.abc import Callable
from typing import Any

from sandbox.dynamics365 import actions, errors, feed, metadata, reading
from sandbox.dynamics365.bulk import PREFIX, bound
from sandbox.dynamics365.errors import Refused, bad_payload, no_property, no_row, no_segment
from sandbox.dynamics365.keys import Key, Segment, find, missing, segments
from sandbox.dynamics365.options import MAX_URL, Preferences, Query, positive, read_preferences, read_query
from sandbox.dynamics365.org import Org
from sandbox.dynamics365.schema import CLOSINGS, SETS, TABLES, Entity, collections
from sandbox.dynamics365.wire import answer, etag, renderer, selected
from sandbox.dynamics365.writing import Caller, Writer, read_body
from sandbox.frame import Request, Response
from sandbox.store import Row


class Call:
    """One request below the version, taken apart."""

    def __init__(self, request: Request, base: str, path: list[Segment], url: str) -> None:
        self.request = request
        self.base = base
        self.path = path
        self.url = url
        self.query: Query = read_query(request.query)
        self.preferences: Preferences = read_preferences(request)
        self.references: dict[str, tuple[str, str]] = {}

    def header(self, name: str) -> str | None:
        """A header; the literal ``null`` that Microsoft's own samples send is none."""
        value = self.request.headers.get(name)
        return None if value is None or value == "null" else value


class Api:
    """The operations of the Web API."""

    def __init__(self, org: Org, writer: Writer) -> None:
        self.org = org
        self.writer = writer
        self._operations: dict[str, tuple[str, Callable[[Call], Response]]] = {
            "WhoAmI": ("GET", self._who),
            "RetrieveTotalRecordCount": ("GET", self._totals),
            "Merge": ("POST", self._merge),
            "BulkDelete": ("POST", lambda c: actions.bulk_delete(self, c)),
        }

    def row(self, table: str, key: str) -> tuple[Entity, Row]:
        """A row that must be there."""
        found = self.org.store.get(table, key)
        if found is None:
            raise no_row(table, key)
        return TABLES[table], found

    def handle(
        self, request: Request, version: str, rest: str, references: dict[str, tuple[str, str]] | None = None
    ) -> Response:
        """One operation below ``/api/data/v9.x/``; also the parts of a batch come through here."""
        if len(request.path) + len(request.query) + len(request.origin) > (
            MAX_URL if references is None else 2 * MAX_URL
        ):
            raise Refused(414, "", "The request URI is too long.")
        base = f"{request.origin}/api/data/{version}"
        path = segments(rest)
        call = Call(request, base, path, f"{base}/{rest}")
        call.references = references or {}
        if not path:
            return self._document(call)
        first = path[0]
        if first.name in ("EntityDefinitions", "RelationshipDefinitions"):
            if request.method != "GET":
                raise Refused(405, "", "The tables of this sandbox are fixed.", {"Allow": "GET"})
            if first.name == "RelationshipDefinitions":
                return metadata.relationship_definitions(base, path, call.query)
            return metadata.handle(self.org, base, path, call.query)
        if first.name in SETS:
            return self._rows(call, SETS[first.name])
        if first.name in CLOSINGS:
            wanted, operation = "POST", lambda c: actions.close(self, c, CLOSINGS[first.name])
        elif first.name in self._operations:
            wanted, operation = self._operations[first.name]
        else:
            raise no_segment(first.name)
        if request.method != wanted:
            raise Refused(
                405,
                "",
                f"The requested resource does not support http method '{request.method}'.",
                {"Allow": wanted},
            )
        return operation(call)

    def _document(self, call: Call) -> Response:
        value = [{"name": s, "kind": "EntitySet", "url": s} for s in SETS]
        return answer(200, {"@odata.context": f"{call.base}/$metadata", "value": value})

    def _who(self, _call: Call) -> Response:
        context = f"{_call.base}/$metadata#Microsoft.Dynamics.CRM.WhoAmIResponse"
        return answer(
            200,
            {
                "@odata.context": context,
                "BusinessUnitId": self.org.business_unit,
                "UserId": self.org.app_user,
                "OrganizationId": self.org.id,
            },
        )

    def _totals(self, call: Call) -> Response:
        """``RetrieveTotalRecordCount(EntityNames=['account'])``, also with a parameter alias."""
        text = call.path[0].key.text if call.path[0].key else ""
        value = text.partition("=")[2].strip()
        names = re.findall(r"""['"](\w+)['"]""", call.query.aliases.get(value, value))
        if unknown := [n for n in names if n not in TABLES]:
            raise Refused(
                404,
                "0x80060888",
                f"The entity with a name = '{unknown[0]}' was not found in the MetadataCache.",
            )
        counts = [len(self.org.store.table(n).rows) for n in names]
        context = f"{call.base}/$metadata#Microsoft.Dynamics.CRM.RetrieveTotalRecordCountResponse"
        collection = {"Count": len(names), "IsReadOnly": False, "Keys": names, "Values": counts}
        return answer(200, {"@odata.context": context, "EntityRecordCountCollection": collection})

    def _merge(self, call: Call) -> Response:
        body = read_body(call.request.body)
        entity, target = self._reference(body.get("Target"))
        _, subordinate = self._reference(body.get("Subordinate"))
        content = {
            k: v for k, v in (body.get("UpdateContent") or {}).items() if k not in ("@odata.type", entity.key)
        }
        self.writer.merge(entity, target, subordinate, content, self.caller(call))
        return Response(204, {"OData-Version": "4.0"})

    def _reference(self, value: Any) -> tuple[Entity, Row]:
        """``{"@odata.type": "Microsoft.Dynamics.CRM.account", "accountid": id}`` as its row."""
        kind = (
            str(value.get("@odata.type", "")).removeprefix("#").removeprefix("Microsoft.Dynamics.CRM.")
            if isinstance(value, dict)
            else ""
        )
        if kind not in TABLES:
            raise bad_payload("An entity reference with '@odata.type' was expected.")
        return self.row(kind, str(value.get(TABLES[kind].key, "")).lower())

    def _rows(self, call: Call, entity: Entity) -> Response:
        """Everything below a table's set."""
        path, method = call.path, call.request.method
        self._supported(entity, method, one=path[0].key is not None)
        if path[0].key is None:
            if len(path) == 1:
                return self._set(call, entity)
            if path[1].name == "$count" and method == "GET":
                self.org.allow("Read", entity)
                counter = (
                    feed.pending_count if call.query.get("$deltatoken") is not None else reading.plain_count
                )
                return counter(self.org, entity, call.query)
            return bound(self, call, entity, path[1].name)
        if len(path) == 1:
            return self._one(call, entity, path[0].key)
        return self._below(call, entity, path[0].key)

    def _supported(self, entity: Entity, method: str, *, one: bool) -> None:
        """Refuse what the table has no message for (option ``only`` of a table)."""
        verb = {"GET": "get" if one else "list", "POST": "create", "DELETE": "delete"}.get(method, "update")
        if verb not in entity.operations:
            message = {"list": "RetrieveMultiple", "get": "Retrieve"}.get(verb, verb.capitalize())
            raise Refused(
                405,
                errors.UNSUPPORTED,
                f"The '{message}' method does not support entities of type '{entity.name}'.",
                {"Allow": "GET"},
            )

    def _set(self, call: Call, entity: Entity) -> Response:
        if call.request.method == "GET":
            self.org.allow("Read", entity)
            query = call.query
            token = query.get("$skiptoken")
            following = token is not None and reading.read_skiptoken(token)[2]
            if (
                following
                or query.get("$deltatoken") is not None
                or (call.preferences.track_changes and token is None)
            ):
                return feed.tracked(self.org, entity, call.url, call.base, query, call.preferences)
            return reading.collection(self.org, entity, call.url, call.base, query, call.preferences)
        if call.request.method == "POST":
            key = self.writer.create(entity, read_body(call.request.body), self.caller(call))
            return self.written(call, entity, key, created=True)
        raise Refused(
            405,
            "",
            f"The requested resource does not support http method '{call.request.method}'.",
            {"Allow": "GET, POST"},
        )

    def caller(self, call: Call) -> Caller:
        detect = call.request.headers.get("mscrm.suppressduplicatedetection", "").lower() == "false"
        return Caller(self.org.app_user, detect_duplicates=detect, references=call.references)

    def written(self, call: Call, entity: Entity, key: str, *, created: bool) -> Response:
        """The answer to a write: 204 with the row's address, or the row if ``return=representation`` asks for it."""
        url = f"{call.base}/{entity.set_name}({key})"
        if not call.preferences.representation:
            return Response(204, {"OData-Version": "4.0", "OData-EntityId": url, "Location": url})
        row = self.org.store.table(entity.name).rows[key]
        got = reading.single(self.org, entity, row, call.base, call.query, call.preferences, None)
        # With a body there is no OData-EntityId header (create a table row).
        return Response(201 if created else 200, got.headers, got.body)

    def _one(self, call: Call, entity: Entity, key: Key) -> Response:
        row = find(self.org, entity, key)
        method = call.request.method
        if method == "PATCH":
            return self._upsert(call, entity, key, row)
        if method not in ("GET", "DELETE"):
            raise Refused(
                405,
                "",
                f"The requested resource does not support http method '{method}'.",
                {"Allow": "GET, PATCH, DELETE"},
            )
        if row is None:
            raise missing(entity, key)
        if method == "GET":
            self.org.allow("Read", entity)
            return reading.single(
                self.org, entity, row, call.base, call.query, call.preferences, call.header("if-none-match")
            )
        self._match(call, row)
        self.writer.delete(entity, row, self.caller(call))
        return Response(204, {"OData-Version": "4.0"})

    def _match(self, call: Call, row: Row) -> None:
        """``If-Match`` with an etag: refuse when the row has moved on (perform conditional operations)."""
        wanted = call.header("if-match")
        if wanted not in (None, "*", etag(row)):
            raise Refused(
                412,
                errors.STALE,
                "The version of the existing record doesn't match the RowVersion property provided.",
            )

    def _upsert(self, call: Call, entity: Entity, key: Key, row: Row | None) -> Response:
        """PATCH updates, and creates what is not there, unless ``If-Match`` or ``If-None-Match`` forbids one."""
        body = read_body(call.request.body)
        if row is not None:
            if call.header("if-none-match") == "*":
                raise Refused(412, errors.DUPLICATE, "A record with matching key values already exists.")
            self._match(call, row)
            self.writer.update(entity, row, body, self.caller(call))
            return self.written(call, entity, row.id, created=False)
        if call.header("if-match") is not None:
            raise missing(entity, key)
        given = {} if key.guid else key.pairs(entity)
        if repeated := given.keys() & body.keys():
            raise Refused(
                400,
                errors.UNEXPECTED,
                f"The key column '{min(repeated)}' is in the URL and in the body: An item with the same key has already been added.",
            )
        new_id = key.guid or (str(given.pop(entity.key)).lower() if entity.key in given else None)
        created = self.writer.create(entity, body, self.caller(call), new_id, given)
        return self.written(call, entity, created, created=True)

    def _below(self, call: Call, entity: Entity, key: Key) -> Response:
        """A property, a lookup or a related collection of one row."""
        row = find(self.org, entity, key)
        if row is None:
            raise missing(entity, key)
        step, tail = call.path[1], [s.name for s in call.path[2:]]
        if step.name == f"{PREFIX}QualifyLead" and entity.name == "lead" and call.request.method == "POST":
            return actions.qualify_lead(self, call, entity, row)
        if step.name in entity.navigation:
            return self._lookup(call, entity, row, tail)
        if step.name in collections(entity) and call.request.method == "GET":
            return self._children(call, entity, row, step.name)
        column = entity.by_wire.get(step.name)
        if column is None:
            raise (
                no_property(step.name, entity.name) if call.request.method != "GET" else no_segment(step.name)
            )
        if call.request.method == "GET":
            self.org.allow("Read", entity)
            return reading.property_value(entity, row, call.base, column, raw=tail == ["$value"])
        self._match(call, row)
        if call.request.method == "PUT" and column.kind != "lookup":
            body = read_body(call.request.body)
            if "value" not in body:
                raise bad_payload("The property 'value' was expected.")
            self.writer.update(entity, row, {column.name: body["value"]}, self.caller(call))
        elif call.request.method == "DELETE" and column.kind != "lookup":
            self.writer.clear(entity, row, column, self.caller(call))
        else:
            raise Refused(
                405,
                "",
                f"The requested resource does not support http method '{call.request.method}'.",
                {"Allow": "GET, PUT, DELETE"},
            )
        return Response(204, {"OData-Version": "4.0"})

    def _lookup(self, call: Call, entity: Entity, row: Row, tail: list[str]) -> Response:
        """``/accounts(id)/primarycontactid``: the row behind it; with ``/$ref`` the link itself."""
        name = call.path[1].name
        lookup, target_name = entity.navigation[name]
        method = call.request.method
        if tail == ["$ref"] and method == "DELETE":
            self.writer.clear(entity, row, lookup, self.caller(call))
            return Response(204, {"OData-Version": "4.0"})
        if tail == ["$ref"] and method == "PUT":
            url = read_body(call.request.body).get("@odata.id")
            self.writer.update(entity, row, {f"{name}@odata.bind": url}, self.caller(call))
            return Response(204, {"OData-Version": "4.0"})
        if method != "GET":
            raise Refused(
                405, "", f"The requested resource does not support http method '{method}'.", {"Allow": "GET"}
            )
        if name == "ownerid":  # one name for users and teams
            target_name = str(row.values.get(lookup.type_key))
        other = reading.related(self.org, row, lookup, target_name)
        if other is None:
            return Response(204, {"OData-Version": "4.0"})
        target = TABLES[target_name]
        if tail == ["$ref"]:
            return answer(
                200,
                {
                    "@odata.context": f"{call.base}/$metadata#$ref",
                    "@odata.id": f"{call.base}/{target.set_name}({other.id})",
                },
            )
        return reading.single(self.org, target, other, call.base, call.query, call.preferences, None)

    def _children(self, call: Call, entity: Entity, row: Row, name: str) -> Response:
        other, back = collections(entity)[name]
        self.org.allow("Read", other)
        rows, _ = reading.matching(self.org, other, call.query)
        mine = [
            r
            for r in rows
            if r.values.get(back.wire) == row.id and r.values.get(back.type_key) in entity.names
        ]
        if (top := call.query.get("$top")) is not None:
            mine = mine[: positive(top, "$top")]
        render = renderer(self.org, selected(other, call.query.names("$select")), call.preferences)
        return answer(
            200,
            {"@odata.context": f"{call.base}/$metadata#{other.set_name}", "value": [render(r) for r in mine]},
        )
