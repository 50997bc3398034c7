"""The database of a fake Odoo, and the environment of one call: who calls, with which context, when it began."""

import copy
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from sandbox.frame import Frame
from sandbox.odoo.access import Access
from sandbox.odoo.errors import user_error
from sandbox.odoo.hooks import Outbox
from sandbox.odoo.schema import LATEST, MODULES, Schema, make_field
from sandbox.store import Row, Store, Values

if TYPE_CHECKING:
    from sandbox.odoo.orm import BaseModel

ADMIN = 2
READER = 5
STOCK_USER, STOCK_MANAGER = 43, 44
INACTIVE = {"active": False}

# What can be switched by ``POST /_sandbox/options`` or on the command line.
OPTIONS: Values = {
    "lag": 0.0,  # seconds until writes by people become visible
    "api_lag": 0.0,  # the same for writes of clients: they are answered at once, and seen later with their old time
    "deny": {},  # rights that all callers lack, such as {"crm.lead": ["write", "unlink"]}
    "load_conflicts": 0,  # so many calls of load answer "could not serialize access"
    "load_seconds": 0.0,  # a load takes so long; another of the same external id meanwhile is such a conflict
    "hook_posts": {  # how many times a rule of a webhook posts per row
        "res.partner": {"create": 13, "write": 2, "archive": 2},
        "crm.lead": {"create": 15, "archive": 3},
        "product.template": {"create": 14},
        "product.product": {"create": 9, "archive": 2},
        "sale.order": {"create": 2},
        "mail.activity": {"create": 4, "archive": 2},
    },
    "hooks_lost": False,  # no webhook is sent at all
    "list_db": False,  # whether the service db tells which databases there are
}


@dataclass(frozen=True)
class Identity:
    """The database of a server and who may sign in."""

    database: str = "crm"
    login: str = "admin"
    password: str = "admin"  # noqa: S105 - a fake's own default
    api_key: str = "sandbox-odoo-key"
    reader_key: str = "sandbox-odoo-reader"  # of a user who may read some models and write none


@dataclass
class Keys:
    """Secrets by which users sign in; none of them is in a row."""

    passwords: dict[int, str] = field(default_factory=dict)
    api_keys: dict[str, int] = field(default_factory=dict)


class Database:
    """All rows of a server, its models, users and settings."""

    def __init__(
        self, frame: Frame, identity: Identity, version: int, modules: tuple[str, ...], seed: int = 1
    ) -> None:
        from sandbox.odoo.models import classes  # models know the environment

        self.frame = frame
        self.identity = identity
        self.version = version
        self.modules = frozenset((*MODULES, *modules))
        self.schema = Schema(version, self.modules)
        self.access = Access(self)
        self.keys = Keys()
        self.outbox = Outbox(frame)
        self.classes: dict[str, type[BaseModel]] = classes()
        self.loading: dict[tuple[str, str], float] = {}  # external ids of loads under way, and until when
        self._ids: dict[str, Iterator[int]] = {}
        self._drawn: list[int] | None = None
        self._again: Iterator[int] | None = None
        self.secrets: set[str] = frame.log.secrets
        self.random = random.Random(seed)
        self.base_url = "http://localhost:8069"
        self.seed()

    @property
    def store(self) -> Store:
        return self.frame.store

    # --- rows at the start ----------------------------------------------------------------------------------

    def seed(self) -> None:
        """The rows of a new database, and the two who may sign in."""
        self.schema = Schema(self.version, self.modules)
        self.access = Access(self)
        self._ids.clear()
        self.loading.clear()
        for model, rows in self.schema.seeds().items():
            for row in rows:
                values = {k: v for k, v in row.items() if k not in ("id", "xmlid")}
                self.put(model, row["id"], values, row["xmlid"])
        if "stock" in self.modules:
            self._let_into_stock()
        reader = {"login": "reader", "share": False, "company_id": 1, "company_ids": [1], "group_ids": [1]}
        self.put("res.partner", 6, {"name": "Reader", "type": "contact", "active": True}, None)
        self.put("res.users", READER, {**reader, "active": True, "partner_id": 6}, None)
        if self.version < LATEST:
            for user in list(self.store.table("res.users").rows.values()):
                self.store.write("res.users", user.id, {"groups_id": user.values.get("group_ids", [])})
        self._describe_models()
        self.first_rows = {name: len(table.rows) for name, table in self.store.tables.items()}
        who = self.identity
        self.keys = Keys(
            {ADMIN: who.password, READER: who.reader_key},
            {who.api_key: ADMIN, who.reader_key: READER},
        )
        self.secrets.update({who.api_key, who.reader_key})

    def _let_into_stock(self) -> None:
        """The module's groups, and the administrator in them."""
        for key, name in ((STOCK_USER, "User"), (STOCK_MANAGER, "Administrator")):
            self.put("res.groups", key, {"name": name, "full_name": f"Inventory / {name}"}, None)
        own = self.store.table("res.users").rows[str(ADMIN)].values["group_ids"]
        self.store.write("res.users", str(ADMIN), {"group_ids": [*own, STOCK_USER, STOCK_MANAGER]})

    def put(self, model: str, key: int, values: Values, xmlid: str | None) -> None:
        """A row as it is, without any rule."""
        fields = self.schema.models[model].fields
        active = {} if values.get("active") or "active" not in fields or model == "res.company" else INACTIVE
        if model in ("uom.uom", "crm.team", "res.groups", "product.category") or "active" not in fields:
            active = {}
        self.store.write(model, str(key), {"create_uid": 1, "write_uid": 1, **values, **active})
        if xmlid:
            module, _, name = xmlid.partition(".")
            data = {"module": module, "name": name, "model": model, "res_id": key, "noupdate": True}
            self.store.write("ir.model.data", str(self.next_id("ir.model.data")), {"create_uid": 1, **data})

    def _describe_models(self) -> None:
        """ir.model and ir.model.fields are rows too."""
        for model in self.schema.models.values():
            about = {"name": model.string, "model": model.name, "order": model.order, "state": "base"}
            self.put(
                "ir.model", model.id, {**about, "transient": False, "modules": model.modules}, model.xmlid
            )
            for each in model.fields.values():
                self.put(
                    "ir.model.fields", self.next_id("ir.model.fields"), self.field_row(model.id, each), None
                )

    def field_row(self, model_id: int, each: Any) -> Values:
        model = self.store.table("ir.model").rows[str(model_id)].values["model"]
        return {
            "model_id": model_id, "model": model, "name": each.name, "field_description": each.string,
            "ttype": each.type, "state": "manual" if each.manual else "base", "store": each.store,
            "required": each.required, "readonly": each.readonly, "relation": each.relation or None,
            "relation_field": each.relation_field or None, "on_delete": each.ondelete or None, "related": each.related or None,
        }  # fmt: skip

    def restore_fields(self) -> None:
        """Custom fields of rows that came from a file."""
        for row in self.store.table("ir.model.fields").rows.values():
            told = row.values
            if told.get("state") == "manual":
                self.schema.add(told["model"], custom_field(told))

    # --- ids ------------------------------------------------------------------------------------------------

    def next_id(self, model: str) -> int:
        """The next number of a model's sequence; a call that failed has used its numbers up."""
        if self._again is not None:
            return next(self._again)
        if model not in self._ids:
            rows = self.store.table(model).rows
            self._ids[model] = itertools.count(max(map(int, rows), default=0) + 1)
        key = next(self._ids[model])
        if self._drawn is not None:
            self._drawn.append(key)
        return key

    # --- transactions ---------------------------------------------------------------------------------------

    def run(self, operation: Callable[[datetime], Any], lag: float = 0.0, at: datetime | None = None) -> Any:
        """One call, one transaction, stamped with the time of its begin; webhooks leave when it commits.

        With ``lag`` it is answered now and commits later, so that its rows appear with a time that has passed.
        """
        begun = at or self.frame.clock.now()
        if lag <= 0:
            return self._commit(operation, begun)
        self._drawn = []
        try:
            with self.store.transaction():
                result = operation(begun)
                _undo()
        except _Undone:
            drawn = self._drawn
        finally:
            self._drawn = None
            self.outbox.drop()
        self.store.later(lag, lambda: self._commit(operation, begun, drawn))
        return result

    def _commit(
        self, operation: Callable[[datetime], Any], begun: datetime, drawn: list[int] | None = None
    ) -> Any:
        if drawn is not None:
            self._again = iter(drawn)
        try:
            with self.store.transaction():
                result = operation(begun)
        except BaseException:
            self.outbox.drop()
            raise
        finally:
            self._again = None
        self.outbox.send()
        return result


def _undo() -> NoReturn:
    raise _Undone


class _Undone(Exception):
    """Ends a transaction whose writes come later."""


def custom_field(told: Values) -> Any:
    facts = {"type": told["ttype"], "string": told["field_description"], "manual": True}
    for name in ("required", "readonly", "relation", "relation_field", "size"):
        if told.get(name):
            facts[name] = told[name]
    if told["ttype"] == "many2one":
        facts["ondelete"] = told.get("on_delete") or "set null"
    if told["ttype"] == "selection":
        facts["selection"] = copy.copy(told.get("selection_values") or [])
    return make_field(told["name"], facts)


@dataclass(frozen=True)
class Env:
    """One call's surroundings; ``env[model]`` is the model with no rows."""

    db: Database
    uid: int
    now: datetime
    context: Values = field(default_factory=dict)
    su: bool = False

    def __getitem__(self, model: str) -> "BaseModel":
        return self.db.classes.get(model, self.db.classes[""])(self, self.db.schema.models[model])

    def row(self, model: str, key: Any) -> Row | None:
        return self.db.store.get(model, str(key)) if key else None

    def rows(self, model: str) -> dict[str, Row]:
        return self.db.store.table(model).rows

    def sudo(self) -> "Env":
        return replace(self, su=True)

    def with_context(self, context: Values) -> "Env":
        lang = context.get("lang")
        if lang and not any(
            r.values.get("code") == lang and r.values.get("active") for r in self.rows("res.lang").values()
        ):
            raise user_error(f"Invalid language code: {lang}")
        return replace(self, context=dict(context))

    def xmlid(self, name: str) -> tuple[str, int] | None:
        """What an external id leads to."""
        module, _, short = name.partition(".")
        for row in self.db.store.table("ir.model.data").where("name", short):
            if row.values.get("module") == module:
                return row.values["model"], row.values["res_id"]
        return None
