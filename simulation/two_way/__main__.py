"""`python -m simulation.two_way --seed N`: one simulation as a history to read; `--seeds A-B`: many, the bad ones told."""

import argparse
import logging
import sys

from simulation.two_way.many import many
from simulation.two_way.world import STEPS, World


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation.two_way", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which interleaving and which faults")
    parser.add_argument("--seeds", default="", help="a range such as 1-500; only what is wrong is told")
    parser.add_argument("--steps", type=int, default=STEPS, help="how many things people do")
    parser.add_argument("--processes", type=int, default=1, help="how many work on a range of seeds")
    parser.add_argument(
        "--unmarked", action="store_true", help="systems of which some can't tell what a create has made"
    )
    parser.add_argument("--verbose", action="store_true", help="show every call of a port")
    given = parser.parse_args(arguments)
    logging.disable()  # what the hub logs has real times in it
    if given.seeds:
        first, last = map(int, given.seeds.split("-"))
        return many(range(first, last + 1), given.steps, given.processes, unmarked=given.unmarked)
    world = World(
        given.seed,
        unmarked=given.unmarked,
        verbose=given.verbose,
        sink=lambda line: sys.stdout.write(line.rstrip() + "\n"),
    )
    verdict = world.run(given.steps)
    struck = ", ".join(f"{count} {kind}" for kind, count in verdict.struck.items()) or "none"
    sys.stdout.write(
        f"\nseed {given.seed}: {verdict.minutes:.0f} minutes, {verdict.turns} turns, {verdict.writes} writes; faults: {struck}\n"
    )
    for violation in verdict.violations:
        sys.stdout.write(f"VIOLATED: {violation}\n")
    sys.stdout.write("good\n" if verdict.good else "NOT good\n")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
