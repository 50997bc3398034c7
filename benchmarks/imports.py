"""What a cold start pays before the first request: the import of the app, against that of azure.functions alone."""

import json
import subprocess
import sys
from dataclasses import dataclass

from demo.start import ROOT

TRIES = 5
_PROBE = """
import json, sys, time
before = set(sys.modules)
began = time.process_time()
import {module}
print(json.dumps([time.process_time() - began, sorted(set(sys.modules) - before)]))
"""


@dataclass(frozen=True)
class Import:
    """Of one module in a fresh process: CPU seconds, the least of some tries, and the modules that came along."""

    seconds: float
    modules: tuple[str, ...]


def measure(module: str, tries: int = TRIES) -> Import:
    found = [_once(module) for _ in range(tries)]
    return Import(min(seconds for seconds, _ in found), tuple(found[0][1]))


def _once(module: str) -> tuple[float, list[str]]:
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", _PROBE.format(module=module)], cwd=ROOT, capture_output=True, check=True
    )
    seconds, modules = json.loads(done.stdout)
    return seconds, modules
