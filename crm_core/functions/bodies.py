"""The bodies of requests, as pydantic models; imported when a request has one."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

Text = Annotated[StrictStr, Field(max_length=2000)]
Secret = Annotated[StrictStr, Field(max_length=16_000)]
"""Long enough for a certificate with its chain."""
Entities = dict[Annotated[StrictStr, Field(max_length=40)], Literal["pull"]]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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


class ConnectionPatch(_Body):
    """What changes: settings and secrets by name ("" removes one), the rest as a whole."""

    settings: dict[StrictStr, Text] = {}
    secrets: dict[StrictStr, Secret] = {}
    entities: Entities | None = None
    schedule: ScheduleBody | None = None
    confirmed_origin: Text | None = None
    paused: StrictBool | None = None


class RunBody(_Body):
    """A run: `incremental` reads what is new, `full` reads everything and finds deletes by comparing ids."""

    connection: Annotated[StrictStr, Field(max_length=100)] = ""
    mode: Literal["incremental", "full"] = "incremental"
    entities: list[Annotated[StrictStr, Field(max_length=40)]] = []
