"""The addresses of a connection's webhooks: made, changed for another one, taken away."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from crm_core.errors import Conflict
from crm_core.model.connection import Connection
from crm_core.model.fields import hub_time
from crm_core.ports import Clock, Ids, RowChanged
from crm_core.storage.connections import Connections
from crm_core.storage.hints import Hints
from crm_core.storage.keys import Keys
from crm_core.storage.state import StateStore

HOOK_BYTES = 16
"""Random ones: nobody can guess an address."""
KEEP_HOURS = 24
"""How long a former address is good beside its successor."""
KEEP_FORMER = 5
"""So many former addresses at most, the newest ones."""
MARK_TRIES = 5
NEVER = "~"
"""Later than every time."""


def current(hooks: Mapping[str, str], now: datetime) -> dict[str, str]:
    """The addresses that are good now, the newest first, each with the time until which it is ("": for good)."""
    good = {hook: until for hook, until in hooks.items() if not until or until > hub_time(now)}
    return dict(sorted(good.items(), key=lambda each: each[1] or NEVER, reverse=True))


class HookAdmin:
    def __init__(
        self,
        connections: Connections,
        keys: Keys,
        states: StateStore,
        hints: Hints,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._connections = connections
        self._keys = keys
        self._states = states
        self._hints = hints
        self._clock = clock
        self._ids = ids

    def renew(self, connection: Connection, *, at_once: bool) -> Connection:
        """A first or another address; the former ones are good for a day more, unless they are to end `at_once`.

        Raises Conflict if others change the connection.
        """
        hook = self._ids.token(HOOK_BYTES)
        self._mark(connection)  # before anything can come in: the tick looks for it from now on
        self._keys.claim_hook(hook, connection.tenant, connection.uid)
        now = self._clock.now()
        until = hub_time(now + timedelta(hours=KEEP_HOURS))
        former = [] if at_once else list(current(connection.hooks, now).items())[:KEEP_FORMER]
        try:
            return self._save(connection, {hook: "", **{each: ends or until for each, ends in former}})
        except Conflict:
            self._keys.drop_hook(hook)
            raise

    def remove(self, connection: Connection) -> Connection:
        """No webhook gets in any more. Raises Conflict as `renew` does."""
        return self._save(connection, {})

    def forget(self, connection: Connection) -> None:
        """After the connection was deleted: its addresses, and what they brought in and nobody has read yet."""
        for hook in connection.hooks:
            self._keys.drop_hook(hook)
        for entity in connection.entities:
            self._hints.drop(connection.tenant, connection.uid, entity)

    def _save(self, connection: Connection, hooks: Mapping[str, str]) -> Connection:
        now = hub_time(self._clock.now())
        try:
            saved = self._connections.save(replace(connection, hooks=hooks, updated_at=now))
        except RowChanged:
            raise Conflict(
                f"{connection.slug} was changed by somebody else just now; read it and try again."
            ) from None
        for gone in connection.hooks.keys() - hooks.keys():
            self._keys.drop_hook(gone)
        return saved

    def _mark(self, connection: Connection) -> None:
        """The state row says that webhooks may come, and since when. Raises Conflict if workers keep changing it."""
        now = self._clock.now()
        first = not current(connection.hooks, now)
        for _ in range(MARK_TRIES):
            states = self._states.read(connection.tenant, connection.uid)
            if states is None or (states.connection.hooked and not first):
                return
            with suppress(RowChanged):
                marked = replace(states.connection, hooked=True, hooked_at=hub_time(now))
                self._states.save_connection(connection.tenant, connection.uid, marked)
                return
        raise Conflict(f"{connection.slug} is busy just now; try again.")
