"""The composition root: makes the parts from the settings and hands them to each other. Nothing else wires."""

import importlib
import json
import pkgutil
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from crm_core import connectors
from crm_core.connection_admin import ConnectionAdmin, account_of
from crm_core.connector import Connector, Tools
from crm_core.diagnosis import Diagnosis
from crm_core.errors import BadRequest, Conflict, HubError, Misconfigured, NotFound, StoreUnavailable
from crm_core.hook_admin import HookAdmin
from crm_core.log import Log, bind
from crm_core.model.connection import DEFAULT_TENANT, Connection, Tenant
from crm_core.model.entities import ENTITIES, Entity
from crm_core.model.fields import hub_time
from crm_core.model.state import Mode, Run
from crm_core.ports import Blob, Clock, Ids, Meter, Pool, Queue, RowExists, StoreError, Table, count, lane_of
from crm_core.protocols.budget import forecast
from crm_core.protocols.guard import Guard
from crm_core.protocols.http import Http
from crm_core.settings import DYNAMICS, Settings
from crm_core.storage import layout
from crm_core.storage.azure import AzureBlob, AzureQueue, AzureTable, StorageAccount
from crm_core.storage.clients import managed_identity
from crm_core.storage.connections import Connections
from crm_core.storage.deliveries import Deliveries
from crm_core.storage.due import Due
from crm_core.storage.events import Events
from crm_core.storage.held import Held
from crm_core.storage.hints import Hints
from crm_core.storage.journal import DeadLetters, Stats
from crm_core.storage.key_vault import AzureSecrets
from crm_core.storage.keys import Keys
from crm_core.storage.ledger import StoredLedger
from crm_core.storage.records import Records
from crm_core.storage.run_log import RunLog
from crm_core.storage.secrets import Cipher, LocalSecrets, StoredTokens, parse_key
from crm_core.storage.state import RunStore, StateStore
from crm_core.sync import (
    brake,
    cancelling,
    deadletters,
    failures,
    jobs,
    results,
    schedule,
    starting,
)
from crm_core.sync.edit import Editor
from crm_core.sync.engine import Engine, Job, Opened, Tuning, wake
from crm_core.sync.sides import Config, Side, side_of
from crm_core.system import SystemClock, SystemIds, ThreadPool
from crm_core.webhooks import Receiver

_log = Log("crm_core.hub")

CACHE_SECONDS = 60.0
"""How long a process uses its copy of a connection without reading it again."""
TOKEN_HOURS = 24
FLUSH_SECONDS = 15.0
_NAME = re.compile(r"[a-z0-9_-]{1,40}")
"""Of slugs and uids alike; nothing else names a connection."""


def connector_names() -> list[str]:
    """Every connector there is: the modules of the package, not imported yet."""
    return sorted(module.name for module in pkgutil.iter_modules(connectors.__path__))


def connector_class(name: str) -> type[Connector]:
    """Raises NotFound that lists what there is."""
    if name not in connector_names():
        raise NotFound(f"There is no connector '{name}'; there are {', '.join(connector_names())}.")
    module = importlib.import_module(f"{connectors.__name__}.{name}")
    for found in vars(module).values():
        if isinstance(found, type) and issubclass(found, Connector) and found.__dict__.get("name") == name:
            return found
    raise Misconfigured(f"The module of connector '{name}' holds no connector of that name.")


class Hub:
    """One per process. `connect` is for live calls, `engine` for sync, `admin` for connections."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        pool: Pool | None = None,
        table: Table | None = None,
        queue: Queue | None = None,
        blob: Blob | None = None,
    ) -> None:
        """Calls nobody. Raises Misconfigured for an encryption key of a wrong form."""
        self.settings = settings
        self.clock = clock or SystemClock()
        self.ids = ids or SystemIds()
        self.pool = pool or ThreadPool()
        account = _storage_account(settings)
        self.table = table or AzureTable(account)
        self.queue = queue or AzureQueue(account)
        self.secrets: AzureSecrets | LocalSecrets
        if settings.vault_url:
            self.secrets = vault = AzureSecrets(
                settings.vault_url,
                managed_identity(settings.vault_client_id),
                self.clock,
                ca_bundle=settings.ca_bundle,
            )
            self.cipher = Cipher(vault.data_key)
        else:
            self.cipher = Cipher(parse_key(settings.encryption_key, "INTEGRATION_ENCRYPTION_KEY"))
            self.secrets = LocalSecrets(self.table, self.cipher)
        self.connections = Connections(self.table)
        self.keys = Keys(self.table)
        self.states = StateStore(self.table)
        self.runs = RunStore(self.table)
        self.records = Records(self.table, self.pool)
        self.stats = Stats(self.table, self.clock, f"{settings.instance[:40]}-{self.ids.uuid()[:8]}")
        guard = Guard(settings.allow_loopback, settings.allow_private_hosts)
        self.tools = Tools(
            Http(guard, self.clock, ca_bundle=settings.ca_bundle),
            StoredTokens(self.table, self.cipher),
            self.clock,
            self.ids,
            settings.allow_loopback,
            settings.ca_bundle,
            ledger=StoredLedger(self.table),
        )
        stored = blob or AzureBlob(account, layout.CONTAINER)
        self.engine = Engine(
            self.records,
            self.keys,
            Held(self.table),
            Hints(self.table),
            Events(self.table, stored),
            Deliveries(self.table, stored),
            self.states,
            self.runs,
            DeadLetters(self.table, self.clock, self.ids),
            RunLog(self.table, self.ids),
            Due(self.table),
            self.queue,
            stored,
            self.clock,
            self.ids,
            self.pool,
            self.open,
            self.sides,
            _tuning(settings.tuning),
        )
        self.admin = ConnectionAdmin(
            self.connections,
            self.keys,
            self.secrets,
            self.states,
            self.clock,
            self.ids,
            self.tools,
            connector_class,
            guard.check_url,
            self.engine.tuning.push_delay_seconds,
        )
        self.hooks = HookAdmin(
            self.connections, self.keys, self.states, self.engine.hints, self.clock, self.ids
        )
        self.receiver = Receiver(
            settings.hooks, self.keys, self.queue, stored, self.clock, self.ids, self.open, self._reopened
        )
        self.diagnosis = Diagnosis(
            self.admin, self.secrets, self.tools, self.table, self.queue, self.engine.blob, self.pool
        )
        self._opened: dict[tuple[Tenant, str], tuple[Opened, float]] = {}
        self._listed: dict[Tenant, tuple[Sequence[Connection], float]] = {}
        self._changes = 0
        self._sides: dict[tuple[str, str], tuple[str, Side]] = {}
        self._generations: dict[tuple[Tenant, str], int] = {}
        """Since when caches were cleared here: a copy of an older generation is not kept."""
        self._used: dict[str, Mapping[str, str]] = {}
        self._lock = threading.Lock()
        self._preparing = threading.Lock()
        self._prepared = False
        self._unsaved = Meter()
        self._flush_at = 0.0

    # --- connections ---------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Once per process: the connections that the settings describe exist as they say."""
        with self._preparing:
            if self._prepared:
                return
            wrong: list[Misconfigured] = []
            for default in self.settings.defaults:
                try:
                    self.admin.ensure_default(default)
                except BadRequest as error:
                    text = f"The default connection {default.slug}: {error.message}"
                    wrong.append(Misconfigured(text, errors=error.errors))
                except (Conflict, RowExists):
                    continue  # another instance does it at this moment
            if wrong:
                raise wrong[0]
            self._prepared = True

    def open(self, tenant: Tenant, uid: str) -> Opened | None:
        """A connection and its connector; None if it is gone. The copy is at most 60 s old.

        The connector is kept while neither the connection nor its secrets change, and with it its token.
        """
        now = self.clock.monotonic()
        held = self._opened.get((tenant, uid))
        if held is not None and now - held[1] < CACHE_SECONDS:
            count("connections_from_memory", connection=uid)
            return held[0]
        if not _NAME.fullmatch(
            uid
        ):  # a caller's text may be taken for one: nothing is read or counted under it
            return None
        count("connections_read", connection=uid)
        changes = self._changes
        connection = self.connections.get(tenant, uid)
        if connection is None:
            self._opened.pop((tenant, uid), None)
            return None
        if held is not None and self._unchanged(held[0].connection, connection):
            opened = held[0]
        else:
            opened = self._opened_anew(connection)
        is_newest = changes == self._changes  # else one was saved here while it was read, maybe this one
        if is_newest and connection.generation >= self._generations.get((tenant, uid), 0):
            self._opened[tenant, uid] = (opened, now)
        return opened

    def sides(self, tenant: Tenant, entity: str) -> Config:
        """The part of each connection in an entity, as of at most 60 s ago."""
        now = self.clock.monotonic()
        known, at = self._listed.get(tenant, ((), -CACHE_SECONDS))
        if now - at >= CACHE_SECONDS:
            changes = self._changes
            known, at = list(self.connections.every(tenant)), now
            if changes == self._changes:  # else a connection was saved or deleted here while it was read
                self._listed[tenant] = known, at
        return Config({each.uid: self._side(each, entity) for each in known if entity in each.entities}, at)

    def _side(self, connection: Connection, entity: str) -> Side:
        held = self._sides.get((connection.uid, entity))
        if held is not None and held[0] == connection.etag:
            return held[1]
        side = side_of(
            connection, connector_class(connection.connector), ENTITIES[entity], self.engine.tuning.breaker
        )
        self._sides[connection.uid, entity] = connection.etag, side
        return side

    def _unchanged(self, held: Connection, connection: Connection) -> bool:
        """Whether neither a connection nor its secrets have changed; those in a vault may be changed there."""
        if held.etag != connection.etag:
            return False
        if not self.settings.vault_url:
            return True
        try:
            secrets = self.secrets.get(connection.tenant.name, connection.uid) or {}
        except StoreUnavailable:
            return True  # what works goes on without the vault
        return secrets == self._used.get(connection.uid)

    def _opened_anew(self, connection: Connection) -> Opened:
        self.secrets.invalidate(
            connection.tenant.name, connection.uid
        )  # another instance may have saved them
        secrets = self._used[connection.uid] = self.secrets.get(connection.tenant.name, connection.uid) or {}
        kind = connector_class(connection.connector)
        return Opened(connection, kind(account_of(connection, secrets), self.tools))

    def forget(self, connection: Connection) -> None:
        """After a change here: the next use reads it again."""
        self._opened.pop((connection.tenant, connection.uid), None)
        self._changes += 1
        self._listed.pop(connection.tenant, None)

    def _reopened(self, connection: Connection) -> Opened | None:
        self.forget(connection)
        return self.open(connection.tenant, connection.uid)

    def clear_cache(self, connection: Connection) -> Connection:
        """Everything that processes keep of a connection is read anew: here at once, elsewhere within 60 s.

        A slice of a run goes on with what it began with. Raises NotFound, Conflict.
        """
        renewed = self.admin.renew(connection)
        self._generations[renewed.tenant, renewed.uid] = renewed.generation
        self.forget(renewed)
        return renewed

    def find(self, tenant: Tenant, name: str) -> Connection:
        """As `connect` finds it, but as it is stored and without opening it; raises NotFound or BadRequest."""
        uid = self._uid(tenant, name)
        found = self.connections.get(tenant, uid) if uid else None
        if found is None:
            raise _no_connection(name)
        bind(connection=found.uid)
        return found

    def connect(self, tenant: Tenant, name: str) -> Opened:
        """By slug or uid, or "" for the only (or default) connection; raises NotFound or BadRequest."""
        uid = self._uid(tenant, name)
        opened = self.open(tenant, uid) if uid else None
        if opened is None:
            raise _no_connection(name)
        bind(connection=opened.connection.uid)
        return opened

    def _uid(self, tenant: Tenant, name: str) -> str:
        if not name:
            return self._default(tenant)
        return self.uid_of(tenant, name) if _NAME.fullmatch(name) else ""

    def uid_of(self, tenant: Tenant, name: str) -> str:
        """The uid of a connection named by slug or uid, also of one that is gone; what can be neither comes back as it is."""
        return self.admin.uid_of(tenant, name) if _NAME.fullmatch(name) else name

    def _default(self, tenant: Tenant) -> str:
        known = list(self.connections.every(tenant))
        if not known:
            raise NotFound("There is no connection yet; make one by POST /api/integrations.")
        if len(known) == 1:
            return known[0].uid
        if any(default.slug == DYNAMICS for default in self.settings.defaults):
            for connection in known:
                if connection.slug == DYNAMICS:
                    return connection.uid
        slugs = ", ".join(sorted(connection.slug for connection in known))
        raise BadRequest.field("connection", f"connection: say which one, by its name; there are {slugs}.")

    # --- sync ----------------------------------------------------------------------------------------------------

    def start_run(
        self,
        tenant: Tenant,
        name: str,
        entities: Sequence[str],
        mode: Mode,
        origin: str,
        **options: Any,
    ) -> Run:
        """Puts a run on its way; as `starting.start`, with the options of `starting.Asked`. Raises NotFound too."""
        asked = starting.Asked(mode, **options)
        return starting.start(self.engine, self.connect(tenant, name), entities, asked, origin)

    def start_batch(
        self,
        opened: Opened,
        entity: str,
        items: Sequence[results.Item],
        progress: results.Progress,
        origin: str,
    ) -> Run:
        run = starting.start_batch(self.engine, opened, entity, items, progress, origin)
        failures.asked(run, f"A batch of {len(items)} operations")
        return run

    def approve_run(self, tenant: Tenant, run: Run) -> Run:
        """Lets a run that the brake stopped go on, without it. Raises Conflict for any other."""
        return brake.approve(self.engine, tenant, run)

    def cancel_run(self, tenant: Tenant, run: Run) -> Run:
        """Ends a run, and those that it is the parent of. Raises Conflict for one that has ended."""
        return cancelling.cancel(self.engine, tenant, run)

    def let_go(self, connection: Connection) -> None:
        """What a connection had to tell, and what waited for it, goes with it, once nobody has an older copy of the
        configuration.
        """
        for entity in connection.entities:
            job = Job("push", connection.tenant, connection.uid, entity)
            self.engine.send(layout.BULK, job, self.engine.tuning.push_delay_seconds)

    def resume(self, connection: Connection) -> None:
        """A person lets a connection go on; also one whose receiver was gone."""
        if connector_class(connection.connector).delivers_to:
            self.admin.mend(connection)
        self.wake(connection)

    def wake(self, connection: Connection) -> None:
        """What waited while the connection was paused, or needed a person, goes on at once; the tick would find it too."""
        for entity, sync in connection.entities.items():
            if sync.pushes:
                wake(
                    self.engine,
                    connection.tenant,
                    entity,
                    [(connection.uid, bucket) for bucket in layout.BUCKETS],
                )
        if connection.hooks:
            for entity in self.engine.hints.entities(connection.tenant, connection.uid):
                self.engine.send(layout.FRESH, Job("hints", connection.tenant, connection.uid, entity))
            now = hub_time(self.clock.now())
            for event_id in self.engine.events.waiting(connection.tenant, connection.uid, now):
                job = Job("event", connection.tenant, connection.uid, event={"id": event_id})
                self.engine.send(layout.FRESH, job)

    def mended(self, connection: Connection) -> None:
        """After a saved credential or a successful test: what waited goes on at once, and what failed for want of one is
        done again.
        """
        self.wake(connection)
        deadletters.release(self.engine, connection.tenant, connection.uid)

    # --- people and apps -----------------------------------------------------------------------------------------

    def editor(self, tenant: Tenant, entity: Entity, by: str) -> Editor:
        """What writes the hub's own records, as this principal."""
        return Editor(self.engine, tenant, entity, by)

    def tick(self) -> int:
        try:
            self.prepare()
        except Misconfigured as error:
            # The other connections go on. The message names settings and hosts, no other value.
            _log.error("settings are wrong", error=error.code, message=error.message)
        return schedule.tick(self.engine)

    def handle(self, lane: str, body: str, deliveries: int) -> None:
        token = lane_of.set(lane)
        try:
            jobs.handle(self.engine, lane, body, deliveries)
        finally:
            lane_of.reset(token)

    def poisoned(self, lane: str, body: str) -> None:
        jobs.poisoned(self.engine, lane, body)

    def budget(self, connection: Connection) -> list[Mapping[str, Any]]:
        """What is left of the calls that the system allows, by window; as `budget.forecast`. One storage call for each."""
        kind = connector_class(connection.connector)
        return [forecast(connection.tenant.name, connection.uid, each, self.tools) for each in kind.windows]

    # --- figures -------------------------------------------------------------------------------------------------

    def add_figures(self, meter: Meter, *, flush: bool = False) -> None:
        """Adds what an invocation counted; written to the rollups every 15 s, so that figures cost few calls.

        Never raises: a figure that can't be written must not turn finished work into a failure.
        """
        for (name, connection), amount in meter.counts().items():
            self._unsaved.add(name, connection, amount)
        with self._lock:
            now = self.clock.monotonic()
            if not flush and now < self._flush_at:
                return
            self._flush_at = now + FLUSH_SECONDS
            unsaved, self._unsaved = self._unsaved, Meter()
        by_connection: dict[str, dict[str, int]] = {}
        for (name, connection), amount in unsaved.counts().items():
            by_connection.setdefault(connection, {})[name] = amount
        for connection, amounts in by_connection.items():
            try:
                self.stats.add(DEFAULT_TENANT, connection, amounts)
            except (StoreError, HubError, ValueError) as error:
                _log.warning("figures not written", connection=connection, error=type(error).__name__)

    def figures(self, tenant: Tenant, minutes: int) -> tuple[datetime, Mapping[str, Mapping[str, int]]]:
        """What was counted in the last minutes, this one included: since when, and by connection ("": the hub's own).

        Other processes' newest figures may be missing: they are written every 15 s. Raises BadRequest for too many.
        """
        self.add_figures(Meter(), flush=True)
        now = self.clock.now()
        begin = now.replace(second=0, microsecond=0) - timedelta(minutes=minutes - 1)
        return begin, self.stats.read(tenant, begin, now)

    # --- tokens that callers hand back ---------------------------------------------------------------------------

    def seal_token(self, data: Mapping[str, Any], *about: str) -> str:
        """An opaque, authenticated text for a caller, good for 24 h and only with the same `about`."""
        expires = hub_time(self.clock.now() + timedelta(hours=TOKEN_HOURS))
        return self.cipher.seal(json.dumps({"expires": expires, "data": data}).encode(), "skiptoken", *about)

    def open_token(self, token: str, *about: str) -> Mapping[str, Any]:
        """Raises BadRequest for a token that is not ours, of another query, or too old."""
        try:
            content = json.loads(self.cipher.open(token, "skiptoken", *about))
        except ValueError:
            raise BadRequest.field(
                "skiptoken", "skiptoken: belongs to another query or was changed; follow nextLink as it is."
            ) from None
        if content["expires"] < hub_time(self.clock.now()):
            raise BadRequest.field("skiptoken", "skiptoken: is older than 24 hours; begin again without it.")
        data: Mapping[str, Any] = content["data"]
        return data

    def close(self) -> None:
        for part in (self.secrets, self.table, self.queue, self.engine.blob, self.tools.transport, self.pool):
            close: Callable[[], None] | None = getattr(part, "close", None)
            if close is not None:
                close()


def _no_connection(name: str) -> NotFound:
    return NotFound(f"There is no connection '{name}'; GET /api/integrations lists them.")


def _storage_account(settings: Settings) -> StorageAccount:
    storage = settings.storage
    if storage.connection_string:
        return StorageAccount(connection_string=storage.connection_string, ca_bundle=settings.ca_bundle)
    return StorageAccount(
        table_uri=storage.table_uri,
        queue_uri=storage.queue_uri,
        blob_uri=storage.blob_uri,
        credential=managed_identity(storage.client_id),
        ca_bundle=settings.ca_bundle,
    )


def _tuning(values: Mapping[str, float]) -> Tuning:
    whole = {
        each.name
        for each in fields(Tuning)
        if isinstance(each.default, int) and each.name.endswith("_records")
    }
    return Tuning(**{name: int(value) if name in whole else value for name, value in values.items()})  # type: ignore[arg-type]  # whole numbers stand where they belong
