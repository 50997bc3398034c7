"""The parts of a soak: what stays (Azurite, the sandbox) and what is killed (the hub under its host)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demo import start
from demo.fill import TABLE, fill
from demo.folder import Folder
from demo.http import Client
from demo.parts import Part, Parts
from demo.ports import Ports
from soak.plan import HOST_OPTIONS


@dataclass(frozen=True)
class Asked:
    """What the sandbox was asked: pages of records, looks at single records by id, tokens; `last`: the place in its log."""

    pages: int
    looks: int
    tokens: int
    last: int

    @property
    def records(self) -> int:
        """Calls for records."""
        return self.pages + self.looks


class System:
    """What a soak works with. `hub`: calls of the hub that runs now."""

    hub: Client
    url: str
    _part: Part

    def __init__(
        self, parts: Parts, folder: Folder, ports: Ports, settings: Mapping[str, str], seed: int
    ) -> None:
        """Starts Azurite and the sandbox."""
        node = start.check_tools()
        self._parts, self._folder, self._ports, self._settings = parts, folder, ports, settings
        self.starts = 0
        azurite = start.start_azurite(parts, folder, ports, node)
        part, self._ca = start.start_sandbox(parts, folder, ports, seed=seed)
        start.azurite_ready(parts, azurite, ports)
        self.sandbox = start.sandbox_ready(parts, part)
        self.control = Client(parts, "The sandbox", self.sandbox["control"], folder.log("sandbox"))

    def another_sandbox(self, name: str, ports: Ports, seed: int) -> tuple[Mapping[str, Any], Client]:
        """What one more sandbox says of itself, and calls of its control endpoint."""
        part, _ = start.start_sandbox(self._parts, self._folder, ports, seed=seed, name=name)
        told = start.sandbox_ready(self._parts, part)
        return told, Client(self._parts, "The other sandbox", told["control"], self._folder.log(name))

    # --- the hub -------------------------------------------------------------------------------------------------

    def start_hub(self) -> None:
        """Each start has a log of its own."""
        self.starts += 1
        log = f"hub-{self.starts}"
        self._part, self.url = start.start_hub(
            self._parts, self._folder, self._ports, self._ca, *HOST_OPTIONS, log=log, settings=self._settings
        )
        key = {"X-API-KEY": self.api_key}
        self.hub = Client(self._parts, "The hub", self.url, self._folder.log(log), key)

    @property
    def api_key(self) -> str:
        return self._folder.api_key

    def kill_hub(self) -> None:
        """SIGKILL to all of its processes and threads."""
        self._parts.kill(self._part)
        self.hub.close()

    def run(self, run_id: str) -> dict[str, Any]:
        run: dict[str, Any] = self.hub.call("GET", f"/api/runs/{run_id}")[1]
        return run

    def stored(self, entities: str = "accounts") -> Sequence[Mapping[str, Any]]:
        """Every stored record of an entity."""
        found: list[Mapping[str, Any]] = []
        path = f"/api/records/{entities}?top=1000"
        while path:
            _, page = self.hub.call("GET", path)
            found += page["value"]
            path = page.get("nextLink", "").removeprefix(self.url)
        return found

    def history(self, record_id: str) -> Sequence[Mapping[str, Any]]:
        steps: Sequence[Mapping[str, Any]] = self.hub.call(
            "GET", f"/api/records/accounts/{record_id}/history"
        )[1]["value"]
        return steps

    def log_lines(self, sign: str) -> Sequence[str]:
        """What the hub's hosts logged with these words in it."""
        logs = (self._folder.log(f"hub-{number}") for number in range(1, self.starts + 1))
        return [
            line for log in logs for line in log.read_text("utf-8", "replace").splitlines() if sign in line
        ]

    # --- the sandbox ---------------------------------------------------------------------------------------------

    def fill(self, records: int, seed: int) -> None:
        fill(self.control, records, seed)

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Every account at the sandbox, by id."""
        _, rows = self.control.call("GET", f"/rows/{TABLE}?limit=1000000")
        return {row["id"]: row["values"] for row in rows}

    def asked(self, since: int = 0) -> Asked:
        """What the sandbox was asked after that place in its log."""
        _, entries = self.control.call("GET", f"/requests?since={since}")
        reads = [
            each["query"]
            for each in entries
            if each["method"] == "GET" and each["path"].endswith("/accounts")
        ]
        looks = sum("accountid%20eq%20" in query or "accountid+eq+" in query for query in reads)
        tokens = sum(each["method"] == "POST" and each["path"].endswith("/token") for each in entries)
        last = int(entries[-1]["seq"]) if entries else since
        return Asked(len(reads) - looks, looks, tokens, last)

    def close(self) -> None:
        self.hub.close()
        self.control.close()
