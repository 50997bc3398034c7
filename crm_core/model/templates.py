"""Templates of mappings: text with `{field}` and `{field|function}`, parsed into a tree. Nothing in them is run.

`{{` and `}}` are the braces themselves. Functions are those of `FUNCTIONS`, several one after the other.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

MAX_LENGTH = 1000
MAX_PLACEHOLDERS = 20
"""So that a long value can't become a text of any size."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_DOTTED = re.compile(rf"{_NAME.pattern}(\.{_NAME.pattern})?")


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isascii() and character.isdigit())


def _first(text: str) -> str:
    return (text.split() or [""])[0]


def _last(text: str) -> str:
    return (text.split() or [""])[-1]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _domain(text: str) -> str:
    return text.rpartition("@")[2].strip().lower() if "@" in text else ""


def _date(text: str) -> str:
    return text[:10]


FUNCTIONS: Mapping[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "trim": str.strip,
    "capital": _capital,
    "digits": _digits,
    "first": _first,
    "last": _last,
    "domain": _domain,
    "date": _date,
}
"""`capital`: its first letter; `digits`: only 0 to 9; `first`, `last`: the word; `domain`: of an e-mail address, ""
for what is none; `date`: of a time, in UTC.
"""


@dataclass(frozen=True)
class Placeholder:
    """The value of a field, through functions in their order."""

    name: str
    functions: tuple[str, ...] = ()

    def text(self, values: Mapping[str, Any]) -> str:
        """Nothing is empty text; yes and no are as in JSON."""
        value = values.get(self.name)
        if value is None:
            return ""
        text = str(value).lower() if isinstance(value, bool) else str(value)
        for name in self.functions:
            text = FUNCTIONS[name](text)
        return text


@dataclass(frozen=True)
class Template:
    """`parts`: text as it stands, and placeholders."""

    parts: tuple[str | Placeholder, ...]

    @classmethod
    def parse(cls, text: str, *, dotted: bool = False) -> "Template":
        """`dotted`: names may be of the form `reference.field`. Raises ValueError saying what is wrong and where."""
        if len(text) > MAX_LENGTH:
            raise ValueError(f"a template of more than {MAX_LENGTH} characters")
        parts: list[str | Placeholder] = []
        literal, at = "", 0
        while at < len(text):
            two = text[at : at + 2]
            if two in ("{{", "}}"):
                literal, at = literal + two[0], at + 2
            elif text[at] == "}":
                raise ValueError(
                    f"'}}' at character {at + 1} closes nothing; write }}}} for the brace itself"
                )
            elif text[at] == "{":
                end = text.find("}", at)
                if end < 0:
                    raise ValueError(
                        f"'{{' at character {at + 1} is never closed; write {{{{ for the brace itself"
                    )
                parts += [literal, _placeholder(text[at + 1 : end], dotted=dotted)] if literal else []
                parts += [] if literal else [_placeholder(text[at + 1 : end], dotted=dotted)]
                literal, at = "", end + 1
            else:
                literal, at = literal + text[at], at + 1
        found = cls((*parts, literal) if literal else tuple(parts))
        if len(found.placeholders) > MAX_PLACEHOLDERS:
            raise ValueError(f"a template with more than {MAX_PLACEHOLDERS} fields in it")
        return found

    @cached_property
    def placeholders(self) -> tuple[Placeholder, ...]:
        return tuple(part for part in self.parts if isinstance(part, Placeholder))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The fields that it is made of, each once."""
        return tuple(dict.fromkeys(each.name for each in self.placeholders))

    def text(self, values: Mapping[str, Any]) -> str | None:
        """The text for the values; None if every field of it is empty: the words around nothing say nothing."""
        texts = [part if isinstance(part, str) else part.text(values) for part in self.parts]
        filled = any(
            text for part, text in zip(self.parts, texts, strict=True) if isinstance(part, Placeholder)
        )
        return "".join(texts) if filled else None

    @cached_property
    def single(self) -> bool:
        """Whether a field can be read from the text, at least as functions made it: there is one, once."""
        return len(self.placeholders) == 1

    @cached_property
    def reversible(self) -> bool:
        """Whether the field can be read from the text just as it was."""
        return self.single and not self.placeholders[0].functions

    def back(self, text: str) -> str | None:
        """The field's text out of one that a template of a single field made; None for a text that is not its own."""
        before, after = self._around
        if len(text) < len(before) + len(after) or not text.startswith(before) or not text.endswith(after):
            return None
        return text[len(before) : len(text) - len(after)]

    @cached_property
    def _around(self) -> tuple[str, str]:
        at = next(index for index, part in enumerate(self.parts) if isinstance(part, Placeholder))
        before, after = self.parts[:at], self.parts[at + 1 :]
        return "".join(map(str, before)), "".join(map(str, after))


def _placeholder(text: str, *, dotted: bool) -> Placeholder:
    name, *functions = (part.strip() for part in text.split("|"))
    if not (_DOTTED if dotted else _NAME).fullmatch(name):
        raise ValueError(f"'{{{text}}}': expected the name of a field, such as {{name}} or {{name|upper}}")
    for each in functions:
        if each not in FUNCTIONS:
            raise ValueError(f"'{each}' is no function; known are {', '.join(FUNCTIONS)}")
    return Placeholder(name, tuple(functions))
