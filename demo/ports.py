"""Which ports the parts listen on, and whether they are free."""

import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields

from demo.trouble import Trouble

# Below the ports that systems give to outgoing connections, which could take one between this look and its use.
_CANDIDATES = range(20_000, 32_000)
_HOST = "127.0.0.1"
OPTIONS: Mapping[str, tuple[str, str]] = {
    "hub": ("--port", "the hub"),
    "sandbox": ("--sandbox-port", "the sandbox"),
    "sandbox_tls": ("--sandbox-tls-port", "the sandbox's https"),
    "odoo": ("--odoo-port", "the Odoo sandbox"),
    "blob": ("--blob-port", "Azurite's blobs"),
    "queue": ("--queue-port", "Azurite's queues"),
    "table": ("--table-port", "Azurite's tables"),
}
"""Name of a port -> the option that changes it, and what it is for."""


@dataclass(frozen=True)
class Ports:
    hub: int = 7071
    sandbox: int = 8950
    sandbox_tls: int = 8951
    odoo: int = 8952
    blob: int = 10000
    queue: int = 10001
    table: int = 10002

    def check(self) -> None:
        """Raises Trouble that names the first port that is taken, or wanted twice, and the option that changes it."""
        seen: dict[int, str] = {}
        for each in fields(self):
            option, what = OPTIONS[each.name]
            port = getattr(self, each.name)
            if port in seen:
                raise Trouble(f"Port {port} is given to {seen[port]} and to {what}: change it by {option}.")
            seen[port] = what
            if not is_free(port):
                raise Trouble(
                    f"Port {port} for {what} is taken: stop the program that uses it, "
                    f"or choose another port by {option} (make run ARGS='{option} {port + 10}')."
                )


def free_ports() -> Ports:
    """As many as there are parts to give them to, free now."""
    names = [each.name for each in fields(Ports)]
    found: list[int] = []
    for port in random.SystemRandom().sample(_CANDIDATES, 200):
        if is_free(port):
            found.append(port)
        if len(found) == len(names):
            return Ports(*found)
    raise Trouble("There are no free ports on this machine: stop some programs that listen.")


def is_free(port: int) -> bool:
    with socket.socket() as s:
        # As servers do: a connection of before that is still closing is no obstacle.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((_HOST, port))
        except OSError:
            return False
        return True


def answers(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((_HOST, port)) == 0
