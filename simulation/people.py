"""Who makes work: people at the remote system, and a caller of the hub's API."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import azure.functions as func

from sandbox.dynamics365 import Dataverse
from sandbox.dynamics365.errors import Refused
from simulation.history import History
from simulation.host import Host, Reply
from simulation.scheduler import Scheduler

TABLE = "account"
ORIGIN = "https://hub.example"
KEY = "simulation-key-of-32-characters!"
SECRET = "simulation-client-secret"  # noqa: S105  # of a fake
MAX_LAG = 200.0
"""Seconds until a late commit shows; the feed by time reads five minutes back."""
CITIES = ("Lima", "Oslo", "Graz", "Turin", "Sevilla")


class People:
    """Acts on rows at random: creates, changes, deletes, brings ids back; in bursts, late, with equal times."""

    def __init__(self, scheduler: Scheduler, history: History, remote: Dataverse) -> None:
        self._scheduler = scheduler
        self._history = history
        self._remote = remote
        self._chance = scheduler.chance("people")
        self._serial = 0
        self._deleted: list[str] = []
        self._touched: list[str] = []
        self._late: dict[str, int] = {}
        self.revoked = 0
        self.last_commit = 0
        """When the last of their changes shows, in the scheduler's time."""

    def begin(self, rows: int) -> None:
        for _ in range(rows):
            self._create()

    def act(self) -> None:
        """One thing a person does, or several at once."""
        deed = self._chance.choices(
            (self._update, self._create, self._delete, self._again, self._burst), (7, 4, 4, 2, 3)
        )[0]
        deed()

    def _burst(self) -> None:
        """Several changes within a second bear the same time."""
        for _ in range(self._chance.randint(2, 5)):
            self._chance.choice((self._update, self._update, self._create))()

    def _rows(self) -> list[str]:
        """Rows that nobody's late commit is under way to."""
        now = self._scheduler.now
        rows = self._remote.frame.store.table(TABLE).ids()
        return [rid for rid in rows if self._late.get(rid, 0) <= now]

    def _one(self, rows: list[str]) -> str:
        """Rather one that somebody has just touched: what a paused worker holds is old then."""
        recent = [rid for rid in self._touched[-4:] if rid in rows]
        rid = self._chance.choice(recent if recent and self._chance.random() < 0.6 else rows)
        self._touched.append(rid)
        return rid

    def _values(self) -> dict[str, Any]:
        self._serial += 1
        chance = self._chance
        values: dict[str, Any] = {"name": f"Row {self._serial}"}
        drawn: dict[str, Any] = {
            "address1_city": chance.choice(CITIES),
            "numberofemployees": chance.randint(1, 9),
            "revenue": Decimal(chance.randint(0, 900)) / 4,
            "description": None,
            "fax": str(self._serial),
        }
        values.update({name: value for name, value in drawn.items() if chance.random() < 0.4})
        return values

    def _lag(self, rid: str, *, late: bool) -> tuple[float, datetime | None]:
        """(seconds until the commit shows, the time it bears): mostly none, sometimes late or a little early."""
        lag: float = 0.0
        at: datetime | None = None
        if late and self._chance.random() < 0.15:
            lag = self._chance.uniform(1, MAX_LAG)
        elif late and self._chance.random() < 0.1:
            at = self._remote.frame.clock.now() - timedelta(seconds=self._chance.randint(0, 60))
        shows = self._scheduler.now + int(lag * 1_000_000)
        self.last_commit = max(self.last_commit, shows)
        self._late[rid] = shows
        return lag, at

    def meddle(self, held: list[str]) -> None:
        """Changes one of these rows, or makes it come or go; any row if there are none."""
        free = [rid for rid in held if self._late.get(rid, 0) <= self._scheduler.now]
        if not free:
            self.act()
            return
        gone = [rid for rid in free if self._remote.frame.store.get(TABLE, rid) is None]
        rid = self._chance.choice(gone if gone and self._chance.random() < 0.6 else free)
        if rid in gone:
            self._made(rid, "create again", late=False)
        elif self._chance.random() < 0.5:
            self._gone(rid, late=False)
        else:
            self._changed(rid, late=False)

    def _create(self) -> None:
        rid = self._remote.org.new_id()
        self._made(rid, "create")

    def _again(self) -> None:
        """A row comes back under the id that was deleted."""
        now = self._scheduler.now
        gone = [rid for rid in self._deleted if self._late.get(rid, 0) <= now]
        gone = [rid for rid in gone if self._remote.frame.store.get(TABLE, rid) is None]
        if gone:
            self._made(self._chance.choice(gone[-3:]), "create again")

    def _made(self, rid: str, deed: str, *, late: bool = True) -> None:
        lag, at = self._lag(rid, late=late)
        self._touched.append(rid)
        values = self._values()
        self._tell(deed, rid, values, lag)
        self._remote.person_create(TABLE, {"accountid": rid, **values}, lag, at)

    def _update(self) -> None:
        if rows := self._rows():
            self._changed(self._one(rows))

    def _changed(self, rid: str, *, late: bool = True) -> None:
        lag, at = self._lag(rid, late=late)
        values = self._values()
        if self._chance.random() < 0.5:
            values.pop("name")  # else every change would be one of the name
        if not values or self._chance.random() < 0.25:
            # Nothing that the hub knows, at a time that is the row's already: only the version moves.
            values, at = {"fax": str(self._serial)}, self._remote.frame.clock.now() - timedelta(seconds=60)
        self._tell("update", rid, values, lag)
        self._remote.person_update(TABLE, rid, values, lag, at)

    def _delete(self) -> None:
        rows = self._rows()
        if len(rows) >= 3:
            self._gone(self._one(rows))

    def _gone(self, rid: str, *, late: bool = True) -> None:
        lag, _ = self._lag(rid, late=late)
        self._tell("delete", rid, {}, lag)
        self._deleted.append(rid)
        self._remote.person_delete(TABLE, rid, lag)

    def _tell(self, deed: str, rid: str, values: dict[str, Any], lag: float) -> None:
        told = json.dumps(values, default=str) if values else ""
        late = f" (shows {lag:.0f} s later)" if lag else ""
        self._history.note("people", "** {} {} {}{}", deed, rid, told.replace("{", "").replace("}", ""), late)

    def vendor(self) -> None:
        """What the vendor does now and then: every token or every place in the feed becomes void."""
        if self._chance.random() < 0.7:
            self._history.note("vendor", "** revokes the tokens")
            self.revoked += 1
            self._remote.revoke()
        else:
            self._history.note("vendor", "** forgets the places in the feed")
            self._remote.org.first_version = self._remote.frame.store.version + 1
            self._remote.frame.store.version += 1


class Caller:
    """A program that uses the hub's API. `promised`: ids of the runs that it was told will be done."""

    def __init__(self, scheduler: Scheduler, history: History, host: Host, remote: Dataverse) -> None:
        self._scheduler = scheduler
        self._history = history
        self._host = host
        self._remote = remote
        self._chance = scheduler.chance("caller")
        self._serial = 0
        self.promised: list[str] = []
        self.asked = 0
        self.wrong: list[str] = []
        """Answers that were not what the API says."""

    def call(self, method: str, path: str, body: Any = None, *, spared: bool = False) -> Reply:
        self._serial += 1
        data = b"" if body is None else json.dumps(body).encode()
        request = func.HttpRequest(method, ORIGIN + path, headers={"X-API-KEY": KEY}, body=data)
        name = f"http#{self._serial}"
        told = path.partition("?")[0]
        self._history.note(name, "<- {} {} {}", method, told, data.decode().strip("{}"))
        reply = self._host.request(name, request, spared=spared)
        code = reply.body.get("code", "") if isinstance(reply.body, dict) else ""
        self._history.note(name, "-> {} {}", reply.status or "no answer", code)
        return reply

    def act(self) -> None:
        deeds: tuple[Callable[[], object], ...] = (
            self._run,
            self._records,
            self._follow,
            self._patch,
            self._make,
        )
        self._chance.choices(deeds, (7, 1, 1, 3, 1))[0]()

    def run(self, mode: str, *, spared: bool = False) -> str:
        """Starts a run; gives its id, "" if it was not promised."""
        self.asked += 1
        reply = self.call("POST", "/api/runs", {"connection": "demo", "mode": mode}, spared=spared)
        if reply.status == 202:
            self.promised.append(reply.body["id"])
            return self.promised[-1]
        if reply.status not in (0, 409, 503):
            self.wrong.append(f"POST /api/runs answered {reply.status}: {reply.body}")
        return ""

    def _run(self) -> None:
        self.run(self._chance.choice(("incremental", "incremental", "incremental", "full")))

    def _follow(self) -> None:
        if self.promised:
            self.call("GET", f"/api/runs/{self._chance.choice(self.promised)}")

    def _records(self) -> None:
        self.call("GET", f"/api/records/accounts?top={self._chance.randint(1, 20)}")

    def records(self) -> dict[str, dict[str, Any]]:
        """Every stored record by its id, through all pages."""
        found: dict[str, dict[str, Any]] = {}
        path = "/api/records/accounts?top=7"
        while path:
            reply = self.call("GET", path, spared=True)
            if reply.status != 200:
                self.wrong.append(f"GET /api/records answered {reply.status}: {reply.body}")
                break
            found.update({each["id"]: each for each in reply.body["value"]})
            path = reply.body.get("nextLink", "").removeprefix(ORIGIN)
        return found

    def _patch(self) -> None:
        """A live update: an answer of 200 says what the remote holds."""
        rows = self._remote.frame.store.table(TABLE).ids()
        if not rows:
            return
        rid, city = self._chance.choice(rows), self._chance.choice(CITIES)
        reply = self.call("PATCH", f"/api/crm/accounts/{rid}?connection=demo", {"city": city})
        if reply.status == 200 and reply.body["city"] != city:
            self.wrong.append(f"PATCH of {rid} to {city} answered {reply.body['city']}")
        self._expect("PATCH", reply, (0, 200, 404, 502, 503, 504))

    def _make(self) -> None:
        name = f"Made {self._serial}"
        before = len(self._named(name))
        reply = self.call("POST", "/api/crm/accounts?connection=demo", {"name": name})
        made = len(self._named(name)) - before
        if made > 1 or (reply.status == 201 and not self._was_there(reply.body["id"])):
            self.wrong.append(f"POST of {name} answered {reply.status} and made {made} rows")
        # 409: it was made, its answer was lost, and a person deleted it before the next try.
        self._expect("POST", reply, (0, 201, 409, 502, 503, 504))

    def _was_there(self, rid: str) -> bool:
        """A person may have deleted the row before its caller had the answer."""
        table = self._remote.frame.store.table(TABLE)
        return rid in table.rows or rid in table.dead

    def _named(self, name: str) -> list[str]:
        rows = self._remote.frame.store.table(TABLE).rows.values()
        return [row.id for row in rows if row.values.get("name") == name]

    def _expect(self, what: str, reply: Reply, statuses: tuple[int, ...]) -> None:
        if reply.status not in statuses:
            self.wrong.append(f"{what} answered {reply.status}: {reply.body}")


def tolerated(remote: Dataverse, act: Callable[[], None]) -> None:
    """Does what a person does, unless the system itself refuses it."""
    try:
        act()
    except Refused:
        remote.frame.store.table(TABLE)
