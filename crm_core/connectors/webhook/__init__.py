"""Any app that sends or takes webhooks: what it posts is taken as changes, and it is told of what changes in the hub.

It can't be asked for anything. What comes in is in `inbound.py`, what goes out in `deliver.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from crm_core.connector import (
    Account,
    Answer,
    Change,
    Connector,
    Cursor,
    Delivered,
    Event,
    Hook,
    Message,
    Page,
    Query,
    QueryPage,
    Setting,
    Tools,
    Write,
)
from crm_core.connectors.webhook.deliver import Outgoing, cloud_event, mapped, test_event
from crm_core.connectors.webhook.inbound import PROOFS, STANDARD, Incoming
from crm_core.connectors.webhook.maps import MAPS, named
from crm_core.errors import (
    AuthFailed,
    BadAnswer,
    BadRequest,
    HubError,
    Misconfigured,
    NotSupported,
    RateLimited,
    Rejected,
    Unavailable,
)
from crm_core.model.expand import Expansion
from crm_core.model.fields import hub_time
from crm_core.model.joined import references
from crm_core.model.mapping import NativeField
from crm_core.model.record import NOTHING
from crm_core.model.record_event import RecordEvent

SYSTEM = "webhook"
PAYLOADS = ("all", "mapped")


class Webhook(Connector):
    name = SYSTEM
    label = "Webhook"
    settings = (
        Setting(
            "url", "Address that is told", "url", required=False, help="Such as https://app.example.com/hooks"
        ),
        Setting(
            "url_query",
            "What follows the ? of the address",
            required=False,
            secret=True,
            help="Such as api-version=1&sig=... of a Logic App or Power Automate; kept as the secret that it is",
        ),
        Setting(
            "signing_secret",
            "Signing secret",
            required=False,
            secret=True,
            help="whsec_ and 24 to 64 bytes in base64 (Standard Webhooks). While it is changed: both, a blank between",
        ),
        Setting("token_header", "Header of the token", required=False, help="Such as X-CRM-Webhook-Token"),
        Setting(
            "token", "Token", required=False, secret=True, help="Sent with every delivery, in that header"
        ),
        Setting(
            "payload",
            "Fields of a mapped body",
            required=False,
            default="all",
            help="all, or mapped: only those that the entity's mapping names",
        ),
        Setting(
            "headers", "More headers", required=False, help="A line of 'Name: value' for each; no secrets"
        ),
        Setting(
            "proof",
            "How its webhooks prove themselves",
            required=False,
            default=STANDARD,
            help=f"One of {', '.join(PROOFS)}",
        ),
        Setting(
            "proof_header",
            "Header of the proof",
            required=False,
            help="Of hmac and header; of query the parameter. Usual: X-Hub-Signature-256, X-Hub-Token, token",
        ),
        Setting(
            "webhook_secret",
            "Secret of its webhooks",
            required=False,
            secret=True,
            help="Any long random text; whsec_... for standard; user:password for basic. While it is changed: both",
        ),
        Setting(
            "keys",
            "Keys of its records",
            required=False,
            help="A line of 'entity: property' for each entity that its webhooks tell of; else they say entity and id",
        ),
    )
    origins = ()
    entities: ClassVar = MAPS
    versions = "ordered"
    polls = False
    delivers_to = "url"

    def __init__(self, account: Account, tools: Tools) -> None:
        super().__init__(account, tools)
        self._uid = account.uid
        self._tools = tools
        self._mapped = {name: self.map(name) for name, document in account.maps.items() if document}
        if _payload(account.settings) == "mapped":
            self._mapped = {name: named(emap, account.maps[name]) for name, emap in self._mapped.items()}
        self._joins = {
            name: references(MAPS[name].entity, [*emap.by_field, *emap.parts])
            for name, emap in self._mapped.items()
        }
        self._outgoing = Outgoing(account, tools)
        self._incoming = Incoming(account)

    # --- out -----------------------------------------------------------------------------------------------------

    def joins(self, entity: str) -> Mapping[str, str]:
        return self._joins.get(entity, NOTHING)

    def message(self, delivery: str, event: RecordEvent) -> Message:
        if event.entity in self._mapped:
            return mapped(self._uid, self._mapped[event.entity], delivery, event)
        return cloud_event(self._uid, delivery, event)

    def deliver(self, message: Message) -> Delivered:
        return self._outgoing.send(message)

    def check(self) -> Mapping[str, Any]:
        """Sends a signed event of the type crmhub.test; gives what the receiver answers."""
        if not self._outgoing.url:
            raise Misconfigured("settings.url: is missing; there is nobody to send a test to.")
        now = self._tools.clock.now()
        test = test_event(self._uid, f"test-{self._tools.ids.uuid()}", hub_time(now))
        answer = self.tell(test)
        return {"receiver": {"status": answer.status, "words": answer.excerpt}, "webhook_id": test.id}

    def tell(self, message: Message) -> Delivered:
        answer = self._outgoing.send(message)
        if not 200 <= answer.status < 300:
            raise refusal(answer)
        return answer

    def explain(self, answer: Answer) -> HubError:
        return refusal(Delivered(answer.status, answer.excerpt()))

    # --- in ------------------------------------------------------------------------------------------------------

    def verify(self, hook: Hook) -> str:
        return self._incoming.verify(hook, self._tools.clock.now().timestamp())

    def parse(self, hook: Hook) -> Sequence[Event]:
        return self._incoming.parse(hook, {entity: self.map(entity) for entity in MAPS})

    # --- what there is not ---------------------------------------------------------------------------------------

    def describe(self, entity: str) -> Mapping[str, NativeField]:
        raise NotSupported(f"{self.label} has no metadata of '{entity}': any name is taken.")

    def query(self, entity: str, query: Query) -> QueryPage:  # noqa: ARG002  # of every connector
        self._unreadable(entity)

    def get(self, entity: str, rid: str, *, expand: Sequence[Expansion] = ()) -> Change:  # noqa: ARG002  # as above
        self._unreadable(entity)

    def get_many(self, entity: str, rids: Sequence[str]) -> Mapping[str, Change]:  # noqa: ARG002  # as above
        self._unreadable(entity)

    def create(self, entity: str, write: Write) -> Change:  # noqa: ARG002  # as above
        self._unwritable(entity)

    def update(self, entity: str, rid: str, write: Write, if_match: str = "") -> Change:  # noqa: ARG002  # as above
        self._unwritable(entity)

    def delete(self, entity: str, rid: str, if_match: str = "") -> None:  # noqa: ARG002  # as above
        self._unwritable(entity)

    def changes(self, entity: str, cursor: Cursor | None, *, size: int) -> Page:  # noqa: ARG002  # as above
        self._unreadable(entity)

    def _unreadable(self, entity: str) -> NoReturn:
        self.entity_map(entity)
        raise NotSupported(f"{self.label} has no way to be asked for '{entity}'.")

    def _unwritable(self, entity: str) -> NoReturn:
        self.entity_map(entity)
        raise NotSupported(
            f"{self.label} is told of changes of stored records; write '{entity}' over /api/records."
        )


def _payload(settings: Mapping[str, str]) -> str:
    found = settings.get("payload", "all")
    if found not in PAYLOADS:
        raise BadRequest.field(
            "settings.payload", f"settings.payload: expected one of {', '.join(PAYLOADS)}."
        )
    return found


def refusal(answer: Delivered) -> HubError:
    """What an answer means that is no success, with the receiver's words."""
    words = f"The receiver answers {answer.status}" + (f": {answer.excerpt}" if answer.excerpt else ".")
    facts: dict[str, Any] = {"system": SYSTEM, "vendor_status": answer.status}
    if answer.status in (401, 403):
        return AuthFailed(words, **facts)
    if answer.status == 429:
        return RateLimited(words, retry_after=answer.retry_after, **facts)
    if answer.status >= 500:
        return Unavailable(words, **facts)
    if 300 <= answer.status < 400:
        return BadAnswer(f"{words} A redirect is not followed; give the address that it leads to.", **facts)
    return Rejected(words, **facts)
