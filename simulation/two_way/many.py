"""Many seeds, in several processes; only what is wrong is told."""

import logging
import sys
import traceback
from functools import partial
from multiprocessing import get_context

from simulation.two_way.world import World


def many(seeds: range, steps: int, processes: int, *, unmarked: bool = False) -> int:
    bad = 0
    with get_context("spawn").Pool(processes, logging.disable) as pool:
        for seed, told in zip(
            seeds, pool.imap(partial(broken, steps, unmarked), seeds, chunksize=10), strict=True
        ):
            if told:
                bad += 1
                sys.stdout.write(f"seed {seed}: {told[:300]}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{len(seeds)} seeds, {bad} not good\n")
    return 1 if bad else 0


def broken(steps: int, unmarked: bool, seed: int) -> str:
    """The first thing that is wrong with a seed's history, "" for nothing."""
    try:
        return next(iter(World(seed, unmarked=unmarked).run(steps).violations), "")
    except Exception:  # noqa: BLE001  # told like any other end
        return traceback.format_exc().strip().splitlines()[-1]
