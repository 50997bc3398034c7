"""``python -m sandbox <system> [options]``: start one fake system."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from sandbox.app import App
from sandbox.server import Listen, PortTaken, names_of, ready_line, run

FEW = 20  # sample rows of a table that is no main table


def parser() -> argparse.ArgumentParser:
    """One command per system, each with what all take and what its ``system.py`` adds."""
    p = argparse.ArgumentParser(prog="python -m sandbox", description="A fake remote system on loopback.")
    commands = p.add_subparsers(dest="system", required=True, help="which system to start")
    for name in systems():
        command = commands.add_parser(name)
        add_arguments(command)
        module_of(name).add_arguments(command)
    return p


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    p.add_argument("--port", type=int, default=0, help="HTTP port (default: any free one)")
    p.add_argument("--tls-port", type=int, help="HTTPS port (0: any free one)")
    p.add_argument("--cert", type=Path, help="certificate chain (PEM); without it one is made")
    p.add_argument("--key", type=Path, help="private key of --cert")
    p.add_argument("--ca", type=Path, help="file to write the CA of a certificate made here to")
    p.add_argument(
        "--records",
        type=int,
        default=0,
        help="sample rows to add to each main table that has none; the others get 20 at most",
    )
    p.add_argument("--seed", type=int, default=1, help="seed of sample rows and ids")
    p.add_argument("--control-key", default="", help="header x-sandbox-key that control calls must carry")
    p.add_argument("--data", type=Path, help="file that keeps the rows between runs")


def module_of(name: str) -> Any:
    """What makes a system: ``add_arguments(parser)`` and ``make(arguments)``."""
    return importlib.import_module(f"sandbox.{name}.system")


def systems() -> list[str]:
    """Every package or module here that makes a system."""
    here = Path(__file__).parent
    return sorted(d.name for d in here.iterdir() if (d / "system.py").exists())


def main() -> int:
    arguments = parser().parse_args()
    system = module_of(arguments.system).make(arguments)
    try:
        app = App(system, arguments.control_key, arguments.data)
        few = min(arguments.records, FEW)
        for tables, count in ((system.main_tables, arguments.records), (system.side_tables, few)):
            for table in tables:
                if count and not system.filled(table):
                    system.fill(table, count, arguments.seed)
        listen = Listen(
            arguments.host, arguments.port, arguments.tls_port, arguments.cert, arguments.key, arguments.ca
        )

        def ready(origins: list[str]) -> None:
            system.origins(names_of(origins))
            https = next((o for o in origins if o.startswith("https")), None)
            line = {
                **system.describe(https or origins[0]),
                "http": origins[0],
                "https": https,
                "control": f"{origins[0]}/_sandbox/",
            }
            if arguments.ca is not None and https:
                line["ca"] = str(arguments.ca)
            print(ready_line(line), flush=True)

        run(app, listen, ready)
    except PortTaken as taken:
        print(f"sandbox: {taken}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
