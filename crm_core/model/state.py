"""The state of sync, as data: per connection, per connection and entity, and per run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from crm_core.model.connection import POLICIES, Policy

Health = Literal["ok", "unreachable", "needs_attention"]
Mode = Literal["incremental", "full", "push", "batch", "plan", "apply", "undo", "export", "resolve"]
"""`push`: looks which records a connection is to have that it has not. `batch`: many writes of a caller, carried out at the
remote system; it reads nothing and has no lease. `plan`: decides what another mode would do and does nothing; `apply`: does
what a plan says, `undo` what the plan of an undo says. `export`: records, history or the log of runs, written into blobs (sync/exports.py). `resolve`: decides
many conflicts as a person has said; of any connection and entity.
"""
RunStatus = Literal["queued", "running", "stopped", "succeeded", "failed"]
"""`stopped`: by the brake; it goes on, or ends, when a person says so."""
COUNTS = ("created", "updated", "deleted", "unchanged", "failed")


@dataclass(frozen=True)
class Problem:
    """Why something does not work: an error's code and message, and when (RFC 3339)."""

    code: str
    message: str
    time: str


@dataclass(frozen=True)
class _Stored:
    """A row's JSON: fields by name, empty ones left out; what newer code wrote stays in `more`."""

    more: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    etag: str = field(default="", compare=False, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = dict(self.more)
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in ("more", "etag") or value in (None, "", {}, ()):
                continue
            data[each.name] = vars(value) if isinstance(value, Problem) else value
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any], etag: str) -> Self:
        names = {each.name for each in fields(cls)} - {"more", "etag"}
        known = {name: value for name, value in data.items() if name in names}
        if known.get("problem"):
            known["problem"] = Problem(**known["problem"])
        more = {name: value for name, value in data.items() if name not in names}
        return cls(**known, more=more, etag=etag)


@dataclass(frozen=True)
class ConnectionState(_Stored):
    """`not_before`: no call earlier (RFC 3339). `failures`: in a row, of any entity. `wake`: entity -> when a push that
    had to wait comes back. `waiting`: some record waits here for one that it refers to. `hooked`: webhooks, or other
    hints of what is to be read again, may have come in for it; `hooked_at`: since when it has an address for webhooks.
    """

    health: Health = "ok"
    not_before: str = ""
    failures: int = 0
    problem: Problem | None = None
    wake: Mapping[str, str] = field(default_factory=dict)
    waiting: bool = False
    hooked: bool = False
    hooked_at: str = ""


@dataclass(frozen=True)
class EntityState(_Stored):
    """Checkpoint and lease of one entity of a connection.

    `cursor`: where the next incremental run begins; None before the first load is done. `lease_run`, `lease_until`:
    the run that works now. `due`: when the next pull begins, "" for never. `known`: about how many records have
    a live link; exact after a full run. `stopped_run`: the run that the brake stopped; while it is named, none works.
    `push_due`: when a push run begins or, once `push_run` names it, when its worker is taken for dead; "" for never.
    `push_wanted`: a changed configuration wants a push run that begins at this time or later; "" once one has done it.
    `begun`: a run has taken the lease once. `problem` with `waits`: this entity waits for a person.
    `missed`, `missed_at`: how many changes the schedule's pulls found that no webhook had told of, and when last; `unsure`: {n, since,
    at} of those that are too fresh to tell (sync/gaps.py).
    """

    cursor: Mapping[str, Any] | None = None
    lease_run: str = ""
    lease_until: str = ""
    stopped_run: str = ""
    due: str = ""
    known: int = 0
    last_success: str = ""
    last_run: str = ""
    push_due: str = ""
    push_run: str = ""
    push_wanted: str = ""
    begun: bool = False
    waits: bool = False
    problem: Problem | None = None
    missed: int = 0
    missed_at: str = ""
    unsure: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run(_Stored):
    """One execution of a sync of one entity, or the parent of several. `connection` and `entity`: "" of what is about any.

    `cursor`: where a full run goes on; of a batch its state, which `sync/results.py` describes, of `resolve` what
    `sync/resolving_many.py` does. `counts` by name,
    `calls`: remote and storage. `fresh_start`: the hub has no record of this connection yet. `read`: records read so
    far; of a batch, operations with an outcome. `seen`: blobs with the ids that a full run read, `parts`: whose they
    are: the number from which on they bear a worker's mark; of a batch, the marks of its outcomes.
    `since`, `filter`: reads only what was modified since (RFC 3339) and passes (OData text); such a run is `partial`.
    `done`: the feed's cursor at the end. `trace`: of the request or tick that began it. `restarted_at`: `read` when
    its message was last found to be poison. `approved`: a person let it go on, without the brake.
    `limit`: records read at most, 0 for all. `strategy`: what decides in this run alone, as it was asked for. `of`: of a
    plan, the mode that it is a plan of; of an apply and an undo, the plan's id. `undoes`: of an undo and its plan, the run that is undone. `start`: the feed's cursor where one that keeps its own
    place began; None for the beginning. `expected`: about how many records it will read, -1 where nobody knows.
    `plan`: of a plan what it decided, and of an apply what it did: `Parts` and figures (sync/planning/figures.py).
    `through`: the counts of what was let through in between, for the brake.
    """

    id: str
    connection: str = ""
    entity: str = ""
    mode: Mode = "incremental"
    status: RunStatus = "queued"
    origin: str = ""
    created_at: str = ""
    started_at: str = ""
    ended_at: str = ""
    cursor: Mapping[str, Any] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    read: int = 0
    slices: int = 0
    fresh_start: bool = False
    seen: int = 0
    parts: tuple[str, ...] = ()
    restarted_at: int = -1
    approved: bool = False
    done: Mapping[str, Any] | None = None
    children: tuple[str, ...] = ()
    problem: Problem | None = None
    trace: str = ""
    since: str = ""
    filter: str = ""
    limit: int = 0
    strategy: str = ""
    of: str = ""
    start: Mapping[str, Any] | None = None
    expected: int = -1
    plan: Mapping[str, Any] = field(default_factory=dict)
    undoes: str = ""
    through: Mapping[str, int] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        """Whether it reads a part: it keeps its place itself and leaves the entity's alone."""
        return bool(self.since or self.filter or self.limit) or self.mode == "apply"

    @property
    def policy(self) -> Policy | Literal[""]:
        """What decides in place of the connection's policies; "" for these."""
        return POLICIES[self.strategy] if self.strategy else ""

    @property
    def owed(self) -> bool:
        """Somebody waits for it: whoever asked for it, or let it go on."""
        return self.origin != "schedule" or self.approved

    @property
    def ended(self) -> bool:
        return self.status in ("succeeded", "failed")
