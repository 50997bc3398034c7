"""What the state row says of push runs: which one a changed configuration wants, and what is left of that when one ends. Pure.

The wish outlives the runs: it stands in `push_wanted` until one has looked at every record that began at that time or later.
So a run that is cancelled, overtaken, or was begun too early by a person takes no change along.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from crm_core.model.fields import hub_time
from crm_core.model.state import EntityState, Run

OVERTAKEN = "Overtaken"
PUT_OFF_SECONDS = 3600.0
"""After one that a configuration wanted was ended by a person, or failed: time to change the configuration again."""


def wanting(state: EntityState, at: str) -> EntityState:
    """After a change of configuration: every record is to be looked at, by a run that begins then.

    One that is at work stays named, so that whoever comes next ends it.
    """
    return replace(state, push_wanted=at, push_due=at)


def wanting_none(state: EntityState, at: str) -> EntityState:
    """After a change by which nothing is pushed any more. One that is at work is ended then."""
    return replace(state, push_wanted="", push_due=at if state.push_run else "")


def wanted(state: EntityState) -> str:
    """From when on a run has to have begun to do what a configuration wants, "" if none is wanted. Older code says so by
    a time without a run.
    """
    return state.push_wanted or ("" if state.push_run else state.push_due)


def due(state: EntityState) -> str:
    """When a message is to be sent for a push run, "" for never, such as while the brake has stopped one. Older code forgets
    the time and keeps the wish.
    """
    return "" if state.stopped_run else state.push_due or state.push_wanted


def is_outdated(state: EntityState, run: Run, now: datetime) -> bool:
    """Whether a run that is at work began before the configuration that wants a run now."""
    since = wanted(state)
    return run.status == "running" and run.started_at < since <= hub_time(now)


def ended(state: EntityState, run: Run, now: datetime) -> EntityState:
    """The row after the end of its run: what is wanted still has a time to come, unless this run did it."""
    since = wanted(state)
    done = run.status == "succeeded" and run.started_at >= since
    if not since or done:
        return replace(state, push_wanted="", push_due="", push_run="")
    return replace(state, push_due=again_at(state, run, now), push_run="")


def again_at(state: EntityState, run: Run, now: datetime) -> str:
    """When what a configuration wants is done after a run that did not do it; "" if nothing is wanted.

    One that a person asked for ends by itself, and so does one that began before the change. Another one is put off.
    """
    since = wanted(state)
    older = bool(run.started_at) and run.started_at < since
    if not since or older or run.origin != "schedule":
        return since
    return max(since, hub_time(now + timedelta(seconds=PUT_OFF_SECONDS)))


def told(state: EntityState | None, run: Run, now: datetime) -> str:
    """For whoever ends a run: when what a configuration wants comes all the same, "" if nothing is wanted."""
    at = again_at(state, run, now) if state is not None and run.mode == "push" else ""
    if not at:
        return ""
    return (
        " The changed configuration of the connection still wants every record looked at: a push run begins at"
        f" {max(at, hub_time(now))}."
        " POST /api/runs with mode push begins one now; pause the connection to let none begin."
    )
