"""Writes in Odoo's words: values by `write`, creates by `load`, lines by commands, states by the methods that set them."""

from collections.abc import Mapping, Sequence
from typing import Any

from crm_core.connector import Change, Write
from crm_core.connectors.odoo.activities import TYPE, Activities
from crm_core.connectors.odoo.client import Client
from crm_core.connectors.odoo.loading import Loader
from crm_core.connectors.odoo.lookups import Lookups
from crm_core.connectors.odoo.metadata import Metadata
from crm_core.connectors.odoo.models.common import SYSTEM, Model, root
from crm_core.connectors.odoo.reading import LINES, Reader
from crm_core.connectors.odoo.references import OF_PARTNER, emptied, is_shared
from crm_core.connectors.odoo.steps import DONE, FIRST, OPENING, REOPEN, STEPS, Call
from crm_core.connectors.odoo.wire import BY_NUMBER, REFERENCE, cleaned, sent
from crm_core.errors import (
    BadRequest,
    FieldError,
    HubError,
    RecordGone,
    Rejected,
    VendorError,
)
from crm_core.ports import Clock

STATUS = "status"


class Writer:
    """Makes calls of writes. Safe for many threads."""

    def __init__(
        self,
        client: Client,
        metadata: Metadata,
        lookups: Lookups,
        activities: Activities,
        reader: Reader,
        clock: Clock,
    ) -> None:
        self._client = client
        self._metadata = metadata
        self._lookups = lookups
        self._activities = activities
        self._reader = reader
        self.loads = Loader(client, metadata, clock, self.named)

    # --- values --------------------------------------------------------------------------------------------------

    def values(self, model: Model, write: Write) -> dict[str, Any]:
        """Clean native values that a write sets, ids in place of texts; raises BadRequest naming the field.

        The status where steps lead to it, and the lines, go separately.
        """
        apart = {LINES, *([STATUS] if model.remote in STEPS and self.led(model) else [])}
        fields = {name: value for name, value in write.fields.items() if name not in apart}
        known = {*model.by_field, *model.companions, *model.parts}
        for name in fields:
            if name not in known:
                raise BadRequest.field(name, f"{name}: {model.remote} has none; leave it out.")
        one_partner = "contact_id" in model.by_field and is_shared(model.by_field["contact_id"].native)
        if one_partner and all(fields.get(f"{each}_id") is not None for each in OF_PARTNER):
            del fields["account_id"]  # of a person, the account is his company
        native = {**self._lookups.bound(model, model.outward(fields)), **write.native}
        if self._activities.holds(model):
            native = self._activities.bound(native)
        self._check(model, native)
        return native

    def new(self, model: Model, write: Write) -> dict[str, Any]:
        """Clean native values that a create sets."""
        values = {**model.constant, **self.values(model, write)}
        values = {name: value for name, value in values.items() if value is not None}
        return self._activities.made(values) if self._activities.holds(model) else values

    def foresee(self, model: Model, writes: Sequence[Write]) -> None:
        """Reads together what single writes would ask for each by itself."""
        if self._activities.holds(model):
            self._activities.foresee([each.fields for each in writes])

    @staticmethod
    def led(model: Model) -> bool:
        """Whether methods lead to the statuses of an entity, of a model that has such."""
        return bool(model.states) or model.remote == "sale.order"

    def _check(self, model: Model, native: Mapping[str, Any]) -> None:
        """Raises BadRequest for a field that this server has not, and for a text that no reference is."""
        facts = self._metadata.facts(model)
        for name, value in native.items():
            if name not in facts:
                field = self.field_of(model, name)
                raise BadRequest.field(
                    field, f"{field}: this Odoo has no {name} in {model.remote}; leave it out."
                )
            if facts[name].type in BY_NUMBER and value is not None and not str(value).isdigit():
                field = self.field_of(model, name)
                raise BadRequest.field(field, f"{field}: expected the id of a record at the system.")
            try:
                sent(facts[name].type, value)
            except (ValueError, TypeError, AttributeError):  # native values come as the caller gave them
                field = self.field_of(model, name)
                kind = facts[name].type
                raise BadRequest.field(field, f"{field}: expected a {kind}, as text.") from None

    def sent(self, model: Model, native: Mapping[str, Any]) -> dict[str, Any]:
        """As `write` takes them. Raises BadRequest for a day that is emptied and that Odoo can't be without."""
        types = self._metadata.types(model)
        for each in model.fields:
            if each.day and each.kept and native.get(each.native, "") is None:
                raise BadRequest.field(each.field, f"{each.field}: Odoo is never without; give another.")
        return {
            self._metadata.called(model, name): sent(types[name], value) for name, value in native.items()
        }

    def state_of(self, model: Model, write: Write) -> str | None:
        """The native state that a write asks for, where methods lead to it."""
        name = write.fields.get(STATUS)
        if name is None or not self.led(model):
            return None
        values = model.by_field[STATUS].values
        if name not in values:
            raise BadRequest.field(STATUS, f"{STATUS}: expected one of {', '.join(values)}.")
        return str(values[name][0])

    def is_plain(self, model: Model, write: Write) -> bool:
        """Whether a write of many is values alone, and can be made without a look at the record."""
        if write.verb == "create":
            first = (None, FIRST.get(model.remote))
            plain = not self.led(model) or (bool(model.initial) and self.state_of(model, write) in first)
            return plain and LINES not in write.fields and not emptied(model, write)
        return not self.looks(model, write)

    def looks(self, model: Model, write: Write) -> bool:
        """Whether an update takes a look at the record as it is."""
        fields = write.fields
        gives_away = self._activities.holds(model) and ("owner_email" in fields or "user_id" in write.native)
        return (
            LINES in fields
            or bool(emptied(model, write))
            or gives_away
            or self.state_of(model, write) is not None
        )

    # --- creates ---------------------------------------------------------------------------------------------------

    def create(self, model: Model, marker: str, write: Write, was: Change | None = None) -> str:
        """The id of the record that was made, with its lines and in its state: all of it, or none is left.

        `was`: what an earlier try with this marker made, as it is; only what it lacks is done.
        """
        wanted = self.state_of(model, write)
        values = self.new(model, write)
        self._check_stays(model, wanted, values.get(TYPE))
        commands = self._commands(model, write.fields.get(LINES) or [], ())
        if was is not None:
            made: int | HubError = int(was.rid)
            commands = [] if (was.fields or {}).get(LINES) else commands
        else:
            (made,) = self.loads.load(model, [(marker, values)])
        if isinstance(made, HubError):
            raise made
        try:
            if commands:
                self._write(model, made, {"order_line": commands}, write)
            # What has moved on since may have been moved by a person.
            if self.led(model) and (was is None or self._state(model, was) == FIRST[model.remote]):
                state = (
                    wanted if wanted is not None else ("sale" if not model.initial else FIRST[model.remote])
                )
                self._go(model, made, FIRST[model.remote], state)
        except (Rejected, BadRequest):
            if was is None:
                self._client.call(model.remote, "unlink", ids=[made])
            raise
        return str(made)

    # --- updates ---------------------------------------------------------------------------------------------------

    def update(self, model: Model, rid: str, write: Write, now: Change | None) -> None:
        """`now`: the record as it is, where the write takes more than values."""
        wanted = self.state_of(model, write)
        native = self.values(model, write)
        if self._activities.holds(model) and now is not None:
            native = self._activities.changed(native, now.raw)
            self._check_stays(model, wanted, native.get(TYPE) or cleaned(REFERENCE, now.raw.get(TYPE)))
        values = self.sent(model, native)
        if LINES in write.fields:
            there = (now.fields or {}).get(LINES) or [] if now is not None else []
            values["order_line"] = self._commands(model, write.fields[LINES] or [], there)
            if not values["order_line"]:
                del values["order_line"]
        number = int(rid)
        state = self._state(model, now)
        opens = wanted in OPENING
        if wanted is not None and opens:
            self._go(model, number, state, wanted)
        if values or wanted is None:
            self._write(model, number, values, write)
        if wanted is not None and not opens:
            self._go(model, number, state, wanted)

    def _check_stays(self, model: Model, wanted: str | None, type_id: str | None) -> None:
        if wanted == DONE and self._activities.holds(model):
            self._activities.check_stays(type_id)

    @staticmethod
    def _state(model: Model, now: Change | None) -> str:
        """The native state of a record as it is."""
        status = (now.fields or {}).get(STATUS) if now is not None else None
        if status is None:
            return ""
        each = model.by_field[STATUS]
        return str(each.values[status][0]) if status in each.values else str(status).removeprefix("native:")

    def _go(self, model: Model, number: int, state: str, wanted: str) -> None:
        """Leads a record from one state to another. Each step is a call of its own, and none is taken twice."""
        if state == wanted:
            return
        steps: Sequence[Call] | None = STEPS[model.remote].get((state, wanted))
        if steps is None:
            raise BadRequest.field(
                STATUS, f"{STATUS}: no way leads from {state} to {wanted}; change it at the system."
            )
        for step in steps:
            if step is REOPEN:
                self._client.call(
                    model.remote, "write", ids=[number], vals={"stage_id": self._lookups.open_stage()}
                )
            else:
                self._client.call(model.remote, step.method, ids=[number], context=step.context)

    def _write(self, model: Model, number: int, values: Mapping[str, Any], write: Write) -> None:
        try:
            # The same values twice do no harm; a line would be made twice.
            once_more = "order_line" not in values
            self._client.call(model.remote, "write", ids=[number], vals=dict(values), repeatable=once_more)
        except (Rejected, RecordGone) as error:
            named = self.named(model, error, write.fields, str(number))
            if "order_line" in values and not named.errors:
                named.errors = (FieldError(LINES, f"{LINES}: {error.message}"),)
            raise named from None

    def write_many(self, model: Model, rids: Sequence[str], values: Mapping[str, Any]) -> None:
        """The same values for all of them, or for none."""
        self._client.call(
            model.remote, "write", ids=[int(rid) for rid in rids], vals=dict(values), repeatable=True
        )

    def named(self, model: Model, error: VendorError, fields: Mapping[str, Any], rid: str = "") -> Any:
        """A refusal by the canonical names of its fields; what is gone may be what a field refers to, not the record."""
        if isinstance(error, RecordGone):
            referred = [
                name
                for name, value in fields.items()
                if name in model.by_field and model.by_field[name].targets and value != rid
                if isinstance(value, str) and f"({value}," in error.message
            ]
            if not referred:
                return error
            return Rejected(
                error.message,
                system=SYSTEM,
                vendor_status=error.vendor_status,
                vendor_code=error.vendor_code,
                request_id=error.request_id,
                errors=[FieldError(referred[0], error.message)],
            )
        found = [FieldError(self.field_of(model, each.field, fields), each.message) for each in error.errors]
        error.errors = tuple({each.field: each for each in found}.values())
        return error

    @staticmethod
    def field_of(model: Model, native: str, fields: Mapping[str, Any] | None = None) -> str:
        """The canonical name of a field as Odoo calls it; of several, one that the write names."""
        names = [each.field for each in model.fields if root(each.native) == native]
        written = [name for name in names if fields is not None and name in fields]
        return (written or names or [native])[0]

    # --- lines -----------------------------------------------------------------------------------------------------

    def _commands(
        self, model: Model, given: Sequence[Mapping[str, Any]], there: Sequence[Mapping[str, Any]]
    ) -> list[list[Any]]:
        """What makes the lines of a document those that are given: by key, the others new; raises BadRequest."""
        lines = model.lines
        if lines is None:
            return []
        before = {str(line["key"]): line for line in there}
        kept = [str(line["key"]) for line in given if line.get("key")]
        commands: list[list[Any]] = [[2, int(key), 0] for key in before if key not in kept]
        moved = [line.get("key") for line in given] != list(before)
        named: set[str] = set()
        for place, line in enumerate(given, 1):
            key = str(line.get("key") or "")
            problem = "the document has no such line" if key and key not in before else ""
            problem = problem or ("is given twice" if key in named else "")
            if problem:
                raise BadRequest.field(LINES, f"lines: line {place}: {key}: {problem}.")
            named |= {key} if key else set()
            values = self._line(lines, place, line, before.get(key, {}))
            if moved:
                values["sequence"] = place
            if not key:
                commands.append([0, 0, values])
            elif values:
                commands.append([1, int(key), values])
        return commands

    def _line(
        self, lines: Model, place: int, line: Mapping[str, Any], was: Mapping[str, Any]
    ) -> dict[str, Any]:
        fields = {
            name: value
            for name, value in line.items()
            if lines.by_field.get(name) is None or lines.by_field[name].writable
            if name not in was or value != was[name]
            if value is not None or name in was
        }
        foreign = [name for name in fields if name not in lines.by_field]
        lacking = [name for name in sorted(lines.required) if not was and not line.get(name)]
        if foreign or lacking:
            wrong = (
                f"{foreign[0]}: a line has none here; leave it out"
                if foreign
                else f"{lacking[0]}: is needed; name one"
            )
            raise BadRequest.field(LINES, f"lines: line {place}: {wrong}.")
        try:
            if was and "product_id" not in fields and {"quantity", "unit"} & fields.keys():
                fields.setdefault("unit_price", was.get("unit_price"))  # else Odoo asks the price list again
            kept = {
                name: value
                for name, value in fields.items()
                if value is not None or not lines.by_field[name].kept
            }
            return self.sent(lines, self._lookups.bound(lines, lines.outward(kept)))
        except BadRequest as error:
            raise BadRequest.field(LINES, f"lines: line {place}: {error.message}") from None
