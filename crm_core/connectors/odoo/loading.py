"""`load`: many rows in one call, made under external ids or changed by their ids."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crm_core.connectors.odoo.client import BULK_SECONDS, SERIALIZE, Client
from crm_core.connectors.odoo.marking import external_id
from crm_core.connectors.odoo.metadata import Metadata
from crm_core.connectors.odoo.models.common import SYSTEM, Model
from crm_core.connectors.odoo.wire import loaded
from crm_core.errors import BadAnswer, FieldError, HubError, RecordGone, Rejected, Unavailable
from crm_core.ports import Clock
from crm_core.protocols.rest import redact

BY_MARKER, BY_ID = "id", ".id"
"""Columns that say which record a row is of: by its external id, or by its id."""
TRIES = 3
"""How often rows are sent when the database could not serialize them: another load of an external id was faster."""
WAIT_SECONDS = 0.3


class Loader:
    """Safe for many threads. `named`: a refusal by the canonical names of its fields."""

    def __init__(
        self,
        client: Client,
        metadata: Metadata,
        clock: Clock,
        named: Callable[[Model, Rejected, Mapping[str, Any]], HubError],
    ) -> None:
        self._client = client
        self._metadata = metadata
        self._clock = clock
        self._named = named

    def load(
        self, model: Model, rows: Sequence[tuple[str, Mapping[str, Any]]], key: str = BY_MARKER
    ) -> list[int | HubError]:
        """What became of each (key, clean values), all with values for the same fields: the id, or why not. By marker
        they are made, by id they are changed.

        One call is one transaction: where a row is refused nothing is written, and the others go once more.
        """
        outcomes: dict[int, int | HubError] = {}
        left = list(range(len(rows)))
        tries = 0
        while left:
            told = self._loaded(model, [rows[index] for index in left], key)
            ids = told.get("ids")
            if isinstance(ids, list) and len(ids) == len(left):
                outcomes |= dict(zip(left, (int(each) for each in ids), strict=True))
                break
            refused = self._refused(model, told)
            if any(SERIALIZE in each.message for each in refused.values()):
                tries += 1
                if tries >= TRIES:
                    busy = Unavailable(
                        "The database could not serialize the writes; come again.", system=SYSTEM
                    )
                    outcomes |= dict.fromkeys(left, busy)
                    break
                self._clock.sleep(WAIT_SECONDS * tries)
                continue
            if not refused or max(refused) >= len(left):
                raise BadAnswer("The answer to load tells neither ids nor errors.", system=SYSTEM)
            if len(refused) > 1:
                # Odoo tells what all rows together met as if the first one had, before it tells it of the row that had: so
                # the first one goes once more (ORM `load`, `global_error_message`).
                del refused[next(iter(refused))]
            outcomes |= {left[at]: error for at, error in refused.items()}
            left = [index for at, index in enumerate(left) if at not in refused]
        return [outcomes[index] for index in range(len(rows))]

    def _loaded(
        self, model: Model, rows: Sequence[tuple[str, Mapping[str, Any]]], key: str
    ) -> Mapping[str, Any]:
        types = self._metadata.types(model)
        names = list(rows[0][1])
        columns = [f"{name}/.id" if types[name] == "many2one" else name for name in names]
        data = [
            [external_id(own) if key == BY_MARKER else own]
            + [loaded(types[name], values[name]) for name in names]
            for own, values in rows
        ]
        told = self._client.call(
            model.remote, "load", fields=[key, *columns], data=data,
            repeatable=True, timeout=BULK_SECONDS,  # once more it finds what it has made, or sets what is set
        )  # fmt: skip
        if not isinstance(told, dict):
            raise BadAnswer("The answer to load is no object.", system=SYSTEM)
        return told

    def _refused(self, model: Model, told: Mapping[str, Any]) -> dict[int, HubError]:
        found: dict[int, HubError] = {}
        for each in told.get("messages") or []:
            if isinstance(each, dict) and each.get("type") == "error":
                message = redact(str(each.get("message", "")))
                place = int(each.get("record", 0) or 0)
                if each.get("field") == BY_ID:
                    gone = RecordGone(message, system=SYSTEM, vendor_status=200)
                    found.setdefault(place, gone)
                    continue
                named = [str(each["field"])] if each.get("field") else []
                error = Rejected(f"odoo refused a record: {message}", system=SYSTEM, vendor_status=200)
                errors = [FieldError(name.partition("/")[0], message) for name in named]
                error.errors = tuple(errors)
                found.setdefault(place, self._named(model, error, {}))
        return found
