"""Microsoft Dynamics 365 / Dataverse over its Web API (OData 4).

Sources: Microsoft's "Use the Microsoft Dataverse Web API" and "Use change tracking to synchronize data with
external systems"; table and column facts from the Common Data Model.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar
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
    TokenFacts,
    Tools,
    Window,
    Write,
    carried_out,
)
from crm_core.connectors.dynamics365 import hooks
from crm_core.connectors.dynamics365.client import NO_ROW, Client, explain, json_of
from crm_core.connectors.dynamics365.feed import Feed
from crm_core.connectors.dynamics365.lookups import Lookups
from crm_core.connectors.dynamics365.many import ROWS_PER_CALL, Many
from crm_core.connectors.dynamics365.metadata import Metadata
from crm_core.connectors.dynamics365.reading import LINES, Reader
from crm_core.connectors.dynamics365.tables import TABLES
from crm_core.connectors.dynamics365.tables.common import SYSTEM, Table
from crm_core.connectors.dynamics365.writing import (
    STATUS,
    Writer,
    closing_of,
    emptied,
    first_status,
    kind_of,
    missing_reference,
    needs_steps,
    spared,
)
from crm_core.errors import (
    BadAnswer,
    BadRequest,
    HubError,
    Misconfigured,
    NotSupported,
    RecordGone,
    Rejected,
    VendorError,
    VersionMismatch,
)
from crm_core.model.expand import Expansion
from crm_core.model.filters import Node
from crm_core.model.mapping import NativeField
from crm_core.ports import Pool
from crm_core.protocols.auth import Auth
from crm_core.protocols.entra import Certificate, ClientCredentials, ManagedIdentity
from crm_core.protocols.guard import Origins, of_setting
from crm_core.protocols.odata import check_guid, key_segment
from crm_core.protocols.odata_batch import ChangeSet, Part
from crm_core.protocols.rest import Rest, after_writing
from crm_core.protocols.signatures import secrets_of

DEFAULT_VERSION = "v9.2"


# The ways to sign in, and what each needs.
_SIGN_IN: Mapping[str, frozenset[str]] = {
    "secret": frozenset({"tenant_id", "client_id", "client_secret"}),
    "certificate": frozenset({"tenant_id", "client_id", "client_certificate"}),
    "managed_identity": frozenset(),
}


P = ParamSpec("P")
T = TypeVar("T")


def in_time(verb: Callable[Concatenate["Dynamics365", P], T]) -> Callable[Concatenate["Dynamics365", P], T]:
    """A verb whose calls share one deadline."""

    @wraps(verb)
    def bounded(connector: "Dynamics365", /, *args: P.args, **kwargs: P.kwargs) -> T:
        with connector.rest.verb():
            return verb(connector, *args, **kwargs)

    return bounded


class Dynamics365(Connector):
    name = SYSTEM
    label = "Microsoft Dynamics 365"
    settings = (
        Setting("base_url", "Environment URL", "url", help="Such as https://yourorg.crm.dynamics.com"),
        Setting(
            "auth",
            "Sign-in by",
            required=False,
            default="secret",
            help="secret, certificate, or managed_identity, which needs neither tenant, client nor secret",
        ),
        Setting("tenant_id", "Directory (tenant) id", required=False, help="For secret and certificate"),
        Setting("client_id", "Application (client) id", required=False, help="For secret and certificate"),
        Setting("client_secret", "Client secret", required=False, secret=True, help="For secret"),
        Setting(
            "client_certificate",
            "Client certificate",
            required=False,
            secret=True,
            help="For certificate: PEM text with the private key and the certificate",
        ),
        Setting(
            "client_certificate_passphrase", "Passphrase of the private key", required=False, secret=True
        ),
        Setting(
            "identity_client_id",
            "Client id of the identity",
            required=False,
            help="For managed_identity: one that a person made; without it, the app's own",
        ),
        Setting("api_version", "Web API version", required=False, default=DEFAULT_VERSION),
        Setting(
            "authority",
            "Sign-in address",
            "url",
            required=False,
            default="https://login.microsoftonline.com",
            help="Another one only for a sovereign cloud",
        ),
        Setting(
            "webhook_key",
            "Key of webhooks",
            required=False,
            secret=True,
            help="Any long random text; service endpoints send it. While it is changed: both, a blank between",
        ),
    )
    # Hosts of Dataverse in the public and the sovereign clouds, and of their sign-in services.
    origins = (".dynamics.com", ".dynamics.cn", ".microsoftdynamics.us", ".appsplatform.us")
    sign_in_origins = (
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.partner.microsoftonline.cn",
    )
    entities: ClassVar = TABLES
    # The tables that every environment has, with the Sales and Service apps or not.
    pulled = ("account", "contact")
    versions = "ordered"
    counts = True
    own_ids = True
    if_match = True
    tells_deletes = True
    default_minutes = 60
    # Service protection limits: 52 at a time for one user on one web server; so four instances fit.
    concurrency = 12
    # For one user on one web server; which one answers is the system's affair, so that this is the least.
    windows = (Window("burst", 6000, 300, "x-ms-ratelimit-burst-remaining-xrm-requests"),)
    batch_size = ROWS_PER_CALL

    def __init__(self, account: Account, tools: Tools) -> None:
        super().__init__(account, tools)
        settings = account.settings
        base = settings["base_url"].rstrip("/")
        origins = Origins(self.origins, account.confirmed_origin, tools.allow_loopback)
        with of_setting("base_url"):
            origins.check(base)
        self._tokens = auth = self._auth(account, tools, base)
        with of_setting("api_version"):
            version = normal_version(settings.get("api_version") or DEFAULT_VERSION)
        self.rest = Rest(
            account, tools, system=self.name, base_url=f"{base}/api/data/{version}/", auth=auth, origins=origins,
            explain=self.explain, concurrency=self.concurrency, windows=self.windows,
        )  # fmt: skip
        self._clock = tools.clock
        self._hook_secrets = secrets_of(account.secrets.get("webhook_key", ""))
        self._ids = tools.ids
        self._without_actions: set[str] = set()
        self._client = Client(self.rest, tools.ids)
        self._metadata = Metadata(self._client)
        lookups = Lookups(self._client, tools.clock)
        self._reader = Reader(self._client, self._metadata, lookups)
        self._writer = Writer(self._client, lookups, tools.ids)
        self._many = Many(self._client, self._reader, self._writer, self.write_one)
        self._feed = Feed(self._client, self._reader, tools.clock)

    @classmethod
    def needed(cls, settings: Mapping[str, str]) -> frozenset[str]:
        return super().needed(settings) | _SIGN_IN.get(settings.get("auth") or "secret", frozenset())

    def _auth(self, account: Account, tools: Tools, base: str) -> Auth:
        """Raises BadRequest for a way to sign in that there is not, Misconfigured for what it lacks."""
        settings, secrets = account.settings, account.secrets
        way = settings.get("auth") or "secret"
        if way not in _SIGN_IN:
            raise BadRequest.field("settings.auth", f"settings.auth: expected one of {', '.join(_SIGN_IN)}.")
        if way == "managed_identity":
            client_id = settings.get("identity_client_id", "")
            return ManagedIdentity(account, tools, resource=base, client_id=client_id, system=self.name)
        certificate = None
        if way == "certificate":
            passphrase = secrets.get("client_certificate_passphrase", "")
            pem = secrets.get("client_certificate", "")
            certificate = Certificate.parse(pem, passphrase, "secrets.client_certificate")
        authority = settings.get("authority") or "https://login.microsoftonline.com"
        origins = Origins(self.sign_in_origins, account.confirmed_origin, tools.allow_loopback)
        with of_setting("authority"):
            origins.check(authority)
            if not authority.startswith("https://"):
                raise Misconfigured("Microsoft's sign-in library takes https only.")
        with of_setting("tenant_id"):
            return ClientCredentials(
                account,
                tools,
                authority=authority,
                tenant_id=settings.get("tenant_id", ""),
                client_id=settings.get("client_id", ""),
                client_secret=secrets.get("client_secret", ""),
                certificate=certificate,
                scope=f"{base}/.default",
                origins=origins,
                system=self.name,
            )

    @classmethod
    def entity_map(cls, entity: str) -> Table:
        found = super().entity_map(entity)
        assert isinstance(found, Table)
        return found

    def map(self, entity: str) -> Table:
        found = super().map(entity)
        assert isinstance(found, Table)
        return found

    # --- verbs ---------------------------------------------------------------------------------------------------

    def check(self) -> Mapping[str, Any]:
        answer = self._client.json("GET", "WhoAmI")
        if not answer.get("UserId"):
            raise BadAnswer("The answer to WhoAmI names no user.", system=self.name)
        return {"user_id": answer.get("UserId", ""), "organization_id": answer.get("OrganizationId", "")}

    def token(self, *, fresh: bool = False) -> TokenFacts | None:
        return self._tokens.facts(fresh=fresh)

    def reach(self) -> Mapping[str, Any]:
        self.rest.reach()
        return {"host": urlsplit(self.rest.base_url).netloc}

    @classmethod
    def etag_of(cls, version: str) -> str:
        """The ETag of a row is its versionnumber, weak."""
        return f'W/"{version}"'

    def describe(self, entity: str) -> Mapping[str, NativeField]:
        """By name as it is read; a lookup's is _name_value. Asked once per opened connection."""
        return self._metadata.fields(self.map(entity))

    @in_time
    def query(self, entity: str, query: Query) -> QueryPage:
        return self._reader.query(self.map(entity), query, self.steps(entity, query.expand))

    @in_time
    def get(self, entity: str, rid: str, *, expand: Sequence[Expansion] = ()) -> Change:
        steps = self.steps(entity, expand)
        return self._reader.get(self._own(self.map(entity), rid), rid, steps)

    def get_many(self, entity: str, rids: Sequence[str]) -> Mapping[str, Change]:
        table = self.map(entity)
        if not table.kinds:
            return self._reader.get_many(table, rids)
        found: dict[str, Change] = {}
        tables = self._reader.tables_of(table, rids)
        for own in (*table.kinds.values(), table):  # the last one: of kinds that have no name here
            found |= self._reader.get_many(own, [rid for rid, each in tables.items() if each is own])
        return found

    def _own(self, table: Table, rid: str) -> Table:
        """The table that a row is kept in; raises RecordGone where only that table could tell, and there is no row."""
        rid = check_guid(rid)
        if not table.kinds:
            return table
        found = self._reader.tables_of(table, [rid]).get(rid)
        if found is None:
            raise RecordGone(f"There is no {table.entity.name} {rid}.", system=self.name, vendor_status=404)
        return found

    @in_time
    def create(self, entity: str, write: Write) -> Change:
        """With an id of ours and If-None-Match: a create whose answer was lost can be repeated, and is made once."""
        table = self._served(kind_of(self.map(entity), write))
        rid = write.key or self._ids.uuid()
        try:
            return self._carried_out(
                table, rid, self._writer.create(table, rid, write), write, repeatable=True
            )
        except VersionMismatch as refused:
            try:
                return self._reader.get(table, rid)  # an earlier try was carried out
            except RecordGone:
                raise refused from None  # it is another row's key that exists
        except HubError as error:
            if not self._lacks_action(table, write, error):
                raise
        return self.create(entity, replace(write, key=rid))

    @in_time
    def update(self, entity: str, rid: str, write: Write, if_match: str = "") -> Change:
        """If-Match always: without it the PATCH of a missing record would create one.

        A row that can't get at once to the state that the write wants, such as one that is closed, is led there.
        """
        table = self._served(self._own(self.map(entity), rid))
        rid = check_guid(rid)
        lines = LINES in write.fields and table.lines is not None
        looks = lines or emptied(table, write) or table.along(write.fields)
        now = self._reader.get(table, rid) if looks else None
        if now is not None:
            write = spared(table, write, now)
            if not write.fields and not write.native:
                return now
        # What is worked out from the row as it was must not meet another one.
        parts = self._writer.update(table, rid, write, if_match or (now.etag if now else ""), now)
        if not parts:
            return self._reader.get(table, rid)
        try:
            return self._carried_out(table, rid, parts, write, repeatable=not if_match and len(parts) == 1)
        except HubError as refused:
            if self._lacks_action(table, write, refused):
                return self.update(entity, rid, write, if_match)
            leads = STATUS in write.fields and (table.locked or table.closings)
            if not isinstance(refused, Rejected):
                raise
            if not leads:
                raise self._told_how(table, rid, refused) from None
            now = self._reader.get(table, rid)
            status = (now.fields or {}).get(STATUS)
            as_it_is = dict(write.fields) == {STATUS: status} and not write.native
            if not as_it_is and not needs_steps(table, write, status):
                raise
            if if_match and now.etag != if_match:
                raise VersionMismatch(refused.message, system=self.name) from None
            if as_it_is:
                return now
            parts = self._writer.update(table, rid, write, if_match or now.etag, now)
            return self._carried_out(table, rid, parts, write, repeatable=False)

    def _told_how(self, table: Table, rid: str, refused: Rejected) -> Rejected:
        """A refusal that may be one because the row is closed, with what to do then."""
        if STATUS in table.by_field and (table.locked or table.final):
            with suppress(HubError):
                status = (self._reader.get(table, rid).fields or {}).get(STATUS)
                remedy = ""
                if status in table.locked:
                    remedy = f"say which status it is to have as well, and it is opened first ({first_status(table)} leaves it open)."
                elif status in table.final:
                    remedy = "and stays as it is."
                if remedy:
                    refused.message = f"{refused.message} This {table.entity.name} is {status}; {remedy}"
                    refused.args = (refused.message,)
        return refused

    def _served(self, table: Table) -> Table:
        """The table as this environment serves it: where it has not the actions, states are set by updates alone."""
        return replace(table, closings={}) if table.remote in self._without_actions else table

    def _lacks_action(self, table: Table, write: Write, error: HubError) -> bool:
        """Whether a write was refused because there is no such action (a Dataverse without the Sales app); noted then."""
        status = error.vendor_status if isinstance(error, VendorError) else 0
        code = error.vendor_code.lower() if isinstance(error, VendorError) else ""
        lacks = isinstance(error, NotSupported) or (status in (404, 405) and code not in NO_ROW)
        if closing_of(table, write) is None or not lacks:
            return False
        self._without_actions.add(table.remote)
        return True

    def _carried_out(
        self, table: Table, rid: str, parts: Sequence[Part], write: Write, *, repeatable: bool
    ) -> Change:
        """One request as it is; several as one change set, which happens as a whole or not at all."""
        try:
            row = self._sent(table, rid, parts, repeatable=repeatable)
        except RecordGone as error:
            raise missing_reference(table, rid, write, error) from None
        with after_writing():
            return self._reader.changes(table, [row])[0]

    def _sent(self, table: Table, rid: str, parts: Sequence[Part], *, repeatable: bool) -> Mapping[str, Any]:
        if len(parts) == 1 and parts[0].method == "PATCH":
            return json_of(self._client.send(parts[0], repeatable=repeatable), "PATCH")
        items: list[Part | ChangeSet] = [tuple(parts), self._writer.read(table, rid)]
        done, read = self._client.batch(items, repeatable=repeatable and parts[0].method == "PATCH")
        if isinstance(done, HubError):
            raise done
        if isinstance(read, HubError):
            with after_writing():
                raise read
        assert isinstance(read, Answer)
        return json_of(read, "PATCH")

    @in_time
    def delete(self, entity: str, rid: str, if_match: str = "") -> None:
        table = self._own(self.map(entity), rid)
        headers = {"If-Match": if_match} if if_match else {}
        self._client.call("DELETE", key_segment(table.remote, check_guid(rid)), headers=headers)

    def write(
        self, entity: str, writes: Sequence[Write], pool: Pool, go_on: Callable[[], bool]
    ) -> list[Outcome]:
        try:
            units, settled = self._many.units(self.map(entity), writes)
        except HubError as error:
            return [Outcome(error=error) for _ in writes]
        width = min(self.concurrency, MANY_WIDTH)
        return carried_out(units, settled, len(writes), pool, width, go_on)

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


def normal_version(text: str) -> str:
    """`v9.2` for 9.2 and v9.2 alike; raises BadRequest for what is no version."""
    match = re.fullmatch(r"v?(\d{1,2})\.(\d{1,2})", text.strip().lower())
    if not match:
        raise BadRequest("Expected a version such as v9.2.")
    return f"v{match[1]}.{match[2]}"
