"""`make soak`: a load whose host is killed ten times ends as one that nobody disturbs; the exit code says whether it does."""

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
from soak import checks
from soak.load import Load, People, killed_load, undisturbed
from soak.plan import INVISIBILITY_SECONDS, REAL_INVISIBILITY_MINUTES, Plan, make_edits, make_plan
from soak.system import System

KILLED, CALM = "killed", "calm"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument(
        "--records", type=int, default=20_000, help="accounts at the sandbox (default: %(default)s)"
    )
    parser.add_argument(
        "--kills", type=int, default=10, help="of the host, in the load (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the data, the kills and what people do")
    given = parser.parse_args()
    if not 400 <= given.records <= 500_000:
        parser.error("--records: expected 400 to 500000")
    if not 0 <= given.kills <= given.records // 200:
        parser.error(f"--kills: expected 0 to {given.records // 200}, one for 200 records")
    return given


def _soak(given: argparse.Namespace, parts: Parts, data: Path, stack: contextlib.ExitStack) -> bool:
    """The whole story; what is started is stopped by the stack. Says whether all is well."""
    began = time.monotonic()
    plan = make_plan(given.records, given.kills, given.seed)
    print(_title(given, plan, data))
    folder = Folder(data)
    stack.callback(folder.close)
    stack.callback(parts.stop)
    system = System(parts, folder, free_ports(), plan.settings, given.seed)
    system.start_hub()
    stack.callback(system.close)
    system.fill(given.records, given.seed)
    people = People(system, make_edits(system.rows(), given.seed))

    killed = killed_load(system, parts, plan, people, KILLED)
    people.work(1.0)
    rest = undisturbed(system, parts, KILLED)
    calm = undisturbed(system, parts, CALM)
    print(_table(plan, killed, calm, rest.run["read"], people))
    found = checks.violations(system, plan, people, killed, calm, (KILLED, CALM))
    for text in found:
        print(f"VIOLATED: {text}")
    print(f"{'NOT good' if found else 'good'}, after {time.monotonic() - began:.0f} s")
    return not found


def _title(given: argparse.Namespace, plan: Plan, data: Path) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in plan.settings.items())
    return (
        f"A load of {plan.records:,} accounts whose host is killed {len(plan.kills)} times; seed {given.seed}, logs in {data}\n"
        f"Shortened, so that it has many checkpoints and a kill costs seconds: {sizes};\n"
        f"the host hides a message for {INVISIBILITY_SECONDS} s while its function runs, instead of "
        f"{REAL_INVISIBILITY_MINUTES} minutes.\n"
    )


def _table(plan: Plan, killed: Load, calm: Load, rest: int, people: People) -> str:
    lines = ["", "kill    seconds   stored   pages since start   asks again after"]
    for number, each in enumerate(killed.struck, 1):
        lines.append(f"{number:4} {each.at:8.1f} s {each.read:8,} {each.pages:13} {each.again:17.1f} s")
    lines += ["", "load         run          seconds    read   pages   looks   tokens   storage calls"]
    for name, load in (("with kills", killed), ("undisturbed", calm)):
        run, asked = load.run, load.asked
        lines.append(
            f"{name:12} {run['mode']:11} {load.seconds:8.1f} s {run['read']:7,} {asked.pages:7} {asked.looks:7} {asked.tokens:8} "
            f"{run['calls']['storage']:12,}"
        )
    changed = sum(people.touched.values()) - len(people.deleted)
    most = plan.most_calls(len(people.created), len(people.deleted))
    lines += [
        "",
        f"Meanwhile people changed {changed} accounts, deleted {len(people.deleted)} and made {len(people.created)}.",
        f"The next pull read {rest}.",
        f"Calls for records: {killed.asked.records}, at most {most}: each page once, a look at each deleted one,",
        f"and what {len(killed.struck)} kills may waste.",
    ]
    return "\n".join(lines)


def main() -> int:
    given = _arguments()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="replace")  # a pipe gets lines as they come
    parts = Parts()
    parts.catch_signals()
    data = Path(tempfile.mkdtemp(prefix="crm-hub-soak-"))
    good = False
    try:
        with contextlib.ExitStack() as stack:
            good = _soak(given, parts, data, stack)
    except Stopped:
        return 130
    except Trouble as trouble:
        print(f"make soak: {trouble}", file=sys.stderr)
    if good:
        shutil.rmtree(data)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
