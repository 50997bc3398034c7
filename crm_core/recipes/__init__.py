"""Connections as recipes: files that say how a connection is set up; docs/recipes tells of each."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def recipe(name: str) -> Mapping[str, Any]:
    """The body of a connection (settings, entities, mappings) that a recipe is, by its name, without addresses and secrets."""
    found: Mapping[str, Any] = json.loads((files(__name__) / f"{name}.json").read_text("utf-8"))
    return found
