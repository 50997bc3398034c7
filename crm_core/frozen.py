"""Dataclasses that are made a million times in a load."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as frozen_dataclass
else:

    def frozen_dataclass(*, frozen: bool, slots: bool) -> Callable[[type], Any]:
        """`dataclass(frozen=True, slots=True)` to the type checker, which refuses every assignment.

        While the program runs nothing checks that again: it would make each of them three to five times as slow, which
        is a twentieth of a load's CPU time.
        """
        assert frozen
        return dataclass(slots=slots, unsafe_hash=True)


__all__ = ["frozen_dataclass"]
