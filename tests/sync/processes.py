"""A process that a test speaks with, by lines of JSON: two of them race, and one can be killed."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ANSWERS_WITHIN = 60.0


class Ended(Exception):
    """The process has ended, so that it answers no more."""


class Process:
    """Runs a function of a module of tests, which reads tasks and answers each by `say`."""

    def __init__(self, module, function):
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {module} import {function}; {function}()"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what was read ahead would be no news for select
            env={**os.environ},
        )

    def tell(self, value):
        self.process.stdin.write(json.dumps(value).encode() + b"\n")

    def has_answered(self, seconds=0.0):
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def answer(self):
        """Raises Ended."""
        assert self.has_answered(ANSWERS_WITHIN), f"no answer after {ANSWERS_WITHIN} s"
        line = self.process.stdout.readline()
        if not line:
            raise Ended
        return json.loads(line)

    def end(self):
        """Its exit code."""
        self.process.stdin.close()
        code = self.process.wait(20)
        self.process.stdout.close()
        return code


def say(value):
    """Within the process: a line to whom it works for."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
