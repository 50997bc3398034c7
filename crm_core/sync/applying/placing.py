"""Placing: which record a row that is seen for the first time makes or leads to, and what is written of one that is
known. How keys and redirects say so: `identity.py`.
"""

from dataclasses import replace

from crm_core.connector import Change
from crm_core.model.fields import hub_time
from crm_core.model.matchkeys import match_key
from crm_core.model.record import Record, open_items
from crm_core.storage.records import HistoryEntry, RecordWrite, Redirect, Stored
from crm_core.sync import deletes, identity, merge, payload
from crm_core.sync.applying.base import WRITE_WIDTH, ApplyBase, Decided, Entry
from crm_core.sync.draft import Draft
from crm_core.sync.merge import Merged, Snapshot
from crm_core.sync.saving import change_of
from crm_core.sync.unite import is_declared


class Placing(ApplyBase):
    """Rows whose record has to be found, and what a merge makes of it."""

    def _first_seen(self, decided: Decided) -> None:
        """Rows that no record is known of: each makes one, or is linked to the record that has its match key. Held back
        is what an open create of ours may have made.
        """
        unmarked = self.unmarked and any(self._key(entry) == "" for entry, _ in decided.firsts)
        claims = self._claims() if unmarked else []

        def placed(item: tuple[Entry, Stored | None]) -> str:
            entry, stored = item
            if self._key(entry) in decided.moving:
                return identity.MOVING
            if entry.id != self.record_id(entry.rid):
                return entry.id  # its redirect leads here, to a record that nobody has made yet
            marker = entry.newest.change.marker
            if marker and identity.is_being_made(self, marker):
                return identity.HOLD
            if claims and not self._key(entry) and identity.may_have_made(claims, entry.snapshot.hi):
                return identity.HOLD
            return self._lead(entry, stored)

        for (entry, stored), place in zip(
            decided.firsts, self.engine.pool.map(placed, decided.firsts, WRITE_WIDTH), strict=True
        ):
            if place == identity.HOLD:
                self._hold(entry.rid, entry.snapshot.hi)
            elif place == identity.LOOK_FIRST:
                self._place_looked(entry, stored, decided)
            else:
                self._place(entry, stored, place, decided)

    def _lead(self, entry: Entry, stored: Stored | None) -> str:
        """Which record the key of a row leads to, as `identity.place` says."""
        return identity.place(self, entry.id, stored, entry.newest)

    def _place(self, entry: Entry, stored: Stored | None, place: str, decided: Decided) -> None:
        if place == identity.MOVING or (place == entry.id and entry.id in decided.taken):
            decided.elsewhere.append(entry.again())
        elif place != entry.id:
            decided.elsewhere.append(entry.moved(place))
        else:
            self._write(decided, self._insert(entry, stored), entry, "created")

    def _place_looked(self, entry: Entry, stored: Stored | None, decided: Decided) -> None:
        """Its key names a record that has another one now: the row has to be as it says before it takes the key."""
        for looked in self._look([entry]):
            if looked.newest.change.fields is None:
                decided.elsewhere.append(Entry(entry.id, replace(looked.newest, point_read=False)))
            else:
                self._place(looked, stored, self._lead(looked, stored), decided)

    def _insert(self, entry: Entry, before: Stored | None) -> RecordWrite:
        record = merge.first_seen(entry.id, self.entity, self.side, self.config, entry.newest, self.run)
        return RecordWrite(entry.id, before, _going_on(before, record))

    def _key(self, entry: Entry) -> str:
        """The match key of a row that is alive, "" for none."""
        name, fields = self.side.sync.match, entry.newest.change.fields
        return match_key(name, (fields or {}).get(name)) if name else ""

    def _hold(self, rid: str, seen: str = "") -> None:
        """`seen`: when the row is known to have been there; what is claimed after that did not make it."""
        now = hub_time(self.engine.clock.now())
        self.engine.held.hold(self.tenant, self.uid, self.entity.name, rid, seen or now)
        self.tally.unchanged += 1

    def _double(self, entry: Entry, beside: Stored | None, decided: Decided) -> None:
        """A row that leads to a record which lives at another remote id. That one may be gone by now; are both alive,
        it is not known whether they are one, and a person decides; what was decided holds until the row is changed.
        """
        stored = self.engine.records.get(self.tenant, self.entity.name, entry.beside)
        record = stored.content if stored else None
        link = record.links.get(self.uid) if isinstance(record, Record) else None
        if stored is None or not isinstance(record, Record) or link is None or link.rid == entry.rid:
            decided.elsewhere.append(Entry(self.record_id(entry.rid), entry.snapshot))
            return
        if link.state == "creating":
            self._hold(entry.rid)  # since it was last read
            return
        if stored.id in decided.taken:
            decided.elsewhere.append(entry.again())
            return
        if entry.snapshot.change.fields is None and not entry.snapshot.hint:
            self.tally.unchanged += 1  # a delete of what is not the record's
            return
        lives, kept = link.state == "live", record

        def said(snapshot: Snapshot) -> bool:
            return lives and is_declared(kept, self.uid, entry.rid, snapshot.change.version)

        if said(entry.snapshot):
            self.tally.unchanged += 1
            return
        rids = [entry.rid, link.rid] if link.state == "live" else [entry.rid]
        looked = {
            each.rid: each
            for each in self._look(
                [
                    entry.moved(entry.id, entry.beside),
                    *(Entry(stored.id, Snapshot(Change(rid, None), "", "")) for rid in rids[1:]),
                ]
            )
        }
        mine = looked.get(entry.rid)
        if mine is None or mine.newest.change.fields is None or said(mine.newest):
            self.tally.unchanged += 1
        elif link.state in ("new", "gone"):
            record = self.references.settled(record, self.config)
            self._plan(mine, stored, record, self._merged(record, mine.newest), decided)
        elif (other := looked.get(link.rid)) is None:
            return  # it can't be read, and was set aside
        elif other.newest.change.fields is None:
            decided.elsewhere.append(Entry(stored.id, other.snapshot))
            decided.elsewhere.append(entry.again())
        else:
            made = merge.first_seen(entry.id, self.entity, self.side, {}, mine.newest, self.run)
            asked = {"kind": "match", "connection": self.uid, "record": record.id}
            apart = Draft(replace(made, reviews=(asked,)), self.config).finished()
            write = RecordWrite(entry.id, beside, _going_on(beside, apart))
            self._write(decided, write, entry, "created")

    # --- what is written of a record -----------------------------------------------------------------------------

    def _merged(self, record: Record, snapshot: Snapshot) -> Merged:
        change = snapshot.change
        if change.fields is not None:
            return merge.merge(record, self.side, self.config, payload.whole(record, self.side, snapshot))
        link = record.links.get(self.uid)
        if snapshot.payload is not None and link is not None and link.state == "gone":
            later = replace(link, seen=max(link.seen, snapshot.hi))  # what came before it is over too
            return Merged(record.with_link(self.uid, later), {})
        if change.winner:
            winner = self.record_id(change.winner)
            return Merged(
                deletes.merged_away(record, self.side, self.config, change.rid, winner, snapshot.hi), {}
            )
        return deletes.gone(record, self.side, self.config, change.rid, snapshot.hi)

    def _plan(self, entry: Entry, stored: Stored, resolved: Record, merged: Merged, decided: Decided) -> None:
        """What is written of a record that was merged, and as what it counts. `resolved`: the stored one with its
        references followed; where that alone changes what is open it is saved.
        """
        record, after = stored.content, merged.record
        assert isinstance(record, Record)
        if after is resolved and (record is resolved or open_items(record) == open_items(resolved)):
            self.tally.unchanged += 1
            return
        deleted = entry.newest.change.fields is None
        history, count = None, "unchanged"
        if after.version != record.version:
            count = "deleted" if deleted else "updated"
            history = HistoryEntry(
                version=after.version,
                time=entry.newest.hi,
                origin=self.uid,
                run=self.run,
                old=merge.old_values(record, after),
                change="delete" if deleted else change_of(record, after),
                losers=merged.losers,
                policies={name: self.side.policy(name) for name in merged.losers},
            )
        if self._write(decided, RecordWrite(stored.id, stored, after, history), entry, count) and history:
            names = identity.match_names(self.config)
            if keys := identity.changed_keys(names, record, after):
                decided.moving.update(key for pair in keys for key in pair if key)
                self.leaving[stored.id] = identity.claim_next(self.engine, self.tenant, names, record, after)


def _going_on(before: Stored | None, made: Record) -> Record:
    """Versions of one id only grow, also where a record was that became another one."""
    if before is None or not isinstance(before.content, Redirect) or not before.content.version:
        return made
    return replace(made, version=before.content.version + 1)
