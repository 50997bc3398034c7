"""Answers from the store while the remote system is down: only if the caller says stale=ok, and with their age.

The store holds canonical fields of what was pulled, so what only the remote can tell (a filter, an order, its own
answer) is refused beforehand, whether it is down or not: the same request always means the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from crm_core.errors import BadRequest, HubError, RateLimited, StoreUnavailable, Unavailable
from crm_core.functions.web import Call, Parameter
from crm_core.model.entities import Entity
from crm_core.model.fields import parse_instant, seconds_until
from crm_core.model.record import Record
from crm_core.storage import layout

if TYPE_CHECKING:
    from crm_core.connector import Change, Cursor
    from crm_core.hub import Hub
    from crm_core.model.mapping import EntityMap
    from crm_core.storage.state import States
    from crm_core.sync.engine import Opened

STALE = Parameter(
    "stale", "ok: while the system does not answer, answer from the store, with Warning and Age"
)
ONLY_REMOTE = ("filter", "orderby", "expand", "count", "raw")
T = TypeVar("T")
DOWN = (Unavailable, RateLimited)
PLACE = "stored"
"""Marks the cursor of a page that came from the store: what follows it comes from there too."""


@dataclass(frozen=True)
class Aged:
    """What the store answers. `as_of`: when it was last known to be the remote's (RFC 3339)."""

    items: "list[Change]"
    cursor: "Cursor | None"
    as_of: str

    def headers(self, hub: "Hub") -> Mapping[str, str]:
        """Warning as in RFC 7234 section 5.5.1, Age in seconds."""
        age = max(0, round((hub.clock.now() - parse_instant(self.as_of)).total_seconds()))
        return {"Warning": f'110 crm-hub "Response is stale: as of {self.as_of}"', "Age": str(age)}


class Store:
    """The stored side of one live read; made only for a caller who said stale=ok."""

    def __init__(self, call: Call, opened: "Opened", entity: Entity) -> None:
        self._hub: Hub = call.hub
        self._tenant = call.tenant
        self._uid = opened.connection.uid
        self._emap: EntityMap = opened.connector.map(entity.name)
        self._entity = entity
        self._rids: dict[tuple[str, str], Any] = {}

    def or_live(self, live: Callable[[], T], stored: Callable[[], Aged | None]) -> T | Aged:
        """The remote's answer; if it does not answer what the store has, or the remote's error if that is nothing."""
        error = self._trouble()
        if error is None:
            try:
                return live()
            except DOWN as failed:
                error = failed
        try:
            aged = stored()
        except StoreUnavailable:
            aged = None
        if aged is None:
            raise error
        return aged

    @cached_property
    def _states(self) -> "States | None":
        return self._hub.states.read(self._tenant, self._uid)

    def _trouble(self) -> HubError | None:
        """The error that sync has met, while the connection is known not to answer: nobody need wait for it again."""
        try:
            states = self._states
        except StoreUnavailable:
            return None
        if states is None or states.connection.health != "unreachable" or not states.connection.not_before:
            return None
        wait = seconds_until(states.connection.not_before, self._hub.clock.now())
        if wait <= 0:
            return None
        problem = states.connection.problem
        return Unavailable(problem.message if problem else "The system does not answer.", retry_after=wait)

    def one(self, rid: str) -> Aged | None:
        """None if the store does not hold it: whether it exists, only the remote can tell."""
        as_of = self._as_of()
        change = None
        for form in dict.fromkeys((rid, rid.lower())):
            record_id = layout.derived_record_id(self._tenant, self._uid, self._entity.name, form)
            record = self._hub.records.find(self._tenant, self._entity.name, record_id)
            change = self._change(record) if record is not None else None
            if change is not None:
                break
        return Aged([change], None, as_of) if change is not None and as_of else None

    def page(self, cursor: "Cursor | None", top: int) -> Aged | None:
        """The first page. None if the store was never filled, or after a page of the remote's, in its order."""
        return self.after({PLACE: {}}, top) if cursor is None and self._as_of() else None

    def after(self, cursor: "Cursor", top: int) -> Aged:
        """The page after one from the store, in the order of the hub's ids."""
        records, following = self._hub.records.walk(self._tenant, self._entity.name, cursor[PLACE], top=top)
        items = [change for record in records if (change := self._change(record)) is not None]
        return Aged(items, {PLACE: following} if following is not None else None, self._as_of())

    def _as_of(self) -> str:
        state = self._states.entities.get(self._entity.name) if self._states else None
        return state.last_success if state else ""

    def _change(self, record: Record) -> "Change | None":
        """As the remote was last known to hold it; None for what is not, or no more, at this connection.

        Without an ETag: a write must not rest on what may be old.
        """
        from crm_core.connector import UNKNOWN, Change

        link = record.links.get(self._uid)
        if record.dead or link is None or link.state != "live":
            return None
        fields = {name: link.held(name, record.fields.get(name)) for name in self._emap.read_names}
        fields = dict(self._entity.with_references(fields, self._rid))
        if fields.get("lines"):
            fields["lines"] = [
                {name: value for name, value in line.items() if value is not UNKNOWN}
                for line in fields["lines"]
            ]
        return Change(link.rid, fields, link.ver)

    def _rid(self, entity: str, record_id: str) -> Any:
        """The remote's id of a record that is referred to; UNKNOWN if the hub can't name it."""
        from crm_core.connector import UNKNOWN

        if (entity, record_id) not in self._rids:
            record = self._hub.records.find(self._tenant, entity, record_id)
            link = record.links.get(self._uid) if record is not None else None
            self._rids[entity, record_id] = link.rid if link is not None else UNKNOWN
        return self._rids[entity, record_id]


def wanted(parameters: Mapping[str, str], emap: "EntityMap", select: tuple[str, ...]) -> bool:
    """Whether the caller takes an old answer; raises BadRequest for another word than ok, or for what the store can't say."""
    given = parameters.get("stale", "")
    if given not in ("", "ok"):
        raise BadRequest.field("stale", "stale: expected ok, or leave it out.")
    if not given:
        return False
    for name in ONLY_REMOTE:
        if parameters.get(name):
            raise BadRequest.field("stale", f"stale: the store can't answer '{name}'; leave one of them out.")
    for name in select:
        if emap.find(name) is None and name not in emap.companions:
            raise BadRequest.field("stale", f"stale: the store has no '{name}'; leave it out of select.")
    return True
