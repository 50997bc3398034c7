"""Many writes in few calls, each with an outcome of its own.

Creates go by `load`, a hundred rows a call, and so do updates; those with the same values by one `write` for all their
ids, deletes by one `unlink`. Each call is one transaction: what is refused of several goes once more by itself.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from crm_core.connector import STOPPING, Outcome, Unit, Write, not_begun
from crm_core.connectors.odoo.client import Client
from crm_core.connectors.odoo.loading import BY_ID
from crm_core.connectors.odoo.models.common import SYSTEM, Model
from crm_core.connectors.odoo.reading import Reader, check_id
from crm_core.connectors.odoo.writing import Writer
from crm_core.errors import HubError, RecordGone, Rejected, VendorError
from crm_core.model.json_text import dump_json
from crm_core.ports import Ids
from crm_core.protocols.rest import after_writing

ROWS_PER_CALL = 100

Outcomes = dict[int, Outcome]
_Update = tuple[int, Mapping[str, Any], Mapping[str, Any]]
"""The place of an update among the writes, its clean values, and those as `write` takes them."""


class Many:
    """Cuts writes into units. `one`: carries out a write alone, its error being the outcome."""

    def __init__(
        self, client: Client, reader: Reader, writer: Writer, ids: Ids, one: Callable[[str, Write], Outcome]
    ) -> None:
        self._client = client
        self._reader = reader
        self._writer = writer
        self._ids = ids
        self._one = one

    def units(self, model: Model, writes: Sequence[Write]) -> tuple[list[Unit], Outcomes]:
        """What is to be carried out, and what became of the writes that can't be."""
        settled: Outcomes = {}
        units: list[Unit] = []
        creates: dict[tuple[str, ...], list[tuple[int, str, Mapping[str, Any]]]] = defaultdict(list)
        updates: list[_Update] = []
        deletes: list[int] = []
        with suppress(HubError):  # each write meets it by itself
            self._writer.foresee(model, writes)
        for index, write in enumerate(writes):
            try:
                if write.verb != "create":
                    check_id(write.rid)
                if write.verb == "delete":
                    deletes.append(index)
                elif not self._writer.is_plain(model, write):
                    units.append(self._alone(model, index, write))
                elif write.verb == "create":
                    values = self._writer.new(model, write)
                    marker = write.marker or write.key or self._ids.uuid()
                    creates[tuple(values)].append((index, marker, values))
                else:
                    values = self._writer.values(model, write)
                    updates.append((index, values, self._writer.sent(model, values)))
            except HubError as error:
                if error.recovery in STOPPING:
                    if isinstance(error, VendorError):
                        error.outcome_unknown = False  # it was a read
                    left = dict.fromkeys(range(len(writes)), Outcome(error=not_begun(error)))
                    return [], {**left, **settled, index: Outcome(error=error)}
                settled[index] = Outcome(error=error)
        for found in creates.values():
            units += [self._created(model, writes, part) for part in _portions(found)]
        units += self._updates(model, writes, updates)
        units += [self._deleted(model, writes, part) for part in _portions(deletes)]
        return [self._timed(unit) for unit in units], settled

    def _timed(self, unit: Unit) -> Unit:
        """All calls of a unit share the time that one write has: a later one could land after others take it for dead."""

        def carry_out() -> Outcomes:
            with self._client.rest.verb():
                return dict(unit())

        return carry_out

    def _updates(self, model: Model, writes: Sequence[Write], updates: Sequence[_Update]) -> list[Unit]:
        """By `load`, or by `write` where that takes no more calls, or where a record has two updates."""
        columns: dict[tuple[str, ...], list[_Update]] = defaultdict(list)
        once = len({writes[index].rid for index, _, _ in updates}) == len(updates)
        for update in updates:
            columns[tuple(update[1]) if once else ()].append(update)
        units: list[Unit] = []
        for rows in columns.values():
            same: dict[bytes, tuple[Mapping[str, Any], list[int]]] = {}
            for index, _, told in rows:
                same.setdefault(dump_json(told), (told, []))[1].append(index)
            parts = _portions(rows)
            if once and len(same) > len(parts):
                units += [self._loaded(model, writes, part) for part in parts]
            else:
                units += [self._updated(model, writes, part) for part in _portions(list(same.values()), 25)]
        return units

    def _alone(self, model: Model, index: int, write: Write) -> Unit:
        return lambda: {index: self._one(model.entity.name, write)}

    # --- units ---------------------------------------------------------------------------------------------------

    def _created(
        self, model: Model, writes: Sequence[Write], rows: Sequence[tuple[int, str, Mapping[str, Any]]]
    ) -> Unit:
        def carry_out() -> Outcomes:
            try:
                made = self._writer.loads.load(model, [(marker, values) for _, marker, values in rows])
            except HubError as error:
                return {index: Outcome(error=error) for index, _, _ in rows}
            outcomes: Outcomes = {}
            ids: dict[int, str] = {}
            for (index, _, _), each in zip(rows, made, strict=True):
                if isinstance(each, HubError):
                    named = (
                        self._writer.named(model, each, writes[index].fields)
                        if isinstance(each, Rejected)
                        else each
                    )
                    outcomes[index] = Outcome(error=named)
                else:
                    ids[index] = str(each)
            return outcomes | self._read(model, ids)

        return carry_out

    def _loaded(self, model: Model, writes: Sequence[Write], rows: Sequence[_Update]) -> Unit:
        def carry_out() -> Outcomes:
            try:
                done = self._writer.loads.load(
                    model, [(writes[index].rid, values) for index, values, _ in rows], BY_ID
                )
            except (Rejected, RecordGone) as error:  # without a word of which
                done = [error] * len(rows)
            except HubError as error:
                return {index: Outcome(error=error) for index, _, _ in rows}
            # By themselves they are refused in the words of a single write, or taken after all.
            alone = [
                (told, [index])
                for (index, _, told), each in zip(rows, done, strict=True)
                if isinstance(each, HubError)
            ]
            left = {index for index, _, _ in rows} - {index for _, (index,) in alone}
            outcomes = self._updated(model, writes, alone)() if alone else {}
            return {**outcomes, **self._read(model, {index: writes[index].rid for index in left})}

        return carry_out

    def _updated(
        self, model: Model, writes: Sequence[Write], groups: Sequence[tuple[Mapping[str, Any], list[int]]]
    ) -> Unit:
        def carry_out() -> Outcomes:
            outcomes: Outcomes = {}
            done: dict[int, str] = {}
            for number, (values, indexes) in enumerate(groups):
                for index, error in self._write(model, writes, values, indexes).items():
                    if error is None:
                        done[index] = writes[index].rid
                    else:
                        outcomes[index] = Outcome(error=error)
                met = [
                    each.error
                    for each in outcomes.values()
                    if each.error is not None and each.error.recovery in STOPPING
                ]
                if met:
                    left = Outcome(error=not_begun(met[0]))
                    outcomes |= {index: left for _, others in groups[number + 1 :] for index in others}
                    break
            return outcomes | self._read(model, done)

        return carry_out

    def _write(
        self, model: Model, writes: Sequence[Write], values: Mapping[str, Any], indexes: Sequence[int]
    ) -> dict[int, HubError | None]:
        try:
            self._writer.write_many(
                model, list(dict.fromkeys(writes[index].rid for index in indexes)), values
            )
        except (Rejected, RecordGone) as error:
            if len(indexes) == 1:
                write = writes[indexes[0]]
                return {indexes[0]: self._writer.named(model, error, write.fields, write.rid)}
            found: dict[int, HubError | None] = {}
            for index in indexes:
                found |= self._write(model, writes, values, [index])
            return found
        except HubError as error:
            return dict.fromkeys(indexes, error)
        return dict.fromkeys(indexes, None)

    def _deleted(self, model: Model, writes: Sequence[Write], indexes: Sequence[int]) -> Unit:
        def carry_out() -> Outcomes:
            if len(indexes) == 1:
                return {indexes[0]: self._one(model.entity.name, writes[indexes[0]])}
            try:
                there = self._reader.ids_there(model, [writes[index].rid for index in indexes])
            except HubError as error:
                return {index: Outcome(error=error) for index in indexes}
            gone = RecordGone(f"There is no such {model.entity.name}.", system=SYSTEM, vendor_status=404)
            outcomes = {index: Outcome(error=gone) for index in indexes if writes[index].rid not in there}
            left = [index for index in indexes if index not in outcomes]
            if not left:
                return outcomes
            try:
                ids = sorted({int(writes[index].rid) for index in left})
                self._client.call(model.remote, "unlink", ids=ids)
            except (Rejected, RecordGone):
                return outcomes | {index: self._one(model.entity.name, writes[index]) for index in left}
            except HubError as error:
                return outcomes | {index: Outcome(error=error) for index in left}
            return outcomes | {index: Outcome() for index in left}

        return carry_out

    def _read(self, model: Model, ids: Mapping[int, str]) -> Outcomes:
        """The records as they are now."""
        if not ids:
            return {}
        try:
            with after_writing():
                found = self._reader.get_many(model, list(dict.fromkeys(ids.values())))
        except HubError as error:
            return {index: Outcome(error=error) for index in ids}
        gone = RecordGone("The record was written, and deleted by somebody since.", system=SYSTEM)
        return {
            index: Outcome(found[rid]) if rid in found else Outcome(error=gone) for index, rid in ids.items()
        }


def _portions(found: Sequence[Any], size: int = ROWS_PER_CALL) -> list[Sequence[Any]]:
    return [found[start : start + size] for start in range(0, len(found), size)]
