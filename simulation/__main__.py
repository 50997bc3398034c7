"""`python -m simulation --seed N`: one simulation as a history to read; the exit code says whether all went well."""

import argparse
import logging
import sys

from simulation.world import STEPS, World


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which interleaving and which faults")
    parser.add_argument("--steps", type=int, default=STEPS, help="how many things people and callers do")
    parser.add_argument("--verbose", action="store_true", help="show every call of a port")
    given = parser.parse_args(arguments)
    logging.disable()  # what the hub logs has real times in it
    world = World(given.seed, verbose=given.verbose, sink=lambda line: sys.stdout.write(line.rstrip() + "\n"))
    verdict = world.run(given.steps)
    struck = ", ".join(f"{count} {kind}" for kind, count in verdict.struck.items()) or "none"
    sys.stdout.write(
        f"\nseed {given.seed}: {verdict.minutes:.0f} minutes, {verdict.turns} turns, "
        f"{verdict.runs} promised runs; faults: {struck}\n"
    )
    for violation in verdict.violations:
        sys.stdout.write(f"VIOLATED: {violation}\n")
    sys.stdout.write("good\n" if verdict.good else "NOT good\n")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
