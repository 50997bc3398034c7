"""The rule of one field in a document of overrides, checked, as the map of that field. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

from crm_core.errors import FieldError
from crm_core.model.field_map import FieldMap
from crm_core.model.fields import Field, Type
from crm_core.model.local_time import zone_of
from crm_core.model.override_fields import BY_TEXT, Overridden, Path, overridden, path_of
from crm_core.model.templates import Template
from crm_core.model.value_maps import Condition, Rule, ValueMap

CUSTOM = re.compile(r"x_[a-z][a-z0-9_]{0,39}")
"""Names of custom fields."""
MAX_RULES = 500
_FLAGS: Mapping[str, tuple[Type, ...]] = {
    "scale": (Type.DECIMAL, Type.MONEY),
    "whole_seconds": (Type.INSTANT,),
    "midnight": (Type.DATE,),
    "zone": (Type.INSTANT,),
    "zoneless": (Type.INSTANT,),
}
"""What only some types can be said to be."""
MAX_PLACES = 10
NO_PLACE = "say one of to (a property), from (a template of properties) or constant"

_ALWAYS = ("direction", "read_only", "required")
_SOURCES = ("to", "from", "constant")
_FACTS = ("length", "scale", "whole_seconds", "midnight")
WORDS = (
    *_ALWAYS, *_SOURCES, *_FACTS, "type", "choices", "values", "unmapped", "default", "template", "lossy", "zone",
    "zoneless",
)  # fmt: skip
"""All that a rule of a field can say."""
WRITTEN = (
    "to", "required", "length", "scale", "values", "unmapped", "default", "template", "zone", "zoneless", "direction",
)  # fmt: skip
"""What it can say of a field that is only told."""


class Wrong(Exception):
    """A rule that can't be: one error for each reason."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(errors[0].message)
        self.errors = errors


@dataclass(frozen=True)
class Place:
    """Where a rule stands in its document, and in whose zone its times are unless it says so itself. `dotted`: templates may
    name fields of other records (`joined.py`).
    """

    where: str
    path: str
    rule: Mapping[str, Any]
    zone: ZoneInfo | None
    dotted: bool = False

    def wrong(self, key: str, text: str) -> Wrong:
        path = ".".join(part for part in (self.where, self.path, key) if part)
        return Wrong(FieldError(path, f"{path}: {text}."))

    def flag(self, key: str) -> bool:
        value = self.rule.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "expected true or false")
        return value


def only(place: Place, *known: str) -> None:
    """Raises Wrong for a rule that is no object, or says what means nothing in it."""
    if not isinstance(place.rule, Mapping):
        raise place.wrong("", f"expected an object with {', '.join(known)}")
    strange = [name for name in place.rule if name not in known]
    if strange:
        raise Wrong(
            *(
                error
                for name in strange
                for error in place.wrong(
                    str(name), f"means nothing here; known are {', '.join(known)}"
                ).errors
            )
        )


def template_of(place: Place, key: str) -> Template:
    text = place.rule[key]
    if not isinstance(text, str):
        raise place.wrong(key, "expected a text such as {first_name} {last_name|upper}")
    try:
        template = Template.parse(text, dotted=place.dotted and key != "from")
    except ValueError as error:
        raise place.wrong(key, str(error)) from None
    if not template.names:
        raise place.wrong(key, "names no field; say constant for what is always the same")
    return template


def field_of(place: Place, kind: Field, declared: FieldMap | None) -> FieldMap:
    """The map of a field by its rule; `declared`: as the connector has it, if it has. Raises Wrong."""
    custom = bool(CUSTOM.fullmatch(kind.name))
    if kind.type in (Type.REF, Type.LINES):
        if declared is None:
            raise place.wrong("", "leads to other records, which only the connector can map; leave it out")
        only(place, *_ALWAYS, *(("to",) if declared.free and kind.type is Type.REF else ()))
    only(place, *(name for name in WORDS if custom or name not in ("type", "choices")))
    given = [name for name in _SOURCES if name in place.rule]
    if len(given) > 1 or (not given and declared is None):
        raise place.wrong("", NO_PLACE)
    if "constant" in given:
        only(place, "constant", *_ALWAYS, *(("type", "choices") if custom else ()))
    reads, writes = _direction(place, kind, declared, given)
    required = place.flag("required")
    if required and not writes:
        raise place.wrong("required", "is never written, so it can't be required; leave it out")
    if declared is not None and not given:
        base = overridden(declared, readable=reads, writable=writes)
    else:
        base = Overridden(kind.name, "", readable=reads, writable=writes)
    if "from" in place.rule:
        base = replace(base, source=template_of(place, "from"))
    if "constant" in place.rule:
        base = replace(base, constant=_parsed(place, "constant", kind, place.rule["constant"]))
    if "to" in place.rule:
        first, *others = _paths(place)
        if others and not writes:
            raise place.wrong(
                "to", "several properties are for writing, and this field is never written; name one"
            )
        base = replace(base, native=first[0], path=first[1:], also=tuple(others))
        if declared is not None and declared.targets:
            base = _moved(place, base, declared)
    return _valued(place, kind, _timed(place, kind, replace(base, **_facts(place, kind))))


def _moved(place: Place, base: Overridden, declared: FieldMap) -> Overridden:
    """A reference that is kept elsewhere."""
    if base.writable and (base.path or base.also):
        raise place.wrong("to", 'a reference is written to one property of the body; say "direction": "in"')
    targets = (replace(each, write=base.native, clear=base.native) for each in declared.targets)
    return replace(base, targets=tuple(targets), kind_native=declared.kind_native)


def _direction(place: Place, kind: Field, declared: FieldMap | None, given: list[str]) -> tuple[bool, bool]:
    """Whether a field is read, and whether it is written."""
    said = place.rule.get("direction")
    if said not in (None, "both", "in", "out"):
        raise place.wrong("direction", "expected both, in (read only) or out (written only)")
    reason = ""
    if kind.read_only:
        reason = "is read only in the model"
    elif given in (["from"], ["constant"]):
        reason = f"is read only by its '{given[0]}'"
    elif not given and declared is not None and not declared.writable:
        reason = "is read only at the system"
    elif place.flag("read_only"):
        reason = "is said to be read only"
    if reason and said in ("both", "out"):
        raise place.wrong("direction", f"{kind.name} {reason}; leave direction out, or say in")
    return said != "out", said != "in" and not reason


def _parsed(place: Place, key: str, kind: Field, value: Any) -> Any:
    try:
        parsed = kind.parse(value)
    except ValueError as error:
        raise place.wrong(key, str(error)) from None
    if parsed is None:
        raise place.wrong(key, "expected a value")
    return parsed


def _paths(place: Place) -> list[Path]:
    value = place.rule["to"]
    texts = value if isinstance(value, list) else [value]
    if not 0 < len(texts) <= MAX_PLACES or not all(isinstance(each, str) for each in texts):
        raise place.wrong("to", f"expected the name of a property, or a list of at most {MAX_PLACES}")
    try:
        return [path_of(each) for each in texts]
    except ValueError as error:
        raise place.wrong("to", str(error)) from None


def _facts(place: Place, kind: Field) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, least, most in (("length", 1, 1_000_000), ("scale", 0, 20)):
        value = place.rule.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise place.wrong(name, f"expected a whole number from {least} to {most}")
            facts[name] = value
    for name, kinds in _FLAGS.items():
        if name in place.rule and kind.type not in kinds:
            raise place.wrong(name, f"means nothing of {kind.name}, which is {kind.type}; leave it out")
    for name in ("whole_seconds", "midnight"):
        if name in place.rule:
            facts[name] = place.flag(name)
    return facts


def _timed(place: Place, kind: Field, base: Overridden) -> Overridden:
    zone = place.zone if kind.type is Type.INSTANT else None
    if place.rule.get("zone") is not None:
        try:
            zone = zone_of(place.rule["zone"])
        except (TypeError, ValueError):
            raise place.wrong("zone", "expected a time zone such as America/Lima or UTC") from None
    zoneless = place.flag("zoneless")
    if zoneless and zone is None:
        raise place.wrong(
            "zoneless", "a time without a zone needs one to be read in; say zone, such as America/Lima"
        )
    return replace(base, zone=zone, zoneless=zoneless)


# --- values and templates ----------------------------------------------------------------------------------------


def _valued(place: Place, kind: Field, base: Overridden) -> FieldMap:
    both = base.readable and base.writable and not place.flag("lossy")
    if "values" in place.rule and "template" in place.rule:
        raise place.wrong("template", "goes with no values; say one of the two")
    if "values" in place.rule:
        translation = _translation(place, kind)
        losses = translation.losses() if both else []
        if losses:
            raise place.wrong(
                "values", f'{losses[0]}; mend it, or say "direction": "in" or "out", or "lossy": true'
            )
        literal = translation.literal and kind.type in (Type.TEXT, Type.CHOICE)
        names = {rule.theirs: rule.ours for rule in reversed(translation.rules)} if literal else {}
        return replace(base, translation=translation, names=_in_order(translation, names))
    for name in ("default",) if "template" in place.rule else ("default", "unmapped"):
        if name in place.rule:
            raise place.wrong(name, "goes with values; leave it out")
    if "template" not in place.rule:
        return base
    template = template_of(place, "template")
    if not base.writable:
        raise place.wrong(
            "template", f"{kind.name} is never written; say from for a template that is read by"
        )
    if template.names != (kind.name,):
        raise place.wrong(
            "template", f"can name {kind.name} only; what is made of other fields stands in targets"
        )
    unmapped = place.rule.get("unmapped", "keep" if kind.type in (Type.TEXT, Type.CHOICE) else "reject")
    if unmapped not in ("keep", "reject") or (
        unmapped == "keep" and kind.type not in (Type.TEXT, Type.CHOICE)
    ):
        raise place.wrong("unmapped", "expected reject, or keep of a text or a choice")
    if both and not (template.reversible and kind.type in BY_TEXT):
        raise place.wrong(
            "template", f'{kind.name} can\'t be read back from it; say "direction": "out", or "lossy": true'
        )
    if base.readable and not (template.single and kind.type in BY_TEXT):
        raise place.wrong(
            "template", f'{kind.name} can\'t be read back from it at all; say "direction": "out"'
        )
    return replace(base, names={}, template=template, keeps=unmapped == "keep")


def _in_order(translation: ValueMap, names: Mapping[Any, str]) -> dict[Any, str]:
    """By their value, the one that is written first of several."""
    return {rule.theirs: names[rule.theirs] for rule in translation.rules} if names else {}


def _translation(place: Place, kind: Field) -> ValueMap:
    if kind.type in (Type.LINES, Type.REF, Type.CHOICES):
        raise place.wrong("values", f"{kind.name} is {kind.type}, whose values can't be translated")
    rules = tuple(_rules(place, kind))
    keepable = kind.type in (Type.TEXT, Type.CHOICE)
    unmapped = place.rule.get("unmapped", "keep" if keepable else "reject")
    if unmapped not in ("keep", "default", "reject") or (unmapped == "keep" and not keepable):
        raise place.wrong("unmapped", "expected keep (of a text or a choice), default or reject")
    default = place.rule.get("default")
    if (default is not None) is not (unmapped == "default"):
        raise place.wrong("default", 'goes with "unmapped": "default", and that needs it')
    ours = theirs = None
    if default is not None:
        inner = replace(place, path=f"{place.path}.default", rule=default)
        only(inner, "ours", "theirs")
        ours = _parsed(inner, "ours", kind, default["ours"]) if "ours" in default else None
        theirs = _native(inner, "theirs", default["theirs"]) if "theirs" in default else None
        if ours is None and theirs is None:
            raise inner.wrong("", "say ours (what is read), theirs (what is written), or both")
    found = ValueMap(rules, unmapped, ours, theirs)
    types = {type(each) for each in (*found.theirs, *(() if theirs is None else (theirs,)))}
    if len(types) > 1:
        raise place.wrong(
            "values", "the system's values are of one type: text, whole numbers, or true and false"
        )
    return found


def _rules(place: Place, kind: Field) -> list[Rule]:
    """The rules in their order; an object has none, so its are in that of our values, however it is stored."""
    given = place.rule["values"]
    if isinstance(given, Mapping):
        given = [{"ours": ours, "theirs": theirs} for ours, theirs in sorted(given.items())]
    if not isinstance(given, list) or not 0 < len(given) <= MAX_RULES:
        raise place.wrong("values", 'expected an object such as {"ours": "theirs"}, or a list of rules')
    rules: list[Rule] = []
    for number, each in enumerate(given):
        inner = replace(place, path=f"{place.path}.values.{number}", rule=each)
        only(inner, "ours", "theirs")
        if set(each) != {"ours", "theirs"}:
            raise inner.wrong("", "expected an object with ours and theirs")
        rule = Rule(_side(inner, "ours", kind), _side(inner, "theirs", None))
        if isinstance(rule.ours, Condition) and isinstance(rule.theirs, Condition):
            raise inner.wrong(
                "", "has a condition on both sides, so it translates to nothing; name one value"
            )
        if rule in rules:
            raise inner.wrong("", "is given twice; leave one out")
        rules.append(rule)
    return rules


def _side(place: Place, key: str, kind: Field | None) -> Any:
    """One side of a rule: a value, of a field of ours if `kind` names it, or a condition."""

    def value_of(where: Place, name: str, value: Any) -> Any:
        return _native(where, name, value) if kind is None else _parsed(where, name, kind, value)

    value = place.rule[key]
    if not isinstance(value, Mapping):
        return value_of(place, key, value)
    inner = replace(place, path=f"{place.path}.{key}", rule=value)
    only(inner, "contains", "in")
    if len(value) != 1:
        raise inner.wrong("", "expected a value, contains or in")
    if "contains" in value:
        if not isinstance(value["contains"], str) or not value["contains"]:
            raise inner.wrong("contains", "expected a text")
        return Condition(contains=value["contains"])
    among = value["in"]
    if not isinstance(among, list) or not among:
        raise inner.wrong("in", "expected a list of values")
    return Condition(among=tuple(value_of(inner, "in", each) for each in among))


def _native(place: Place, key: str, value: Any) -> str | int | bool:
    if isinstance(value, str | int) and value != "":
        return value
    raise place.wrong(key, "expected a text, a whole number, true or false")
