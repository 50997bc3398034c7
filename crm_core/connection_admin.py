"""The life of connections: checked against what their connector declares, saved, tested, deleted."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from crm_core.connection_checks import check_receiver, connection_errors
from crm_core.connector import Account, Connector, Tools
from crm_core.errors import BadRequest, Conflict, HubError, Misconfigured, NotFound
from crm_core.mapping_admin import (
    Mappings,
    changed_entities,
    check_at_remote,
    check_custom_types,
    mapping_errors,
    next_mappings,
)
from crm_core.model.connection import DEFAULT_TENANT, Connection, EntitySync, Schedule, Tenant, check_name
from crm_core.model.fields import hub_time
from crm_core.model.state import ConnectionState, EntityState
from crm_core.ports import Clock, Ids, RowChanged, Secrets, derived_id
from crm_core.recipes import recipe
from crm_core.settings import DefaultConnection
from crm_core.storage.connections import Connections
from crm_core.storage.keys import Keys
from crm_core.storage.secrets import bundle_json
from crm_core.storage.state import StateStore
from crm_core.sync import push_runs
from crm_core.sync.schedule import check_schedule

ABANDONED_MINUTES = 5
RENEW_TRIES = 5
RESERVED_SLUGS = frozenset({"logs", "status", "sync", "test"})
"""Words that stand in a path where a connection's name does."""


@dataclass(frozen=True)
class Wanted:
    """What a caller asks of a connection; None leaves it as it is (or as the connector's default)."""

    settings: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    entities: Mapping[str, EntitySync] | None = None
    schedule: Schedule | None = None
    confirmed_origin: str | None = None
    mappings: Mapping[str, Mapping[str, Any] | None] | None = None


def default_uid(slug: str) -> str:
    """The uid of a connection that the settings describe."""
    return derived_id(DEFAULT_TENANT.name, "settings", slug)


def account_of(connection: Connection, secrets: Mapping[str, str]) -> Account:
    maps = {entity: saved["document"] for entity, saved in connection.mappings.items()}
    return Account(
        connection.tenant.name,
        connection.uid,
        connection.settings,
        secrets,
        connection.confirmed_origin,
        maps,
    )


class ConnectionAdmin:
    def __init__(
        self,
        connections: Connections,
        keys: Keys,
        secrets: Secrets,
        states: StateStore,
        clock: Clock,
        ids: Ids,
        tools: Tools,
        connector_class: Callable[[str], type[Connector]],
        check_address: Callable[[str], object],
        push_delay_seconds: float,
    ) -> None:
        """`check_address`: raises BadRequest for an address that the hub must not call."""
        self._connections = connections
        self._keys = keys
        self._secrets = secrets
        self._states = states
        self._clock = clock
        self._ids = ids
        self._tools = tools
        self._connector_class = connector_class
        self._check_address = check_address
        self._push_delay_seconds = push_delay_seconds

    def uid_of(self, tenant: Tenant, name: str) -> str:
        """The uid of a connection named by slug or uid; a name that is neither comes back as it is."""
        return self._keys.uid_of(tenant, name) or name

    def create(self, tenant: Tenant, slug: str, connector: str, wanted: Wanted) -> Connection:
        """Raises BadRequest with an error per field, NotFound for the connector, Conflict if the slug is taken."""
        check_name(slug, "slug")
        if slug in RESERVED_SLUGS:
            raise BadRequest.field("slug", f"slug: '{slug}' is a word of the API; take another one.")
        kind = self._connector_class(connector)
        uid = self._ids.uuid()
        now = hub_time(self._clock.now())
        connection = Connection(
            tenant,
            uid,
            slug,
            connector,
            wanted.settings,
            _all_pulled(kind) if wanted.entities is None else wanted.entities,
            wanted.schedule or Schedule(minutes=kind.default_minutes if kind.polls else None),
            now,
            now,
            confirmed_origin=wanted.confirmed_origin or "",
            secret_names=tuple(sorted(wanted.secrets)),
            mappings=next_mappings({}, wanted.mappings, now),
        )
        opened = self._check(kind, connection, wanted.secrets)
        try:
            self._check_mappings(opened, connection, {})
            if not self._claim(tenant, slug, uid):
                raise Conflict(f"There is a connection '{slug}' already; take another slug.")
        except HubError:
            self._tools.tokens.drop(tenant.name, uid)  # that the check may have asked for
            raise
        try:
            version = self._secrets.put(tenant.name, uid, wanted.secrets)
        except HubError:
            # Such as a vault that refuses the hub: whoever mends it and asks again finds the slug free.
            self._keys.release_slug(tenant, slug)
            self._tools.tokens.drop(tenant.name, uid)
            raise
        return self._save_new(connection, version)

    def _claim(self, tenant: Tenant, slug: str, uid: str) -> bool:
        """A claim whose maker died before the connection's row was there is free again after some minutes."""
        now = self._clock.now()
        if self._keys.claim_slug(tenant, slug, uid, hub_time(now)):
            return True
        holder = self._keys.uid_of(tenant, slug)
        if holder is None or self._connections.get(tenant, holder) is not None:
            return False
        stale = hub_time(now - timedelta(minutes=ABANDONED_MINUTES))
        return self._keys.take_slug(tenant, slug, uid, hub_time(now), stale)

    def _save_new(self, connection: Connection, version: str) -> Connection:
        """After its secrets. The connection's row comes last: what is saved before it is unreachable until then."""
        self._begin_states(connection)
        return self._connections.insert(replace(connection, secrets_version=version))

    def _begin_states(self, connection: Connection) -> None:
        now = self._clock.now()
        due = hub_time(now) if connection.schedule != Schedule() else ""
        widens = not self._connector_class(connection.connector).delivers_to
        states = {}
        for entity, sync in connection.entities.items():
            begins = EntityState(due=due if sync.pulls else "")
            states[entity] = push_runs.wanting(begins, self._push_due()) if sync.pushes and widens else begins
        self._states.begin(connection.tenant, connection.uid, states)
        if not self._connector_class(connection.connector).polls:
            self._expect_webhooks(connection)

    def _expect_webhooks(self, connection: Connection) -> None:
        """The tick looks for those whose work is open, whatever address they came to."""
        states = self._states.read(connection.tenant, connection.uid)
        if states is not None and not states.connection.hooked:
            with suppress(RowChanged):  # a worker is at it: an address, or the next change, says so again
                marked = replace(states.connection, hooked=True)
                self._states.save_connection(connection.tenant, connection.uid, marked)

    def _push_due(self) -> str:
        """When a push run after a change begins: no worker has an older copy of the connection by then."""
        return hub_time(self._clock.now() + timedelta(seconds=self._push_delay_seconds))

    def _widen(self, before: Connection, after: Connection) -> None:
        """What is to be pushed has changed: a push run looks at every record. An entity that is pulled now and was not
        is read soon.
        """
        states = self._states.read(after.tenant, after.uid)
        widens = not self._connector_class(after.connector).delivers_to
        for entity, sync in after.entities.items():
            was = before.entities.get(entity)
            state = states.entities.get(entity) if states else None
            same = was == sync and before.mappings.get(entity) == after.mappings.get(entity)
            if was is None or same or state is None:
                continue
            wanting = push_runs.wanting if sync.pushes and widens else push_runs.wanting_none
            due = state.due if sync.pulls else ""
            if sync.pulls and not was.pulls and after.schedule != Schedule():
                due = hub_time(self._clock.now())
            try:
                changed = replace(wanting(state, self._push_due()), due=due)
                self._states.save_entity(after.tenant, after.uid, entity, changed)
            except RowChanged:
                raise Conflict(
                    f"{after.slug} was saved, but its sync was busy just then; save its entities once more."
                ) from None

    def update(self, connection: Connection, wanted: Wanted) -> Connection:
        """Merges settings and secrets by name ("" removes one). A saved credential lets the connection work again."""
        kind = self._connector_class(connection.connector)
        settings = {**connection.settings, **wanted.settings}
        changed = replace(
            connection,
            settings={name: value for name, value in settings.items() if value},
            entities=connection.entities if wanted.entities is None else wanted.entities,
            schedule=wanted.schedule or connection.schedule,
            confirmed_origin=(
                connection.confirmed_origin if wanted.confirmed_origin is None else wanted.confirmed_origin
            ),
            mappings=next_mappings(connection.mappings, wanted.mappings, hub_time(self._clock.now())),
            updated_at=hub_time(self._clock.now()),
        )
        try:
            present = dict(self._secrets.get(connection.tenant.name, connection.uid) or {})
        except Misconfigured:
            if not wanted.secrets:
                raise
            present = {}  # what can't be read is replaced as a whole
        bundle = {name: value for name, value in {**present, **wanted.secrets}.items() if value}
        self._check_mappings(self._check(kind, changed, bundle), changed, connection.mappings)
        check_receiver(kind, connection, changed, present, wanted.secrets)
        self._connections.keep_mappings(connection, changed_entities(connection.mappings, changed.mappings))
        saved = self._save(changed)  # first: who loses the ETag to somebody else changes nothing
        if bundle != present:
            version = self._secrets.put(connection.tenant.name, connection.uid, bundle)
            saved = self._save(replace(saved, secrets_version=version, secret_names=tuple(sorted(bundle))))
        for gone in connection.entities.keys() - changed.entities.keys():
            self._states.remove(connection.tenant, connection.uid, gone)
        self._begin_states(saved)
        self._widen(connection, saved)
        if wanted.schedule is not None or saved.mappings != connection.mappings:
            self._reschedule(saved)
        if bundle != present or saved.settings != connection.settings or wanted.secrets:
            self.mend(saved)
        return saved

    def trial(
        self, connection: Connection, entity: str, document: Mapping[str, Any]
    ) -> tuple[Connection, Connector]:
        """The connection as it would be with these overrides of an entity, opened; nothing is saved.

        Raises what saving them would raise.
        """
        wanted = {entity: document}
        changed = replace(
            connection, mappings=next_mappings(connection.mappings, wanted, hub_time(self._clock.now()))
        )
        bundle = self._secrets.get(connection.tenant.name, connection.uid) or {}
        connector = self._check(self._connector_class(connection.connector), changed, bundle)
        self._check_mappings(connector, changed, connection.mappings)
        return changed, connector

    def _check_mappings(self, connector: Connector, changed: Connection, before: Mappings) -> None:
        entities = changed_entities(before, changed.mappings)
        if entities:
            check_custom_types(changed, entities, self._connections.every(changed.tenant))
            check_at_remote(connector, changed.mappings, entities)

    def pause(self, connection: Connection, *, paused: bool) -> Connection:
        now = hub_time(self._clock.now())
        return self._save(replace(connection, paused=paused, updated_at=now))

    def _save(self, connection: Connection) -> Connection:
        try:
            return self._connections.save(connection)
        except RowChanged:
            raise Conflict(
                f"{connection.slug} was changed by somebody else just now; read it and try again."
            ) from None

    def _reschedule(self, connection: Connection) -> None:
        """A new schedule or mapping begins with a pull; where a run is at work, its end sets the next one."""
        states = self._states.read(connection.tenant, connection.uid)
        due = hub_time(self._clock.now()) if connection.schedule != Schedule() else ""
        for entity, state in states.entities.items() if states else ():
            if not state.lease_run and connection.entities[entity].pulls:
                try:
                    self._states.save_entity(
                        connection.tenant, connection.uid, entity, replace(state, due=due)
                    )
                except RowChanged:
                    continue  # a run has just taken it

    def mend(self, connection: Connection) -> None:
        """After a saved credential or a successful test: nothing waits for a person any more."""
        states = self._states.read(connection.tenant, connection.uid)
        if states is None:
            return
        try:
            if states.connection.health != "ok" or states.connection.failures:
                held = states.connection
                well = ConnectionState(
                    hooked=held.hooked, hooked_at=held.hooked_at, more=held.more, etag=held.etag
                )
                self._states.save_connection(connection.tenant, connection.uid, well)
            now = hub_time(self._clock.now())
            for entity, state in states.entities.items():
                failed = state.problem is not None and not state.stopped_run and not state.lease_run
                if state.waits or (failed and state.due > now):
                    # What failed is not put off to the next turn of the schedule, if there is one.
                    again = replace(state, waits=False, problem=None, due=now if state.due else "")
                    self._states.save_entity(connection.tenant, connection.uid, entity, again)
        except RowChanged:
            return  # a worker has just recorded what it found

    def delete(self, connection: Connection) -> None:
        """The connection, its secrets and its state; its records stay, their links as they were."""
        # The connection's own row last: whatever stops this in between, it can be deleted again.
        self._secrets.delete(connection.tenant.name, connection.uid)
        self._tools.tokens.drop(connection.tenant.name, connection.uid)
        self._states.remove(connection.tenant, connection.uid)
        if self._tools.ledger is not None:
            self._tools.ledger.drop(connection.tenant.name, connection.uid)
        self._keys.release_slug(connection.tenant, connection.slug)
        self._connections.delete(connection)

    def ensure_default(self, default: DefaultConnection) -> None:
        """A connection as the settings describe it; made, or brought up to date. What its recipe says holds when it is
        made; from then on it is people's to change.
        """
        slug, tenant = default.slug, DEFAULT_TENANT
        uid = default_uid(slug)
        schedule = Schedule(minutes=default.minutes)
        wanted = Wanted(default.settings, default.secrets, schedule=schedule)
        present = self._connections.get(tenant, uid)
        if present is None:
            if not self._claim(tenant, slug, uid):
                return  # a person has made a connection of that name: theirs stays
            kind = self._connector_class(default.connector)
            now = hub_time(self._clock.now())
            told = recipe(default.recipe) if default.recipe else {}
            entities = {name: EntitySync.from_json(each) for name, each in told.get("entities", {}).items()}
            made = Connection(
                tenant, uid, slug, default.connector, {**told.get("settings", {}), **wanted.settings},
                entities or _all_pulled(kind), schedule, now, now,
                secret_names=tuple(wanted.secrets), mappings=next_mappings({}, told.get("mappings"), now),
            )  # fmt: skip
            self._check(kind, made, wanted.secrets)
            self._save_new(made, self._secrets.put(tenant.name, uid, wanted.secrets))
            return
        held = self._secrets.get(tenant.name, uid) or {}
        # What a person added beside the settings' own names stays as it is.
        owned = {name: present.settings.get(name) for name in wanted.settings}
        if (
            owned != wanted.settings
            or {name: held.get(name) for name in wanted.secrets} != dict(wanted.secrets)
            or present.schedule != schedule
        ):
            self.update(present, replace(wanted, schedule=None if present.schedule == schedule else schedule))

    def renew(self, connection: Connection) -> Connection:
        """Gives a connection its next generation, which every instance that holds a copy sees, and drops its token.

        Raises NotFound if it is gone, Conflict if others keep changing it.
        """
        # First the token: who sees the new generation must not find the old token any more.
        self._tools.tokens.drop(connection.tenant.name, connection.uid)
        for _ in range(RENEW_TRIES):
            present = self._connections.get(connection.tenant, connection.uid)
            if present is None:
                raise NotFound(f"The connection {connection.slug} was deleted just now.")
            with suppress(RowChanged):
                return self._connections.save(replace(present, generation=present.generation + 1))
        raise Conflict(f"{connection.slug} is being changed by others; try again.")

    def check(self, connection: Connection, secrets: Mapping[str, str], tools: Tools) -> Connector:
        """A connection as it is stored, checked as when it is saved; gives it opened, which calls nobody.

        Raises BadRequest with an error per field of settings and secrets, NotFound for its connector.
        """
        return self._check(self._connector_class(connection.connector), connection, secrets, tools)

    def _check(
        self,
        kind: type[Connector],
        connection: Connection,
        secrets: Mapping[str, str],
        tools: Tools | None = None,
    ) -> Connector:
        """Everything against the connector's declaration, an error per field; then the connector opens it."""
        errors = [
            *connection_errors(kind, connection, secrets),
            *mapping_errors(kind, connection.mappings),
        ]
        if errors:
            raise BadRequest(errors[0].message, errors=errors)
        bundle_json(secrets)
        check_schedule(connection.schedule)
        for each in kind.settings:
            if each.kind == "url" and connection.settings.get(each.name):
                try:
                    self._check_address(connection.settings[each.name])
                except BadRequest as error:
                    raise BadRequest.field(
                        f"settings.{each.name}", f"settings.{each.name}: {error.message}"
                    ) from None
        if connection.confirmed_origin:
            try:
                self._check_address(connection.confirmed_origin)
            except BadRequest as error:
                raise BadRequest.field("confirmed_origin", f"confirmed_origin: {error.message}") from None
        try:
            return kind(account_of(connection, secrets), tools or self._tools)
        except BadRequest:
            raise
        except HubError as error:
            if error.errors:
                raise BadRequest(error.message, errors=error.errors) from None
            raise BadRequest.field("settings", f"settings: {error.message}") from None


def _all_pulled(kind: type[Connector]) -> dict[str, EntitySync]:
    return dict.fromkeys(kind.pulled or kind.entities, EntitySync())
