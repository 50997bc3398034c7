"""How long a field edit takes from one side to the other on an idle host, everything being a process as in `make run`.

No webhook says that somebody changed a row at a system: the pull is asked for at once, as a webhook would.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from demo import drive
from demo.folder import Folder
from demo.parts import Parts
from demo.ports import free_ports
from demo.trouble import Trouble
from soak.system import System
from soak.two_way import SETTINGS, A, B, TwoWay

_WITHIN = 60.0
_EMAIL = "ada@example.com"


def measure(parts: Parts, folder: Path, edits: int) -> Sequence[int]:
    """Milliseconds of each edit: a person changes a field at one system until the other one has it."""
    with ExitStack() as stack:
        kept = Folder(folder)
        stack.callback(kept.close)
        system = System(parts, kept, free_ports(), SETTINGS, 1)
        two = TwoWay(system, parts, free_ports(), 1)
        stack.callback(two.close)
        system.start_hub()
        stack.callback(system.close)
        values = {"firstname": "Ada", "lastname": "Quispe", "emailaddress1": _EMAIL}
        system.control.call("POST", "/rows/contact", {"values": values})
        two.connect()
        _until(parts, lambda: bool(two.rows(B)))
        rid = two.rows(A)[0]["id"]
        return [_edit(parts, system, two, rid, f"Title {number}") for number in range(edits)]


def _edit(parts: Parts, system: System, two: TwoWay, rid: str, title: str) -> int:
    parts.pause(1)
    system.control.call("PATCH", f"/rows/contact/{rid}", {"values": {"jobtitle": title}})
    began = time.monotonic()
    drive.start_run(system.hub, A)
    _until(parts, lambda: two.rows(B)[0].get("jobtitle") == title)
    return round((time.monotonic() - began) * 1000)


def _until(parts: Parts, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WITHIN
    while not done():
        if time.monotonic() > deadline:
            raise Trouble(f"An edit had not arrived after {_WITHIN:g} seconds.")
        parts.pause(0.01)


def lines(waited: Sequence[int]) -> Iterator[str]:
    if waited:
        yield (
            f"An edit at one system is at the other after {statistics.median(waited):.0f} ms "
            f"(median of {len(waited)}; {min(waited)} to {max(waited)})."
        )
