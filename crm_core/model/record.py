"""Records and links: the hub's version of one thing, with what each connection knows of it. Pure.

The exact meaning of every field of a link, and which follow from which, is in docs/sync.md.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final, Literal

from crm_core.frozen import frozen_dataclass
from crm_core.model.entities import ENTITIES
from crm_core.model.json_text import ordered_json

SCHEMA_VERSION = 1
HUB = "hub"
"""The origin of what an app wrote; every other origin is a connection's uid."""


class _Nothing(dict[str, Any]):
    """An empty mapping that stays empty, and can be the default of a field: a factory would be called for every one."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # it never changes

    def __setitem__(self, key: str, value: Any) -> None:
        raise TypeError("what is nothing stays nothing")


NOTHING: Mapping[str, Any] = _Nothing()
"""What is empty in most of a million records is one and the same."""

UNKNOWN: Final[Mapping[str, Any]] = {"unknown": True}
"""In `behind`: nobody knows what the remote holds. It is written as it is and equals nothing."""

LinkState = Literal["new", "creating", "live", "gone"]


@frozen_dataclass(frozen=True, slots=True)
class Stamp:
    """When a value was set (RFC 3339, UTC) and from where."""

    time: str
    origin: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that may be at the remote or may still arrive there.

    `until`: hub time after which it is certainly dead. `ver`: the link's version when it was saved. `read`: a read was
    merged since then. `n`: how many are open at most; the token is the newest one's.
    """

    token: str
    until: str
    ver: str = ""
    read: bool = False
    n: int = 1

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"token": self.token, "until": self.until, "ver": self.ver, "n": self.n}
        return {**data, "read": True} if self.read else data


@frozen_dataclass(frozen=True, slots=True)
class Link:
    """A record's state at one connection.

    `rid`, `ver`: the remote's id and the version of the newest snapshot merged. `seen`: hub time at which that
    snapshot's response had arrived. `former`: earlier remote ids; `gen`: how often it was made anew.
    `behind`, `echo`: field -> the value that the remote holds where it differs from ours, to be sent or not.
    `inflight`: field -> the values that may be there or may still arrive. `attempt`, `deleting`: our own open write and
    delete. `conflict`: field -> {theirs, base, time} that waits for a person. `refused`: field -> our value that the
    remote rejects; `why`: field -> what the
    remote said of that, {cause, message, time}, with `discarded` {by, time, reason} once nobody is to be asked about it. `waits`: field -> the record, as "entity~id", that has to be there first. `wants`: the connection
    is to have this record. `mapping`: the version of the connection's overrides that held when
    this was written. `etag`: of `ver`, where it can't be told from that. `parked`: {cause, time, failures} of a link that gave up, with `discarded` as in `why`; `failed`: {n, cause, next}.
    `told`: of a system that can't be asked, field -> the version of the webhook that told of it last.
    `found`: the row was not made for this record alone: it was there, or was another record's, when they were linked.
    `more`: properties that a newer version of this code wrote; kept as they are.
    """

    state: LinkState
    rid: str = ""
    ver: str = ""
    seen: str = ""
    behind: Mapping[str, Any] = NOTHING
    echo: Mapping[str, Any] = NOTHING
    former: tuple[str, ...] = ()
    gen: int = 0
    inflight: Mapping[str, Sequence[Any]] = NOTHING
    attempt: Attempt | None = None
    deleting: Attempt | None = None
    conflict: Mapping[str, Mapping[str, Any]] = NOTHING
    refused: Mapping[str, Any] = NOTHING
    waits: Mapping[str, str] = NOTHING
    wants: bool = False
    mapping: int = 0
    etag: str = ""
    parked: Mapping[str, Any] = NOTHING
    failed: Mapping[str, Any] = NOTHING
    why: Mapping[str, Mapping[str, Any]] = NOTHING
    told: Mapping[str, str] = NOTHING
    found: bool = False
    more: Mapping[str, Any] = NOTHING

    def held(self, name: str, ours: Any) -> Any:
        """What the remote was last known to hold for a field: the base of the merge."""
        if name in self.behind:
            return self.behind[name]
        return self.echo.get(name, ours)

    @property
    def asks(self) -> list[str]:
        """The refused fields that a person is to be asked about."""
        return [name for name in self.refused if "discarded" not in self.why.get(name, NOTHING)]

    @property
    def gave_up(self) -> bool:
        """Whether it is parked, and a person is to be asked about that."""
        return bool(self.parked) and "discarded" not in self.parked

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = dict(self.more)
        names = _FIRST if _rest_of(self) == _USUAL else LINK_FIELDS
        for name in names:
            if value := getattr(self, name):
                data[name] = value.to_json() if isinstance(value, Attempt) else value
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Link":
        known = {name: data[name] for name in LINK_FIELDS if name in data}
        for name in ("attempt", "deleting"):
            if name in known:
                known[name] = Attempt(**known[name])
        if "former" in known:
            known["former"] = tuple(known["former"])
        if len(known) == len(data):
            return cls(**known)
        more = {name: value for name, value in data.items() if name not in LINK_FIELDS}
        return cls(**known, more=more)


LINK_FIELDS = tuple(name for name in Link.__dataclass_fields__ if name != "more")
_FIRST = ("state", "rid", "ver", "seen", "wants")
_REST = tuple(name for name in LINK_FIELDS if name not in _FIRST)
_USUAL = tuple(Link.__dataclass_fields__[name].default for name in _REST)
"""What most of a million links have in the other fields."""
_rest_of: Callable[[Link], tuple[Any, ...]] = attrgetter(*_REST)


@frozen_dataclass(frozen=True, slots=True)
class Record:
    """The hub's version of one thing.

    `fields`: canonical values, empty ones left out. `stamp`: of every field that `stamps`
    does not name. `version` counts changes of fields, of `dead` and of decided conflicts. `created`: time, origin, run.
    `reviews`: what a person is asked, {kind, connection, record, decided}: kind `match` (may be the same as another
    record) or `merge` (became another one at the remote). `flips`: field that two connections change in turns ->
    {n: how often it went back, since, was: the value before, as a digest}.
    """

    id: str
    entity: str
    fields: Mapping[str, Any]
    stamp: Stamp
    created: Mapping[str, str]
    version: int = 1
    stamps: Mapping[str, Stamp] = NOTHING
    dead: bool = False
    links: Mapping[str, Link] = NOTHING
    reviews: tuple[Mapping[str, Any], ...] = ()
    flips: Mapping[str, Mapping[str, Any]] = NOTHING
    more: Mapping[str, Any] = NOTHING

    def stamp_of(self, name: str) -> Stamp:
        return self.stamps.get(name, self.stamp)

    def with_link(self, connection: str, link: Link) -> "Record":
        return replace(self, links={**self.links, connection: link})

    def to_json(self) -> str:
        """The record as it is stored, ids aside; keys in a fixed order so that equal records are equal texts."""
        data = {
            **self.more,
            "v": SCHEMA_VERSION,
            "fields": self.fields,
            "stamp": [self.stamp.time, self.stamp.origin],
            "created": self.created,
            "version": self.version,
            "links": {uid: link.to_json() for uid, link in self.links.items()},
        }
        if self.stamps:
            data["stamps"] = {name: [stamp.time, stamp.origin] for name, stamp in self.stamps.items()}
        if self.dead:
            data["dead"] = True
        if self.reviews:
            data["reviews"] = self.reviews
        if self.flips:
            data["flips"] = self.flips
        return ordered_json(data)

    @classmethod
    def from_json(cls, record_id: str, entity: str, text: str | bytes) -> "Record":
        data: dict[str, Any] = json.loads(text)
        data.pop("v")
        return cls(
            id=record_id,
            entity=entity,
            fields=data.pop("fields"),
            stamp=Stamp(*data.pop("stamp")),
            created=data.pop("created"),
            version=data.pop("version"),
            stamps={name: Stamp(*stamp) for name, stamp in data.pop("stamps", {}).items()},
            dead=data.pop("dead", False),
            links={uid: Link.from_json(link) for uid, link in data.pop("links").items()},
            reviews=tuple(data.pop("reviews", ())),
            flips=data.pop("flips", NOTHING),
            more=data,
        )


def digest(value: Any) -> str:
    """What tells two values of a field apart, in a few characters."""
    return hashlib.sha256(ordered_json(value).encode()).hexdigest()[:16]


def same_value(entity: str, name: str, left: Any, right: Any) -> bool:
    """Whether two values of a field are one: as its type compares them; UNKNOWN is equal to nothing."""
    if isinstance(left, dict) or isinstance(right, dict):  # no value of a field is an object, UNKNOWN is
        return False
    kind = ENTITIES[entity].by_name.get(name)
    return bool(left == right) if kind is None else kind.same(left, right)


def is_sendable(record: Record, link: Link, name: str) -> bool:
    """Whether a field that the remote holds differently is to be sent there now."""
    if name not in link.behind or name in link.conflict or name in link.waits:
        return False
    ours = record.fields.get(name)
    if same_value(record.entity, name, link.behind[name], ours):
        return False
    return name not in link.refused or not same_value(record.entity, name, link.refused[name], ours)


def wants_push(record: Record, link: Link) -> bool:
    """Whether a push has something to do for a link: to write, to delete, or to find out what became of that."""
    if link.parked:
        return False
    if link.attempt or link.deleting:
        return True
    if not link.wants:
        return False
    if record.dead:
        return link.state in ("live", "creating")
    if link.state == "live":
        return any(is_sendable(record, link, name) for name in link.behind)
    if link.state == "new":
        return not any(each["kind"] == "match" and not each.get("decided") for each in record.reviews)
    return link.state == "creating"


def has_open_create(content: object, connection: str) -> bool:
    """Whether a record may be made at a connection just now, or may have been, and nobody knows yet."""
    link = content.links.get(connection) if isinstance(content, Record) else None
    return link is not None and link.state == "creating" and link.attempt is not None


def open_items(record: Record) -> frozenset[tuple[str, str]]:
    """What the record waits for: (kind, connection uid) of each open item; pure."""
    found: set[tuple[str, str]] = set()
    for uid, link in record.links.items():
        if wants_push(record, link):
            found.add(("push", uid))
        if link.conflict:
            found.add(("conflict", uid))
        if link.refused and link.asks:
            found.add(("refused", uid))
        if link.waits:
            found.add(("wait", uid))
        if link.gave_up:
            found.add(("parked", uid))
    found.update(("review", each["connection"]) for each in record.reviews if not each.get("decided"))
    return frozenset(found)
