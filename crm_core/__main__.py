"""The command: `python -m crm_core`; docs/cli.md tells of it."""

import sys


def main() -> int:
    """The exit code of the command line; where its packages are missing, which a deployed hub has no use for, it says so."""
    try:
        from crm_core.cli.main import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "typer":
            raise
        sys.stderr.write("The command line needs two packages: pip install -r requirements-cli.txt\n")
        return 1
    return run()


if __name__ == "__main__":
    sys.exit(main())
