"""Faults of sync, to be planted one by one: each has to be found, by a seed of a simulation or by a directed test.

Each takes pytest's monkeypatch. The names are those of the rules that it breaks (docs/sync.md).
"""

from tests.sync import mutants_of_claims, mutants_of_deliveries, mutants_of_rules, mutants_of_steps

MUTANTS = {
    name: each
    for module in (mutants_of_rules, mutants_of_steps, mutants_of_claims, mutants_of_deliveries)
    for name, each in vars(module).items()
    if getattr(each, "__module__", "") == module.__name__ and not name.startswith("_")
}

_BOTH = {"directions": ("both", "both"), "apps": True, "meddling": 0.3}
SHAPES = {
    "update_without_if_match": {**_BOTH, "kinds": ("a", "c"), "deletes": 0.0},
    "tie_skipped": {**_BOTH, "kinds": ("b", "b"), "match": False, "deletes": 0.0},
    "opaque_version_trusted": {**_BOTH, "kinds": ("c", "c"), "match": False, "deletes": 0.0},
    "inward_field_written": {**_BOTH, "kinds": ("a", "b"), "ways": ("in", "both")},
    "widened_without_what_is_never_told": {
        **_BOTH,
        "kinds": ("a", "b"),
        "directions": ("pull", "both"),
        "widens": True,
        "ways": ("out", "both"),
    },
    "feed_without_an_overlap": {
        **_BOTH,
        "kinds": ("a", "b"),
        "late_commits": 0.5,
        "hurry": (1.0, 10.0, 60.0),
    },
    "version_without_its_event": {"told": True},
    "event_not_in_the_records_transaction": {"told": True},
    "event_deleted_before_its_delivery": {"told": True},
    "event_kept_after_its_delivery": {"told": True},
    "delivery_with_another_id_each_time": {"told": True},
    "delivery_that_the_tick_does_not_find": {"told": True},
}
"""Where a fault shows in few of the worlds that a seed draws: what the others have to be like."""
