"""What the log of runs tells of records that were written: what waits for a person from now on, and why."""

from collections.abc import Iterable
from typing import Any

from crm_core.model.record import NOTHING, Link, Record
from crm_core.storage.records import RecordWrite
from crm_core.storage.run_log import note


def note_writes(writes: Iterable[RecordWrite]) -> None:
    """A line for each new conflict, refusal, review, and link that gave up. No value of a record is in one."""
    for write in writes:
        after, before = write.after, write.before.content if write.before else None
        if not isinstance(after, Record):
            continue
        was = before if isinstance(before, Record) else None
        if after.reviews and (was is None or was.reviews != after.reviews):
            _note_reviews(after, was)
        for uid, link in after.links.items():
            if link.conflict or link.refused or link.parked:
                _note_link(after, uid, link, was.links.get(uid) if was is not None else None)


def _note_link(record: Record, uid: str, link: Link, was: Link | None) -> None:
    about: dict[str, Any] = {"connection": uid, "entity": record.entity, "record": record.id}
    conflicts = sorted(link.conflict.keys() - (was.conflict.keys() if was else ()))
    if conflicts:
        text = f"Both sides changed {', '.join(conflicts)} of {record.id}; a person decides."
        note("record.conflict", text, "warning", fields=conflicts, **about)
    for name in sorted(link.refused):
        if was is None or name not in was.refused or was.refused[name] != link.refused[name]:
            words = link.why.get(name, NOTHING).get("message", "the system gave no reason")
            note(
                "record.refused",
                f"{name} of {record.id} was refused: {words}",
                "warning",
                fields=[name],
                **about,
            )
    if link.parked and (was is None or not was.parked):
        words = link.parked.get("message") or link.parked.get("cause", "")
        note("record.parked", f"{record.id} is not sent any more: {words}", "error", **about)


def _note_reviews(record: Record, was: Record | None) -> None:
    known = was.reviews if was is not None else ()
    for each in record.reviews:
        if not each.get("decided") and each not in known:
            text = f"{record.id} may be the same as {each['record']}; a person decides."
            note("record.review", text, "warning", connection=each["connection"], entity=record.entity,
                 record=record.id, kind=each["kind"])  # fmt: skip
