"""What every model is: its methods under the names that the server's own messages use."""

from typing import Any

from sandbox.odoo.grouping import Grouping
from sandbox.odoo.loading import Loading
from sandbox.odoo.reading import Reading
from sandbox.odoo.writing import Writing

# Methods that are there, but that clients may not call since version 19 (or ever).
PRIVATE = frozenset(
    (
        "search_fetch",
        "exists",
        "browse",
        "check_access",
        "fetch",
        "modified",
        "flush_model",
        "sudo",
        "with_context",
        "with_user",
        "init",
    )
)


class BaseModel(Loading):
    """A model that has nothing of its own."""


for _part in (Reading, Grouping, Writing, Loading):
    for _name, _function in vars(_part).items():
        if callable(_function) and not _name.startswith("_"):
            _function.__qualname__ = f"BaseModel.{_name}"


def public(model: BaseModel, name: str) -> Any:
    """The method for clients, or None if there is none; private ones are told apart by ``private``."""
    found = getattr(type(model), name, None)
    return found if callable(found) else None


def private(name: str) -> bool:
    return name.startswith("_") or name in PRIVATE
