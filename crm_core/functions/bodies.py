"""The bodies of requests, as pydantic models; imported when a request has one."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    StrictBool,
    StrictInt,
    StrictStr,
)

MAX_OPERATIONS = 1000
MAX_LIMIT = 100_000_000

Text = Annotated[StrictStr, Field(max_length=2000)]
Secret = Annotated[StrictStr, Field(max_length=16_000)]
"""Long enough for a certificate with its chain."""
Name = Annotated[StrictStr, Field(max_length=40)]
PolicyName = Literal[
    "newest",
    "remote",
    "local",
    "manual",
    "skip",
    "last-write-wins",
    "timestamp",
    "dynamics-wins",
    "local-wins",
]
Mappings = dict[Annotated[StrictStr, Field(max_length=40)], dict[StrictStr, Any] | None]
"""By entity what the connection maps otherwise than declared (docs/mapping.md); null or {}: nothing."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EntityBody(_Body):
    """How an entity is kept in step. `policy`: what decides where both sides changed a field, `policies` of single
    fields: `newest` (also `last-write-wins`, `timestamp`), `remote` (`dynamics-wins`), `local` (`local-wins`), `manual`,
    `skip`. `deletes`: what a delete there does. `match`: the field by which a record that is new here may be one that
    the hub has. `filter`: OData; only records that pass are pushed. Of a connection that is told of changes: `events`, the
    kinds that it is told of (all without it); `becomes`: OData that has to hold now and did not hold before.
    """

    direction: Literal["pull", "push", "both"] = "pull"
    policy: PolicyName = "newest"
    policies: dict[Name, PolicyName] = {}
    deletes: Literal["ignore", "mark", "propagate"] = "mark"
    match: Name = ""
    filter: Annotated[StrictStr, Field(max_length=4096)] = ""
    events: list[Literal["created", "updated", "deleted"]] = []
    becomes: Annotated[StrictStr, Field(max_length=4096)] = ""


def _as_object(value: Any) -> Any:
    return {"direction": value} if isinstance(value, str) else value


Entities = dict[Name, Annotated[EntityBody, BeforeValidator(_as_object)]]
"""By name; the direction alone stands for an object with nothing else."""


class ScheduleBody(_Body):
    """Every `minutes`, or by `cron` (NCRONTAB, UTC); neither: only by hand."""

    minutes: StrictInt | None = None
    cron: Annotated[StrictStr, Field(max_length=100)] | None = None


class ConnectionBody(_Body):
    """A new connection. Secrets are written, never read."""

    slug: Annotated[StrictStr, Field(max_length=40)]
    connector: Annotated[StrictStr, Field(max_length=40)]
    settings: dict[StrictStr, Text] = {}
    secrets: dict[StrictStr, Secret] = {}
    entities: Entities | None = None
    schedule: ScheduleBody | None = None
    confirmed_origin: Text | None = None
    mappings: Mappings | None = None


class ConnectionPatch(_Body):
    """What changes: settings and secrets by name ("" removes one), mappings by entity, the rest as a whole."""

    settings: dict[StrictStr, Text] = {}
    secrets: dict[StrictStr, Secret] = {}
    entities: Entities | None = None
    schedule: ScheduleBody | None = None
    confirmed_origin: Text | None = None
    mappings: Mappings | None = None
    paused: StrictBool | None = None


class RunBody(_Body):
    """A run: `incremental` reads what is new, `full` reads everything and finds deletes by comparing ids, `push` looks
    which records a connection is to have that it has not. `plan` decides what the run named by `of` (`incremental` if
    missing) would do, and does nothing; POST /api/runs/{id}/apply does it.

    `since` (RFC 3339) and `filter` (OData, by our names or the remote's own) make an incremental run read a part: what
    was modified since, and passes. `limit`: at most so many records of each entity. Such a run leaves the place alone from
    which the schedule goes on. `strategy`: what decides where both sides changed a field, in this run alone and for every
    field: `newest` (also `last-write-wins`, `timestamp`), `remote` (`dynamics-wins`), `local` (`local-wins`), `manual`,
    `skip`.
    """

    connection: Annotated[StrictStr, Field(max_length=100)] = ""
    mode: Literal["incremental", "full", "push", "plan"] = "incremental"
    entities: list[Annotated[StrictStr, Field(max_length=40)]] = []
    since: Annotated[StrictStr, Field(max_length=40)] = ""
    filter: Annotated[StrictStr, Field(max_length=4096)] = ""
    of: Literal["incremental", "full", "push"] | None = None
    limit: Annotated[StrictInt, Field(ge=1, le=MAX_LIMIT)] | None = None
    strategy: PolicyName | None = None


class SyncBody(RunBody):
    """As POST /api/runs takes it; besides, `dry_run`: true makes a plan of it."""

    dry_run: StrictBool = False


class FieldChoiceBody(_Body):
    """What is to be of one field: as for a whole conflict. `etag`: of that field's conflict, so that it is decided as it was
    seen.
    """

    take: Name
    value: Any = None
    etag: Annotated[StrictStr, Field(max_length=40)] = ""


class ConflictBody(_Body):
    """How one is decided: `take` is one of its `ways`; `value` goes with `value` alone. Or `fields`: several fields of the
    record that wait at the connection, each with a `take` of its own.
    """

    take: Name = ""
    value: Any = None
    fields: Annotated[dict[Name, FieldChoiceBody], Field(max_length=200)] = {}


class PreviewBody(_Body):
    """The record on which a mapping is tried: one of the hub (`record_id`) or one of the remote system (`remote_id`).
    `overrides`: not saved yet, instead of those that hold.
    """

    record_id: Annotated[StrictStr, Field(max_length=40)] = ""
    remote_id: Annotated[StrictStr, Field(max_length=200)] = ""
    overrides: dict[StrictStr, Any] | None = None


class RollbackBody(_Body):
    """The version of a mapping whose overrides are to hold again; 0: none, as the connector declares it."""

    version: Annotated[StrictInt, Field(ge=0)]


class ExportBody(_Body):
    """What is exported: `records` of an entity, their `history`, or the lines of the log of runs (`logs`).

    `connection`: only records that are there, steps that came from it, lines about it. `filter` (OData): of records.
    `since`, `until` (RFC 3339): of steps and lines. `bom`: csv begins with a mark by which spreadsheets know UTF-8.
    """

    what: Literal["records", "history", "logs"]
    format: Literal["csv", "jsonl"] = "jsonl"
    entity: Name = ""
    connection: Annotated[StrictStr, Field(max_length=100)] = ""
    filter: Annotated[StrictStr, Field(max_length=4096)] = ""
    since: Annotated[StrictStr, Field(max_length=40)] = ""
    until: Annotated[StrictStr, Field(max_length=40)] = ""
    bom: StrictBool = False


class WhereBody(_Body):
    """Which conflicts: as the query options of their list."""

    kind: Annotated[StrictStr, Field(max_length=100)] = ""
    entity: Name = ""
    connection: Annotated[StrictStr, Field(max_length=100)] = ""
    field: Name = ""
    since: Annotated[StrictStr, Field(max_length=40)] = ""
    filter: Annotated[StrictStr, Field(max_length=4096)] = ""


class ResolveBody(_Body):
    """How many conflicts are decided at once. `preview`: only tells what would be done. `as_of`: from the first page of
    that preview, as it is; now, if it is missing: what has changed since is left.
    """

    where: WhereBody
    take: Literal["ours", "theirs", "value", "separate", "link"]
    value: Any = None
    preview: StrictBool = False
    as_of: Annotated[StrictStr, Field(max_length=6000)] = ""


class ReplayBody(_Body):
    """Which deliveries of a connection are sent again: of the versions of records that were made from `since` to `until`
    (RFC 3339), those that failed, or `all`. `next`: goes on where an earlier call ended.
    """

    connection: Annotated[StrictStr, Field(max_length=100)] = ""
    since: Annotated[StrictStr, Field(max_length=40)] = ""
    until: Annotated[StrictStr, Field(max_length=40)] = ""
    status: Literal["failed", "all"] = "failed"
    next: Annotated[StrictStr, Field(max_length=60)] = ""


Reason = Annotated[StrictStr, Field(min_length=1, max_length=1000)]
Cause = Annotated[StrictStr, Field(max_length=200)]
Moment = Annotated[StrictStr, Field(max_length=40)]


class PayloadBody(_Body):
    """What a replay of a dead letter works on from now on: a message of the queue, or the body of a webhook."""

    payload: Annotated[StrictStr, Field(max_length=50_000)]


class DiscardBody(_Body):
    """Why nobody is to do it; kept with what is discarded."""

    reason: Reason


class ReplayManyBody(_Body):
    """Which dead letters are done again: by `cause`, by connection, and by the time at which they came (RFC 3339, from `since`
    until before `until`). At least one of these. `per_minute`: at most so many a minute.
    """

    cause: Cause = ""
    connection: Annotated[StrictStr, Field(max_length=100)] = ""
    since: Moment = ""
    until: Moment = ""
    per_minute: Annotated[StrictInt, Field(ge=1, le=6000)] = 600


class DiscardManyBody(ReplayManyBody):
    """Which dead letters are discarded, named as for a replay, and why."""

    reason: Reason


class OperationBody(_Body):
    """One write of a batch. `id`: the record of an update or delete. `fields`: what a create or update writes, by our
    names or the remote's own. `if_match`: the record's etag, so that it is written only if it has not moved on.
    `key`: of a create, text of your own; the same key makes one record, however often it is sent.
    """

    method: Literal["create", "update", "delete"]
    id: Annotated[StrictStr, Field(min_length=1, max_length=200)] | None = None
    fields: dict[StrictStr, Any] | None = None
    if_match: Annotated[StrictStr, Field(max_length=200)] | None = None
    key: Annotated[StrictStr, Field(min_length=1, max_length=200)] | None = None


class BatchBody(_Body):
    """Writes of one entity, each with an outcome of its own. A record can be named once."""

    operations: Annotated[list[SkipValidation[OperationBody]], Field(min_length=1, max_length=MAX_OPERATIONS)]


class UndoBody(_Body):
    """The version of the record that is to be again."""

    version: Annotated[StrictInt, Field(ge=1)]


class PresenceBody(_Body):
    """Whose presence is sent, by the id of the record; none of them: one that is made up."""

    appointment: str = ""
    lead: str = ""
    visit: str = ""
