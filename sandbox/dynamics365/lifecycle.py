"""How rows get from one state to another: pairs of state and reason, closed rows, and states that need an action."""

from sandbox.dynamics365 import errors
from sandbox.dynamics365.errors import Refused
from sandbox.dynamics365.schema import Entity
from sandbox.store import Row, Values

NOWHERE = "00000000-0000-0000-0000-000000000000"


def settle(entity: Entity, patch: Values, row: Row | None, *, by_person: bool) -> None:
    """Complete and check the state in a patch of a row, or of a new one.

    A state alone takes its first reason; a reason must fit its state. People act in the app, which sends the closing
    messages for them, so only clients of the API are told to send those.
    """
    if "statecode" not in entity.columns:
        return
    if patch.get("statuscode", 0) is None:
        del patch["statuscode"]
    current = (
        row.values.get("statecode", entity.states.first[0]) if row is not None else entity.states.first[0]
    )
    state = int(patch["statecode"]) if "statecode" in patch else current
    if state != current or not patch.keys() <= {"statecode", "statuscode"} or state in entity.states.by:
        _leave(entity, row, current, state)
    if state != current and state in entity.states.by and not by_person:
        raise _needs_message(entity, state)
    pair(entity, patch, state, current, row.id if row is not None else NOWHERE)


def end(entity: Entity, patch: Values, row: Row | None, now: str) -> None:
    """An activity that is completed or canceled ends now, if no other end is told (description of ``actualend``)."""
    known = {**(row.values if row is not None else {}), **patch}
    if entity.activity and patch.get("statecode") in entity.states.closed and known.get("actualend") is None:
        patch["actualend"] = now


def pair(entity: Entity, patch: Values, state: int, current: int, key: str) -> None:
    """The reason that goes with a state."""
    pairs = entity.columns["statuscode"].states
    if "statuscode" not in patch:
        if state != current:
            patch["statuscode"] = next(reason for reason, s in pairs.items() if s == state)
        return
    if pairs.get(patch["statuscode"]) != state:
        label = entity.columns["statecode"].options[state]
        raise Refused(
            400,
            errors.BAD_STATUS,
            f"{patch['statuscode']} is not a valid status code for state code {entity.schema_name}State.{label} on "
            f"{entity.name} with Id {key}.",
        )


def _leave(entity: Entity, row: Row | None, current: int, state: int) -> None:
    """A closed row is changed only together with the state that opens it again."""
    rules = entity.states
    if row is None or current not in rules.closed:
        return
    if current in rules.final or state in rules.closed:
        raise Refused(400, errors.CLOSED, f"This {entity.name} is closed and cannot be changed.")


def _needs_message(entity: Entity, state: int) -> Refused:
    label = entity.columns["statecode"].options[state]
    return Refused(
        400,
        errors.BAD_STATUS,
        f"This message can not be used to set the state of {entity.name} to {label}. In order to set state of "
        f"{entity.name} to {label}, use the {entity.states.by[state]}Request message instead.",
    )
