"""Creating: a claim before a row is made, a search before a claim, and claims whose worker is gone."""

from crm_core.connector import Change
from crm_core.errors import HubError
from crm_core.model.matchkeys import match_key
from crm_core.model.record import Link, Record
from crm_core.ports import derived_id
from crm_core.storage import layout
from crm_core.sync.apply import Applier
from crm_core.sync.draft import Draft, LinkDraft
from crm_core.sync.merge import Snapshot
from crm_core.sync.pushing.base import Stop, Task
from crm_core.sync.pushing.unmarked import Unmarked
from crm_core.sync.saving import write_of


class Creating(Unmarked):
    """How a record comes to a remote that has it not, once."""

    def _take_up(self, task: Task, tasks: list[Task], again: list[str]) -> None:
        """A claim whose worker is gone: the remote is asked whether the create was carried out."""
        link, lo = self._link(task), self._now()
        try:
            found = self._find_made(task, link)
        except HubError as error:
            raise Stop(error) from None
        if found is None:
            until = link.attempt.until if link.attempt else ""
            if lo <= until and (task.record.dead or self.found_by != "id"):
                tasks.remove(task)  # it may still be made
                self._wait_until(until)
            elif task.record.dead:
                self._give_up_claim(task)
                self._after_look(task, tasks, again)
            elif lo > until and link.attempt is not None:
                self._forget_attempt(task)
            return  # it was not made: again, under the same id or marker
        self._redirect(task, found.rid)
        self._adopt(task, self._snapshot(found, lo), tasks, again)

    def _find_made(self, task: Task, link: Link) -> Change | None:
        entity, record = self.entity.name, task.record
        if self.found_by == "id":
            return self.connector.get_many(entity, [link.rid]).get(link.rid)
        if self.found_by == "marker":
            marker = _marker(record, link)
            made = [each for each in self.connector.marked(entity, [marker]) if each.marker == marker]
            return made[0] if made else None
        name = self.side.sync.match
        hits = self.connector.search(entity, name, list(link.inflight[name]))
        return next((each for each in hits if not self._belongs_elsewhere(each.rid, record.id)), None)

    def _belongs_elsewhere(self, rid: str, record_id: str) -> bool:
        """Also where a second row of one key is kept apart, though its own id leads to the first one's record."""
        derived = self._derived(rid)
        found = self.engine.records.find(self.tenant, self.entity.name, derived)
        apart = self.engine.records.find(self.tenant, self.entity.name, layout.separate_record_id(derived))
        return (found is not None and found.id != record_id) or (apart is not None and apart.id != record_id)

    def _searched_first(self, tasks: list[Task], again: list[str]) -> list[Task]:
        """Where a match rule holds, a record that is new here is looked for before it is made: a hit is read as a hint,
        and only a record that stayed as it was is made.
        """
        news = [
            task
            for task in tasks
            if self._link(task).state == "new"
            and self._key(task.record)
            and self._searched.get(task.id) != task.stored.etag
            and not any(
                each["kind"] == "match" and each.get("decided") == "separate" for each in task.record.reviews
            )
        ]
        if not news:
            return tasks
        name = self.side.sync.match
        holders = self.engine.pool.map(
            lambda task: self._holder(self._key(task.record), task.id),
            news,
        )
        for task, holder in zip(news, holders, strict=True):
            if self._is_another(task, holder):
                tasks = [each for each in tasks if each is not task]
        news = [task for task in news if task in tasks]
        by_key = {self._key(task.record): task for task in news}
        try:
            hits = self.connector.search(
                self.entity.name, name, list(dict.fromkeys(task.record.fields[name] for task in news))
            )
        except HubError as error:
            raise Stop(error) from None
        met: set[str] = set()
        for hit in hits:
            known = by_key.get(match_key(name, (hit.fields or {}).get(name)))
            if known is not None:
                met.add(known.id)
        for task in news:
            self._searched[task.id] = task.stored.etag
        if hits:
            now = self._now()
            hints = [Snapshot(Change(hit.rid, None), now, now, hint=True) for hit in hits]
            applier = Applier(self.engine, self.tenant, self.entity, self.opened, "")
            self.wakes |= applier.applied(hints)
        again.extend(met)
        return [task for task in tasks if task.id not in met]

    def _holder(self, key: str, record_id: str) -> str:
        """Who has a match key. It is read first: the record was claimed by it when it was made."""
        keys, entity = self.engine.keys, self.entity.name
        return keys.match_of(self.tenant, entity, key) or keys.claim_match(
            self.tenant, entity, key, record_id
        )

    def _is_another(self, task: Task, holder: str) -> bool:
        """Whether another record has the match key, and may be the same: then a person decides before one is made."""
        if holder == task.id:
            return False
        other = self.engine.records.find(self.tenant, self.entity.name, holder)
        if other is None or other.id == task.id or self._key(other) != self._key(task.record):
            self.engine.keys.move_match(
                self.tenant, self.entity.name, self._key(task.record), holder, task.id
            )
            return False
        draft = Draft(task.record, self.config)
        draft.reviews.append({"kind": "match", "connection": self.uid, "record": other.id})
        self._save([write_of(task.stored, draft.finished(), self._by())])
        return True

    def _claim(self, task: Task, draft: Draft, link: LinkDraft) -> None:
        """The link says that a create may be under way, before it is: its base is empty, its id is ours if we choose it."""
        if link.state == "new":
            link.state = "creating"
            draft.empty_base(link, self.side)
            for name, (entity, record_id) in task.missing.items():
                link.waits[name] = f"{entity}~{record_id}"
                self.waits = True
        if self.found_by == "id":
            link.rid = derived_id(self.uid, task.id, str(link.gen))
            self._leads[self._derived(link.rid)] = task.id


def _marker(record: Record, link: Link) -> str:
    return f"{record.id}.{link.gen}"
