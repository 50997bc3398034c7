"""What the places have in common where something waits for a person because it failed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from typing import Any, Protocol

HUB = "hub"
"""Stands in a cause for the hub itself, where others have a connection's uid."""
Place = Mapping[str, Any]
"""Where a list goes on; {} is the beginning."""


@dataclass(frozen=True)
class Waiting:
    """One piece of work that will not succeed by itself. `kind`: what it is; `code`, `field`: what it is grouped by, with the
    connection; `message`: the vendor's words, or ours; `about`: where to look. `ways`: what can be done about it.
    """

    id: str
    kind: str
    connection: str
    entity: str
    code: str
    field: str
    message: str
    time: str
    ways: tuple[str, ...]
    about: Mapping[str, Any] = dataclass_field(default_factory=dict)
    payload: str | None = dataclass_field(default=None, repr=False)

    @property
    def cause(self) -> str:
        return f"{self.connection or HUB}~{self.code}~{self.field}"


@dataclass(frozen=True)
class Wanted:
    """Which of them: of a connection, an entity, a cause, one of these codes, from a time (inclusive) until another."""

    connection: str = ""
    entity: str = ""
    cause: str = ""
    codes: tuple[str, ...] = ()
    since: str = ""
    until: str = ""

    def has(self, waiting: Waiting) -> bool:
        return (
            self.connection in ("", waiting.connection)
            and self.entity in ("", waiting.entity)
            and self.cause in ("", waiting.cause)
            and (not self.codes or waiting.code in self.codes)
            and self.since <= waiting.time
            and (not self.until or waiting.time < self.until)
        )

    @property
    def uid(self) -> str:
        """The connection that all of them are of; "" if that is not known."""
        named = self.cause.partition("~")[0]
        return self.connection or ("" if named == HUB else named)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Wanted":
        return cls(**{**data, "codes": tuple(data.get("codes", ()))})


class Source(Protocol):
    """One place where work waits. Each is made with the engine, the tenant and who asks for what it does."""

    def page(self, wanted: Wanted, place: Place, top: int) -> tuple[list[Waiting], Place | None]:
        """About `top` of those that wait, and the place after them, None at the end."""
        ...

    def find(self, waiting_id: str) -> Waiting | None:
        """None if the id is none of this place. Raises NotFound for one that is no more."""
        ...

    def plan(self, waiting: Waiting) -> Mapping[str, Any]:
        """What a replay would do; raises what the replay would raise. Changes nothing."""
        ...

    def replay(self, waiting: Waiting) -> None:
        """Has it done again. Raises Conflict if it can't be, BadRequest for a payload that is wrong."""
        ...

    def discard(self, waiting: Waiting, reason: str) -> None:
        """It waits no more, and nobody does it. Raises Conflict, NotFound if somebody was faster."""
        ...

    def edit(self, waiting: Waiting, payload: str) -> Waiting:
        """With another payload, which is what a replay works on. Raises BadRequest, Conflict."""
        ...

    def finish(self) -> None:
        """After many: what was put off so that it is done once."""
        ...
