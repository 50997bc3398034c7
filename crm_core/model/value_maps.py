"""Values of a field as a system calls them, by rules of a mapping: equal, one of several, or text that contains one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from crm_core.model.fields import NATIVE_PREFIX

Unmapped = Literal["keep", "default", "reject"]
"""What becomes of a value that no rule fits. `keep`: it is known by its own name under the prefix `native:`.
`default`: another one stands for it. `reject`: it is refused.
"""


@dataclass(frozen=True)
class Condition:
    """True of each of `among`, or of a text with `contains` in it, whatever the case of its letters."""

    contains: str = ""
    among: tuple[Any, ...] = ()

    def fits(self, value: Any) -> bool:
        if self.contains:
            return isinstance(value, str) and self.contains.casefold() in value.casefold()
        return any(alike(value, each) for each in self.among)


@dataclass(frozen=True)
class Rule:
    """`ours` is called `theirs`. A condition on one side tells what is translated, so the rule leads away from it."""

    ours: Any
    theirs: Any


def alike(left: Any, right: Any) -> bool:
    """Whether two JSON values are one: true is not 1."""
    return isinstance(left, bool) is isinstance(right, bool) and bool(left == right)


def fits(side: Any, value: Any) -> bool:
    return side.fits(value) if isinstance(side, Condition) else alike(side, value)


@dataclass(frozen=True)
class ValueMap:
    """The first rule that fits decides. `default_ours`, `default_theirs`: for the policy `default`, None for none."""

    rules: tuple[Rule, ...]
    unmapped: Unmapped = "keep"
    default_ours: Any = None
    default_theirs: Any = None

    def reading(self, value: Any) -> int | None:
        """The number of the rule that reads a value of theirs, None where none fits."""
        return next(
            (
                number
                for number, rule in enumerate(self.rules)
                if not isinstance(rule.ours, Condition) and fits(rule.theirs, value)
            ),
            None,
        )

    def writing(self, value: Any) -> int | None:
        """The number of the rule that writes a value of ours, None where none fits."""
        return next(
            (
                number
                for number, rule in enumerate(self.rules)
                if not isinstance(rule.theirs, Condition) and fits(rule.ours, value)
            ),
            None,
        )

    def inward(self, value: Any) -> Any:
        """Our value of theirs; raises ValueError for one that is refused."""
        number = self.reading(value)
        if number is not None:
            return self.rules[number].ours
        if self.unmapped == "default" and self.default_ours is not None:
            return self.default_ours
        if self.unmapped == "keep":
            return f"{NATIVE_PREFIX}{str(value).lower() if isinstance(value, bool) else value}"
        raise ValueError("no rule of the mapping names this value; add one, or say what becomes of others")

    def outward(self, value: Any) -> Any:
        """Their value of ours; raises ValueError for one that is refused."""
        number = self.writing(value)
        if number is not None:
            return self.rules[number].theirs
        if self.unmapped == "default" and self.default_theirs is not None:
            return self.default_theirs
        if self.unmapped == "keep" and isinstance(value, str) and value.startswith(NATIVE_PREFIX):
            kept = self._kept(value.removeprefix(NATIVE_PREFIX))
            if kept is not None:
                return kept
        known = ", ".join(str(each) for each in self.ours)
        more = f", or {NATIVE_PREFIX} and the system's own value" if self.unmapped == "keep" else ""
        raise ValueError(f"expected one of {known}{more}")

    def _kept(self, text: str) -> Any:
        """A value that was kept, as the system has it; None for what can be none of its."""
        if self.kind is str:
            return text or None
        if self.kind is bool:
            return {"true": True, "false": False}.get(text)
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None

    @cached_property
    def kind(self) -> type:
        """The type of their values."""
        return next((type(each) for each in self.theirs), str)

    @cached_property
    def ours(self) -> Sequence[Any]:
        """Our values that the rules name for what a person may write, in their order."""
        named = (
            each
            for rule in self.rules
            for each in (rule.ours.among if isinstance(rule.ours, Condition) else (rule.ours,))
        )
        found: list[Any] = []
        for each in named:
            if not any(alike(each, other) for other in found):
                found.append(each)
        return found

    @cached_property
    def theirs(self) -> Sequence[Any]:
        """Their values that the rules name, in their order."""
        return [
            each
            for rule in self.rules
            for each in (
                (rule.theirs.among or (rule.theirs.contains,))
                if isinstance(rule.theirs, Condition)
                else (rule.theirs,)
            )
        ]

    @property
    def literal(self) -> bool:
        """Whether each rule names one value of each side, and others are not taken for one of them."""
        sides = (side for rule in self.rules for side in (rule.ours, rule.theirs))
        return self.unmapped != "default" and not any(isinstance(side, Condition) for side in sides)

    def losses(self) -> list[str]:
        """Why what is written is not read back as it was, a sentence for each reason."""
        found = []
        for value in self.ours:
            if not any(
                fits(rule.ours, value) for rule in self.rules if not isinstance(rule.theirs, Condition)
            ):
                found.append(f"'{value}' is read but no rule says how it is written; add one with its value")
                continue
            sent = self.outward(value)
            try:
                back = self.inward(sent)
            except ValueError:
                back = None
            if back is None or not alike(back, value):
                found.append(f"'{value}' is written as '{sent}', which is read as '{back}'")
        if any(isinstance(rule.ours, Condition) and rule.ours.contains for rule in self.rules):
            found.append("what contains a text is written as one value, and can't be read back")
        if self.default_theirs is not None:
            found.append(
                f"every value without a rule is written as '{self.default_theirs}', and can't be read back"
            )
        return found
