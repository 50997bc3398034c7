"""People at the remote systems and apps at the hub: what they do, told to the model."""

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from crm_core.model.fields import hub_time
from crm_core.model.matchkeys import match_key
from crm_core.model.record import HUB, Link, Record, Stamp
from crm_core.storage.records import RecordWrite, Stored
from crm_core.sync import deletes
from crm_core.sync.draft import Draft
from crm_core.sync.engine import wake
from crm_core.sync.saving import Origin, save, write_of
from simulation.two_way.model import Delete, Edit, Thing
from simulation.two_way.process import TENANT
from simulation.two_way.remotes import BAD, KEPT, NAMES, REFERENCES, TAGS, ServerRow, State, stored

if TYPE_CHECKING:
    from simulation.two_way.world import World


class People:
    def __init__(self, world: "World") -> None:
        self.world = world
        self.model = world.model
        self.chance: random.Random = world.scheduler.chance("people")
        self.values = 0
        self.hot: list[tuple[str, str]] = []
        """The rows that the hub wrote last."""

    # --- what they do --------------------------------------------------------------------------------------------

    def act(self) -> None:
        """One thing that somebody does somewhere."""
        world, chance = self.world, self.chance
        entity = chance.choice(world.shape.entities)
        read = [uid for uid, each in world.stores.connections.items() if each.entities[entity].pulls]
        places = [*read, "hub"] if world.shape.apps else read
        if not places:
            return
        place = chance.choice(places)
        kind = chance.random()
        if place == "hub":
            self._app(entity, kind)
            return
        rows = [each for each in world.servers[place].alive(entity) if each.now.fields.get(TAGS[entity])]
        if not rows or kind < world.shape.creates:
            self.create(place, entity)
        elif kind < world.shape.creates + world.shape.deletes:
            self.delete(place, entity, chance.choice(rows))
        elif kind < world.shape.creates + world.shape.deletes + world.shape.restores:
            self._restore(place, entity)
        else:
            hot = [each for each in rows if (place, each.rid) in self.hot]
            self.edit(place, entity, chance.choice(hot if hot and chance.random() < 0.5 else rows))

    def meddle(self) -> None:
        """Somebody does something with a row that the hub has in its hands."""
        for place, rid in reversed(self.hot):
            for entity in self.world.shape.entities:
                row = self.world.servers[place].get(entity, rid)
                pulls = self.world.stores.connections[place].entities[entity].pulls
                if row is None or not pulls or not row.now.fields or not row.now.fields.get(TAGS[entity]):
                    continue
                if self.chance.random() < self.world.shape.deletes:
                    self.delete(place, entity, row)
                else:
                    self.edit(place, entity, row)
                return

    def touched(self, place: str, rid: str) -> None:
        """The hub has written or read a row; mostly somebody is at it just then."""
        self.hot.append((place, rid))
        del self.hot[:-4]

    def value(self, thing: Thing, name: str) -> Any:
        """A new value, or one that the field had before."""
        chance = self.chance
        if name in REFERENCES:
            return None
        old = sorted({each.value for each in thing.of(name) if each.value is not None})
        if old and chance.random() < self.world.shape.reverts:
            return chance.choice(old)
        if chance.random() < 0.05 and name not in ("last_name", "name", "email"):
            return None
        self.values += 1
        number = self.values
        if name == "email":
            return f"{thing.tag}@example.org"
        bad = BAD if chance.random() < self.world.shape.bad else ""
        return f"{bad}{number:04d}{chance.choice(('', 'Long'))}{chance.choice(('', 'X'))}"

    def _note(self, place: str, text: str, *parts: Any) -> None:
        self.world.history.note(f"@{place}", text, *parts)

    def _names(self, entity: str) -> list[str]:
        return [name for name in NAMES[entity] if name not in (TAGS[entity], "email", *REFERENCES, *KEPT)]

    def _new_fields(self, thing: Thing, place: str) -> dict[str, Any]:
        fields: dict[str, Any] = {TAGS[thing.entity]: thing.tag}
        if thing.entity == "contact":
            fields["email"] = f"{thing.tag}@example.org"
        for name in self._names(thing.entity):
            if name in ("last_name", "name") or self.chance.random() < 0.6:
                value = self.value(thing, name)
                if value is not None:
                    fields[name] = value
                    self.model.edited(thing, name, self._shown(place, name, value), place, ())
        return fields

    def create(self, place: str, entity: str) -> None:
        world, model = self.world, self.model
        again = [each for each in model.things.values() if each.entity == entity and place not in each.places]
        if world.match(entity) and again and self.chance.random() < 0.4:
            thing = self.chance.choice(again)
            thing.doubtful |= {"*"}  # a first link: only time can decide
            thing.maybe = True
            # A row that is made between the hub's search and its create is a second one that nobody can exclude.
            pushes = world.stores.connections[place].entities[entity].pushes
            searched = world.servers[place].kind.index_lag > 0 or any(
                each.holding for each in world.host.instances
            )
            link = world.link(thing, place)
            open_claim = link is not None and link.state == "creating"
            there = any(
                each.now.fields and each.now.fields.get(TAGS[entity]) == thing.tag
                for each in world.servers[place].alive(entity)
            )
            thing.twice |= there or (pushes and (searched or open_claim))
        else:
            thing = Thing(f"{entity[0]}{len(model.things) + 1}", entity)
            model.things[thing.tag] = thing
        thing.places.add(place)
        fields = self._new_fields(thing, place)
        self._note(place, "creates {} {}", thing.tag, fields)
        world.servers[place].create(entity, fields, place)

    def thing_of(self, entity: str, fields: Mapping[str, Any]) -> Thing | None:
        return self.model.things.get(str(fields.get(TAGS[entity])))

    def edit(self, place: str, entity: str, row: ServerRow) -> None:
        fields = row.now.fields
        assert fields is not None
        thing = self.thing_of(entity, fields)
        assert thing is not None
        names = self._names(entity)
        changes = {}
        for name in self.chance.sample(names, self.chance.choice((1, 1, 1, 2))):
            changes[name] = self.value(thing, name)
        if self.chance.random() < self.world.shape.references:
            changes |= self._reference(place, entity)
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
            self._edited(thing, place, name, value, row.now, link, same)
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
        before: State,
        link: Link | None,
        same: Callable[[Any], bool],
    ) -> None:
        """Made upon what the place showed; unless that was our own write, whose outcome is not known yet."""
        kept = self.world.servers[place].kind.cut
        assert before.fields is not None
        shows = self._same(before.fields.get(name), kept, name)
        shown = thing.shown(name, place, shows)
        upon = [shown] if shown is not None else []
        if (
            shown is not None
            and link is not None
            and any(shows(each) for each in link.inflight.get(name, ()))
        ):
            upon = []
            thing.aside[place, shown] = before.number
        if link is not None and (link.state != "live" or name in link.inflight):
            known = [*link.inflight.get(name, ()), link.behind.get(name), link.echo.get(name)]
            record = self.world.record_of(thing)
            if record is not None:
                known.append(record.fields.get(name))
            if any(same(each) for each in known if each is not None) or value is None:
                thing.doubtful.add(name)  # setting the held value or ours back while the outcome is unknown
        if any(same(each.value) for each in thing.of(name)):
            thing.maybe = True  # there and back again is no edit that a delete has to know
        self.model.edited(thing, name, self._shown(place, name, value), place, upon)

    def _reference(self, place: str, entity: str) -> dict[str, Any]:
        name = next((each for each in NAMES[entity] if each in REFERENCES), "")
        if not name or REFERENCES[name] not in self.world.shape.entities:
            return {}
        rows = self.world.servers[place].alive(REFERENCES[name])
        return {name: self.chance.choice(rows).rid} if rows else {}

    def delete(self, place: str, entity: str, row: ServerRow) -> None:
        fields = row.now.fields
        assert fields is not None
        thing = self.thing_of(entity, fields)
        assert thing is not None
        known: set[Edit] = set()
        unsure: set[Edit] = set()
        kept = self.world.servers[place].kind.cut
        for name in self._names(entity):
            shown = thing.shown(name, place, self._same(fields.get(name), kept, name))
            if shown is not None:
                known |= {shown, *shown.upon}
            known |= {each for each in thing.of(name) if each.place == place}
            # Whatever the row ever showed is known to whoever deletes it.
            for state in row.states:
                equal = self._same((state.fields or {}).get(name), kept, name)
                for each in thing.of(name):
                    if equal(each.value) and state.number > thing.aside.get((place, each), 0):
                        known.add(each)
                    elif equal(each.value):
                        unsure |= {each, *each.upon}
        link = self.world.link(thing, place)
        written = self.world.stores.connections[place].entities[entity].pushes
        if link is None or link.attempt or link.deleting or link.state != "live" or not written:
            thing.maybe = True
        self._note(place, "deletes {} ({})", thing.tag, row.rid)
        thing.deletes.append(Delete(place, frozenset(known), frozenset(unsure - known)))
        thing.places.discard(place)
        self.world.servers[place].delete(entity, row.rid, place)

    def _restore(self, place: str, entity: str) -> None:
        server = self.world.servers[place]
        gone = [each for each in server.table(entity).values() if each.now.fields is None]
        if not gone:
            return
        row = self.chance.choice(gone)
        thing = self.thing_of(entity, row.states[-2].fields or {})
        if thing is None:
            return
        thing.maybe = thing.twice = True
        thing.doubtful.add("*")
        self._note(place, "restores {} ({})", thing.tag, row.rid)
        server.restore(entity, row.rid, place)

    # --- apps at the hub -----------------------------------------------------------------------------------------

    def _app(self, entity: str, kind: float) -> None:
        shape = self.world.shape
        if kind < shape.creates:
            self._app_creates(entity)
            return
        records = [each for each in self.world.records(entity) if not each.dead]
        if not records:
            return
        record = self.chance.choice(records)
        if kind < shape.creates + shape.deletes and shape.app_deletes:
            self._app_deletes(entity, record.id)
        else:
            self._app_edits(entity, record.id)

    def _read(self, entity: str, record_id: str) -> Stored | None:
        stored_row = self.world.outside.engine.records.get(TENANT, entity, record_id)
        return stored_row if stored_row is not None and isinstance(stored_row.content, Record) else None

    def _config(self, entity: str) -> Any:
        return self.world.outside.engine.sides(TENANT, entity)

    def _app_edits(self, entity: str, record_id: str) -> None:
        """As an app writes: read the row, change it, one transaction under its ETag, then wake whoever pushes."""
        engine = self.world.outside.engine
        stored_row = self._read(entity, record_id)
        if stored_row is None:
            return
        record = stored_row.content
        assert isinstance(record, Record)
        thing = self.thing_of(entity, record.fields)
        if thing is None or record.dead:
            return
        name = self.chance.choice(self._names(entity))
        value = self.value(thing, name)
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
        shown = thing.shown(name, "hub", self._same(record.fields.get(name), False, name))
        if any(each.value == value for each in thing.of(name)):
            thing.maybe = True
        for uid, link in record.links.items():
            held = [*link.inflight.get(name, ()), link.behind.get(name), link.echo.get(name)]
            if link.attempt and (value is None or any(value == each for each in held if each is not None)):
                thing.doubtful.add(name)
            del uid
        self.model.edited(thing, name, value, "hub", [shown] if shown is not None else [])
        wake(engine, TENANT, entity, saved.wakes)

    def _app_creates(self, entity: str) -> None:
        engine = self.world.outside.engine
        thing = Thing(f"{entity[0]}{len(self.model.things) + 1}", entity)
        self.model.things[thing.tag] = thing
        thing.places.add("hub")
        fields = self._new_fields(thing, "hub")
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

    def _app_deletes(self, entity: str, record_id: str) -> None:
        engine = self.world.outside.engine
        stored_row = self._read(entity, record_id)
        if stored_row is None:
            return
        record = stored_row.content
        assert isinstance(record, Record)
        thing = self.thing_of(entity, record.fields)
        if thing is None or record.dead:
            return
        known: set[Edit] = set()
        for name in self._names(entity):
            shown = thing.shown(name, "hub", self._same(record.fields.get(name), False, name))
            if shown is not None:
                known |= {shown, *shown.upon}
            known |= {each for each in thing.of(name) if each.value == record.fields.get(name)}
            known |= {
                each
                for each in thing.of(name)
                for link in record.links.values()
                if name in link.conflict and self._same(link.conflict[name]["theirs"], True, name)(each.value)
            }
        now = hub_time(engine.clock.now())
        after = deletes.deleted_by_app(record, self._config(entity))
        saved = save(engine, TENANT, entity, [write_of(stored_row, after, Origin(now, HUB))])
        if saved.stale:
            return
        self._note("hub", "deletes {}", thing.tag)
        thing.deletes.append(Delete("hub", frozenset(known)))
        wake(engine, TENANT, entity, saved.wakes)

    # --- what a person decides at rest ---------------------------------------------------------------------------

    def decide_all(self) -> bool:
        """Decides every open conflict, and lets what is parked or refused try again; False if there was nothing."""
        found = False
        engine = self.world.outside.engine
        for entity in self.world.shape.entities:
            for record in self.world.records(entity):
                for uid, link in record.links.items():
                    if link.conflict or link.parked or link.refused:
                        stored_row = self._read(entity, record.id)
                        assert stored_row is not None
                        found = True
                        self._decide(engine, entity, stored_row, uid)
                        break
        return found

    def _decide(self, engine: Any, entity: str, stored_row: Stored, uid: str) -> None:
        record = stored_row.content
        assert isinstance(record, Record)
        now = hub_time(engine.clock.now())
        config = self._config(entity)
        draft = Draft(record, config)
        link = draft.link(uid)
        thing = self.thing_of(entity, record.fields)
        for name, asked in list(link.conflict.items()):
            theirs, ours = asked["theirs"], record.fields.get(name)
            mine = self.chance.random() < 0.5
            self._note(
                "hub", "decides {} of {}: {!r}", name, thing.tag if thing else "?", ours if mine else theirs
            )
            if mine:
                del link.conflict[name]
            else:
                link.drop(name)
                draft.set_value(name, theirs, uid, now)
            if thing is not None:
                shown = [
                    thing.shown(name, place, self._same(value, True, name))
                    for place, value in ((uid, theirs), ("hub", ours))
                ]
                self.model.edited(
                    thing, name, ours if mine else theirs, "hub", [each for each in shown if each]
                )
        link.parked, link.failed = {}, {}
        link.refused = {}
        draft.tidy(link, config[uid])
        saved = save(engine, TENANT, entity, [write_of(stored_row, draft.finished(), Origin(now, HUB))])
        wake(engine, TENANT, entity, saved.wakes)
