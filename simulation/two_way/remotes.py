"""The connector that the hub speaks through to a server in memory, and the maps of its entities."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from crm_core.connector import Account, Change, Connector, Cursor, Page, Query, QueryPage, Tools, Write
from crm_core.errors import HubError, NotSupported, RecordGone
from crm_core.model.entities import ENTITIES
from crm_core.model.mapping import EntityMap, FieldMap, Target
from crm_core.model.matchkeys import match_key
from simulation.two_way.servers import KINDS, NAMES, ONE_WAY, REFERENCES, Server, ServerRow, stored


class SimMap(EntityMap):
    """The map of an entity; what the system makes of a value is declared here."""

    cut: ClassVar[bool] = False

    def canon(self, name: str, value: Any) -> Any:
        if self.cut and isinstance(value, str):
            return stored(name, value)
        return value


class CutMap(SimMap):
    cut = True


@dataclass(frozen=True)
class Going:
    """A write on its way. `where`: the remote id; of a create the id or the marker that it bears."""

    entity: str
    where: str
    fields: Mapping[str, Any] = field(default_factory=dict)


Wire = Callable[[str, Callable[[], Any], Going | None], Any]
"""Carries out a call at a remote, with what may befall it: (what it is, the call, what it writes)."""
Way = Literal["both", "in", "out"]
"""How a connection maps a field: also inwards or outwards only."""


def connector_class(letter: str, way: Way = "both") -> type["SimConnector"]:
    """The connector of a kind of system; `way`: that of ONE_WAY."""
    kind = KINDS[letter]
    emap = CutMap if kind.cut else SimMap
    entities = {
        name: emap(
            ENTITIES[name], name, "id", "modified", "version", tuple(_field(each, way) for each in names)
        )
        for name, names in NAMES.items()
    }
    return type(
        f"Sim{letter.upper()}",
        (SimConnector,),
        {
            "name": f"sim{letter}", "label": letter, "entities": entities, "versions": kind.versions,
            "own_ids": kind.own_ids, "marks": kind.marks, "if_match": kind.if_match,
            "tells_deletes": kind.tells_deletes, "list_lag_seconds": kind.list_lag,
            "index_lag_seconds": kind.index_lag, "hidden": ONE_WAY if way == "out" else "",
        },
    )  # fmt: skip


def _field(name: str, way: Way) -> FieldMap:
    targets = (Target(REFERENCES[name], REFERENCES[name], name, "{id}", name),) if name in REFERENCES else ()
    one_way = name == ONE_WAY
    return FieldMap(
        name,
        name,
        targets=targets,
        writable=not one_way or way != "in",
        readable=not one_way or way != "out",
    )


class SimConnector(Connector):
    """One connection's view of a server. `wire` is set by whoever opens it."""

    settings = ()
    origins = ()
    concurrency = 2
    hidden: ClassVar[str] = ""
    """The field that no answer tells."""

    server: Server
    wire: Wire

    def __init__(self, account: Account, tools: Tools) -> None:
        """Never opened the usual way."""

    @classmethod
    def opened(cls, server: Server, wire: Wire) -> "SimConnector":
        made = cls.__new__(cls)
        made.server, made.wire = server, wire
        return made

    def _call(self, what: str, call: Callable[[], Any], writes: Going | None = None) -> Any:
        return self.wire(f"{self.server.name} {what}", call, writes)

    def _told(self, row: ServerRow) -> Change:
        return self._shown(self.server.change(row, row.now))

    def _shown(self, change: Change) -> Change:
        if change.fields is None or self.hidden not in change.fields:
            return change
        shown = {name: value for name, value in change.fields.items() if name != self.hidden}
        return replace(change, fields=shown)

    def check(self) -> Mapping[str, Any]:
        return {}

    def describe(self, entity: str) -> Mapping[str, Any]:  # noqa: ARG002
        return {}

    def query(self, entity: str, query: Query) -> QueryPage:  # noqa: ARG002
        raise NotSupported("not asked for here")

    def get(self, entity: str, rid: str, **_: Any) -> Change:
        found = self.get_many(entity, [rid])
        if rid not in found:
            raise RecordGone("gone")
        return found[rid]

    def get_many(self, entity: str, rids: Sequence[str]) -> Mapping[str, Change]:
        def call() -> Mapping[str, Change]:
            rows = [row for rid in dict.fromkeys(rids) if (row := self.server.get(entity, rid)) is not None]
            for row in rows:
                row.looks.append(self.server.scheduler.now)
            return {row.rid: self._told(row) for row in rows}

        found: Mapping[str, Change] = self._call(f"get {entity} {' '.join(rids)}", call)
        return found

    def search(self, entity: str, name: str, values: Sequence[str]) -> Sequence[Change]:
        wanted = {match_key(name, value) for value in values}

        def call() -> list[Change]:
            found = self.server.search(entity, lambda fields: match_key(name, fields.get(name)) in wanted)
            return [self._told(row) for row in found]

        found: Sequence[Change] = self._call(f"search {entity} {values}", call)
        return found

    def marked(self, entity: str, markers: Sequence[str]) -> Sequence[Change]:
        def call() -> list[Change]:
            rows = [row for row in self.server.known_to_index(entity) if row.marker in markers]
            return [self._told(row) for row in rows if row.now.fields is not None]

        found: Sequence[Change] = self._call(f"search {entity} by marker", call)
        return found

    def create(self, entity: str, write: Write) -> Change:
        def call() -> Change:
            row = self.server.create(entity, write.fields, "hub", key=write.key, marker=write.marker)
            return self._told(row)

        made: Change = self._call(
            f"create {entity} {write.fields} {write.key or write.marker}",
            call,
            Going(entity, write.key or write.marker, write.fields),
        )
        return made

    def update(self, entity: str, rid: str, write: Write, if_match: str = "") -> Change:
        def call() -> Change:
            row = self.server.update(entity, rid, write.fields, "hub", if_match)
            return self._told(row)

        made: Change = self._call(
            f"update {entity} {rid} {write.fields} if {if_match}", call, Going(entity, rid, write.fields)
        )
        return made

    def delete(self, entity: str, rid: str, if_match: str = "") -> None:
        self._call(
            f"delete {entity} {rid} if {if_match}",
            lambda: self.server.delete(entity, rid, "hub", if_match),
            Going(entity, rid),
        )

    def changes(self, entity: str, cursor: Cursor | None, *, size: int) -> Page:
        found: Page = self._call(f"changes {entity} {cursor}", lambda: self.server.page(entity, cursor, size))
        return replace(found, changes=[self._shown(each) for each in found.changes])

    def explain(self, answer: Any) -> HubError:
        raise NotImplementedError
