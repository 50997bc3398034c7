"""What a delete does to the hub's record, read at a remote or said by an app: pure. The table is docs/sync.md's."""

from crm_core.model.record import Record
from crm_core.sync.draft import Draft, LinkDraft
from crm_core.sync.merge import DELETED_AT, Merged
from crm_core.sync.sides import Side, Sides


def gone(record: Record, side: Side, sides: Sides, rid: str, now: str) -> Merged:
    """The record after its row at a remote is known to be gone. `now`: hub time of the look.

    A delete of another row than the link's, or of what is gone already, changes nothing; whose link is being created
    is held back by the caller.
    """
    before = record.links.get(side.uid)
    if before is None or before.state in ("new", "gone") or before.rid != rid:
        return Merged(record, {})
    draft = Draft(record, sides)
    link = draft.link(side.uid)
    link.seen = max(link.seen, now)
    if draft.dead:
        _lose(draft, link, side)
    elif link.deleting is not None:
        link.renewed()  # our own delete; the record was brought back meanwhile
    elif side.deletes == "propagate":
        if _knows_less(draft, link, side):
            link.renewed()  # an edit beats a delete that did not know of it
        else:
            _lose(draft, link, side)
            draft.kill()
    else:
        _lose(draft, link, side)
        if side.deletes == "mark":
            draft.set_value(DELETED_AT, now, side.uid, now)
    return Merged(draft.finished(), {})


def _lose(draft: Draft, link: LinkDraft, side: Side) -> None:
    """The row is gone. Its base is kept for a restore, unless nobody knows which of our values it held."""
    open_writes = bool(link.inflight)
    link.state = "gone"
    link.inflight, link.attempt, link.deleting = {}, None, None
    link.conflict, link.refused, link.waits = {}, {}, {}
    link.unpark()
    if open_writes:
        draft.empty_base(link, side)


def _knows_less(draft: Draft, link: LinkDraft, side: Side) -> bool:
    """Whether whoever deleted the row can't have seen all that the hub has."""
    if link.inflight:
        return True
    for name, held in link.behind.items():
        if not side.same(name, held, draft.fields.get(name)):
            return True
    return any(other.conflict for _, other in draft.others(side.uid))


def deleted_by_app(record: Record, sides: Sides) -> Record:
    """The record after an app deleted it: every connection that has it and writes is to delete it too."""
    if record.dead:
        return record
    draft = Draft(record, sides)
    draft.kill()
    return draft.finished()


def merged_away(record: Record, side: Side, sides: Sides, rid: str, winner: str, now: str) -> Record:
    """The record after its row became another one at the remote: nothing is deleted, a person is asked. `winner`: the
    record that the other row leads to. Of a row that is not the link's, or is gone already, nothing is new.
    """
    before = record.links.get(side.uid)
    if before is None or before.state in ("new", "gone") or before.rid != rid:
        return record
    draft = Draft(record, sides)
    link = draft.link(side.uid)
    _lose(draft, link, side)
    link.seen = max(link.seen, now)
    if not draft.dead:
        draft.reviews.append({"kind": "merge", "connection": side.uid, "record": winner})
    return draft.finished()


def closed(record: Record, side: Side, sides: Sides, *, deleting: bool) -> Record:
    """The record after a look has settled what became of our open write, or of our open delete."""
    draft = Draft(record, sides)
    link = draft.link(side.uid)
    if deleting:
        link.deleting = None
    else:
        link.close(side)
    draft.tidy(link, side)
    return draft.finished()
