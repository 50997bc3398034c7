"""People at the remote systems and apps at the hub: by chance, one after another."""

import random
from typing import TYPE_CHECKING, Any

from simulation.two_way.model import Thing
from simulation.two_way.servers import BAD, NAMES, REFERENCES, TAGS, ServerRow, edited_names

if TYPE_CHECKING:
    from simulation.two_way.world import World


class People:
    def __init__(self, world: "World") -> None:
        self.world = world
        self.model = world.model
        self.acts = world.acts
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
            self.acts.delete(place, entity, chance.choice(rows))
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
                    self.acts.delete(place, entity, row)
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

    def _new_values(self, place: str, thing: Thing) -> dict[str, Any]:
        found = {}
        for name in self.world.names(place, thing.entity):
            if name in ("last_name", "name") or self.chance.random() < 0.6:
                found[name] = self.value(thing, name)
        return found

    def create(self, place: str, entity: str) -> None:
        known = [
            each for each in self.model.things.values() if each.entity == entity and place not in each.places
        ]
        again = bool(self.world.match(entity) and known) and self.chance.random() < 0.4
        thing = self.chance.choice(known) if again else self.acts.begun(entity)
        self.acts.create(place, thing, self._new_values(place, thing), again=again)

    def edit(self, place: str, entity: str, row: ServerRow) -> None:
        assert row.now.fields is not None
        thing = self.acts.thing_of(entity, row.now.fields)
        assert thing is not None
        changes = {}
        names = self.world.names(place, entity)
        for name in self.chance.sample(names, min(len(names), self.chance.choice((1, 1, 1, 2)))):
            changes[name] = self.value(thing, name)
        if self.chance.random() < self.world.shape.references:
            changes |= self._reference(place, entity)
        self.acts.edit(place, entity, row, changes)

    def _reference(self, place: str, entity: str) -> dict[str, Any]:
        name = next((each for each in NAMES[entity] if each in REFERENCES), "")
        if not name or REFERENCES[name] not in self.world.shape.entities:
            return {}
        rows = self.world.servers[place].alive(REFERENCES[name])
        return {name: self.chance.choice(rows).rid} if rows else {}

    def _restore(self, place: str, entity: str) -> None:
        gone = [each for each in self.world.servers[place].table(entity).values() if each.now.fields is None]
        if gone:
            self.acts.restore(place, entity, self.chance.choice(gone))

    def _app(self, entity: str, kind: float) -> None:
        shape = self.world.shape
        if kind < shape.creates:
            thing = self.acts.begun(entity)
            self.acts.app_create(thing, self._new_values("hub", thing))
            return
        records = [each for each in self.world.records(entity) if not each.dead]
        if not records:
            return
        record = self.chance.choice(records)
        if kind < shape.creates + shape.deletes and shape.app_deletes:
            self.acts.app_delete(entity, record.id)
        else:
            self.acts.app_edit(entity, record.id, self._change)

    def _change(self, thing: Thing) -> tuple[str, Any]:
        name = self.chance.choice(edited_names(thing.entity))
        return name, self.value(thing, name)
