"""How the command line makes this system."""

import argparse

from sandbox.odoo.env import Identity
from sandbox.odoo.schema import LATEST, OLDEST, OPTIONAL
from sandbox.odoo.service import Odoo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--odoo-version",
        type=int,
        default=LATEST,
        choices=range(OLDEST, LATEST + 1),
        help="major version (default: %(default)s)",
    )
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        choices=OPTIONAL,
        help="a module that is installed besides the usual ones",
    )
    parser.add_argument("--database", help="name of the database")
    parser.add_argument("--login", help="login of the administrator")
    parser.add_argument("--password", help="password of the administrator")
    parser.add_argument("--api-key", help="API key of the administrator")
    parser.add_argument("--reader-key", help="API key (and password) of the user who may only read")


def make(arguments: argparse.Namespace) -> Odoo:
    """An Odoo server as the command line describes it."""
    given = {k: getattr(arguments, k) for k in ("database", "login", "password", "api_key", "reader_key")}
    identity = Identity(**{k: v for k, v in given.items() if v is not None})
    return Odoo(identity, arguments.seed, version=arguments.odoo_version, modules=tuple(arguments.module))
