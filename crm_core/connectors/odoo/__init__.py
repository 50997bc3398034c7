"""Odoo over JSON-2 (19 and later) and JSON-RPC (14 to 18).

Sources: Odoo's "External JSON-2 API", "External RPC API", "ORM API" and "Automation rules"; what no page says was seen of
Odoo 19.0, which the contract tests run against.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from crm_core.connector import (
    MANY_WIDTH,
    Account,
    Answer,
    Change,
    Connector,
    Cursor,
    Event,
    Hook,
    Outcome,
    Page,
    Query,
    QueryPage,
    Setting,
    Tools,
    Write,
    carried_out,
)
from crm_core.connectors.odoo import hooks
from crm_core.connectors.odoo.activities import Activities
from crm_core.connectors.odoo.client import Client, explain
from crm_core.connectors.odoo.feed import Feed
from crm_core.connectors.odoo.lookups import Lookups
from crm_core.connectors.odoo.many import ROWS_PER_CALL, Many
from crm_core.connectors.odoo.marking import Markers
from crm_core.connectors.odoo.metadata import Metadata
from crm_core.connectors.odoo.models import MODELS
from crm_core.connectors.odoo.models.common import SYSTEM, Model
from crm_core.connectors.odoo.reading import Reader, check_id
from crm_core.connectors.odoo.references import spared
from crm_core.connectors.odoo.steps import CANCEL
from crm_core.connectors.odoo.writing import Writer
from crm_core.errors import FieldError, HubError, Misconfigured, NotSupported, RecordGone
from crm_core.model.expand import Expansion
from crm_core.model.filters import Node
from crm_core.model.mapping import NativeField
from crm_core.ports import Pool
from crm_core.protocols.auth import Lasting
from crm_core.protocols.guard import Origins, of_setting
from crm_core.protocols.rest import Rest, after_writing
from crm_core.protocols.signatures import secrets_of

WAYS = ("auto", "json2", "jsonrpc")
ONLINE = ".odoo.com"
"""Where Odoo hosts: its "Acceptable Use Policy" wants no calls at the same time."""


class Odoo(Connector):
    name = SYSTEM
    label = "Odoo"
    settings = (
        Setting("base_url", "Address", "url", help="Such as https://yourcompany.odoo.com"),
        Setting(
            "database",
            "Database",
            required=False,
            help="Needed by JSON-RPC, and where a server has several",
        ),
        Setting("username", "User", required=False, help="The login; needed by JSON-RPC"),
        Setting("api_key", "API key", required=False, secret=True, help="Of the user; needed by JSON-2"),
        Setting(
            "password",
            "Password",
            required=False,
            secret=True,
            help="In place of an API key, by JSON-RPC alone",
        ),
        Setting(
            "protocol",
            "Protocol",
            required=False,
            default="auto",
            help="auto asks the server; json2 or jsonrpc settle it",
        ),
        Setting(
            "webhook_token",
            "Token of webhooks",
            required=False,
            secret=True,
            help="Any long random text; automation rules bear it in their address. While it is changed: both, a blank between",
        ),
        Setting(
            "company",
            "Company ids",
            required=False,
            help="With commas between; without it, those of the user's own company",
        ),
        Setting(
            "language",
            "Language",
            required=False,
            help="Of names such as countries and stages: en_US, es_CL, ...",
        ),
    )
    origins = (ONLINE, ".odoo.sh")
    entities: ClassVar = MODELS
    # What every database has, whatever apps are installed.
    pulled = ("account", "contact")
    versions = "coarse"
    counts = True
    marks = True
    default_minutes = 60
    concurrency = 4
    batch_size = ROWS_PER_CALL

    def __init__(self, account: Account, tools: Tools) -> None:
        super().__init__(account, tools)
        settings = account.settings
        base = settings["base_url"].rstrip("/")
        origins = Origins(self.origins, account.confirmed_origin, tools.allow_loopback)
        with of_setting("base_url"):
            origins.check(base)
        host = urlsplit(base).hostname or ""
        self._width = 1 if host.endswith(ONLINE) else self.concurrency
        self.rest = Rest(
            account, tools, system=self.name, base_url=base, auth=Lasting({}), origins=origins,
            explain=self.explain, concurrency=self._width,
        )  # fmt: skip
        self._client = client = self._client_of(account)
        self._ids = tools.ids
        self._clock = tools.clock
        self._hook_secrets = secrets_of(account.secrets.get("webhook_token", ""))
        self._metadata = Metadata(client)
        lookups = Lookups(client, tools.clock)
        self._markers = Markers(client)
        activities = Activities(client, self._metadata, tools.clock)
        self._reader = Reader(client, self._metadata, lookups, activities)
        self._writer = Writer(client, self._metadata, lookups, activities, self._reader, tools.clock)
        self._many = Many(client, self._reader, self._writer, tools.ids, self.write_one)
        self._feed = Feed(client, self._reader, self._markers, tools.clock)

    def _client_of(self, account: Account) -> Client:
        """Raises Misconfigured for what is missing or wrong, by its name."""
        settings, secrets = account.settings, account.secrets
        way = settings.get("protocol") or "auto"
        if way not in WAYS:
            raise _wrong("settings.protocol", f"expected one of {', '.join(WAYS)}.")
        key, password = secrets.get("api_key", ""), secrets.get("password", "")
        if not key and not password:
            raise _wrong("secrets.api_key", "an API key is missing, or a password for JSON-RPC; give one.")
        if not key:
            if way == "json2":
                raise _wrong(
                    "secrets.api_key", "JSON-2 takes an API key only; make one in the user's preferences."
                )
            way = "jsonrpc"
        user = settings.get("username", "")
        if way == "jsonrpc" and not user:
            raise _wrong("settings.username", "JSON-RPC needs the user's login; give it.")
        return Client(
            self.rest,
            way="" if way == "auto" else way,
            database=settings.get("database", ""),
            user=user,
            secret=key or password,
            context=_context(settings),
        )

    @classmethod
    def entity_map(cls, entity: str) -> Model:
        found = super().entity_map(entity)
        assert isinstance(found, Model)
        return found

    def map(self, entity: str) -> Model:
        found = super().map(entity)
        assert isinstance(found, Model)
        return found

    # --- verbs ---------------------------------------------------------------------------------------------------

    def check(self) -> Mapping[str, Any]:
        """Who we are, and that we may read partners: a refusal names the right and the groups that have it."""
        told = {"user_id": str(self._client.uid()), "protocol": self._client.way()}
        self._client.call("res.partner", "search", domain=[], limit=1)
        return told

    def reach(self) -> Mapping[str, Any]:
        self.rest.reach()
        return {"host": urlsplit(self.rest.base_url).netloc}

    def describe(self, entity: str) -> Mapping[str, NativeField]:
        """Asked once per opened connection; a selection with the labels of its values."""
        return self._metadata.described(self.map(entity))

    def query(self, entity: str, query: Query) -> QueryPage:
        self.steps(entity, query.expand)
        with self.rest.verb():
            return self._reader.query(self.map(entity), query)

    def get(self, entity: str, rid: str, *, expand: Sequence[Expansion] = ()) -> Change:
        self.steps(entity, expand)
        with self.rest.verb():
            return self._reader.get(self.map(entity), rid)

    def get_many(self, entity: str, rids: Sequence[str]) -> Mapping[str, Change]:
        return self._reader.get_many(self.map(entity), rids)

    def marked(self, entity: str, markers: Sequence[str]) -> Sequence[Change]:
        """By the external id, which is the marker. It goes away with the record."""
        model = self.map(entity)
        by_rid: dict[str, str] = {}
        for marker in markers:
            found = self._markers.find(marker)
            if found is not None and found[0] == model.remote:
                by_rid[found[1]] = marker
        told = self._reader.get_many(model, list(by_rid))
        return [replace(change, marker=by_rid[rid]) for rid, change in told.items()]

    def create(self, entity: str, write: Write) -> Change:
        """By `load` under an external id: a create whose answer was lost can be repeated, and is made once."""
        model = self._writable(entity, "")
        marker = write.marker or write.key
        with self.rest.verb():
            # An earlier try may have got further than its record: lines would come twice, a step be refused.
            found = self.marked(entity, [marker]) if marker else ()
            was = found[0] if found else None
            rid = self._writer.create(model, marker or self._ids.uuid(), write, was)
            with after_writing():
                return self._reader.get(model, rid)

    def update(self, entity: str, rid: str, write: Write, if_match: str = "") -> Change:
        model = self._writable(entity, if_match)
        check_id(rid)
        with self.rest.verb():
            now = None
            if self._writer.looks(model, write):
                now = self._reader.get(model, rid)
                write = spared(model, write, now)
                if not write.fields and not write.native:
                    return now
            self._writer.update(model, rid, write, now)
            with after_writing():
                return self._reader.get(model, rid)

    def delete(self, entity: str, rid: str, if_match: str = "") -> None:
        """For good. The record is looked for first: a model may hold several entities, and this is not taken back."""
        model = self._writable(entity, if_match)
        number = check_id(rid)
        gone = RecordGone(f"There is no {entity} {rid}.", system=self.name, vendor_status=404)
        with self.rest.verb():
            if rid not in self._reader.ids_there(model, [rid]):
                raise gone
            with suppress(
                RecordGone
            ):  # it was there: a try whose answer was lost has deleted it, or somebody else
                if model.lines is not None:  # Odoo deletes no document that is not canceled
                    self._client.call(model.remote, CANCEL.method, ids=[number], context=CANCEL.context)
                self._client.call(model.remote, "unlink", ids=[number], repeatable=True)

    def write(
        self, entity: str, writes: Sequence[Write], pool: Pool, go_on: Callable[[], bool]
    ) -> list[Outcome]:
        try:
            model = self._writable(entity, "")
            units, settled = self._many.units(model, writes)
        except HubError as error:
            return [Outcome(error=error) for _ in writes]
        return carried_out(units, settled, len(writes), pool, min(self._width, MANY_WIDTH), go_on)

    def changes(self, entity: str, cursor: Cursor | None, *, size: int) -> Page:
        return self._feed.changes(self.map(entity), cursor, size)

    def begin(self, entity: str, *, since: str, where: Node | None) -> Cursor:
        return self._feed.begin(self.map(entity), since, where)

    def verify(self, hook: Hook) -> str:
        return hooks.PROOF.proof(hook, self._hook_secrets, self._clock.now().timestamp())

    def parse(self, hook: Hook) -> Sequence[Event]:
        return hooks.parse(hook)

    def explain(self, answer: Answer) -> HubError:
        return explain(answer)

    def _writable(self, entity: str, if_match: str) -> Model:
        """The map of an entity that can be written. Odoo has no precondition, and one that is ignored would be a lie."""
        model = self.map(entity)
        if model.read_only:
            raise NotSupported(f"{self.label}'s {entity} is read only here.")
        if if_match:
            raise NotSupported(f"{self.label} knows no If-Match; leave it out.")
        return model


def _context(settings: Mapping[str, str]) -> dict[str, Any]:
    """What goes with every call: archived records too, whole companies, one language, times in UTC."""
    context: dict[str, Any] = {"active_test": False, "tz": "UTC"}
    companies = settings.get("company", "")
    if companies:
        parts = [part.strip() for part in companies.split(",")]
        if not all(part.isascii() and part.isdigit() for part in parts):
            raise _wrong("settings.company", "expected ids of companies, such as 1 or 1,3.")
        context["allowed_company_ids"] = [int(part) for part in parts]
    if settings.get("language"):
        context["lang"] = settings["language"]
    return context


def _wrong(name: str, what: str) -> Misconfigured:
    text = f"{name}: {what}"
    return Misconfigured(text, errors=[FieldError(name, text)])
