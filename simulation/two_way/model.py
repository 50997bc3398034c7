"""What people did, with what each of them had seen: says which values and which life a thing may end with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Edit:
    """A person's edit of one field. `upon`: the edits that it replaced knowingly, and what those had replaced. `beside`:
    those that it may have replaced knowingly, and the hub can't tell (`Thing.aside`). `undid`: those of the same place that
    it took back before the hub read them.
    """

    number: int
    name: str
    value: Any
    place: str
    upon: frozenset["Edit"] = frozenset()
    beside: frozenset["Edit"] = frozenset()
    undid: frozenset["Edit"] = frozenset()

    def __repr__(self) -> str:
        return f"#{self.number} {self.name}={self.value!r} at {self.place}"


@dataclass(frozen=True)
class Delete:
    """A person's delete. `known`: the edits that it was made upon. `unsure`: those of which nobody can say whether it
    was (`Thing.aside`). `blind`: the fields of which that place is never shown what others typed.
    """

    place: str
    known: frozenset[Edit]
    unsure: frozenset[Edit] = frozenset()
    blind: frozenset[str] = frozenset()

    def may_know(self, edit: Edit) -> bool:
        """Also what lost a conflict that was decided after the delete, against what the deleter knew."""
        known = edit in self.known or any(edit in each.upon | each.beside for each in self.known)
        return known or edit in self.unsure or edit.name in self.blind


@dataclass(eq=False)
class Thing:
    """Something that people keep at one or several places. `doubtful`: names of fields of which no more can be said
    than that all places agree; "*" for all of them. `maybe`: whether it lives can't be told. `twice`: a person may
    have made a second row. `united`: a person was asked whether two rows are it. `aside`: edits that a write of the hub brought to a place, and a person there replaced while
    that write was open: both count as made at the same time, since the hub can't tell that they were not; with the
    number of the row's state in which the place showed them last.
    """

    tag: str
    entity: str
    edits: list[Edit] = field(default_factory=list)
    deletes: list[Delete] = field(default_factory=list)
    aside: dict[tuple[str, Edit], int] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    maybe: bool = False
    twice: bool = False
    united: bool = False
    places: set[str] = field(default_factory=set)

    def of(self, name: str) -> list[Edit]:
        return [each for each in self.edits if each.name == name]

    def shown(self, name: str, place: str, same: Any) -> Edit | None:
        """The edit whose value a place shows: its own last one, or the first that made the value."""
        fitting = [each for each in self.of(name) if same(each.value)]
        mine = [each for each in fitting if each.place == place]
        if mine:
            return mine[-1]
        return fitting[0] if fitting else None

    def seen(self, name: str, place: str, same: Any) -> frozenset[Edit]:
        """What whoever sees a value at a place knows of. Where several people typed it, nobody can say whose it is: then
        it is what all of them knew.
        """
        mine = [each for each in self.of(name) if same(each.value) and each.place == place][-1:]
        fitting = mine or [each for each in self.of(name) if same(each.value)]
        known = [each.upon | {each} for each in fitting]
        return frozenset.intersection(*known) if known else frozenset()

    def last(self, name: str) -> list[Edit]:
        """The edits that nothing is built upon."""
        edits = self.of(name)
        away = {each.place for each in self.deletes}
        # What was made at a place that then deleted the record may never have been read.
        built_upon = {each for edit in edits if edit.place not in away for each in edit.upon}
        if away and all(each.place in away for each in edits):
            return []
        return [each for each in edits if each not in built_upon]


@dataclass
class Model:
    """`things` by tag."""

    things: dict[str, Thing] = field(default_factory=dict)
    numbers: int = 0

    def edited(
        self,
        thing: Thing,
        name: str,
        value: Any,
        place: str,
        upon: Iterable[Edit],
        beside: Iterable[Edit] = (),
    ) -> Edit:
        self.numbers += 1
        known = frozenset(upon)
        closure = known.union(*(each.upon for each in known))
        edit = Edit(self.numbers, name, value, place, closure, frozenset(beside) - closure)
        thing.edits.append(edit)
        return edit

    def decided(self, thing: Thing, name: str, winner: Any, loser: Any) -> None:
        """A conflict was decided: whoever builds upon the winner knows of the loser."""
        winners = [each for each in thing.of(name) if each.value == winner]
        losers = [each for each in thing.of(name) if each.value == loser]
        if len(winners) == 1 and len(losers) == 1 and winners[0] not in losers[0].upon:
            more = {losers[0], *losers[0].upon} - {winners[0]}
            for each in thing.edits:
                if each is winners[0] or winners[0] in each.upon:
                    each.upon = each.upon | (more - {each})

    def typed(self, thing: Thing, name: str) -> set[Any]:
        return {each.value for each in thing.of(name)}


Row = Mapping[str, Any]
