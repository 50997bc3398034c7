"""A Dataverse server for measurements: the sandbox's, but what it has answered once it gives from memory.

So the second walk over a feed costs this process next to nothing, and it is not what a measurement waits for.
`python -m benchmarks.remote --ca FILE` prints a line of JSON with its addresses and how to sign in.
"""

import argparse
import math
import sys
from pathlib import Path

from sandbox.app import App
from sandbox.dynamics365 import Dataverse
from sandbox.dynamics365.errors import Refused
from sandbox.frame import Limits, Request, Response
from sandbox.server import Listen, names_of, ready_line, run
from sandbox.store import Clock

NOON = 1_780_000_000.0
"""Its clock stands still, so that every start makes the same rows."""


class Remembering(Dataverse):
    """Answers a GET that it has answered before, since when no row has changed, with the same bytes."""

    def __init__(self) -> None:
        super().__init__(clock=Clock(lambda: NOON))
        # Its clock stands still, so a limit over a time would never let go.
        self.frame.throttle.limits = Limits(requests=sys.maxsize, seconds=math.inf)
        self._known: dict[tuple[str, str, str], Response] = {}
        self._version = self.frame.store.version

    def handle(self, request: Request) -> Response:
        if request.method != "GET" or not request.path.startswith("/api/data/"):
            return super().handle(request)
        if self._version != self.frame.store.version:
            self._known.clear()
            self._version = self.frame.store.version
        key = (request.path, request.query, request.headers.get("prefer", ""))
        known = self._known.get(key)
        if known is None or not self._allowed(request):
            known = super().handle(request)
            if known.status == 200:
                self._known[key] = known
        return known

    def _allowed(self, request: Request) -> bool:
        try:
            self.auth.check(request)
        except Refused:
            return False
        return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote")
    parser.add_argument("--ca", type=Path, required=True, help="file to write the CA of its certificate to")
    ca: Path = parser.parse_args().ca
    system = Remembering()

    def ready(origins: list[str]) -> None:
        system.origins(names_of(origins))
        facts = system.describe(origins[1])
        print(
            ready_line({**facts, "http": origins[0], "control": f"{origins[0]}/_sandbox/", "ca": str(ca)}),
            flush=True,
        )

    run(App(system), Listen(tls_port=0, ca=ca), ready)
    return 0


if __name__ == "__main__":
    sys.exit(main())
