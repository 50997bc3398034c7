"""Microsoft Dynamics 365 / Dataverse over its Web API (OData 4).

Sources: Microsoft's "Use the Microsoft Dataverse Web API" and "Use change tracking to synchronize data with
external systems"; table and column facts from the Common Data Model.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlsplit

from crm_core.connector import (
    Account,
    Answer,
    Change,
    Connector,
    Cursor,
    Page,
    Query,
    QueryPage,
    Setting,
    Step,
    TokenFacts,
    Tools,
    Write,
)
from crm_core.connectors.dynamics365.reading import (
    ANY_TEXT,
    COUNT_ANNOTATIONS,
    FRESH,
    change_of,
    count_of,
    expand_of,
    options_of,
    rows_of,
)
from crm_core.connectors.dynamics365.tables import (
    ACCOUNTS,
    CONTACTS,
    SYSTEM,
    native_field,
    prefer,
    select_of,
)
from crm_core.errors import (
    BadAnswer,
    BadRequest,
    CursorExpired,
    FieldError,
    HubError,
    Misconfigured,
    NotSupported,
    RecordGone,
    Rejected,
    Unavailable,
    VendorError,
    VersionMismatch,
)
from crm_core.model.expand import Expansion
from crm_core.model.fields import instant_text, parse_instant
from crm_core.model.mapping import EntityMap, NativeField
from crm_core.protocols.auth import Auth, Certificate, ClientCredentials, ManagedIdentity
from crm_core.protocols.guard import Origins
from crm_core.protocols.odata import check_guid, key_segment
from crm_core.protocols.rest import Rest, explain_status

DEFAULT_VERSION = "v9.2"
MAX_PAGE = 5000
"""Rows of a page at most (Page results: odata.maxpagesize)."""
IDS_PER_READ = 50
"""Ids of one point read: keeps the URL far below the limit of 32,768 characters."""
OVERLAP = timedelta(minutes=5)
"""How far the feed by modifiedon reads back: rows committed late bear an earlier time."""
MAX_SEEN = 300
"""Rows of the overlap that the cursor remembers; what it forgets is read again and found unchanged."""


# The ways to sign in, and what each needs.
_SIGN_IN: Mapping[str, frozenset[str]] = {
    "secret": frozenset({"tenant_id", "client_id", "client_secret"}),
    "certificate": frozenset({"tenant_id", "client_id", "client_certificate"}),
    "managed_identity": frozenset(),
}


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
    )
    # Hosts of Dataverse in the public and the sovereign clouds, and of their sign-in services.
    origins = (".dynamics.com", ".dynamics.cn", ".microsoftdynamics.us", ".appsplatform.us")
    sign_in_origins = (
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.partner.microsoftonline.cn",
    )
    entities: ClassVar = {"account": ACCOUNTS, "contact": CONTACTS}
    ordered_versions = True
    counts = True
    default_minutes = 60
    # Service protection limits: 52 at a time for one user on one web server; so four instances fit.
    concurrency = 12

    def __init__(self, account: Account, tools: Tools) -> None:
        settings = account.settings
        base = settings["base_url"].rstrip("/")
        origins = Origins(self.origins, account.confirmed_origin, tools.allow_loopback)
        with _setting("base_url"):
            origins.check(base)
        self._tokens = auth = self._auth(account, tools, base)
        with _setting("api_version"):
            version = normal_version(settings.get("api_version") or DEFAULT_VERSION)
        self._path = f"/api/data/{version}/"
        self._rest = Rest(
            account, tools, system=self.name, base_url=f"{base}{self._path}", auth=auth, origins=origins,
            explain=self.explain, concurrency=self.concurrency,
        )  # fmt: skip
        self._tools = tools
        self._described: dict[str, Mapping[str, NativeField]] = {}
        self._wildcards: dict[tuple[str, str], bool] = {}

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
        with _setting("authority"):
            origins.check(authority)
            if not authority.startswith("https://"):
                raise Misconfigured("Microsoft's sign-in library takes https only.")
        with _setting("tenant_id"):
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

    # --- verbs ---------------------------------------------------------------------------------------------------

    def check(self) -> Mapping[str, Any]:
        answer = self._json("GET", "WhoAmI")
        if not answer.get("UserId"):
            raise BadAnswer("The answer to WhoAmI names no user.", system=self.name)
        return {"user_id": answer.get("UserId", ""), "organization_id": answer.get("OrganizationId", "")}

    def token(self, *, fresh: bool = False) -> TokenFacts | None:
        return self._tokens.facts(fresh=fresh)

    def reach(self) -> Mapping[str, Any]:
        self._rest.reach()
        return {"host": urlsplit(self._rest.base_url).netloc}

    def describe(self, entity: str) -> Mapping[str, NativeField]:
        """By name as it is read; a lookup's is _name_value. Asked once per opened connection."""
        if entity not in self._described:
            rows = rows_of(
                self._json(
                    "GET",
                    f"EntityDefinitions(LogicalName='{self.entity_map(entity).entity.name}')/Attributes",
                    query=[
                        (
                            "$select",
                            "LogicalName,AttributeType,IsValidForCreate,IsValidForUpdate,IsValidForRead",
                        )
                    ],
                )
            )
            self._described[entity] = {
                field.name: field
                for row in rows
                if row.get("LogicalName") and row.get("IsValidForRead", True)
                for field in [native_field(row)]
            }
        return self._described[entity]

    def query(self, entity: str, query: Query) -> QueryPage:
        emap = self.entity_map(entity)
        steps = self.steps(entity, query.expand)
        if query.cursor is not None:
            options: Sequence[tuple[str, str]] | str = str(query.cursor["next"])
        else:
            options = [
                *options_of(emap, query, self.describe, self._wild),
                *expand_of(steps, self.describe, self._wild),
            ]
            options += [("$count", "true")] if query.count else []
        headers = self._read_headers(
            emap,
            steps,
            f"odata.maxpagesize={min(query.top, MAX_PAGE)}",
            annotations=COUNT_ANNOTATIONS if query.count else (),
        )
        body = self._json("GET", emap.remote, query=options, headers=headers)
        following = self._following(body.get("@odata.nextLink"), emap)
        return QueryPage(
            [change_of(emap, row, steps) for row in rows_of(body)],
            {"next": following} if following else None,
            count_of(body) if query.count else None,
        )

    def _wild(self, emap: EntityMap, column: str) -> bool:
        """Asked once per opened connection and column, and only for a filter that has such a character.

        Dataverse documents patterns; what else speaks its language may not know them, and would take their escape
        for text. Where no row has a value the answer does not matter.
        """
        asked = (emap.remote, column)
        if asked not in self._wildcards:
            options = [("$select", emap.key), ("$filter", ANY_TEXT.format(column=column))]
            headers = {"Prefer": "odata.maxpagesize=1"}
            self._wildcards[asked] = bool(
                rows_of(self._json("GET", emap.remote, query=options, headers=headers))
            )
        return self._wildcards[asked]

    @staticmethod
    def _read_headers(
        emap: EntityMap, steps: Sequence[Step], *preferences: str, annotations: Sequence[str] = ()
    ) -> dict[str, str]:
        also = [step.target for step in steps]
        headers = prefer(emap, *preferences, also=also, annotations=annotations)
        return {**headers, **FRESH} if steps else headers

    def get(self, entity: str, rid: str, *, expand: Sequence[Expansion] = ()) -> Change:
        emap = self.entity_map(entity)
        steps = self.steps(entity, expand)
        path = key_segment(emap.remote, check_guid(rid))
        options = [("$select", ",".join(select_of(emap))), *expand_of(steps, self.describe, self._wild)]
        row = self._json("GET", path, query=options, headers=self._read_headers(emap, steps))
        return change_of(emap, row, steps)

    def get_many(self, entity: str, rids: Sequence[str]) -> Mapping[str, Change]:
        emap = self.entity_map(entity)
        found: dict[str, Change] = {}
        for start in range(0, len(rids), IDS_PER_READ):
            ids = [check_guid(rid) for rid in rids[start : start + IDS_PER_READ]]
            options = [
                ("$select", ",".join(select_of(emap))),
                ("$filter", " or ".join(f"{emap.key} eq {each}" for each in ids)),
            ]
            for row in rows_of(self._json("GET", emap.remote, query=options, headers=prefer(emap))):
                change = change_of(emap, row)
                found[change.rid] = change
        return found

    def create(self, entity: str, write: Write) -> Change:
        """With an id of ours and If-None-Match: a create whose answer was lost can be repeated, and is made once."""
        emap = self.entity_map(entity)
        rid = write.key or self._tools.ids.uuid()
        try:
            return self._write(emap, rid, write, {"If-None-Match": "*"}, repeatable=True)
        except VersionMismatch as refused:
            try:
                return self.get(entity, rid)  # an earlier try was carried out
            except RecordGone:
                raise refused from None  # it is another row's key that exists

    def update(self, entity: str, rid: str, write: Write, if_match: str = "") -> Change:
        """If-Match always: without it the PATCH of a missing record would create one."""
        emap = self.entity_map(entity)
        headers = {"If-Match": if_match or "*"}
        return self._write(emap, check_guid(rid), write, headers, repeatable=not if_match)

    def _write(
        self, emap: EntityMap, rid: str, write: Write, headers: Mapping[str, str], *, repeatable: bool
    ) -> Change:
        try:
            row = self._json(
                "PATCH",
                key_segment(emap.remote, rid),
                query=[("$select", ",".join(select_of(emap)))],
                headers={**headers, **prefer(emap, "return=representation")},
                json={**emap.outward(write.fields), **write.native},
                repeatable=repeatable,
            )
        except RecordGone as error:
            raise self._missing_reference(emap, rid, write, error) from None
        return change_of(emap, row)

    def _missing_reference(self, emap: EntityMap, rid: str, write: Write, error: RecordGone) -> VendorError:
        """A 404 to a write can mean the record, or one that it refers to; the message names the id."""
        for name, value in write.fields.items():
            bound = emap.by_field[name].bind and isinstance(value, str)
            if bound and value.lower() != rid and value.lower() in error.message.lower():
                return Rejected(
                    error.message,
                    system=self.name,
                    vendor_status=error.vendor_status,
                    vendor_code=error.vendor_code,
                    request_id=error.request_id,
                    errors=[FieldError(name, f"{name}: {error.message}")],
                )
        return error

    def delete(self, entity: str, rid: str, if_match: str = "") -> None:
        emap = self.entity_map(entity)
        headers = {"If-Match": if_match} if if_match else {}
        self._call("DELETE", key_segment(emap.remote, check_guid(rid)), headers=headers)

    # --- changes -------------------------------------------------------------------------------------------------

    def changes(self, entity: str, cursor: Cursor | None, *, size: int) -> Page:
        """By delta link where the table tracks changes, else by modifiedon.

        Cursors: {"delta": query of the delta or next link}, or {"since", "seen"} with {"next", "newest"} between pages.
        """
        emap = self.entity_map(entity)
        try:
            if cursor is None:
                return self._begin(emap, size)
            if "delta" in cursor:
                return self._tracked(emap, str(cursor["delta"]), size)
            return self._by_time(emap, cursor, size)
        except (Rejected, RecordGone) as error:
            if cursor is None or not ({"delta", "next"} & cursor.keys()):
                raise
            # The vendor names no code for a token out of its window (default 7 days); what else a link of its own
            # could be refused for shows again when the full run asks afresh.
            raise CursorExpired(error.message, system=self.name, vendor_status=error.vendor_status) from None

    def _begin(self, emap: EntityMap, size: int) -> Page:
        options = [("$select", ",".join(select_of(emap)))]
        try:
            return self._tracked(emap, options, size)
        except (Rejected, NotSupported):
            return self._by_time(emap, {"since": "", "seen": {}}, size)  # the table does not track changes

    def _tracked(self, emap: EntityMap, options: Sequence[tuple[str, str]] | str, size: int) -> Page:
        headers = prefer(emap, "odata.track-changes", f"odata.maxpagesize={min(size, MAX_PAGE)}")
        body = self._json("GET", emap.remote, query=options, headers=headers)
        changes = [self._entry(emap, row) for row in rows_of(body)]
        following = self._following(body.get("@odata.nextLink"), emap)
        if following:
            return Page(changes, {"delta": following}, more=True)
        delta = self._following(body.get("@odata.deltaLink"), emap)
        if delta:
            return Page(changes, {"delta": delta}, more=False)
        # A server that does not track changes may just leave the link out; the order by time is safe to go on from.
        return Page(changes, {"since": "", "seen": {}}, more=True)

    def _entry(self, emap: EntityMap, row: Mapping[str, Any]) -> Change:
        if str(row.get("@odata.context", "")).endswith("/$deletedEntity"):
            return Change(str(row["id"]).lower(), None)
        return change_of(emap, row)

    def _by_time(self, emap: EntityMap, cursor: Cursor, size: int) -> Page:
        """Ordered by (modifiedon, id), from `since` less the overlap; rows that the cursor has seen are dropped."""
        since, seen = str(cursor["since"]), dict(cursor["seen"])
        if "next" in cursor:
            options: Sequence[tuple[str, str]] | str = str(cursor["next"])
        else:
            options = [
                ("$select", ",".join(select_of(emap))),
                ("$orderby", f"{emap.modified} asc,{emap.key} asc"),
            ]
            if since:
                start = instant_text(parse_instant(since) - OVERLAP)
                options.append(("$filter", f"{emap.modified} ge {start}"))
        headers = prefer(emap, f"odata.maxpagesize={min(size, MAX_PAGE)}")
        answer = self._call("GET", emap.remote, query=options, headers=headers)
        body = self._object(answer, "GET")
        read = [change_of(emap, row) for row in rows_of(body)]
        now = _server_time(answer) or instant_text(self._tools.clock.now().replace(microsecond=0))
        began = str(cursor.get("began") or now)
        # A row with a time in the future must not carry the cursor over all that comes until then.
        times = (change.modified for change in read if change.modified <= now)
        newest = max([str(cursor.get("newest") or since), *times])
        fresh = [change for change in read if seen.get(change.rid, ("",))[0] != change.version]
        seen |= {change.rid: (change.version, change.modified) for change in read}
        following = self._following(body.get("@odata.nextLink"), emap)
        kept = _recent(seen, newest)
        if following:
            paging = {"next": following, "since": since, "newest": newest, "seen": kept, "began": began}
            return Page(fresh, paging, more=True)
        if newest and newest == since:
            # Nothing newer came: go on from the server's own time, or a burst would be read again until an edit.
            newest = max(newest, min(began, _server_time(answer)))
        # Pages take their time: what was committed late after the first of them must lie in the next overlap.
        newest = max(since, min(newest, began))
        kept = _recent(seen, newest)
        return Page(fresh, {"since": newest, "seen": kept}, more=False)

    # --- the wire ------------------------------------------------------------------------------------------------

    def _call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        odata = {"OData-MaxVersion": "4.0", "OData-Version": "4.0"}
        return self._rest.call(method, path, headers={**odata, **(headers or {})}, **more)

    def _json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """The object that an answer holds; raises BadAnswer for anything else."""
        return self._object(self._call(method, path, **more), method)

    def _object(self, answer: Answer, method: str) -> dict[str, Any]:
        try:
            body = answer.json()
        except BadAnswer as error:
            problem = error
        else:
            if isinstance(body, dict):
                return body
            problem = BadAnswer("The answer is no JSON object.")
        problem.system = self.name
        problem.vendor_status = answer.status
        problem.outcome_unknown = method != "GET"  # the status says done, and the record can't be read
        raise problem

    def _following(self, link: Any, emap: EntityMap) -> str:
        """The query of a link to more of the same collection, "" without one. Its host and path are not followed."""
        if not link:
            return ""
        try:
            parts = urlsplit(str(link))
        except ValueError:
            raise BadAnswer("The link to the next page is no address.", system=self.name) from None
        if parts.path.rstrip("/").rpartition("/")[2].lower() != emap.remote:
            raise BadAnswer(f"The link to the next page leads to {parts.path!r}.", system=self.name)
        # Sent again as it came, but as valid URL text: some servers leave spaces and quotes in it.
        return "&".join(
            f"{quote(name, safe='$')}={quote(value, safe='')}"
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        )

    def explain(self, answer: Answer) -> HubError:
        """By status, refined by Dataverse's codes (Web API: "Parse errors from the response")."""
        error = explain_status(answer, self.name)
        if not isinstance(error, VendorError):
            return error
        code = error.vendor_code.lower()
        vendor: dict[str, Any] = {
            "system": self.name,
            "vendor_status": answer.status,
            "vendor_code": error.vendor_code,
            "request_id": error.request_id,
        }
        # A deadlock or timeout of the vendor's database is passing, whatever the status says.
        if code in ("0x80044150", "0x80044151"):
            return Unavailable(error.message, **vendor)
        if answer.status == 501:
            return NotSupported(error.message)
        if answer.status == 405:
            return Rejected(error.message, **vendor)
        if answer.status == 404 and code not in ("0x80040217", "0x80060891", ""):
            return BadAnswer(error.message, **vendor)
        if isinstance(error, Rejected):
            error.errors = self._field_errors(error.message)
        return error

    def _field_errors(self, message: str) -> tuple[FieldError, ...]:
        """The columns that a refusal names, by their canonical names."""
        named = re.findall(
            r"property named '(\w+)'|'(\w+)' attribute|attribute '(\w+)'|property '(\w+)'", message
        )
        errors = []
        for native in dict.fromkeys(name for names in named for name in names if name):
            found = next((each for emap in self.entities.values() if (each := emap.find(native))), None)
            errors.append(FieldError(found.field if found else native, message))
        return tuple(errors)


@contextmanager
def _setting(name: str) -> Iterator[None]:
    """What is refused inside the block is the fault of this setting, and says so."""
    try:
        yield
    except HubError as error:
        message = f"settings.{name}: {error.message}"
        raise Misconfigured(message, errors=[FieldError(f"settings.{name}", message)]) from None


def _server_time(answer: Answer) -> str:
    """The server's clock by its answer, to the second; "" if it does not tell."""
    try:
        return instant_text(parsedate_to_datetime(answer.headers.get("date", "")))
    except (ValueError, TypeError):
        return ""


def _recent(seen: Mapping[str, Sequence[str]], newest: str) -> dict[str, list[str]]:
    """What the next read of the overlap will meet again, newest first, not more than the cursor should hold."""
    if not newest:
        return {}
    start = instant_text(parse_instant(newest) - OVERLAP)
    recent = sorted(
        (item for item in seen.items() if item[1][1] >= start), key=lambda item: item[1][1], reverse=True
    )
    return {rid: [version, modified] for rid, (version, modified) in recent[:MAX_SEEN]}


def normal_version(text: str) -> str:
    """`v9.2` for 9.2 and v9.2 alike; raises BadRequest for what is no version."""
    match = re.fullmatch(r"v?(\d{1,2})\.(\d{1,2})", text.strip().lower())
    if not match:
        raise BadRequest("Expected a version such as v9.2.")
    return f"v{match[1]}.{match[2]}"
