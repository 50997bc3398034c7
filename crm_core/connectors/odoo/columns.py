"""What requests name, as columns of a search: canonical names, declared native ones, and the server's own fields."""

from crm_core.connectors.odoo.activities import Activities
from crm_core.connectors.odoo.domains import Column, joined
from crm_core.connectors.odoo.metadata import KNOWN_TYPES, NATIVE_TYPES, Metadata
from crm_core.connectors.odoo.models.activities import DOCUMENTS, KIND
from crm_core.connectors.odoo.models.common import (
    LOOKUPS,
    MODEL_NAME,
    OF_STAGE,
    AnyRecord,
    Domain,
    Model,
    root,
)
from crm_core.connectors.odoo.wire import NUMBERS
from crm_core.errors import BadRequest
from crm_core.model.field_map import FieldMap
from crm_core.model.fields import Type
from crm_core.model.literals import SERIAL_TYPE


class Columns:
    """Resolves names of requests: canonical, declared native, or among the server's own fields."""

    def __init__(self, model: Model, metadata: Metadata, activities: Activities) -> None:
        self._model = model
        self._metadata = metadata
        self._activities = activities

    def __call__(self, name: str, parameter: str = "filter") -> Column:
        model = self._model
        each = model.find(name)
        if name in model.specific:
            field = model.specific[name][0].field
            raise BadRequest.field(parameter, f"{parameter}: '{name}' is for writing; name {field}.")
        if each is not None:
            return self._declared(each, name, parameter)
        if name in ("id", model.key):
            return Column(name, "id", SERIAL_TYPE)
        if name in model.companions:
            beside = model.companions[name].field
            raise BadRequest.field(
                parameter, f"{parameter}: '{name}' only goes with {beside}; name that one."
            )
        facts = self._metadata.facts(model).get(name)
        kind = NATIVE_TYPES.get(facts.type, "") if facts is not None else ""
        if facts is None or kind not in KNOWN_TYPES:
            raise self._unknown(name, parameter)
        empties = not (facts.type in NUMBERS or facts.type == "boolean")
        return Column(
            name, name, kind, empty=[[name, "=", False]] if empties else [], filled=[[name, "!=", False]]
        )

    def _unknown(self, name: str, parameter: str) -> BadRequest:
        entity, known = self._model.entity.name, ", ".join(self._model.by_field)
        return BadRequest.field(
            parameter, f"{parameter}: '{name}' is no field of {entity}; known are {known}."
        )

    def _declared(self, each: FieldMap, name: str, parameter: str) -> Column:
        kind = self._model.entity.by_name[each.field].type
        column = root(each.native)
        facts = self._metadata.facts(self._model).get(column)
        if facts is None:
            raise BadRequest.field(
                parameter, f"{parameter}: this Odoo has no {column} for '{name}'; leave it out."
            )
        if kind is Type.LINES or not each.askable:
            raise BadRequest.field(parameter, f"{parameter}: '{name}' can't be asked for here; leave it out.")
        empty: Domain = [[column, "=", False]]
        filled: Domain = [[column, "!=", False]]
        if each.targets:
            return self._reference(each, name, column)
        if each.native in (OF_STAGE, KIND):
            kinds = self._activities.types_by_name() if each.native == KIND else {}
            states = {} if kinds else self._model.states
            return Column(
                name, column, Type.TEXT, kinds, states=states, empty=empty if kinds else [], filled=filled
            )
        if each.native in LOOKUPS:
            path = f"{column}.{LOOKUPS[each.native].text}"
            return Column(name, path, Type.TEXT, empty=empty, filled=filled)
        if facts.type == "boolean" and not each.names:
            return Column(name, column, Type.BOOLEAN)
        if each.names:
            return self._named(each, name, column, facts.type)
        if facts.type in NUMBERS:
            return Column(name, column, kind, filled=filled)
        canonical = name != each.native  # by its own name it is what it is there
        if each.day:
            kind = Type.INSTANT if canonical else Type.DATE
        elif each.midnight:
            kind = Type.DATE if canonical else Type.INSTANT
        days, dates = each.midnight and canonical, each.day and canonical
        return Column(name, column, kind, empty=empty, filled=filled, days=days, dates=dates)

    @staticmethod
    def _named(each: FieldMap, name: str, column: str, kind: str) -> Column:
        """A field whose values have names; by its native name they are asked for as the server has them, too."""
        empty: Domain = [[column, "=", False]]
        filled: Domain = [[column, "!=", False]]
        own = {value: (value,) for value in (*each.names, each.nothing) if isinstance(value, str)}
        values = {**each.values, **(own if name == each.native else {})}
        if kind == "boolean" or kind in NUMBERS:
            return Column(name, column, NATIVE_TYPES[kind], values, filled=filled)
        if each.nothing is not None:
            none = [column, "=", each.nothing]
            empty, filled = joined("|", [empty, [none]]), joined("&", [filled, ["!", none]])
        nothing = each.nothing or ""
        return Column(name, column, Type.TEXT, values, empty=empty, filled=filled, nothing=nothing)

    @staticmethod
    def _reference(each: FieldMap, name: str, column: str) -> Column:
        """A reference to a partner means those of one kind alone, where the field can't lead to the other."""
        there: Domain = [[column, "!=", False]]
        empty: Domain = [[column, "=", False]]
        if isinstance(each, AnyRecord):
            models = list(DOCUMENTS)
            filled = joined("&", [there, [[MODEL_NAME, "in", models]]])
            empty = joined("|", [empty, [[MODEL_NAME, "not in", models]]])
            return Column(name, column, SERIAL_TYPE, empty=empty, filled=filled, guarded=True)
        which = each.native.partition("/")[2]
        entities = {target.entity for target in each.targets}
        if which == "account":
            path = f"{column}.commercial_partner_id"
        elif which == "contact" or (each.kind_native and len(entities) == 1):
            path = column
        else:
            return Column(name, column, SERIAL_TYPE, empty=empty, filled=there)
        company = which != "contact"
        filled = joined("&", [there, [[f"{path}.is_company", "=", company]]])
        lacking = joined("|", [empty, [[f"{path}.is_company", "=", not company]]])
        return Column(name, path, SERIAL_TYPE, empty=lacking, filled=filled, guarded=True)

    def ordered(self, name: str) -> str:
        """The field to order by; raises BadRequest for what is kept in another model, or is not kept at all."""
        column = self(name, "orderby").path
        each = self._model.find(name)
        facts = self._metadata.facts(self._model).get(column)
        if "." in column or (each is not None and "/" in each.native):
            raise BadRequest.field(
                "orderby", f"orderby: '{name}' is kept in another model; order by another."
            )
        if facts is not None and not facts.sortable:
            raise BadRequest.field(
                "orderby", f"orderby: '{name}' is worked out when it is read; order by another."
            )
        return column

    def selected(self, name: str) -> tuple[str, ...]:
        """The fields that have to be read for a name."""
        each = self._model.find(name) or self._model.companions.get(name)
        if each is None:
            return (self(name, "select").path,)
        if each.native == OF_STAGE:
            return tuple(name for name in ("active", "stage_id") if name in self._metadata.facts(self._model))
        return tuple(root(native) for native in each.natives if native != "order_line")
