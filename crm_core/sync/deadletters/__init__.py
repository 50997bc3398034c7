"""What waits for a person because it failed."""

from crm_core.sync.deadletters.base import Place, Source, Waiting, Wanted
from crm_core.sync.deadletters.many import (
    JOB,
    Group,
    Way,
    find,
    grouped,
    many,
    page,
    release,
    start,
)

__all__ = [
    "JOB",
    "Group",
    "Place",
    "Source",
    "Waiting",
    "Wanted",
    "Way",
    "find",
    "grouped",
    "many",
    "page",
    "release",
    "start",
]
