"""Tenants and connections, as data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from crm_core.errors import BadRequest

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A connection's uid looks like this, so a slug must not."""

Direction = Literal["pull", "push", "both"]
"""`pull`: from the remote system into the hub. `push`: from the hub to it, and nothing of it is read."""
Policy = Literal["newest", "remote", "local", "manual", "skip"]
"""What decides where both sides changed a field. `manual`: a person. `skip`: a person, for the whole change."""
POLICIES: Mapping[str, Policy] = {
    **{name: name for name in get_args(Policy)},
    "last-write-wins": "newest",
    "timestamp": "newest",
    "dynamics-wins": "remote",
    "local-wins": "local",
}
"""Every name that a policy can be asked for by."""
Deletes = Literal["ignore", "mark", "propagate"]
"""What a delete at the remote does: nothing, `deleted_at` in the hub, or a delete everywhere."""


def check_name(value: str, parameter: str) -> str:
    """The value, if it can name a tenant or a connection; raises BadRequest that names `parameter`."""
    if not _NAME.fullmatch(value) or _UUID.fullmatch(value):
        raise BadRequest.field(
            parameter,
            f"{parameter}: expected a lower-case letter, then at most 39 letters, digits, '-' or '_'.",
        )
    return value


@dataclass(frozen=True)
class Tenant:
    """An organisation. A type, not text, so that no call of the store can forget it."""

    name: str

    def __post_init__(self) -> None:
        check_name(self.name, "tenant")


DEFAULT_TENANT = Tenant("default")


@dataclass(frozen=True)
class Schedule:
    """When a connection is pulled: every `minutes`, or by `cron` (NCRONTAB, UTC). Neither: only by hand."""

    minutes: int | None = None
    cron: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in (("minutes", self.minutes), ("cron", self.cron))
            if value is not None
        }


@dataclass(frozen=True)
class EntitySync:
    """How one entity of a connection is kept in step.

    `policies`: of single fields, before `policy`. `match`: the field by which a record that is new here may be one
    that the hub has, "" for none. `filter`: OData text; only records that pass are pushed.
    Where it delivers: `events`: the kinds of events that are, all of them if it names none; `becomes`: OData text that has
    to hold of the record now and did not hold of the version before.
    """

    direction: Direction = "pull"
    policy: Policy = "newest"
    policies: Mapping[str, Policy] = field(default_factory=dict)
    deletes: Deletes = "mark"
    match: str = ""
    filter: str = ""
    events: tuple[str, ...] = ()
    becomes: str = ""

    @property
    def pulls(self) -> bool:
        return self.direction != "push"

    @property
    def pushes(self) -> bool:
        return self.direction != "pull"

    def to_json(self) -> dict[str, Any]:
        data = {**vars(self), "policies": dict(self.policies), "events": list(self.events)}
        return {name: value for name, value in data.items() if value or name not in ("events", "becomes")}

    @classmethod
    def from_json(cls, data: "str | Mapping[str, Any]") -> "EntitySync":
        """Also of what an older version stored, the direction alone."""
        if not isinstance(data, Mapping):
            return cls(data)  # type: ignore[arg-type]
        return cls(**{**data, "events": tuple(data.get("events", ()))})


@dataclass(frozen=True)
class Connection:
    """One account at one remote system. `slug` is for people; `uid` never changes and names it everywhere else.

    `hooks`: the addresses of its webhooks, each with the time until which it is good, "" for good.
    `mappings`: by entity, the overrides of its mapping that hold now: {"version", "saved_at", "document"}.
    `more`: what newer code wrote, kept as it is. `entities`: by canonical name. `secrets_version`: of the bundle it was saved with. `generation`: how often its caches were cleared.
    """

    tenant: Tenant
    uid: str
    slug: str
    connector: str
    settings: Mapping[str, str]
    entities: Mapping[str, EntitySync]
    schedule: Schedule
    created_at: str
    updated_at: str
    secrets_version: str = ""
    generation: int = 0
    confirmed_origin: str = ""
    paused: bool = False
    secret_names: tuple[str, ...] = ()
    mappings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hooks: Mapping[str, str] = field(default_factory=dict, repr=False)
    more: Mapping[str, Any] = field(default_factory=dict)
    etag: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        """As it is stored, the tenant and the ETag aside. Secrets are elsewhere."""
        return {
            **self.more,
            "uid": self.uid,
            "slug": self.slug,
            "connector": self.connector,
            "settings": dict(self.settings),
            "entities": {name: each.to_json() for name, each in self.entities.items()},
            "schedule": self.schedule.to_json(),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "secrets_version": self.secrets_version,
            "generation": self.generation,
            "confirmed_origin": self.confirmed_origin,
            "paused": self.paused,
            "secret_names": list(self.secret_names),
            **(
                {"mappings": {name: dict(saved) for name, saved in self.mappings.items()}}
                if self.mappings
                else {}
            ),
            **({"hooks": dict(self.hooks)} if self.hooks else {}),
        }

    @classmethod
    def from_json(cls, tenant: Tenant, data: Mapping[str, Any], etag: str) -> "Connection":
        own = set(cls.__dataclass_fields__) - {"tenant", "etag", "more"}
        known = {name: value for name, value in data.items() if name in own}
        known["entities"] = {name: EntitySync.from_json(each) for name, each in data["entities"].items()}
        known["schedule"] = Schedule(**data["schedule"])
        known["secret_names"] = tuple(data.get("secret_names", ()))
        more = {name: value for name, value in data.items() if name not in own}
        return cls(**{**known, "tenant": tenant, "more": more, "etag": etag})
