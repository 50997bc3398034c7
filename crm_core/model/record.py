"""Records and links: the hub's version of one thing, with what each connection knows of it. Pure.

The exact meaning of every field of a link is in docs/architecture.md; only what a pull needs is here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

SCHEMA_VERSION = 1
HUB = "hub"
"""The origin of what an app wrote; every other origin is a connection's uid."""

_encode = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, separators=(",", ":"), sort_keys=True
).encode
"""Made once: json.dumps makes an encoder for every call that is not by its defaults."""

NOTHING: Mapping[str, Any] = MappingProxyType({})
"""What is empty in most of a million records is one and the same."""

LinkState = Literal["new", "creating", "live", "gone"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a value was set (RFC 3339, UTC) and from where."""

    time: str
    origin: str


@dataclass(frozen=True, slots=True)
class Link:
    """A record's state at one connection.

    `rid`, `ver`: the remote's id and the version of the newest snapshot merged. `seen`: hub time at which that
    snapshot's response had arrived. `behind`, `echo`: field -> the value that the remote holds where it differs
    from ours, to be sent or not. `more`: properties that a newer version of this code wrote; kept as they are.
    """

    state: LinkState
    rid: str = ""
    ver: str = ""
    seen: str = ""
    behind: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    echo: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    more: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    def held(self, name: str, ours: Any) -> Any:
        """What the remote was last known to hold for a field: the base of the merge."""
        if name in self.behind:
            return self.behind[name]
        return self.echo.get(name, ours)

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = dict(self.more)
        for name in _LINK_FIELDS:
            if value := getattr(self, name):
                data[name] = value
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Link":
        known = {name: data[name] for name in _LINK_FIELDS if name in data}
        more = {name: value for name, value in data.items() if name not in _LINK_FIELDS}
        return cls(**known, more=more)


_LINK_FIELDS = ("state", "rid", "ver", "seen", "behind", "echo")


@dataclass(frozen=True, slots=True)
class Record:
    """The hub's version of one thing.

    `fields`: canonical values, empty ones left out. `stamp`: of every field that `stamps`
    does not name. `version` counts changes of fields and of `dead`. `created`: time, origin, run.
    """

    id: str
    entity: str
    fields: Mapping[str, Any]
    stamp: Stamp
    created: Mapping[str, str]
    version: int = 1
    stamps: Mapping[str, Stamp] = field(default_factory=lambda: NOTHING)
    dead: bool = False
    links: Mapping[str, Link] = field(default_factory=lambda: NOTHING)
    more: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

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
        return _encode(data)

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
            more=data,
        )


def open_items(record: Record) -> frozenset[tuple[str, str]]:
    """What the record waits for: (kind, connection uid) of each open item; pure.

    A link of a connection that is only pulled wants nothing, and today every connection is.
    """
    return frozenset(("push", uid) for uid, link in record.links.items() if link.state in ("new", "creating"))
