"""What a person or an app can do, carried out at a remote system or at the hub and told to the model.

Who does what and when is the driver's affair: chance (`people.py`), or the state machine of the tests.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.matchkeys import match_key
from crm_core.model.record import HUB, Link, Record, Stamp
from crm_core.storage.records import RecordWrite, Stored
from crm_core.sync import conflicts, deletes, resolving
from crm_core.sync.draft import Draft
from crm_core.sync.edit import Editor
from crm_core.sync.engine import wake
from crm_core.sync.saving import Origin, save, write_of
from simulation.two_way.model import Delete, Edit, Thing
from simulation.two_way.process import TENANT
from simulation.two_way.servers import REFERENCES, TAGS, ServerRow, edited_names, stored

if TYPE_CHECKING:
    from simulation.two_way.setting import Setting


class Acts:
    def __init__(self, world: "Setting") -> None:
        self.world = world
        self.model = world.model

    def _note(self, place: str, text: str, *parts: Any) -> None:
        self.world.history.note(f"@{place}", text, *parts)

    def thing_of(self, entity: str, fields: Mapping[str, Any]) -> Thing | None:
        return self.model.things.get(str(fields.get(TAGS[entity])))

    def begun(self, entity: str) -> Thing:
        """A thing that nobody had before."""
        thing = Thing(f"{entity[0]}{len(self.model.things) + 1}", entity)
        self.model.things[thing.tag] = thing
        return thing

    # --- people at the remote systems ------------------------------------------------------------------------------

    def create(self, place: str, thing: Thing, values: Mapping[str, Any], *, again: bool) -> None:
        """`again`: it is somewhere else already, and they don't know."""
        if again:
            self._known_elsewhere(place, thing)
        thing.places.add(place)
        fields = self._first(place, thing, values)
        self._note(place, "creates {} {}", thing.tag, fields)
        self.world.servers[place].create(thing.entity, fields, place)

    def _known_elsewhere(self, place: str, thing: Thing) -> None:
        world, entity = self.world, thing.entity
        thing.doubtful |= {"*"}  # a first link: only time can decide
        thing.maybe = True
        # A row that is made between the hub's search and its create is a second one that nobody can exclude; what was
        # made before, and no search could show yet, is told by the create (watching.py).
        pushes = world.stores.connections[place].entities[entity].pushes
        searched = any(each.holding for each in world.host.instances)
        link = world.link(thing, place)
        open_claim = link is not None and link.state == "creating"
        there = any(
            each.now.fields and each.now.fields.get(TAGS[entity]) == thing.tag
            for each in world.servers[place].alive(entity)
        )
        thing.twice |= there or (pushes and (searched or open_claim))

    def _first(self, place: str, thing: Thing, values: Mapping[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {TAGS[thing.entity]: thing.tag}
        if thing.entity == "contact":
            fields["email"] = f"{thing.tag}@example.org"
        for name, value in values.items():
            if value is not None:
                fields[name] = value
                self.model.edited(thing, name, self._shown(place, name, value), place, ())
        return fields

    def edit(self, place: str, entity: str, row: ServerRow, changes: Mapping[str, Any]) -> None:
        fields = row.now.fields
        assert fields is not None
        thing = self.thing_of(entity, fields)
        assert thing is not None
        link = self.world.link(thing, place)
        told = {}
        kept = self.world.servers[place].kind.cut
        for name, value in changes.items():
            same = self._same(value, kept, name)
            if same(fields.get(name)):
                continue
            told[name] = value
            if name in REFERENCES:
                thing.maybe = True  # no value that can be compared, but an edit that a delete may not know
                continue
            self._edited(thing, place, name, value, row, link, same)
        self._note(place, "edits {} ({}) {}", thing.tag, row.rid, told)
        if told:
            self.world.servers[place].update(entity, row.rid, told, place)

    def _shown(self, place: str, name: str, value: Any) -> Any:
        """What a place shows of a value that somebody types there."""
        cut = place != "hub" and self.world.servers[place].kind.cut and isinstance(value, str)
        return stored(name, value) if cut else value

    def _same(self, value: Any, cut: bool, name: str) -> Callable[[Any], bool]:
        def same(other: Any) -> bool:
            if other == value:
                return True
            return (
                cut
                and isinstance(value, str)
                and isinstance(other, str)
                and stored(name, value) == stored(name, other)
            )

        return same

    def _edited(
        self,
        thing: Thing,
        place: str,
        name: str,
        value: Any,
        row: ServerRow,
        link: Link | None,
        same: Callable[[Any], bool],
    ) -> None:
        """Made upon what the place showed; unless that was our own write, whose outcome is not known yet."""
        kept = self.world.servers[place].kind.cut
        assert row.now.fields is not None
        shows = self._same(row.now.fields.get(name), kept, name)
        shown = thing.shown(name, place, shows) if row.says(name, row.now) else None
        upon = thing.seen(name, place, shows) if shown is not None else frozenset()
        # What is empty there may never have been anything else, or somebody emptied it.
        beside = frozenset() if row.says(name, row.now) else thing.seen(name, place, shows)
        if (
            shown is not None
            and link is not None
            and any(shows(each) for each in link.inflight.get(name, ()))
        ):
            upon, beside = frozenset(), upon
            thing.aside[place, shown] = row.now.number
        if link is not None and (link.state != "live" or name in link.inflight):
            known = [*link.inflight.get(name, ()), link.behind.get(name), link.echo.get(name)]
            record = self.world.record_of(thing)
            if record is not None:
                known.append(record.fields.get(name))
            if any(same(each) for each in known if each is not None) or value is None:
                thing.doubtful.add(name)  # setting the held value or ours back while the outcome is unknown
        if any(same(each.value) for each in thing.of(name)):
            thing.maybe = True  # there and back again is no edit that a delete has to know
        undid = frozenset() if value is not None else self._unread(thing, place, name, row, link)
        self.model.edited(thing, name, self._shown(place, name, value), place, upon, beside).undid = undid

    def _unread(
        self, thing: Thing, place: str, name: str, row: ServerRow, link: Link | None
    ) -> frozenset[Edit]:
        """The edits of a field at a row, if for the hub it is as empty as before them: whoever empties it takes them back
        before anybody read them. With a value that was typed there and back is seen without this (`maybe`).
        """
        record = self.world.record_of(thing)
        if record is None or link is None or (link.state, link.rid) != ("live", row.rid):
            return frozenset()
        if name in link.inflight or link.held(name, record.fields.get(name)) is not None:
            return frozenset()
        return frozenset(each for each in thing.of(name) if each.place == place)

    def delete(self, place: str, entity: str, row: ServerRow) -> None:
        fields = row.now.fields
        assert fields is not None
        thing = self.thing_of(entity, fields)
        assert thing is not None
        known: set[Edit] = set()
        unsure: set[Edit] = set()
        kept = self.world.servers[place].kind.cut
        for name in edited_names(entity):
            if row.says(name, row.now):
                known |= thing.seen(name, place, self._same(fields.get(name), kept, name))
            known |= {each for each in thing.of(name) if each.place == place}
            # Whatever the row ever showed is known to whoever deletes it.
            for state in row.states:
                equal = self._same((state.fields or {}).get(name), kept, name)
                for each in thing.of(name):
                    told = row.says(name, state) and state.number > thing.aside.get((place, each), 0)
                    if equal(each.value) and told:
                        known.add(each)
                    elif equal(each.value):
                        unsure |= {each, *each.upon}
        blind = frozenset(edited_names(entity)) - self.world.writes(place, entity)
        link = self.world.link(thing, place)
        if link is not None and not link.wants:  # it became a place that is written just now
            blind = frozenset(edited_names(entity))
        if link is None or link.attempt or link.deleting or link.state != "live":
            thing.maybe = True
        self._note(place, "deletes {} ({})", thing.tag, row.rid)
        thing.deletes.append(Delete(place, frozenset(known), frozenset(unsure - known), blind))
        thing.places.discard(place)
        self.world.servers[place].delete(entity, row.rid, place)

    def restore(self, place: str, entity: str, row: ServerRow) -> None:
        thing = self.thing_of(entity, row.states[-2].fields or {})
        if thing is None:
            return
        thing.maybe = thing.twice = True
        thing.doubtful.add("*")
        self._note(place, "restores {} ({})", thing.tag, row.rid)
        self.world.servers[place].restore(entity, row.rid, place)

    # --- apps at the hub -------------------------------------------------------------------------------------------

    def _read(self, entity: str, record_id: str) -> Stored | None:
        stored_row = self.world.outside.engine.records.get(TENANT, entity, record_id)
        return stored_row if stored_row is not None and isinstance(stored_row.content, Record) else None

    def _alive(self, entity: str, record_id: str) -> tuple[Stored, Record, Thing] | None:
        """What an app finds before it writes: the row, its record, and which thing that is."""
        stored_row = self._read(entity, record_id)
        if stored_row is None:
            return None
        record = stored_row.content
        assert isinstance(record, Record)
        thing = self.thing_of(entity, record.fields)
        return None if thing is None or record.dead else (stored_row, record, thing)

    def _config(self, entity: str) -> Any:
        return self.world.outside.engine.sides(TENANT, entity)

    def app_edit(self, entity: str, record_id: str, change: Callable[[Thing], tuple[str, Any]]) -> None:
        """As an app writes: read the row, change it, one transaction under its ETag, then wake whoever pushes."""
        engine = self.world.outside.engine
        found = self._alive(entity, record_id)
        if found is None:
            return
        stored_row, record, thing = found
        name, value = change(thing)
        if value == record.fields.get(name):
            return
        now = hub_time(engine.clock.now())
        draft = Draft(record, self._config(entity))
        draft.set_value(name, value, HUB, now)
        write = write_of(stored_row, draft.finished(), Origin(now, HUB))
        saved = save(engine, TENANT, entity, [write])
        if saved.stale:
            return
        self._note("hub", "edits {} {}={!r}", thing.tag, name, value)
        seen = thing.seen(name, "hub", self._same(record.fields.get(name), False, name))
        if any(each.value == value for each in thing.of(name)):
            thing.maybe = True
        for link in record.links.values():
            held = [*link.inflight.get(name, ()), link.behind.get(name), link.echo.get(name)]
            if link.attempt and (value is None or any(value == each for each in held if each is not None)):
                thing.doubtful.add(name)
        self.model.edited(thing, name, value, "hub", seen)
        wake(engine, TENANT, entity, saved.wakes)

    def app_create(self, thing: Thing, values: Mapping[str, Any]) -> None:
        engine, entity = self.world.outside.engine, thing.entity
        thing.places.add("hub")
        fields = self._first("hub", thing, values)
        now = hub_time(engine.clock.now())
        record_id = engine.ids.uuid()
        name = self.world.match(entity)
        if name:
            key = match_key(name, fields.get(name))
            if key and engine.keys.claim_match(TENANT, entity, key, record_id) != record_id:
                raise AssertionError("a new thing has a new key")
        made = Record(record_id, entity, fields, Stamp(now, HUB), {"time": now, "origin": HUB, "run": ""})
        saved = save(
            engine,
            TENANT,
            entity,
            [RecordWrite(record_id, None, Draft(made, self._config(entity)).finished())],
        )
        self._note("hub", "creates {} {}", thing.tag, fields)
        wake(engine, TENANT, entity, saved.wakes)

    def app_delete(self, entity: str, record_id: str) -> None:
        engine = self.world.outside.engine
        found = self._alive(entity, record_id)
        if found is None:
            return
        stored_row, record, thing = found
        known: set[Edit] = set()
        for name in edited_names(entity):
            known |= thing.seen(name, "hub", self._same(record.fields.get(name), False, name))
            known |= {each for each in thing.of(name) if each.value == record.fields.get(name)}
            # An open conflict counts as seen, and as decided for ours if the record comes to life again.
            for asked in (each.conflict[name] for each in record.links.values() if name in each.conflict):
                thing.doubtful.add(name)
                same = self._same(asked["theirs"], True, name)
                known |= {one for each in thing.of(name) if same(each.value) for one in (each, *each.upon)}
        now = hub_time(engine.clock.now())
        after = deletes.deleted_by_app(record, self._config(entity))
        saved = save(engine, TENANT, entity, [write_of(stored_row, after, Origin(now, HUB))])
        if saved.stale:
            return
        self._note("hub", "deletes {}", thing.tag)
        thing.deletes.append(Delete("hub", frozenset(known)))
        wake(engine, TENANT, entity, saved.wakes)

    # --- what a person decides at rest ---------------------------------------------------------------------------

    def decide_all(self, mine: Callable[[], bool]) -> bool:
        """Decides every open conflict, and lets what is parked or refused try again; False if there was nothing."""
        found = False
        engine = self.world.outside.engine
        for entity in self.world.shape.entities:
            for record in self.world.records(entity):
                if self.world.shape.unmarked and self._say_which(record):
                    found = True
                    continue
                for uid, link in record.links.items():
                    if link.conflict or link.parked or link.refused:
                        stored_row = self._read(entity, record.id)
                        assert stored_row is not None
                        found = True
                        self._decide(engine, entity, stored_row, uid, mine)
                        break
        return found

    def _say_which(self, record: Record) -> bool:
        """Says of a row whether it is what was made of a record; False if nobody asks."""
        engine = self.world.outside.engine
        there = self._read(record.entity, record.id)  # another answer may have been one to this question too
        for asked in conflicts.of(there.content) if there and isinstance(there.content, Record) else ():
            other = asked.kind == "match" and engine.records.find(
                TENANT, record.entity, asked.about["record"]
            )
            if not other or (self._live(record, asked.connection) and self._live(other, asked.connection)):
                continue  # two rows at one system; nobody says that they are one
            tag = TAGS[record.entity]
            same = record.fields.get(tag) == other.fields.get(tag)
            take = "link" if same and not (record.dead or other.dead) else "separate"
            self._note("hub", "says {} of {} and {}", take, record.id, other.id)
            resolving.resolve(Editor(engine, TENANT, ENTITIES[record.entity], "key:person"), asked, take)
            return True
        return False

    def _live(self, record: Record, uid: str) -> bool:
        link = record.links.get(uid)
        return link is not None and link.state == "live"

    def _decide(
        self, engine: Any, entity: str, stored_row: Stored, uid: str, mine: Callable[[], bool]
    ) -> None:
        record = stored_row.content
        assert isinstance(record, Record)
        now = hub_time(engine.clock.now())
        config = self._config(entity)
        draft = Draft(record, config)
        link = draft.link(uid)
        thing = self.thing_of(entity, record.fields)
        for name, asked in list(link.conflict.items()):
            theirs, ours = asked["theirs"], record.fields.get(name)
            ours_stays = mine()
            kept = ours if ours_stays else theirs
            self._note("hub", "decides {} of {}: {!r}", name, thing.tag if thing else "?", kept)
            if ours_stays:
                del link.conflict[name]
            else:
                link.drop(name)
                draft.set_value(name, theirs, uid, now)
            if thing is not None:
                shown = [
                    thing.shown(name, place, self._same(value, True, name))
                    for place, value in ((uid, theirs), ("hub", ours))
                ]
                self.model.edited(thing, name, kept, "hub", [each for each in shown if each])
        link.parked, link.failed = {}, {}
        link.refused = {}
        draft.tidy(link, config[uid])
        saved = save(engine, TENANT, entity, [write_of(stored_row, draft.finished(), Origin(now, HUB))])
        wake(engine, TENANT, entity, saved.wakes)
