"""What a person decides of what waits, carried out or only told: `outcome` is what `resolve` would write.

A decision is an edit like any other: one write of the record under its ETag, which flows to every connection. Where the
person tells what they saw (`etag`), it is refused as soon as that is not so any more.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from crm_core.errors import BadRequest, HubError, NotFound, Stale
from crm_core.model.fields import hub_time
from crm_core.model.record import HUB, Record
from crm_core.sync.conflicts import REVIEWS, VALUES, WAYS, Conflict, of
from crm_core.sync.draft import Draft
from crm_core.sync.edit import Editor, no_record, taken
from crm_core.sync.sides import Config
from crm_core.sync.unite import united


@dataclass(frozen=True)
class Choice:
    """What is to be of one conflict. `value`: goes with `take` value. `etag`: of the conflict as it was seen, "" for any."""

    conflict: Conflict
    take: str
    value: Any = None
    etag: str = ""


@dataclass(frozen=True)
class Outcome:
    """What records become by a decision, each as (before, after), and the values that are given up, by field."""

    steps: Sequence[tuple[Record, Record]]
    losers: Mapping[str, Any]


def resolve(editor: Editor, conflict: Conflict, take: str, value: Any = None, etag: str = "") -> Record:
    """Decides one; as `resolve_all`."""
    return resolve_all(editor, [Choice(conflict, take, value, etag)])


def resolve_all(editor: Editor, choices: Sequence[Choice]) -> Record:
    """Decides conflicts of one record at once, or one review; gives the record.

    Raises BadRequest for what is no way to decide it, NotFound for what was decided meanwhile, Stale for what is not as it
    was seen, Conflict for a value that is another record's match key, or while a write to a row is on its way.
    """
    first = choices[0].conflict
    for each in choices:
        _check_way(each)
    if first.kind in REVIEWS:
        return _reviewed(editor, choices[0])
    written = _written(choices)

    def change(record: Record, config: Config) -> Record:
        after = decided(record, config, choices, editor.by, _now(editor))
        editor.claim(record, after, written)
        return after

    return editor.change(first.record.id, change)


def _written(choices: Iterable[Choice]) -> list[str]:
    """The fields of which a person says the value."""
    return [each.conflict.field for each in choices if each.take == "value"]


def outcome(editor: Editor, config: Config, choices: Sequence[Choice]) -> Outcome:
    """What `resolve_all` would do now; writes nothing. Raises what it would raise, but for a record that would not fit
    into its row.
    """
    first, now = choices[0].conflict, _now(editor)
    for each in choices:
        _check_way(each)
    duplicate_id, kept_id = _in_order(editor, first) if choices[0].take == "link" else ("", "")
    if duplicate_id != kept_id:
        by_id = {each.id: each for each in (first.record, first.other) if each is not None}
        if kept_id not in by_id or duplicate_id not in by_id:
            raise _gone(first)
        kept = by_id[kept_id]
        if kept.dead:
            raise no_record(editor.entity, kept.id)
        _current(first.record, choices[0], first.other)
        after, losers = united(kept, by_id[duplicate_id], config, now)
        return Outcome([(kept, after)], losers)
    after = decided(first.record, config, choices, editor.by, now)
    editor.check_claim(first.record, after, _written(choices))
    steps = [(first.record, after)]
    if first.kind == "match" and choices[0].take == "separate" and first.other is not None:
        answered = _answered(first.other, config, first, editor.by, now)
        steps += [(first.other, answered)] if answered is not first.other else []
    return Outcome(steps, _given_up(first.record, after, choices))


def in_turn(
    editor: Editor, name: str, value: Any, outcomes: Iterable[Outcome | HubError], first: str = ""
) -> tuple[list[Outcome | HubError], str]:
    """(outcomes of decisions that give a field of many records one value, each as if those before it were carried out; the
    record that takes a match key): the first one, and the others have a Conflict. `first`: that has taken it already.
    """
    found = list(outcomes)
    if not editor.is_match_key(name, value):
        return found, ""
    for number, each in enumerate(found):
        if not isinstance(each, HubError):
            record_id = each.steps[0][1].id
            first = first or record_id
            if record_id != first:
                found[number] = taken(editor.entity, name, first)
    return found, first


def _given_up(before: Record, after: Record, choices: Iterable[Choice]) -> dict[str, Any]:
    lost: dict[str, Any] = {}
    for each in choices:
        name = each.conflict.field
        if each.conflict.kind in VALUES:
            theirs = each.conflict.about["theirs"]
            lost[name] = before.fields.get(name) if after.fields.get(name) == theirs else theirs
    return lost


def _now(editor: Editor) -> str:
    return hub_time(editor.engine.clock.now())


def _check_way(choice: Choice) -> None:
    kind = choice.conflict.kind
    if choice.take not in WAYS[kind]:
        ways = ", ".join(WAYS[kind])
        raise BadRequest.field("take", f"take: a conflict of kind {kind} is decided by {ways}.")


def decided(record: Record, config: Config, choices: Iterable[Choice], by: str, now: str) -> Record:
    """The record after these decisions; pure. Raises NotFound, Stale."""
    draft = Draft(record, config)
    for each in choices:
        current = _current(record, each)
        if current.kind in VALUES:
            _take(draft, current, each, now)
        elif current.kind in REVIEWS:
            _mark(draft, current, each.take, by, now)
        else:
            _again(draft, current, each, now)
    return draft.finished()


def _current(record: Record, choice: Choice, other: Record | None = None) -> Conflict:
    """The conflict as the record has it now."""
    was = choice.conflict
    for each in of(record):
        alike = each.kind == was.kind or {each.kind, was.kind} <= {*VALUES}
        if alike and (each.connection, each.field) == (was.connection, was.field):
            now = replace(each, other=other or was.other)
            if choice.etag and choice.etag != now.etag:
                raise _stale(was)
            return now
    raise _gone(was)


def _stale(conflict: Conflict) -> Stale:
    return Stale(
        f"The conflict '{conflict.id}' is not what was read any more; read it again and decide anew."
    )


def _gone(conflict: Conflict) -> NotFound:
    return NotFound(f"The conflict '{conflict.id}' was decided just now.")


def _take(draft: Draft, conflict: Conflict, choice: Choice, now: str) -> None:
    """One of two values of a field, or a third one."""
    link, name = draft.link(conflict.connection), conflict.field
    if (
        name not in link.conflict
    ):  # the field is mapped otherwise since, and what is held there has to be read anew
        raise _stale(conflict)
    theirs = link.conflict.pop(name)["theirs"]
    draft.flips.pop(name, None)
    draft.losers[name] = draft.before.fields.get(name) if choice.take == "theirs" else theirs
    if choice.take == "theirs":
        link.drop(name)
        draft.set_value(name, theirs, conflict.connection, now)
    elif choice.take == "value":
        draft.set_value(name, choice.value, HUB, now)


def _again(draft: Draft, conflict: Conflict, choice: Choice, now: str) -> None:
    """What the remote refused is sent again, as it is or as another value; a link that gave up begins anew."""
    link = draft.link(conflict.connection)
    link.refused.pop(conflict.field, None)
    link.unpark()
    if choice.take == "value":
        draft.set_value(conflict.field, choice.value, HUB, now)


def _mark(draft: Draft, conflict: Conflict, take: str, by: str, now: str) -> None:
    """The first open question about the other record is answered, or all of both directions by `_answered`."""
    about = conflict.kind, conflict.connection, conflict.about["record"]
    for number, each in enumerate(draft.reviews):
        if (each["kind"], each["connection"], each["record"]) == about and not each.get("decided"):
            draft.reviews[number] = {**each, "decided": take, "by": by, "at": now}
            return


# --- two records: are they one? ----------------------------------------------------------------------------------


def _reviewed(editor: Editor, choice: Choice) -> Record:
    conflict = choice.conflict
    duplicate_id, kept_id = _in_order(editor, conflict) if choice.take == "link" else ("", "")
    if duplicate_id != kept_id:

        def check(kept: Record, duplicate: Record) -> None:
            by_id = {kept.id: kept, duplicate.id: duplicate}
            if conflict.record.id not in by_id:
                raise _gone(conflict)
            other = next(each for each in by_id.values() if each.id != conflict.record.id)
            _current(by_id[conflict.record.id], choice, other)

        return editor.unite(duplicate_id, kept_id, check)
    now = _now(editor)
    after = editor.change(
        conflict.record.id, lambda record, config: decided(record, config, [choice], editor.by, now)
    )
    if conflict.kind == "match" and choice.take == "separate":
        _answer_the_other(editor, conflict)
    return after


def _in_order(editor: Editor, conflict: Conflict) -> tuple[str, str]:
    """The record that becomes another one, and that one: one and the same where they are one already. Where both ask, the one
    that was there first stays.
    """
    record = conflict.record
    other = editor.engine.records.find(editor.tenant, record.entity, conflict.about["record"])
    if (
        other is not None
        and any(each["record"] == record.id and not each.get("decided") for each in other.reviews)
        and record.created["time"] < other.created["time"]
    ):
        return other.id, record.id
    return record.id, other.id if other is not None else conflict.about["record"]


def _asks(each: Mapping[str, Any], conflict: Conflict) -> bool:
    """Whether a review is the same question, asked by the other record."""
    about = each["kind"], each["connection"], each["record"]
    return about == ("match", conflict.connection, conflict.record.id) and not each.get("decided")


def _answered(record: Record, config: Config, conflict: Conflict, by: str, now: str) -> Record:
    """The other record, once a person has said that both are two; the same if it does not ask."""
    if not any(_asks(each, conflict) for each in record.reviews):
        return record
    draft = Draft(record, config)
    said = {"decided": "separate", "by": by, "at": now}
    draft.reviews = [{**each, **said} if _asks(each, conflict) else each for each in draft.reviews]
    return draft.finished()


def _answer_the_other(editor: Editor, conflict: Conflict) -> None:
    """Where both records ask whether they are one, a person says it once."""
    other = editor.engine.records.find(editor.tenant, conflict.record.entity, conflict.about["record"])
    if other is not None and any(_asks(each, conflict) for each in other.reviews):
        now = _now(editor)
        with suppress(NotFound):  # it is dead by now
            editor.change(
                other.id, lambda record, config: _answered(record, config, conflict, editor.by, now)
            )
