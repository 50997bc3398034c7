"""Two records that a person says are one thing become one record. Pure."""

from typing import Any

from crm_core.errors import Conflict
from crm_core.model.record import HUB, Link, Record, same_value
from crm_core.sync.draft import Draft
from crm_core.sync.sides import Config


def united(kept: Record, duplicate: Record, config: Config, now: str) -> tuple[Record, dict[str, Any]]:
    """(the kept record with the duplicate's links and what it lacked, the duplicate's values that were given up).

    Where both have a row at a connection, the kept record's row stays its link. The other one is left as it is there,
    and asked about again only when somebody changes it.
    """
    draft = Draft(kept, config)
    for name, value in duplicate.fields.items():
        if name not in draft.fields:
            draft.set_value(name, value, HUB, now)
        elif not same_value(kept.entity, name, draft.fields[name], value):
            draft.losers[name] = value
    for uid, link in duplicate.links.items():
        _take_over(draft, config, uid, link, duplicate.id)
    draft.reviews = [each for each in draft.reviews if each.get("decided") or each["record"] != duplicate.id]
    # What it asked about others is asked of the kept one from now on.
    draft.reviews += [
        each
        for each in duplicate.reviews
        if not each.get("decided")
        and each["record"] not in (kept.id, duplicate.id)
        and each not in draft.reviews
    ]
    return draft.finished(), draft.losers


def _take_over(draft: Draft, config: Config, uid: str, link: Link, duplicate_id: str) -> None:
    side = config.get(uid)
    known = draft.link_now(uid) if draft.has_link(uid) else None
    if link.state == "creating" or link.attempt or link.deleting or (known and known.state == "creating"):
        raise Conflict("A write to one of the two is on its way; try again in some minutes.")
    rids = tuple(each for each in (*link.former, link.rid) if each and (known is None or each != known.rid))
    if side is None or not rids:
        return
    if known is not None and (known.state == "live" or link.state != "live"):
        mine = draft.link(uid)
        mine.found = True
        mine.former = (*mine.former, *(each for each in rids if each not in mine.former))
        if link.state == "live" and not is_declared(draft.before, uid, link.rid, link.ver):
            mark = {"kind": "match", "connection": uid, "record": duplicate_id, "decided": "link"}
            draft.reviews.append({**mark, "rid": link.rid, "ver": link.ver})
        return
    if known is not None:
        mine = draft.link(uid)
        mine.former = (*mine.former, *([mine.rid] if mine.rid else ()), *link.former)
        mine.forget()
        mine.state, mine.rid, mine.ver, mine.found = link.state, link.rid, "", True
    else:
        mine = draft.add_link(
            uid, Link(link.state, link.rid, former=link.former, mapping=side.mapping, found=True)
        )
    # Nothing is known that both had in common; the row is read before it is written.
    draft.empty_base(mine, side)


def is_declared(record: Record, uid: str, rid: str, version: str) -> bool:
    """Whether a person has said that the row is the same thing, and nobody has changed it since."""
    return any(
        each.get("decided") == "link"
        and (each["connection"], each.get("rid"), each.get("ver")) == (uid, rid, version)
        for each in record.reviews
    )
