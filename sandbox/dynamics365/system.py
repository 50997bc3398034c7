"""How the command line makes this system."""

import argparse
from pathlib import Path

from sandbox.dynamics365.org import OPTIONS, Identity
from sandbox.dynamics365.service import Dataverse
from sandbox.store import Values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tenant", help="directory (tenant) id of the token endpoint")
    parser.add_argument("--client-id", help="the client that may ask for tokens")
    parser.add_argument("--client-secret", help="its secret")
    parser.add_argument(
        "--client-certificate", type=Path, help="its certificate (PEM): assertions must be signed by it"
    )
    parser.add_argument("--token-seconds", type=int, help="life of an access token")
    parser.add_argument(
        "--no-tracking",
        action="append",
        default=[],
        metavar="TABLE",
        help="switch change tracking off for a table",
    )


def make(arguments: argparse.Namespace) -> Dataverse:
    """A Dataverse environment as the command line describes it."""
    given = {
        "tenant": arguments.tenant,
        "client_id": arguments.client_id,
        "client_secret": arguments.client_secret,
        "certificate": arguments.client_certificate.read_text() if arguments.client_certificate else None,
    }
    options: Values = {"tracking": {**OPTIONS["tracking"], **dict.fromkeys(arguments.no_tracking, False)}}
    if arguments.token_seconds is not None:
        options["token_seconds"] = arguments.token_seconds
    return Dataverse(
        Identity(**{k: v for k, v in given.items() if v is not None}), arguments.seed, options=options
    )
