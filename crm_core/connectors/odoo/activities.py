"""Activities: what their types stand for, which record each is at, and who may have one that is at none.

What Odoo does that this answers to (seen of 19.0): an activity names its record by number and model, and the model by a
number of its own that ordinary users may not look up, but are told as a default; one at a record that is not there is
refused as if a right were missing; one at no record is seen by its own user alone, whoever asks, and only he can make it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from crm_core.connectors.odoo.client import Client
from crm_core.connectors.odoo.domains import MAX_ID
from crm_core.connectors.odoo.lookups import BOUND_SECONDS, IDS_PER_READ, KEPT_SECONDS, rows_of
from crm_core.connectors.odoo.metadata import Metadata
from crm_core.connectors.odoo.models.activities import (
    ACTIVITIES,
    CANCELED,
    CATEGORIES,
    DOCUMENTS,
    KIND,
    RECORD,
    TYPES,
    TYPES_MODULE,
)
from crm_core.connectors.odoo.models.common import ID_FORM, MODEL_NAME, SYSTEM, Model
from crm_core.connectors.odoo.wire import number_of
from crm_core.errors import BadRequest, FieldError, NotPermitted, NotSupported, Rejected
from crm_core.model.fields import NATIVE_PREFIX
from crm_core.ports import Clock
from crm_core.protocols.kept import Kept

TYPE, MODEL_ID, USER = "activity_type_id", "res_model_id", "user_id"
TYPE_MODEL = "mail.activity.type"
KEPT_DONE = "keep_done"
"""Of a type, in 17 and 18: what is done stays, archived."""
FIRST_KEEPING = 19
"""The version since which everything that is done stays so."""
FORESEEN_SECONDS = 10.0
"""How long the records that many writes name are known: for these writes."""
NOBODY = -1
"""An id that no record has."""

Place = tuple[str, str]
"""A record: its model, and its id."""


@dataclass(frozen=True)
class _Type:
    rid: int
    word: str
    """What it stands for: the external id of one that Odoo brings, or its own name."""
    standard: bool
    active: bool


class Activities:
    """Safe for many threads."""

    def __init__(self, client: Client, metadata: Metadata, clock: Clock) -> None:
        self._client = client
        self._metadata = metadata
        self._types: Kept[str, Sequence[_Type]] = Kept(clock, KEPT_SECONDS)
        self._keeping: Kept[int, bool] = Kept(clock, BOUND_SECONDS)
        self._models: Kept[str, str] = Kept(clock, KEPT_SECONDS)
        self._states: Kept[Place, str] = Kept(clock, FORESEEN_SECONDS)

    @staticmethod
    def holds(model: Model) -> bool:
        return model.remote == ACTIVITIES.remote

    # --- reading -------------------------------------------------------------------------------------------------

    def complete(self, rows: Sequence[dict[str, Any]]) -> None:
        """Adds to clean rows what their types stand for, and of which entity the records are that they are at."""
        words = (
            {str(each.rid): each.word for each in self._known()} if any(row.get(TYPE) for row in rows) else {}
        )
        places = {(row[MODEL_NAME], row[RECORD]) for row in rows if row.get(MODEL_NAME) and row.get(RECORD)}
        states = self._read((place for place in places if place[0] in DOCUMENTS), tolerant=True)
        for row in rows:
            row[KIND] = words.get(row.get(TYPE) or "")
            place = (row.get(MODEL_NAME) or "", row.get(RECORD) or "")
            row[f"{RECORD}/kind"] = _entity(place, states.get(place, ""))

    def _known(self) -> Sequence[_Type]:
        """Every type, in Odoo's order."""

        def read() -> Sequence[_Type]:
            fields = ["name", "category", "active"]
            rows = rows_of(
                self._client.call(TYPE_MODEL, "search_read", domain=[], fields=fields, order="sequence,id")
            )
            ids = [int(row["id"]) for row in rows]
            told = self._client.call(TYPE_MODEL, "get_external_id", ids=ids) if ids else {}
            return [_type(row, str(told.get(str(row["id"])) or "")) for row in rows]

        return self._types.one("", read)

    def _read(self, places: Iterable[Place], *, tolerant: bool = False) -> dict[Place, str]:
        """What tells the entity of each of these records; of one that is not there, or that we may not see, nothing.

        `tolerant`: nor of those of a model that we may not read; who has an activity sees it all the same.
        """
        by_model: dict[str, list[int]] = defaultdict(list)
        for name, rid in sorted(places):
            by_model[name].append(number_of(rid))
        found: dict[Place, str] = {}
        for name, ids in by_model.items():
            field = DOCUMENTS[name].field
            for start in range(0, len(ids), IDS_PER_READ):
                domain = [["id", "in", ids[start : start + IDS_PER_READ]]]
                with suppress(*((NotPermitted, NotSupported) if tolerant else ())):
                    rows = rows_of(self._client.call(name, "search_read", domain=domain, fields=[field]))
                    found |= {(name, str(row["id"])): str(row[field]) for row in rows}
        return found

    # --- asking --------------------------------------------------------------------------------------------------

    def types_by_name(self) -> Mapping[str, tuple[int, ...]]:
        """By the canonical name, or the native one under its prefix, the types that stand for it."""
        found: dict[str, tuple[int, ...]] = dict.fromkeys(TYPES.values(), ())
        for each in self._known():
            name = TYPES.get(each.word, f"{NATIVE_PREFIX}{each.word}")
            found[name] = (*found.get(name, ()), each.rid)
        return {name: ids or (NOBODY,) for name, ids in found.items()}

    # --- writing -------------------------------------------------------------------------------------------------

    def foresee(self, writes: Iterable[Mapping[str, Any]]) -> None:
        """Reads the records that these fields name together, so that `bound` need not ask for each."""
        named = [(each.get("regarding_type"), each.get("regarding_id")) for each in writes]
        places = [_place(str(entity), str(rid)) for entity, rid in named]
        self._states_of(list({place for place in places if place is not None}))

    def _states_of(self, places: Sequence[Place]) -> Mapping[Place, str]:
        def read(missing: list[Place]) -> dict[Place, str]:
            found = self._read(missing)
            return {place: found.get(place, "") for place in missing}

        return self._states.many(places, read)

    def bound(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Native values to be written, with the numbers of type and model; raises BadRequest naming the field, and
        Rejected for a record that is not there.
        """
        bound = {
            path: value for path, value in row.items() if path != KIND and not path.startswith(f"{RECORD}/")
        }
        if row.get(KIND) is not None:
            bound[TYPE] = str(self._type(str(row[KIND])))
        elif KIND in row:
            bound[TYPE] = None
        if any(path.startswith(f"{RECORD}/") for path in row):
            bound |= {RECORD: None, MODEL_ID: None}
        for path, value in row.items():
            entity = path.removeprefix(f"{RECORD}/")
            if entity != path and value is not None:
                place = _place(entity, str(value))
                if place is None or not self._is(place, entity):
                    text = f"regarding_id: Odoo has no such {entity}, {value}; name one that is there."
                    raise Rejected(text, system=SYSTEM, errors=[FieldError("regarding_id", text)])
                bound |= {RECORD: place[1], MODEL_ID: self._model_id(place[0])}
        return bound

    def _is(self, place: Place, entity: str) -> bool:
        def fits(state: str) -> bool:
            return _entity(place, state) == entity or (state == CANCELED and entity == "order")

        return fits(self._states_of([place])[place]) or fits(self._read([place]).get(place, ""))

    def _type(self, word: str) -> int:
        found = [each for each in self._known() if each.word == word and each.active]
        found = [each for each in found if each.standard] or found
        if len(found) == 1 or (found and word in TYPES):
            return found[0].rid
        name = TYPES.get(word, f"{NATIVE_PREFIX}{word}")
        many = f"{len(found)} types of activity are" if found else "no type of activity is"
        raise BadRequest.field("kind", f"kind: at this Odoo {many} '{name}'; expected one that there is.")

    def _model_id(self, name: str) -> str:
        """The number of a model. It is no secret: every user is told it as the default beside the model's name."""

        def read() -> str:
            told = self._client.call(
                ACTIVITIES.remote,
                "default_get",
                fields=[MODEL_NAME, MODEL_ID],
                context={f"default_{MODEL_NAME}": name},
            )
            return str((told.get(MODEL_ID) if isinstance(told, dict) else None) or "")

        found = self._models.one(name, read)
        if not found:
            text = f"regarding_id: this Odoo has no {name}; name another record."
            raise BadRequest.field("regarding_id", text)
        return found

    def made(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a new activity. At no record it is its user's own: ours, and no other's."""
        return self._of_somebody(values, {}, {})

    def changed(self, values: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
        """The values of an update of an activity that is so."""
        return self._of_somebody(values, {RECORD: raw.get(RECORD), USER: _first(raw.get(USER))}, raw)

    def _of_somebody(
        self, values: Mapping[str, Any], was: Mapping[str, Any], raw: Mapping[str, Any]
    ) -> dict[str, Any]:
        after = {**was, **values}
        if after.get(RECORD):
            return dict(values)
        if not raw and self._metadata.facts(ACTIVITIES)[MODEL_ID].required:
            text = "regarding_id: this Odoo keeps activities at a record alone; name one."
            raise BadRequest.field("regarding_id", text)
        ours = str(self._client.uid())
        if not after.get(USER) and USER not in values:
            return {**values, USER: ours}
        if str(after.get(USER)) != ours:
            text = (
                "owner_email: an activity at no record can be the hub's own user's alone, since Odoo shows it to nobody "
                "else; name that one, or give regarding_id."
            )
            raise BadRequest.field("owner_email", text)
        return dict(values)

    def check_stays(self, type_id: str | None) -> None:
        """Raises BadRequest if this Odoo deletes an activity of that type when it is done (before 19)."""
        gone = "this Odoo deletes an activity when it is done"
        if "active" not in self._metadata.facts(ACTIVITIES):
            raise BadRequest.field("status", f"status: {gone}; mark it there, or delete it.")
        number = int(type_id or 0)
        if not self._keeping.one(number, lambda: self._keeps(number)):
            text = f"status: {gone}, unless its type says Keep Done; switch that on there, or mark it there."
            raise BadRequest.field("status", text)

    def _keeps(self, type_id: int) -> bool:
        if KEPT_DONE not in self._client.call(TYPE_MODEL, "fields_get", attributes=["type"]):
            return self._client.version() >= FIRST_KEEPING
        rows = rows_of(
            self._client.call(TYPE_MODEL, "search_read", domain=[["id", "=", type_id]], fields=[KEPT_DONE])
        )
        return any(row[KEPT_DONE] for row in rows)


def _type(row: Mapping[str, Any], external_id: str) -> _Type:
    module, _, name = external_id.partition(".")
    standard = module == TYPES_MODULE and name in TYPES
    word = name if standard else CATEGORIES.get(str(row.get("category")), str(row["name"]))
    return _Type(int(row["id"]), word, standard, bool(row["active"]))


def _entity(place: Place, state: str) -> str:
    """The entity of a record by what tells it, "unknown" if it is none of ours."""
    document = DOCUMENTS.get(place[0])
    names = {str(value): name for value, name in document.entities.items()} if document is not None else {}
    return names.get(state, "unknown")


def _place(entity: str, rid: str) -> Place | None:
    """Where a record of an entity is, by its id; None for what is none of ours, or no id."""
    found = [name for name, each in DOCUMENTS.items() if entity in each.entities.values()]
    known = found and re.fullmatch(ID_FORM, rid) and int(rid) <= MAX_ID
    return (found[0], rid) if known else None


def _first(pair: Any) -> str | None:
    return str(pair[0]) if isinstance(pair, list) and pair else None
