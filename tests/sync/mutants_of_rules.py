"""Faults of what is decided: the merge, its guard, edits and deletes (see mutants.py)."""

from dataclasses import replace

from crm_core.model import record as records_of
from crm_core.storage.records import Records
from crm_core.sync import deletes, merge
from crm_core.sync.draft import Draft, LinkDraft
from crm_core.sync.merge import Verdict
from crm_core.sync.pushing import pusher
from crm_core.sync.sides import Side

# --- the merge -------------------------------------------------------------------------------------------------------


def wrong_base(patch):
    patch.setattr(LinkDraft, "held", lambda self, name, ours: ours)


def no_echo_on_read(patch):
    landed = merge._landed

    def planted(draft, link, side, name, theirs):
        landed(draft, link, side, name, theirs)
        link.echo.pop(name, None)

    patch.setattr(merge, "_landed", planted)


def echo_not_saved(patch):
    settle = merge._settle

    def planted(draft, link, side, name, sent, fields):
        settle(draft, link, side, name, sent, fields)
        link.echo.pop(name, None)

    patch.setattr(merge, "_settle", planted)


def echo_taken_for_an_unsent_edit(patch):
    patch.setattr(LinkDraft, "is_behind", lambda self, side, name: name in self.behind or name in self.echo)


def settle_ignores_that_ours_changed(patch):
    settle = merge._settle

    def planted(draft, link, side, name, sent, fields):
        settle(draft, link, side, name, sent, fields)
        link.behind.pop(name, None)

    patch.setattr(merge, "_settle", planted)


def no_canon(patch):
    patch.setattr(Side, "canon", lambda self, name, value: value)


def value_that_changes_nothing_is_sent(patch):
    """What differs from ours as the remote stores it is not told from what differs from ours."""
    tidy = Draft.tidy

    def planted(self, link, side):
        tidy(self, link, replace(side, store=lambda _, value: value))

    patch.setattr(Draft, "tidy", planted)


def there_and_back_while_it_is_on_its_way(patch):
    tidy = Draft.tidy

    def planted(self, link, side):
        kept, link.inflight = link.inflight, {}
        tidy(self, link, side)
        link.inflight = kept

    patch.setattr(Draft, "tidy", planted)


def inflight_kept_after_a_read_that_fences_it(patch):
    after = merge._after

    def planted(draft, link, side, snapshot, *, answer):
        kept = link.inflight
        link.inflight = {}
        after(draft, link, replace(side, if_match=False), snapshot, answer=answer)
        link.inflight = kept

    patch.setattr(merge, "_after", planted)


def echo_kept_when_a_connection_widens(patch):
    patch.setattr(Draft, "_widen", lambda *_: None)


def skip_takes_the_other_fields(patch):
    ask = merge._ask

    def planted(draft, link, side, snapshot, name):
        ask(draft, link, side, snapshot, name)
        if side.policy(name) == "skip":
            link.put(side, name, link.conflict.pop(name)["base"])  # waits for a later snapshot

    patch.setattr(merge, "_ask", planted)


# --- the guard -------------------------------------------------------------------------------------------------------


def _guarded(patch, change):
    guard = merge.guard

    def planted(record, side, snapshot, *, lag=0.0):
        return change(guard(record, side, snapshot, lag=lag), record, side, snapshot)

    patch.setattr(merge, "guard", planted)


def no_guard(patch):
    _guarded(patch, lambda *_: Verdict.MERGE)


def opaque_version_trusted(patch):
    skip, take = Verdict.SKIP, Verdict.MERGE
    patch.setattr(
        merge, "_guard_opaque", lambda link, shot, _: skip if shot.change.version == link.ver else take
    )


def tie_skipped(patch):
    def change(verdict, record, side, snapshot):
        link = record.links.get(side.uid)
        tie = link is not None and link.ver == snapshot.change.version and side.versions == "coarse"
        return Verdict.SKIP if tie and not snapshot.point_read else verdict

    _guarded(patch, change)


def older_version_not_skipped(patch):
    def change(verdict, record, side, snapshot):
        older = verdict is Verdict.SKIP and snapshot.change.version != record.links[side.uid].ver
        return Verdict.MERGE if older else verdict

    _guarded(patch, change)


def dead_not_read_again(patch):
    def change(verdict, record, side, snapshot):
        alive = snapshot.change.fields is not None
        return Verdict.MERGE if record.dead and alive and verdict is Verdict.LOOK else verdict

    _guarded(patch, change)


def delete_not_read_again(patch):
    def change(verdict, record, side, snapshot):
        deleted = snapshot.change.fields is None and not snapshot.hint
        return Verdict.MERGE if deleted and verdict is Verdict.LOOK else verdict

    _guarded(patch, change)


def settle_over_a_newer_read(patch):
    patch.setattr(merge, "settles", lambda link, side, version: link.attempt is not None)


# --- updates ---------------------------------------------------------------------------------------------------------


def rejected_value_sent_again(patch):
    sendable = records_of.is_sendable

    def planted(record, link, name):
        return sendable(record, replace(link, refused={}), name)

    patch.setattr(records_of, "is_sendable", planted)
    patch.setattr(pusher, "is_sendable", planted)


def _kept_after_an_edit(patch, *names):
    set_value = Draft.set_value

    def planted(self, name, value, origin, time):
        kept = {uid: {each: dict(getattr(self.link(uid), each)) for each in names} for uid in self._uids()}
        set_value(self, name, value, origin, time)
        for uid, values in kept.items():
            if uid != origin:
                for each, value_then in values.items():
                    setattr(self.link(uid), each, value_then)

    patch.setattr(Draft, "set_value", planted)


def parked_kept_after_an_edit(patch):
    _kept_after_an_edit(patch, "parked")


def refused_kept_after_an_edit(patch):
    _kept_after_an_edit(patch, "refused")


def waits_kept_after_an_edit(patch):
    _kept_after_an_edit(patch, "waits")


def failed_kept_after_an_edit(patch):
    _kept_after_an_edit(patch, "failed")


# --- deletes ---------------------------------------------------------------------------------------------------------


def delete_beats_an_edit(patch):
    patch.setattr(deletes, "_knows_less", lambda draft, link, side: False)


def delete_over_an_open_conflict(patch):
    knows_less = deletes._knows_less

    def planted(draft, link, side):
        conflicts = [(other, other.conflict) for _, other in draft.others(side.uid)]
        for other, _ in conflicts:
            other.conflict = {}
        found = knows_less(draft, link, side)
        for other, kept in conflicts:
            other.conflict = kept
        return found

    patch.setattr(deletes, "_knows_less", planted)


def our_delete_taken_for_a_persons(patch):
    gone = deletes.gone

    def planted(record, side, sides, rid, now):
        link = record.links.get(side.uid)
        if link is not None and link.deleting is not None:
            record = record.with_link(side.uid, replace(link, deleting=None))
        return gone(record, side, sides, rid, now)

    patch.setattr(deletes, "gone", planted)


# --- what waits for a person -----------------------------------------------------------------------------------------


def discarded_value_asked_about_for_ever(patch):
    patch.setattr(records_of.Link, "asks", property(lambda self: list(self.refused)))


def rest_of_a_bucket_passed_over(patch):
    page = Records.open_page

    def planted(self, *args, **kwargs):
        return page(self, *args, **kwargs)[0], ""

    patch.setattr(Records, "open_page", planted)
