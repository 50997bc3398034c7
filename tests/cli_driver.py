"""The command line as a person, a script and a pipe meet it: a process of its own each time."""

import fcntl
import os
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 60
# Makes its standard input the terminal that Ctrl-C is typed at, and becomes the program.
LAUNCH = (
    "import fcntl, os, signal, sys, termios\n"
    "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"  # who runs the tests in the background has it ignored
    "os.setsid()\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'crm_core', *sys.argv[1:]])\n"
)


@dataclass(frozen=True)
class Done:
    """How a command ended, what it wrote, and what it wrote beside."""

    code: int
    out: str
    err: str = ""


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of a developer's own, and the `python` of the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    plain = {
        "PATH": path,
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "PYTHONPATH": str(ROOT),
    }
    return {**plain, **(changes or {})}


def piped(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    typed: str | None = None,
    encoding: str = "utf-8",
) -> Done:
    """Run with pipes."""
    done = subprocess.run(
        [sys.executable, "-m", "crm_core", *arguments], env=environment(env), cwd=cwd, capture_output=True,
        input=(typed or "").encode(), timeout=SECONDS, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding))


def in_shell(line: str, env: Mapping[str, str] | None = None, shell: str = "bash") -> Done:
    """A line as it stands in a document; a failure in the middle of a pipe counts."""
    done = subprocess.run(
        [shell, "-c", f"set -o pipefail\n{line}"], env=environment(env), cwd=ROOT, capture_output=True,
        stdin=subprocess.DEVNULL, timeout=SECONDS, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def at_terminal(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    columns: int = 120,
    answers: Sequence[tuple[str, str]] = (),
    out: bool = True,
    err: bool = True,
) -> Done:
    """Run at a terminal. `answers`: what is typed once a text has come. `out`, `err`: whether they too are the terminal.

    What the terminal showed is told as `out`.
    """
    with ExitStack() as stack:
        ours, theirs = os.openpty()
        stack.callback(os.close, ours)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *arguments], env=environment(env), cwd=ROOT, stdin=theirs,
            stdout=theirs if out else subprocess.PIPE, stderr=theirs if err else subprocess.PIPE,
        )  # fmt: skip
        os.close(theirs)
        stack.enter_context(process)
        stack.callback(process.kill)
        shown = _shown(process, ours, list(answers))
        others = [stream.read().decode() if stream else "" for stream in (process.stdout, process.stderr)]
        code = process.wait(SECONDS)
    return Done(code, shown if out else others[0] + shown, others[1])


def _shown(process: "subprocess.Popen[bytes]", fd: int, answers: list[tuple[str, str]]) -> str:
    """What a terminal shows until its program has ended."""
    shown, deadline, began = b"", time.monotonic() + SECONDS, 0
    while True:
        if answers and answers[0][0] in shown[began:].decode(errors="replace"):
            began = len(shown)
            os.write(fd, answers.pop(0)[1].encode())
        readable, _, _ = select.select([fd], [], [], 0.2)
        try:
            read = os.read(fd, 65536) if readable else b""
        except OSError:  # on Linux that is how a terminal ends
            break
        shown += read
        if not read and process.poll() is not None:
            break
        if time.monotonic() > deadline:
            process.send_signal(signal.SIGKILL)
            raise AssertionError(f"it did not end: {shown.decode(errors='replace')}")
    assert not answers, f"{answers[0][0]!r} never came: {shown.decode(errors='replace')}"
    return shown.decode()


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r\n", "\n")


def examples_of_help() -> list[str]:
    """Every example of every command's --help, without the program's name."""
    import typer.main

    from crm_core.cli.command import PROGRAM
    from crm_core.cli.main import app

    def walk(command: object) -> list[str]:
        lines = (getattr(command, "epilog", None) or "").splitlines()
        own = [
            line.strip().removeprefix(PROGRAM).strip() for line in lines if line.strip().startswith(PROGRAM)
        ]
        return own + [each for part in getattr(command, "commands", {}).values() for each in walk(part)]

    return list(dict.fromkeys(walk(typer.main.get_command(app))))


def commands() -> list[list[str]]:
    """The words of every command, and of every group."""
    import typer.main

    from crm_core.cli.main import app

    def walk(command: object, words: list[str]) -> list[list[str]]:
        parts = getattr(command, "commands", {}).items()
        return [words, *(each for name, part in parts for each in walk(part, [*words, name]))]

    return walk(typer.main.get_command(app), [])


def examples_of(page: Path) -> list[str]:
    """Every line of a page's sh blocks that calls the program; what begins with its name, as in the help, without that."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    found = (line for line in lines if re.search(r"-m crm_core\b|^crmhub\b", line))
    return [line.removeprefix(".venv/bin/python -m crm_core ") for line in found]


def filled(example: str, find: Callable[[str], str]) -> str:
    """An example with real names where it has RECORD, RUN and the like."""
    return re.sub(
        r"\b(RECORD|RUN|STOPPED|PLAN|CONFLICT|LETTER)\b", lambda found: shlex.quote(find(found[0])), example
    )
