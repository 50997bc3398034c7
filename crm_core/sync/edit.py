"""What an app writes into the hub's own records: one transaction with its history and open items, then the wake-ups."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from crm_core.errors import BadRequest, Conflict, FieldError, NotFound, Stale, Unprocessable
from crm_core.model.connection import Tenant
from crm_core.model.entities import Entity
from crm_core.model.fields import hub_time
from crm_core.model.matchkeys import match_key
from crm_core.model.record import HUB, Record, Stamp
from crm_core.storage.records import HistoryEntry, RecordWrite, Redirect, Stored, Tomb
from crm_core.sync import deletes
from crm_core.sync.draft import Draft
from crm_core.sync.engine import Engine, wake
from crm_core.sync.identity import claim_next, match_names
from crm_core.sync.saving import Origin, save, write_of
from crm_core.sync.sides import Config
from crm_core.sync.unite import united

MAX_TRIES = 20

Change = Callable[[Record, Config], Record]
"""What a write makes of a record as it is now."""
Leads = Callable[[str, str], str]
"""(entity, record id) -> the id of the living record that this leads to, "" for none."""


class Editor:
    """Writes of one principal. `by`: who, as the history tells it."""

    def __init__(self, engine: Engine, tenant: Tenant, entity: Entity, by: str) -> None:
        self.engine = engine
        self.tenant = tenant
        self.entity = entity
        self.by = by

    def create(self, fields: Mapping[str, Any], record_id: str = "") -> Record:
        """The new record. `record_id`: of a create that may come again; one that is there then is given back.

        Raises Conflict that names the record which has the match key already, BadRequest for a reference to nothing.
        A deleted record with that key lives again, with these values.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        given = self._with_references(given)
        record_id = record_id or self.engine.ids.uuid()
        target = self._claimed(given, record_id)
        stored = self._stored(target)
        if stored is not None and isinstance(stored.content, Record):
            if not stored.content.dead:
                return stored.content  # it was made by an earlier try
            return self._change(target, lambda record, sides: self._living_again(record, sides, given))
        record = self._made(target, given)
        return record if self._save(RecordWrite(target, stored, record)) else self.create(fields, record_id)

    def update(self, record_id: str, fields: Mapping[str, Any], if_match: str = "") -> Record:
        """The record with these fields changed. Raises NotFound, Stale if it is no more of the version that was read,
        Conflict if its new match key is another record's.
        """
        given = self._with_references(fields)
        stored = self._found(record_id)
        assert isinstance(stored.content, Record)
        check_version(stored.content, if_match)
        self.claim_changed(stored.content, given)

        return self._change(
            record_id, lambda record, config: self._with_values(record, config, given), if_match
        )

    def delete(self, record_id: str, if_match: str = "") -> None:
        """Deletes the record here, and then at every connection that writes and has it. Raises NotFound, Stale."""
        self._change(record_id, deletes.deleted_by_app, if_match)

    def change(self, record_id: str, change: Change) -> Record:
        """Any other change of a record that a person makes. Raises NotFound."""
        return self._change(record_id, change)

    def _change(self, record_id: str, change: Change, if_match: str = "") -> Record:
        for _ in range(MAX_TRIES):
            stored = self._found(record_id, dead=True)
            record = stored.content
            assert isinstance(record, Record)
            check_version(record, if_match)
            if record.dead and change is not deletes.deleted_by_app and if_match:
                raise no_record(self.entity, record_id)
            after = change(record, self._config())
            if after is record:
                return record
            by = Origin(self._now(), HUB, by=self.by)
            if self._save(write_of(stored, after, by, losers=losers_of(record, after))):
                return after
        raise contended()

    def accepted(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Values as a record takes them, references followed. Raises BadRequest for a reference to nothing."""
        return self._with_references(fields)

    def claim(self, before: Record, after: Record, written: Collection[str] = ()) -> None:
        """Claims the match keys that a change gives a record. Raises Conflict for one that another record has, of the
        fields that a person or an app has `written`; what a remote holds already can't be refused here.
        """
        self.claim_changed(before, {name: after.fields.get(name) for name in written})
        names = [name for name in self._match_names() if name not in written]
        claim_next(self.engine, self.tenant, names, before, after)

    def check_claim(self, before: Record, after: Record, written: Collection[str]) -> None:
        """Raises what `claim` would raise now, and claims nothing."""
        for name, key in self._claims(before, {name: after.fields.get(name) for name in written}):
            holder = self.engine.keys.match_of(self.tenant, self.entity.name, key)
            if holder is not None:
                self._check_holder(name, key, holder, before)

    def is_match_key(self, name: str, value: Any) -> bool:
        """Whether a value is one that only one record can have."""
        return name in self._match_names() and bool(match_key(name, value))

    def unite(
        self, duplicate_id: str, kept_id: str, check: Callable[[Record, Record], None] | None = None
    ) -> Record:
        """Makes two records one: the kept one with what only the duplicate has, whose id leads to it from now on.

        The kept one is written first, so that a crash in between loses nothing and the same call can be made again.
        `check`: may refuse the two as they are, until then.
        Raises NotFound for a record that was deleted meanwhile, Conflict while a write to one of the rows is on its way.
        """
        for _ in range(MAX_TRIES):
            kept = self._found(kept_id)
            duplicate = self.engine.records.get(self.tenant, self.entity.name, duplicate_id)
            record = kept.content
            assert isinstance(record, Record)
            if duplicate is None or not isinstance(duplicate.content, Record) or duplicate.id == record.id:
                return record  # an earlier call has done it
            if check is not None:
                check(record, duplicate.content)
            after, losers = united(record, duplicate.content, self._config(), self._now())
            by = Origin(self._now(), HUB, by=self.by)
            last = duplicate.content.version + 1
            ended = HistoryEntry(last, by.time, HUB, "", {}, "unite", by=self.by)
            leads = RecordWrite(duplicate.id, duplicate, Redirect(record.id, last), ended)
            if not self._save(write_of(kept, after, by, losers=losers)):
                continue
            check = None  # the half is done, and the rest has to follow
            if self._save(leads):
                return after
        raise contended()

    # --- what a write makes of a record --------------------------------------------------------------------------

    def _made(self, record_id: str, fields: Mapping[str, Any]) -> Record:
        now = self._now()
        made = {"time": now, "origin": HUB, "run": "", "by": self.by}
        record = Record(record_id, self.entity.name, fields, Stamp(now, HUB), made)
        return Draft(record, self._config()).finished()

    def _with_values(self, record: Record, config: Config, fields: Mapping[str, Any]) -> Record:
        draft = Draft(record, config)
        for name, value in fields.items():
            if not self.entity.by_name[name].same(record.fields.get(name), value):
                draft.set_value(name, value, HUB, self._now())
        return draft.finished()

    def _living_again(self, record: Record, config: Config, fields: Mapping[str, Any]) -> Record:
        """A deleted record with new values: what is not among them is emptied."""
        draft = Draft(record, config)
        draft.revive("")
        for name in [*record.fields, *fields]:
            draft.set_value(name, fields.get(name), HUB, self._now())
        return draft.finished()

    # --- reading and writing -------------------------------------------------------------------------------------

    def _save(self, write: RecordWrite) -> bool:
        """Writes one record and wakes whoever is to learn of it; False if its row has moved on."""
        saved = save(self.engine, self.tenant, self.entity.name, [write], claimed=True)
        if saved.large:
            raise too_large()
        self._wake(saved.wakes)
        return not saved.stale

    def _wake(self, places: set[tuple[str, str]]) -> None:
        wake(self.engine, self.tenant, self.entity.name, places)

    def _config(self) -> Config:
        return self.engine.sides(self.tenant, self.entity.name)

    def _now(self) -> str:
        return hub_time(self.engine.clock.now())

    def _stored(self, record_id: str) -> Stored | None:
        return self.engine.records.follow(self.tenant, self.entity.name, record_id)[1]

    def _found(self, record_id: str, *, dead: bool = False) -> Stored:
        stored = self._stored(record_id)
        if (
            stored is None
            or isinstance(stored.content, Tomb | Redirect)
            or (stored.content.dead and not dead)
        ):
            raise no_record(self.entity, record_id)
        return stored

    # --- what must be unique, and what is referred to ------------------------------------------------------------

    def _match_names(self) -> list[str]:
        return match_names(self._config())

    def _claimed(self, fields: Mapping[str, Any], record_id: str) -> str:
        """Where the record goes: its own id, or that of a deleted or not yet made one which has its match key."""
        target = record_id
        claimed: list[str] = []
        for name in self._match_names():
            key = match_key(name, fields.get(name))
            if not key:
                continue
            holder = self.engine.keys.claim_match(self.tenant, self.entity.name, key, target)
            if holder == target:
                claimed.append(key)
                continue
            stored = self._stored(holder)
            found = stored.content if stored else None
            if isinstance(found, Record) and match_key(name, found.fields.get(name)) != key:
                self.engine.keys.move_match(self.tenant, self.entity.name, key, holder, target)
            elif isinstance(found, Record) and not found.dead:
                raise taken(self.entity, name, found.id)
            elif target == record_id:
                target = found.id if isinstance(found, Record) else holder
        if target != record_id:
            for key in claimed:  # what was claimed for a record that will not be made
                self.engine.keys.move_match(self.tenant, self.entity.name, key, record_id, target)
        return target

    def claim_changed(
        self, record: Record, fields: Mapping[str, Any], *, unchanged_too: bool = False
    ) -> None:
        """Claims the match key that a change gives the record, or that it has already: of a record that was dead
        somebody else may have it by now.
        """
        for name, key in self._claims(record, fields, unchanged_too=unchanged_too):
            while (holder := self._holder(name, key, record)) != record.id:
                if self.engine.keys.move_match(self.tenant, self.entity.name, key, holder, record.id):
                    break

    def _claims(
        self, record: Record, fields: Mapping[str, Any], *, unchanged_too: bool = False
    ) -> list[tuple[str, str]]:
        """(field, match key) of each key that these values give a record."""
        keys = [(name, match_key(name, fields[name])) for name in self._match_names() if name in fields]
        return [
            (name, key)
            for name, key in keys
            if key and (unchanged_too or key != match_key(name, record.fields.get(name)))
        ]

    def _holder(self, name: str, key: str, record: Record) -> str:
        """Who has claimed a key that a record is to have, the record itself if nobody had. Raises Conflict where that one
        lives and has the key.
        """
        holder = self.engine.keys.claim_match(self.tenant, self.entity.name, key, record.id)
        self._check_holder(name, key, holder, record)
        return holder

    def _check_holder(self, name: str, key: str, holder: str, record: Record) -> None:
        """Raises Conflict where who has claimed a key is another record that lives and has it."""
        stored = self._stored(holder) if holder != record.id else None
        found = stored.content if stored else None
        others = isinstance(found, Record) and found.id != record.id and not found.dead
        if isinstance(found, Record) and others and match_key(name, found.fields.get(name)) == key:
            raise taken(self.entity, name, found.id)

    def _leads(self, entity: str, record_id: str) -> str:
        """The id of the living record that an id leads to; "" for none."""
        target = self.engine.records.find(self.tenant, entity, record_id)
        return "" if target is None or target.dead else target.id

    def _with_references(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """References as the ids of the records that they lead to; raises BadRequest for one that leads to none."""
        known, missing = with_living(self.entity, fields, self._leads)
        errors = [FieldError(name, f"{name}: {each}.") for name, told in missing.items() for each in told]
        if errors:
            raise BadRequest(errors[0].message, errors=errors)
        return known


class QuietEditor(Editor):
    """Gathers whom to wake: of a thousand writes each connection gets one message, not a thousand."""

    def __init__(self, engine: Engine, tenant: Tenant, entity: Entity, by: str) -> None:
        super().__init__(engine, tenant, entity, by)
        self.places: set[tuple[str, str]] = set()

    def _wake(self, places: set[tuple[str, str]]) -> None:
        self.places |= places

    def finish(self) -> None:
        """Wakes them."""
        places, self.places = self.places, set()
        wake(self.engine, self.tenant, self.entity.name, places)


def with_living(
    entity: Entity, fields: Mapping[str, Any], leads: Leads
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """(fields with references as the ids of the records that they lead to, by field those that lead to none)."""
    missing: dict[str, list[str]] = {}
    known: dict[str, Any] = {}
    for name, value in fields.items():

        def found(entity: str, record_id: str, name: str = name) -> str:
            target = leads(entity, record_id.lower())
            if not target:
                missing.setdefault(name, []).append(f"there is no stored {entity} '{record_id}'")
            return target or record_id

        kind = entity.by_name[name]
        beside = {kind.companion: fields.get(kind.companion)} if kind.companion else {}
        known[name] = entity.with_references({name: value, **beside}, found)[name]
    return known, missing


def check_version(record: Record, if_match: str) -> None:
    if if_match and if_match.strip('"') != str(record.version):
        raise Stale(
            f"The record is of version {record.version} by now, not {if_match}; read it again and decide anew."
        )


def losers_of(before: Record, after: Record) -> dict[str, Any]:
    """Of each conflict that the step decided, the value that was given up."""
    lost: dict[str, Any] = {}
    for uid, link in before.links.items():
        for name, asked in link.conflict.items():
            if name not in after.links[uid].conflict:
                ours, now = before.fields.get(name), after.fields.get(name)
                lost[name] = ours if now == asked["theirs"] else asked["theirs"]
    return lost


def contended() -> Conflict:
    return Conflict("The record is being changed by others all the time; try again.")


def no_record(entity: Entity, record_id: str) -> NotFound:
    return NotFound(f"There is no stored {entity.name} '{record_id}'.")


def taken(entity: Entity, name: str, record_id: str) -> Conflict:
    return Conflict(
        f"{name}: the {entity.name} {record_id} has this value, by which records are matched; change that one.",
        errors=[FieldError(name, f"{name}: is that of the {entity.name} {record_id}.")],
    )


def too_large() -> Unprocessable:
    return Unprocessable("The record does not fit into a row of the store (1 MiB); shorten its texts.")
