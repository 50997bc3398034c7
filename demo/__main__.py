"""The command: `python -m demo [--once] [--odoo real] [--port 7071] [--records 5000] [--data .data] [--seed 1]`."""

import argparse
import contextlib
import io
import sys
import time
from dataclasses import fields
from pathlib import Path

from demo import drive, link, start, summary
from demo.fill import fill
from demo.folder import Folder
from demo.http import Client
from demo.odoo import Odoo, Person, Real, sandbox_ready
from demo.parts import Parts
from demo.ports import OPTIONS, Ports, free_ports
from demo.trouble import Missing, Stopped, Trouble


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Shows the hub at work, on this machine alone, with a made-up CRM system and an Odoo.",
    )
    parser.add_argument("--once", action="store_true", help="end after the summary instead of serving")
    parser.add_argument(
        "--records", type=_count, default=5000, help="accounts at the sandbox (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the sample data (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, default=Path(".data"), help="the folder that keeps it all (default: %(default)s)"
    )
    parser.add_argument(
        "--odoo",
        dest="odoo_kind",  # "odoo" is the port
        choices=("sandbox", "real"),
        default="sandbox",
        help="the Odoo: of the sandbox, or a real one that the program in CRMHUB_REAL_ODOO starts (default: %(default)s)",
    )
    for each in fields(Ports):
        option, what = OPTIONS[each.name]
        parser.add_argument(
            option,
            type=_port,
            default=each.default,
            dest=each.name,
            help=f"port for {what} (default: %(default)s)",
        )
    parser.add_argument("--free-ports", action="store_true", help="take free ports instead of these")
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 500_000:
        raise argparse.ArgumentTypeError("expected 1 to 500000")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65_535:
        raise argparse.ArgumentTypeError("expected 1 to 65535")
    return number


def _demo(given: argparse.Namespace, parts: Parts, stack: contextlib.ExitStack) -> None:
    """The whole story; what is started is stopped by the stack."""
    began = time.monotonic()
    node = start.check_tools()
    ports = (
        free_ports()
        if given.free_ports
        else Ports(**{each.name: getattr(given, each.name) for each in fields(Ports)})
    )
    folder = Folder(given.data.resolve())
    stack.callback(folder.close)
    real = Real(parts, folder) if given.odoo_kind == "real" else None
    ports.check()
    stack.callback(_stop, parts)
    print("Starting Azurite, the sandboxes and the hub ...")
    azurite = start.start_azurite(parts, folder, ports, node)
    part, ca = start.start_sandbox(parts, folder, ports, seed=given.seed)
    odoo = _odoo(parts, folder, ports, given.seed, real, stack)
    start.azurite_ready(parts, azurite, ports)
    sandbox = start.sandbox_ready(parts, part)
    _, url = start.start_hub(parts, folder, ports, ca)
    hub = Client(parts, "The hub", url, folder.log("hub"), {"X-API-KEY": folder.api_key})
    control = Client(parts, "The sandbox", sandbox["control"], folder.log("sandbox"))
    person = Person(parts, folder, odoo)
    for each in (control, hub, person):
        stack.callback(each.close)
    hub.call("GET", "/health")
    print(f"All parts run after {time.monotonic() - began:.1f} s.")

    total = fill(control, given.records, given.seed)
    person.fill(given.seed)
    drive.connect(hub, sandbox, what=link.DYNAMICS)
    link.connect(hub, odoo)
    run = drive.sync(hub, parts, total)
    noticed = drive.notice(hub, control, parts)
    drive.listen(hub, url, control)
    told = drive.notice(hub, control, parts, ask=False)
    loads = link.first_load(hub, parts)
    passed = link.to_odoo(hub, control, person, parts), link.to_dynamics(hub, control, person, parts)
    for slug in loads:
        drive.schedule(hub, slug)

    print(f"\nThe sandbox has {total:,} accounts; the run {run['id']}:\n{summary.figures(run)}")
    if noticed is not None and told is not None:
        print("\n" + summary.seen(noticed, told, *drive.look(hub, told.rid)))
    print("\n" + summary.linked(odoo, loads, *passed))
    print(f"\nAddresses, of this machine alone:\n{summary.addresses(url, sandbox, odoo, folder.path)}")
    print(
        f"\nAPI key for local use (header X-API-KEY; kept in {folder.path / 'api-key'}):\n  {folder.api_key}"
    )
    print(f"\nTo try:\n{summary.calls(url, folder.api_key, noticed.record_id if noticed else None)}")
    print(f"{summary.calls_of_link(url, folder.api_key, odoo, passed[0])}\n")
    if given.once:
        return
    print("The hub now pulls each minute. Ctrl-C stops everything and keeps the data.")
    while True:
        parts.pause(60)


def _odoo(
    parts: Parts, folder: Folder, ports: Ports, seed: int, real: Real | None, stack: contextlib.ExitStack
) -> Odoo:
    """The Odoo, once it answers."""
    if real is None:
        return sandbox_ready(parts, start.start_odoo(parts, folder, ports, seed=seed))
    print("Starting the real Odoo, which the first time takes a minute or more ...")
    odoo = real.start()
    stack.callback(real.stop)
    return odoo


def _stop(parts: Parts) -> None:
    print("Stopping ...")
    parts.stop()


def main() -> int:
    given = _arguments()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="replace")  # a pipe gets lines as they come
    parts = Parts()
    parts.catch_signals()
    try:
        with contextlib.ExitStack() as stack:
            _demo(given, parts, stack)
    except Stopped:
        return 0
    except Trouble as trouble:
        print(f"make run: {trouble}", file=sys.stderr)
        return 2 if isinstance(trouble, Missing) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
