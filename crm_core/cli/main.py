"""The program: every group of commands, and how it ends."""

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
import typer.completion
import typer.exceptions
import typer.main

from crm_core import __version__
from crm_core.cli import complete, connections, deadletters, doctor, logs, records, runs, sync
from crm_core.cli import conflicts as people
from crm_core.cli.command import PROGRAM, Job, command, entry, group
from crm_core.cli.failures import Exit, Failure
from crm_core.cli.output import plain

ABOUT = """CRM Hub from the command line: what a hub holds, does and waits for.

It speaks to a hub over HTTP, by its address and a key: to the local one of `make run` if nothing else is said.

\b
Environment:
  CRMHUB_URL   the hub's address
  CRMHUB_KEY   an API key
  NO_COLOR     no colours, if it is set
\b
Exit codes:
  0  done            4  the key is missing, wrong, or may not do it
  1  it failed       5  there is no such thing
  2  wrong usage     6  something is in the way, or has changed since
  3  no hub answers  130  stopped by Ctrl-C
"""
EXAMPLES = ("doctor", "sync run demo", "records list accounts --limit 5 --output csv")

app = group("crm_core", ABOUT, EXAMPLES)
for part in (connections, sync, records, people, runs, deadletters):
    app.add_typer(part.app)
command(app, "doctor", examples=doctor.EXAMPLES)(doctor.doctor)
command(app, "logs", examples=logs.EXAMPLES)(logs.logs)


@command(app, "completion", examples=["completion bash"])
def completion(
    _: Job, shell: Annotated[complete.Shell, typer.Argument(help="Whose script.", case_sensitive=False)]
) -> None:
    """Prints a script that gives a shell the command `crmhub`, which is this program, and completes its words.

    \b
    bash, in ~/.bashrc:                  eval "$(.venv/bin/python -m crm_core completion bash)"
    zsh, in ~/.zshrc:                    eval "$(.venv/bin/python -m crm_core completion zsh)"
    fish, in ~/.config/fish/config.fish: .venv/bin/python -m crm_core completion fish | source
    """  # noqa: D301 - the mark of lines that stay as they are
    sys.stdout.write(complete.script(shell))


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"{__version__}\n")
        raise typer.Exit


def _entry(
    _: Job,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Shows the version.")
    ] = False,
) -> None:
    """What goes before every command: the common options may stand here too."""
    del version


entry(app, _entry)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; gives the exit code, and says on standard error what went wrong."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no letters for a name
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        code = Exit.PIPE
    if code == Exit.PIPE:
        # The interpreter flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _run(arguments: Sequence[str]) -> int:
    if complete.VARIABLE in os.environ:
        # Makes the classes known that speak with shells; without it only bash is.
        typer.completion.get_completion_inspect_parameters()
    program = typer.main.get_command(app)
    try:
        for each in arguments:
            _check_text(each)
        return int(
            program.main(arguments, prog_name=PROGRAM, complete_var=complete.VARIABLE, standalone_mode=False)
            or Exit.OK
        )
    except Failure as failure:
        sys.stderr.write("".join(f"{plain(line)}\n" for line in failure.lines()))
        return failure.code
    except typer.exceptions.TyperException as error:  # how it is to be used
        error.show()  # type: ignore[attr-defined] # its base lacks what every error of usage has
        return error.exit_code
    except typer.Abort:
        return Exit.INTERRUPTED


def _check_text(argument: str) -> None:
    """Bytes that are no text can be sent nowhere."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise Failure(Exit.USAGE, f"The argument {argument} is not UTF-8.") from None
