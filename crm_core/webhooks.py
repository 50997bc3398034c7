"""Webhooks come in: found by their address, proven, and in the queue before the sender is told so. Nothing is parsed.

One storage operation for each, the message; two for one that is too long for a message. What an unknown address, a
wrong proof and a connection that takes no webhooks are answered is the same.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

from crm_core.connector import STORED_HEADERS, STORED_PREFIXES, Hook
from crm_core.errors import (
    NotSupported,
    SignatureInvalid,
    TooLarge,
    TooManyRequests,
    UnsupportedMedia,
)
from crm_core.hook_admin import current
from crm_core.log import Log, bind, current_trace
from crm_core.model.connection import Connection, Tenant
from crm_core.model.fields import hub_time
from crm_core.model.xml_text import is_xml
from crm_core.ports import MAX_MESSAGE_BYTES, Blob, Clock, Ids, Queue, count
from crm_core.protocols import challenges
from crm_core.protocols.challenges import Answer
from crm_core.protocols.limits import Gate
from crm_core.settings import HookSettings
from crm_core.storage import layout
from crm_core.storage.events import Inbound
from crm_core.storage.keys import Keys
from crm_core.sync.engine import Job, Opened

_log = Log("crm_core.webhooks")

MAX_BODY = 1024 * 1024
MAX_HEADER = 1000
ADDRESS_SECONDS = 60.0
"""How long a process remembers whose an address is, or that it is nobody's."""
MAX_ADDRESSES = 10_000
REFUSED = "The webhook could not be verified."

Owner = tuple[Tenant, str]


class Receiver:
    """`open`, `reopen`: a connection from memory, and as it is stored."""

    def __init__(
        self,
        settings: HookSettings,
        keys: Keys,
        queue: Queue,
        blob: Blob,
        clock: Clock,
        ids: Ids,
        open_: Callable[[Tenant, str], Opened | None],
        reopen: Callable[[Connection], Opened | None],
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._queue = queue
        self._blob = blob
        self._clock = clock
        self._ids = ids
        self._open = open_
        self._reopen = reopen
        self._hooks = Gate(clock, settings.per_minute)
        self._sources = Gate(clock, settings.per_source)
        self._refusals = Gate(clock, settings.refused)
        self._owners: OrderedDict[str, tuple[Owner | None, float]] = OrderedDict()
        self._lock = threading.Lock()

    def receive(self, address: str, hook: Hook, source: str) -> str | Answer:
        """The id of the event that is kept from now on, or the answer to a challenge.

        `source`: who calls, as far as that is known. Raises SignatureInvalid (counted, never kept), TooManyRequests,
        TooLarge, UnsupportedMedia; Misconfigured for a connection that can't be opened, StoreUnavailable.
        """
        return self._taken(address, hook, source, self._find, is_secret=True)

    def receive_at(self, owner: Owner, hook: Hook, source: str) -> str | Answer:
        """As `receive`, at an address that is everybody's to know: the proof is all that there is."""
        return self._taken(owner[1], hook, source, lambda _: self._open(*owner), is_secret=False)

    def _taken(
        self,
        address: str,
        hook: Hook,
        source: str,
        find: Callable[[str], Opened | None],
        *,
        is_secret: bool,
    ) -> str | Answer:
        """`is_secret`: nobody can guess the address, so that it answers challenges."""
        _spare(self._refusals.wait(source) or self._sources.take(source))
        _check_form(hook)
        opened = find(address)
        try:
            return self._received(address, opened, hook, is_secret=is_secret)
        except (SignatureInvalid, NotSupported):
            self._refusals.take(source)
            uid = opened.connection.uid if opened else ""
            count("webhooks_refused", connection=uid)
            _log.warning("webhook refused", connection=uid)
            raise SignatureInvalid(REFUSED) from None

    def _received(self, address: str, opened: Opened | None, hook: Hook, *, is_secret: bool) -> str | Answer:
        if opened is None:
            raise SignatureInvalid(REFUSED)
        bind(tenant=opened.connection.tenant.name, connection=opened.connection.uid)
        answer = challenges.before_proof(hook, self._settings.origins, self._settings.per_minute)
        if is_secret and answer is not None:
            return answer
        if hook.method != "POST":
            raise SignatureInvalid(REFUSED)
        proof = opened.connector.verify(hook)
        _spare(self._hooks.take(address))
        return challenges.after_proof(hook) or self._keep(opened.connection, hook, proof)

    # --- whose address it is -------------------------------------------------------------------------------------

    def _find(self, address: str) -> Opened | None:
        """Raises Misconfigured."""
        owner = self._owner(address)
        opened = self._open(*owner) if owner else None
        if opened is not None and not self._is_good(address, opened):
            opened = self._reopen(opened.connection)  # it may be as new as that
        return opened if opened is not None and self._is_good(address, opened) else None

    def _is_good(self, address: str, opened: Opened) -> bool:
        return address in current(opened.connection.hooks, self._clock.now())

    def _owner(self, address: str) -> Owner | None:
        now = self._clock.monotonic()
        held = self._owners.get(address)
        if held is not None and now - held[1] < ADDRESS_SECONDS:
            return held[0]
        owner = self._keys.owner_of(address) if layout.is_hook(address) else None
        with self._lock:
            self._owners[address] = owner, now
            self._owners.move_to_end(address)
            if len(self._owners) > MAX_ADDRESSES:
                self._owners.popitem(last=False)
        return owner

    # --- keeping it ----------------------------------------------------------------------------------------------

    def _keep(self, connection: Connection, hook: Hook, proof: str) -> str:
        """In the queue, with its body in a blob if it is long."""
        now = self._clock.now()
        event_id = layout.newest_first(int(now.timestamp() * 1000), self._ids.uuid())
        found = Inbound(event_id, hub_time(now), proof, _kept(hook.headers), hook.body)
        message = self._message(connection, found)
        if len(message.encode()) > MAX_MESSAGE_BYTES:
            name = layout.event_blob(connection.tenant, connection.uid, event_id)
            self._blob.put(name, hook.body)
            message = self._message(connection, replace(found, body=b"", blob=name))
        self._queue.send(layout.FRESH, message)
        count("webhooks_accepted", connection=connection.uid)
        return event_id

    def _message(self, connection: Connection, found: Inbound) -> str:
        job = Job("event", connection.tenant, connection.uid, trace=current_trace(), event=found.to_message())
        return job.to_message()


def _spare(seconds: float) -> None:
    if seconds:
        raise TooManyRequests("Too many webhooks; come again later.", retry_after=seconds)


def _check_form(hook: Hook) -> None:
    """Before anything is known of the sender, so that it tells nothing of the address."""
    if len(hook.body) > MAX_BODY:
        raise TooLarge(f"A webhook has at most {MAX_BODY} bytes.")
    if hook.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("A webhook comes uncompressed, without Content-Encoding.")
    kind = hook.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = kind in ("application/json", "text/json") or kind.endswith("+json")
    if hook.body and not is_json and not is_xml(kind):
        raise UnsupportedMedia(
            "A webhook is JSON or XML: application/json, application/xml, or a type that ends in +json or +xml."
        )


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value[:MAX_HEADER].encode("utf-8", "replace").decode()
        for name, value in headers.items()
        if name in STORED_HEADERS or name.startswith(STORED_PREFIXES)
    }
