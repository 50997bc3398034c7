"""The contract between the hub and a remote system: what a connector declares and the verbs it answers.

A connector knows nothing of storage or sync. It speaks through a `Transport`, gets tokens kept by a
`TokenStore`, and its ways (paging, changes, deletes) are declared facts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, Protocol

from crm_core.errors import (
    BadAnswer,
    BadRequest,
    HubError,
    Misconfigured,
    NotBegun,
    NotFound,
    NotSupported,
    Recovery,
)
from crm_core.frozen import frozen_dataclass
from crm_core.model import filters
from crm_core.model.entities import ENTITIES
from crm_core.model.expand import Expansion, refuse
from crm_core.model.filters import Node
from crm_core.model.json_text import parse_json
from crm_core.model.mapping import EntityMap, NativeField, Navigation
from crm_core.model.options import Order
from crm_core.model.overrides import effective
from crm_core.model.record import NOTHING
from crm_core.model.record_event import RecordEvent
from crm_core.model.xml_text import is_xml, parse_xml
from crm_core.ports import Clock, Ids, Pool

SEARCH_VALUES = 50
"""How many values one search asks for."""
MANY_WIDTH = 4
"""Calls at a time that one caller's many writes make: others of the connection want their turn too."""

Cursor = Mapping[str, Any]
"""The place in a feed: JSON that only the connector reads."""

UNKNOWN: Final = object()
"""The value of a field that an answer does not tell: null would say that there is none."""

Verb = Literal["create", "update", "delete"]

FoundBy = Literal["id", "marker", ""]
"""By what a create whose answer was lost is found again; "": by neither."""

VersionKind = Literal["ordered", "coarse", "opaque"]
"""How versions of records compare: whole numbers that only grow; times of whole seconds; equal or not."""

STOPPING = frozenset({Recovery.WAIT, Recovery.RETRY, Recovery.ATTENTION})
"""An error with such a recovery is not one write's own: those after it would meet it too."""


@dataclass(frozen=True)
class Setting:
    """One thing that a connection of this system needs. `secret`: goes to the secrets, is never given back."""

    name: str
    label: str
    kind: Literal["text", "url"] = "text"
    required: bool = True
    secret: bool = False
    default: str = ""
    help: str = ""


@dataclass(frozen=True)
class Account:
    """What a connector is opened with: one connection's settings and secrets. Its repr shows no secret.

    `confirmed_origin`: one origin outside the declared ones that an Admin allows to receive the credentials.
    `maps`: by entity, the overrides of the declared map (model/overrides.py).
    """

    tenant: str
    uid: str
    settings: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    confirmed_origin: str = ""
    maps: Mapping[str, Mapping[str, Any]] = NOTHING


@dataclass(frozen=True)
class Request:
    """One HTTP request. `timeout`: seconds for the whole exchange. `repeatable`: sending it twice does no harm."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    timeout: float = 30.0
    repeatable: bool = True


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON, fractions as Decimal; raises BadAnswer if it is none.

        The message shows what came but none of it: a broken answer may hold a token or a record.
        """
        try:
            return parse_json(self.body)
        except (ValueError, RecursionError, ArithmeticError):
            kind = self.headers.get("content-type", "no content type")[:80]
            raise BadAnswer(
                f"The answer is not JSON: {len(self.body)} bytes, {kind}.", vendor_status=self.status
            ) from None

    def excerpt(self, length: int = 120) -> str:
        return self.body[:length].decode("utf-8", "replace")


class Transport(Protocol):
    """Sends one request to an address that the egress guard allows."""

    def send(self, request: Request, *, connection: str) -> Answer:
        """Any status is an answer. Raises Unavailable (no connection, timeout), BadAnswer (too long), BadRequest."""
        ...


class TokenStore(Protocol):
    """Keeps access tokens, encrypted, for all instances of the hub."""

    def get(self, tenant: str, uid: str) -> tuple[str, float] | None:
        """(token, expiry as epoch seconds) or None."""
        ...

    def put(self, tenant: str, uid: str, token: str, expires: float) -> None:
        """Also ends a claim."""
        ...

    def claim(self, tenant: str, uid: str, now: float, seconds: float) -> str:
        """Says to all instances that the caller is about to ask for a token; "" while another one is.

        What it gives is for `release`. A claim ends by itself after `seconds`: its holder may have died.
        `now`: epoch seconds.
        """
        ...

    def release(self, tenant: str, uid: str, claim: str) -> None:
        """Ends a claim that led to no token."""
        ...

    def drop(self, tenant: str, uid: str) -> None:
        """Forgets the token of a connection that is no more."""
        ...


@dataclass(frozen=True)
class Window:
    """So many calls in so many seconds that the system allows one connection. `left`: the answer's header that says how many
    are left, in lower case.
    """

    name: str
    calls: int
    seconds: int
    left: str = ""


@dataclass(frozen=True)
class Spent:
    """Calls of a connection that its processes have taken for themselves, in the window at hand and in the one before."""

    now: int = 0
    before: int = 0


class Ledger(Protocol):
    """What all instances of the hub have taken of the calls that a system allows."""

    def spent(self, tenant: str, uid: str, window: str, number: int) -> Spent:
        """`number`: of the window at hand, counted from the epoch."""
        ...

    def take(
        self, tenant: str, uid: str, window: str, number: int, calls: int, most: float, share: float
    ) -> Spent:
        """Takes a block of calls, unless with it more than `most` would be spent; `share` of those of the window before
        count. Gives what was spent before.
        """
        ...

    def drop(self, tenant: str, uid: str) -> None:
        """Forgets a connection that is no more."""
        ...


@dataclass(frozen=True)
class Tools:
    """What the hub hands to every connector."""

    transport: Transport
    tokens: TokenStore
    clock: Clock
    ids: Ids
    allow_loopback: bool = False
    ca_bundle: str = ""
    call_deadline: float = 100.0
    """Seconds for one verb with all its retries (the platform cuts an HTTP answer at 230 s)."""
    ledger: Ledger | None = None


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What may be told of an access token, which is never its text. Times are epoch seconds.

    `audience`: what it is for. `renews`: from when on another one is asked for. `fingerprint`: of its text, to tell
    two apart.
    """

    audience: str
    expires: float
    renews: float
    fingerprint: str


@frozen_dataclass(frozen=True, slots=True)
class Change:
    """What the remote says of one record: its canonical fields, or `fields` None for a delete.

    `version` is comparable as the connector declares; `etag` serves If-Match only. `raw`: the remote's own answer.
    `problem`: why the fields can't be read; the record is then set aside and the others go on.
    `marker`: what its create bore, where the system tells. `winner`: the remote id of the record that it became
    by a merge there, whether its own row is still told or not. `expanded`: by the names that were asked for, what they lead to: a list, one record, or None where there is none.
    """

    rid: str
    fields: Mapping[str, Any] | None
    version: str = ""
    modified: str = ""
    etag: str = ""
    raw: Mapping[str, Any] = NOTHING
    problem: str = ""
    marker: str = ""
    winner: str = ""
    expanded: "Mapping[str, Related | Change | None]" = NOTHING


@dataclass(frozen=True)
class Related:
    """The records that a list of an `expand` leads to. `more`: there are others, beyond what was asked for."""

    changes: Sequence[Change]
    more: bool


@dataclass(frozen=True)
class Page:
    """Changes, without `raw`, and the cursor after them. `more`: ask again at once; the cursor is then the next page's."""

    changes: Sequence[Change]
    cursor: Cursor
    more: bool


@dataclass(frozen=True)
class Query:
    """A question for records. Names may be canonical or the remote's own. `cursor`: goes on after a page.

    `count`: how many there are in all is wanted too, of a system that `counts`.
    """

    filter: Node | None = None
    select: tuple[str, ...] = ()
    orderby: tuple[Order, ...] = ()
    top: int = 100
    cursor: Cursor | None = None
    expand: tuple[Expansion, ...] = ()
    count: bool = False


@dataclass(frozen=True)
class Count:
    """How many records a query finds in all. `at_least`: the system stopped counting there, there may be more."""

    total: int
    at_least: bool


@dataclass(frozen=True)
class QueryPage:
    """Records of a query; `cursor` None at the end. `count`: if it was asked for."""

    items: Sequence[Change]
    cursor: Cursor | None
    count: Count | None = None


@dataclass(frozen=True)
class Step:
    """One item of an `expand`, found among what a connector declares. `target`: the map of where it leads."""

    asked: Expansion
    navigation: Navigation
    target: EntityMap


@dataclass(frozen=True)
class Write:
    """Canonical fields to write, and native properties without a canonical name.

    `key`: a UUID that a create bears if the system lets us choose, so that the same create is made once.
    One of many also says what it is: its `verb`, and of an update or delete the record (`rid`) and `if_match`.
    `marker`: text that a create bears if the system `marks`, by which it is found again.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    native: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    verb: Verb = "create"
    rid: str = ""
    if_match: str = ""
    marker: str = ""


STORED_HEADERS = frozenset(
    {
        "content-type",
        "user-agent",
        "webhook-id",
        "webhook-timestamp",
        "x-hubspot-request-timestamp",
        "aeg-event-type",
        "aeg-delivery-count",
        "aeg-subscription-name",
    }
)
STORED_PREFIXES = ("ce-", "x-ms-dynamics-", "x-ms-correlation-")
"""Beside these no header is stored: any other one may hold a credential."""


@dataclass(frozen=True)
class Hook:
    """A webhook as it came. `headers`: names in lower case. `query`: of its address, decoded; a parameter that is given
    twice is not in it. `url`: the hub's public address as it was called, with its query, "" if the hub does not know it.
    """

    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    method: str = "POST"
    url: str = field(default="", repr=False)

    def json(self) -> Any:
        """The body as JSON, fractions as Decimal; raises BadAnswer if it is none."""
        return Answer(200, self.headers, self.body).json()

    def tree(self) -> Any:
        """The body as JSON or, if its type says so, as XML that is read like JSON; raises BadAnswer if it is neither."""
        if not is_xml(self.headers.get("content-type", "")):
            return self.json()
        try:
            return parse_xml(self.body)
        except ValueError as error:
            raise BadAnswer(f"The body is {error}.") from None


@dataclass(frozen=True)
class Event:
    """A hint that a record may have changed: it is read anew. `when`: the time that the system tells of it, or its id, by
    which repeats of one change are known; "" where it tells none, or another change of the record may have the same.
    `change`: of a system that can't be asked (`polls`), what it says: null for a field that it empties, and of what it
    does not speak of, nothing.
    """

    entity: str
    rid: str
    when: str = ""
    change: Change | None = None


@dataclass(frozen=True)
class Message:
    """What is delivered: the same bytes and the same id with every attempt. `headers`: more facts of it, and no secret."""

    id: str
    content_type: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Delivered:
    """What a receiver answered. `excerpt`: how its words begin, without our secrets. `retry_after`: seconds that it asks
    to be left alone.
    """

    status: int
    excerpt: str = ""
    retry_after: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one of many writes: the record as the remote now holds it (None after a delete), or the error."""

    change: Change | None = None
    error: HubError | None = None


class Connector(ABC):
    """The behaviour of one remote system. Subclasses are found by discovery; the module is called like `name`."""

    name: ClassVar[str]
    label: ClassVar[str]
    settings: ClassVar[tuple[Setting, ...]]
    origins: ClassVar[tuple[str, ...]]
    """Host suffixes that credentials may go to, such as ".dynamics.com"."""
    entities: ClassVar[Mapping[str, EntityMap]]
    pulled: ClassVar[tuple[str, ...]] = ()
    """The entities that a connection pulls unless it says otherwise; all if this names none."""
    versions: ClassVar[VersionKind]
    polls: ClassVar[bool] = True
    """Its records can be asked for. If not, what its webhooks say is the change itself (`Event.change`)."""
    default_minutes: ClassVar[int] = 360
    """Minutes between two pulls unless the connection says otherwise."""
    concurrency: ClassVar[int] = 8
    """Calls of one connection at a time, in each process of the hub."""
    windows: ClassVar[tuple[Window, ...]] = ()
    """How many calls the system allows one connection in a time; for one that names none nothing is counted."""
    counts: ClassVar[bool] = False
    """A query can tell how many records it finds in all."""
    batch_size: ClassVar[int] = 1
    """How many writes one remote call carries: many writes cost their number divided by this, rounded up."""
    own_ids: ClassVar[bool] = False
    """A create bears the `key` of its write as id: the same create once more makes no second record."""
    marks: ClassVar[bool] = False
    """A create bears the `marker` of its write, by which `marked` finds it."""
    unmarked: ClassVar[tuple[str, ...]] = ()
    """The entities whose creates bear neither, though those of others do."""
    list_lag_seconds: ClassVar[float] = 0.0
    """How old an answer of `changes` and `query` may be."""
    index_lag_seconds: ClassVar[float] = 0.0
    """How long after a create a search may not find it yet."""
    if_match: ClassVar[bool] = False
    """An update or delete with an etag is refused if the record moved on."""
    delivers_to: ClassVar[str] = ""
    """The setting with the address to which changes are delivered, of a system that is only told: each version of a
    record becomes a delivery, and nothing is read back. What such a connection pushes is delivered, not written.
    """
    tells_deletes: ClassVar[bool] = False
    """The feed of changes tells what was deleted, of what the remote tracks; else only a full run finds out."""

    @abstractmethod
    def __init__(self, account: Account, tools: Tools) -> None:  # for subclasses
        """Subclasses call this first: it makes the maps of the connection. Misconfigured: its overrides can't be."""
        self._maps = maps_of(type(self), account.maps)

    @classmethod
    def needed(cls, settings: Mapping[str, str]) -> frozenset[str]:  # noqa: ARG003  # for subclasses
        """The settings and secrets that a connection with these settings can't be without."""
        return frozenset(each.name for each in cls.settings if each.required)

    @abstractmethod
    def check(self) -> Mapping[str, Any]:
        """Proves that the credentials work by one call; gives who we are there. Raises what any call raises."""

    def token(self, *, fresh: bool = False) -> TokenFacts | None:  # noqa: ARG002  # for subclasses
        """Of the access token that the next call sends, which is asked for if there is none; `fresh`: of a new one.

        None for a system without access tokens. Raises what any call raises.
        """
        return None

    def reach(self) -> Mapping[str, Any]:
        """Proves by one call without credentials that the remote's host answers; gives which host that is.

        NotSupported: this system has no such call.
        """
        raise NotSupported(f"{self.label} can't be asked without credentials.")

    @abstractmethod
    def describe(self, entity: str) -> Mapping[str, NativeField]:
        """The remote's own properties of an entity, by name."""

    @abstractmethod
    def query(self, entity: str, query: Query) -> QueryPage: ...

    @abstractmethod
    def get(self, entity: str, rid: str, *, expand: Sequence[Expansion] = ()) -> Change:
        """Raises RecordGone if there is none."""

    @abstractmethod
    def get_many(self, entity: str, rids: Sequence[str]) -> Mapping[str, Change]:
        """Point reads batched by id; what does not exist is left out."""

    def search(self, entity: str, name: str, values: Sequence[str]) -> Sequence[Change]:
        """The records that have one of these values in a canonical text field, as far as an index knows them."""
        found: list[Change] = []
        cursor: Cursor | None = None
        for start in range(0, len(values), SEARCH_VALUES):
            part = tuple(
                filters.Literal(filters.Kind.TEXT, value) for value in values[start : start + SEARCH_VALUES]
            )
            while True:
                page = self.query(entity, Query(filters.AnyOf(name, part), cursor=cursor))
                found.extend(page.items)
                cursor = page.cursor
                if cursor is None:
                    break
        return found

    def marked(self, entity: str, markers: Sequence[str]) -> Sequence[Change]:  # noqa: ARG002  # for subclasses
        """The records whose create bore one of these markers, as far as an index knows them."""
        raise NotSupported(f"{self.label} keeps no markers.")

    @classmethod
    def found_by(cls, entity: str) -> FoundBy:
        """By what a create of an entity is found again: our id if the system takes both."""
        if entity in cls.unmarked:
            return ""
        if cls.own_ids:
            return "id"
        return "marker" if cls.marks else ""

    @classmethod
    def etag_of(cls, version: str) -> str:
        """What If-Match is given for a version, where the system does not say otherwise."""
        return version

    @abstractmethod
    def create(self, entity: str, write: Write) -> Change:
        """The record as the remote now holds it."""

    @abstractmethod
    def update(self, entity: str, rid: str, write: Write, if_match: str = "") -> Change:
        """The record as the remote now holds it; RecordGone if there is none, VersionMismatch if it moved on."""

    @abstractmethod
    def delete(self, entity: str, rid: str, if_match: str = "") -> None:
        """RecordGone if there is none, VersionMismatch if it moved on."""

    def write(
        self, entity: str, writes: Sequence[Write], pool: Pool, go_on: Callable[[], bool]
    ) -> list[Outcome]:
        """One outcome per write, in their order; they are carried out in any order, and no error of one is raised.

        After an error that those after it would meet too (STOPPING), and once `go_on` says no, none is begun any
        more: its outcome is NotBegun, and surely nothing was sent. The first write is begun whatever `go_on` says.
        A system that takes many writes in one call overrides this, and declares `batch_size`.
        """
        units = [self._unit(entity, index, write) for index, write in enumerate(writes)]
        return carried_out(units, {}, len(writes), pool, min(self.concurrency, MANY_WIDTH), go_on)

    def _unit(self, entity: str, index: int, write: Write) -> "Unit":
        return lambda: {index: self.write_one(entity, write)}

    def write_one(self, entity: str, write: Write) -> Outcome:
        """A write by the verb that it names; what the verb raises is the outcome."""
        try:
            if write.verb == "create":
                return Outcome(self.create(entity, write))
            if write.verb == "update":
                return Outcome(self.update(entity, write.rid, write, write.if_match))
            self.delete(entity, write.rid, write.if_match)
        except HubError as error:
            return Outcome(error=error)
        return Outcome()

    @abstractmethod
    def changes(self, entity: str, cursor: Cursor | None, *, size: int) -> Page:
        """Changes after the cursor, or every record without one, at most about `size` (a wish). CursorExpired."""

    def begin(self, entity: str, *, since: str, where: Node | None) -> Cursor:  # noqa: ARG002  # for subclasses
        """Where `changes` begins for a run that reads only what was modified since a time (RFC 3339, "": ever) and
        passes a filter. Raises BadRequest for what can't be asked, NotSupported where the system can't do it.
        """
        raise NotSupported(f"{self.label} can't read a part of '{entity}'; leave since and filter out.")

    def verify(self, hook: Hook) -> str:  # noqa: ARG002  # for subclasses
        """Proves that this connection's system sent a webhook; gives the fingerprint of the secret that proves it.

        Nothing of it is parsed before. Raises SignatureInvalid; NotSupported: this system sends none.
        """
        raise NotSupported(f"{self.label} sends no webhooks here; its changes come with the next pull.")

    def parse(self, hook: Hook) -> Sequence[Event]:  # noqa: ARG002  # for subclasses
        """The records that a verified webhook is about. Raises BadAnswer, and NotSupported as `verify` does."""
        raise NotSupported(f"{self.label} sends no webhooks here; its changes come with the next pull.")

    def joins(self, entity: str) -> Mapping[str, str]:  # noqa: ARG002  # for subclasses
        """The references of an entity of whose records its messages tell fields too, with the entity of each."""
        return NOTHING

    def message(self, delivery: str, event: RecordEvent) -> Message:  # noqa: ARG002  # for subclasses
        """What a delivery tells of an event. Calls nobody. Raises BadRequest for values that the mapping can't put.

        NotSupported: nothing is delivered to this system.
        """
        raise NotSupported(f"Nothing is delivered to {self.label}.")

    def deliver(self, message: Message) -> Delivered:  # noqa: ARG002  # for subclasses
        """Sends it once; any status is an answer. Raises what a call raises that gets none, NotSupported as above."""
        raise NotSupported(f"Nothing is delivered to {self.label}.")

    def tell(self, message: Message) -> Delivered:  # noqa: ARG002  # for subclasses
        """As `deliver`, but raises what an answer means that is no success: VendorError."""
        raise NotSupported(f"Nothing is delivered to {self.label}.")

    @abstractmethod
    def explain(self, answer: Answer) -> HubError:
        """The error that a refusing answer means."""

    @classmethod
    def entity_map(cls, entity: str) -> EntityMap:
        """Raises NotFound for a name that is no entity, NotSupported for one that this system lacks."""
        if entity not in ENTITIES:
            raise NotFound(f"There is no entity '{entity}'; known are {', '.join(ENTITIES)}.")
        if entity not in cls.entities:
            raise NotSupported(f"{cls.label} has no '{entity}' here; it has {', '.join(cls.entities)}.")
        return cls.entities[entity]

    def map(self, entity: str) -> EntityMap:
        """The map of this connection, its overrides included; raises what `entity_map` does."""
        declared = self.entity_map(entity)
        return self._maps.get(entity, declared)

    def steps(self, entity: str, expand: Sequence[Expansion]) -> tuple[Step, ...]:
        """What an `expand` asks for, in its order. Raises BadRequest for a way that is not declared, one asked for
        twice, or an option that means nothing there; NotSupported where nothing is declared.
        """
        emap = self.map(entity)
        if expand and not emap.navigations:
            raise NotSupported(f"{self.label} can't expand '{entity}'; ask for the others by their ids.")
        steps: dict[str, Step] = {}
        for each in expand:
            found = emap.navigation(each.name)
            if found is None:
                known = ", ".join(
                    way.native + (f" ({way.field})" if way.field else "") for way in emap.navigations
                )
                raise refuse(f"'{each.name}' leads nowhere from {entity}; known are {known}.")
            if found.native in steps:
                other = steps[found.native].asked.name
                raise refuse(f"'{other}' and '{each.name}' are the same; name one of them.")
            if each.for_lists_only and not found.many:
                raise refuse(
                    f"'{each.name}' leads to one {found.target}; leave {', '.join(each.for_lists_only)} out."
                )
            steps[found.native] = Step(each, found, self.map(found.target))
        return tuple(steps.values())


def maps_of(kind: type[Connector], documents: Mapping[str, Mapping[str, Any]]) -> Mapping[str, EntityMap]:
    """The maps of the entities with overrides. Misconfigured: they fit no more, for what they rest on has changed."""
    try:
        return {
            entity: effective(kind.entity_map(entity), document, where=f"mappings.{entity}")
            for entity, document in documents.items()
        }
    except BadRequest as error:
        raise Misconfigured(f"The mapping fits no more. {error.message}", errors=error.errors) from None


Unit = Callable[[], Mapping[int, Outcome]]
"""Carries out some of many writes; what became of each by its index. It raises nothing that is a write's outcome."""


def carried_out(
    units: Sequence[Unit],
    settled: Mapping[int, Outcome],
    total: int,
    pool: Pool,
    width: int,
    go_on: Callable[[], bool],
) -> list[Outcome]:
    """One outcome for each of `total` writes, in their order: `settled` before anything is sent, or of a unit.

    How a unit comes to be not begun: `Connector.write`.
    """
    met: list[HubError] = []

    def one(index: int) -> Mapping[int, Outcome]:
        if met or (index and not go_on()):
            return {}
        found = units[index]()
        met.extend(
            each.error
            for each in found.values()
            if each.error is not None and each.error.recovery in STOPPING
        )
        return found

    outcomes = dict(settled)
    for found in pool.map(one, range(len(units)), width):
        outcomes.update(found)
    left = (
        not_begun(met[0])
        if met
        else NotBegun("Was not begun. The time for this batch is over; send it in another one.")
    )
    return [outcomes.get(index) or Outcome(error=left) for index in range(total)]


def not_begun(cause: HubError) -> NotBegun:
    """The outcome of a write that was not sent because of what another one met."""
    return NotBegun(f"Was not begun. {cause.message}", retry_after=getattr(cause, "retry_after", None))
