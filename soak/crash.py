"""`make demo-crash`: kills the hub's host in front of you while it passes contacts on, and says what came of each.

Ends with 0 only if nothing that was accepted is lost and nothing is there twice.
"""

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
import time
from pathlib import Path

from demo.folder import Folder
from demo.parts import Parts
from demo.ports import free_ports
from demo.trouble import Stopped, Trouble
from soak.system import System
from soak.two_way import SETTINGS, TwoWay


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m soak.crash", description=__doc__)
    parser.add_argument("--contacts", type=int, default=20, help="in each round (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=8, help="rounds, each with one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the data and the kills")
    given = parser.parse_args()
    if not 2 <= given.contacts <= 1000:
        parser.error("--contacts: expected 2 to 1000")
    if not 1 <= given.kills <= 1000:
        parser.error("--kills: expected 1 to 1000")
    return given


def _show(given: argparse.Namespace, parts: Parts, data: Path, stack: contextlib.ExitStack) -> bool:
    """The whole story; what is started is stopped by the stack. Says whether all is well."""
    began = time.monotonic()
    print(
        f"Two CRM systems, linked through the hub. In each of {given.kills} rounds an app writes {given.contacts} contacts to the hub,\n"
        f"people change others at both systems, and the hub's host is killed (SIGKILL). Seed {given.seed}, logs in {data}\n"
        f"Shortened: {', '.join(f'{name} {value}' for name, value in SETTINGS.items())}.\n"
    )
    folder = Folder(data)
    stack.callback(folder.close)
    stack.callback(parts.stop)
    system = System(parts, folder, free_ports(), SETTINGS, given.seed)
    two = TwoWay(system, parts, free_ports(), given.seed)
    stack.callback(two.close)
    system.start_hub()
    stack.callback(system.close)
    two.connect()
    print("The hub runs and both systems are linked.")
    for number in range(1, given.kills + 1):
        seconds, on_their_way = two.round(given.contacts)
        print(
            f"kill {number}: after {seconds:.2f} s; of {len(two.ledger.contacts):,} contacts that were accepted "
            f"{on_their_way:,} were not at both systems yet. The hub starts again ..."
        )
        system.start_hub()
    print("\nNo more kills: the hub finishes what was left ...")
    account = two.settle()
    print("\n" + "\n".join(account.lines()))
    failed = system.log_lines(") failed (invocation")
    for line in failed[:5]:
        print(f"a function failed: {line}")
    good = account.good and not failed
    print(f"{'good' if good else 'NOT good'}, after {time.monotonic() - began:.0f} s")
    return good


def main() -> int:
    given = _arguments()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="replace")  # a pipe gets lines as they come
    parts = Parts()
    parts.catch_signals()
    data = Path(tempfile.mkdtemp(prefix="crm-hub-crash-"))
    good = False
    try:
        with contextlib.ExitStack() as stack:
            good = _show(given, parts, data, stack)
    except Stopped:
        return 130
    except Trouble as trouble:
        print(f"make demo-crash: {trouble}", file=sys.stderr)
    if good:
        shutil.rmtree(data)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
