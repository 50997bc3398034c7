"""The whole hub in one process under a seeded scheduler: `python -m simulation --seed N` prints what happened.

API, tick, lanes and the Dataverse sandbox run over the in-memory ports. Workers are greenlets that switch before and
after each call of a port, so one seed is one interleaving, with its faults, and the same seed is the same history.
"""
