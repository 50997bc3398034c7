"""Tenants and connections, as data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from crm_core.errors import BadRequest

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A connection's uid looks like this, so a slug must not."""

Direction = Literal["pull"]
"""Records come from the remote system into the hub."""


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
class Connection:
    """One account at one remote system. `slug` is for people; `uid` never changes and names it everywhere else.

    `more`: what newer code wrote, kept as it is. `entities`: canonical name -> direction. `secrets_version`: of the bundle it was saved with. `generation`: how often its caches were cleared.
    """

    tenant: Tenant
    uid: str
    slug: str
    connector: str
    settings: Mapping[str, str]
    entities: Mapping[str, Direction]
    schedule: Schedule
    created_at: str
    updated_at: str
    secrets_version: str = ""
    generation: int = 0
    confirmed_origin: str = ""
    paused: bool = False
    secret_names: tuple[str, ...] = ()
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
            "entities": dict(self.entities),
            "schedule": self.schedule.to_json(),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "secrets_version": self.secrets_version,
            "generation": self.generation,
            "confirmed_origin": self.confirmed_origin,
            "paused": self.paused,
            "secret_names": list(self.secret_names),
        }

    @classmethod
    def from_json(cls, tenant: Tenant, data: Mapping[str, Any], etag: str) -> "Connection":
        own = set(cls.__dataclass_fields__) - {"tenant", "etag", "more"}
        known = {name: value for name, value in data.items() if name in own}
        known["schedule"] = Schedule(**data["schedule"])
        known["secret_names"] = tuple(data.get("secret_names", ()))
        more = {name: value for name, value in data.items() if name not in own}
        return cls(**{**known, "tenant": tenant, "more": more, "etag": etag})
