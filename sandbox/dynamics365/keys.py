"""Row references: by id or by alternate key (Web API: use an alternate key to reference a row)."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from sandbox.dynamics365.errors import KEY_MISSING, Refused, bad_payload, bad_query
from sandbox.dynamics365.expression import Literal, Parser
from sandbox.dynamics365.filters import fold
from sandbox.dynamics365.org import Org
from sandbox.dynamics365.schema import Entity
from sandbox.store import Row

GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SEGMENT = re.compile(r"([A-Za-z_$][\w.$]*)")


@dataclass(frozen=True)
class Key:
    """What stands between the parentheses."""

    text: str

    @property
    def guid(self) -> str | None:
        return self.text.lower() if GUID.fullmatch(self.text) else None

    def pairs(self, entity: Entity) -> dict[str, Any]:
        """An alternate key as columns and values; refuses what is not a key of the table."""
        pairs: dict[str, Any] = {}
        for part in _outside_quotes(self.text, ","):
            name, _, literal = part.partition("=")
            node = Parser(literal).parse() if literal else None
            if not isinstance(node, Literal):
                raise bad_query(
                    f"The key in the request URI is not valid for resource 'Microsoft.Dynamics.CRM.{entity.name}'."
                )
            pairs[name.strip()] = node.value
        if set(pairs) == {entity.key}:
            return pairs
        if tuple(pairs) not in {(k,) for k in entity.alternate_keys}:
            raise bad_query(
                f"The key in the request URI is not valid for resource 'Microsoft.Dynamics.CRM.{entity.name}'. Ensure that the names "
                "and number of key properties match the declared or alternate key properties for the resource."
            )
        return pairs


def _outside_quotes(text: str, separator: str) -> list[str]:
    """Split outside single quotes; a doubled quote stays inside."""
    parts, quoted, start = [], False, 0
    for i, char in enumerate(text):
        if char == "'":
            quoted = not quoted
        elif char == separator and not quoted:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def find(org: Org, entity: Entity, key: Key) -> Row | None:
    """The row that a key names, if there is one."""
    if key.guid:
        return org.store.get(entity.name, key.guid)
    pairs = key.pairs(entity)
    if set(pairs) == {entity.key}:
        return org.store.get(entity.name, str(pairs[entity.key]).lower())
    for row in org.store.table(entity.name).rows.values():
        if all(_equal(row.values.get(n), v) for n, v in pairs.items()):
            return row
    return None


def missing(entity: Entity, key: Key) -> Refused:
    """404 for a key that names no row."""
    if key.guid:
        return Refused(404, "0x80040217", f"Entity '{entity.name}' With Id = {key.guid} Does Not Exist")
    return Refused(
        404, KEY_MISSING, f"A record with the specified key values does not exist in {entity.name} entity"
    )


def _equal(stored: Any, wanted: Any) -> bool:
    if isinstance(stored, str) and isinstance(wanted, str):
        return fold(stored) == fold(wanted)
    return bool(stored == wanted)


@dataclass(frozen=True)
class Segment:
    """One step of a path: a name, and a key if it has parentheses."""

    name: str
    key: Key | None


def segments(path: str) -> list[Segment]:
    """A path below the version as segments; slashes in quoted keys do not count. Still percent-encoded in."""
    found: list[Segment] = []
    rest = path
    while rest:
        match = _SEGMENT.match(rest)
        if match is None:
            raise Refused(
                404, "0x80060888", f"Resource not found for the segment '{unquote(rest.partition('/')[0])}'."
            )
        name, rest = match[1], rest[match.end() :]
        key = None
        if rest.startswith("("):
            end = _closing(rest)
            key, rest = Key(unquote(rest[1:end])), rest[end + 1 :]
        found.append(Segment(name, key))
        if rest.startswith("/"):
            rest = rest[1:]
        elif rest:
            raise Refused(
                404, "0x80060888", f"Resource not found for the segment '{unquote(rest.partition('/')[0])}'."
            )
    return found


def _closing(text: str) -> int:
    quoted = False
    i = 0
    while i < len(text):
        if text[i] == "'" or text.startswith("%27", i):
            quoted = not quoted
        elif text[i] == ")" and not quoted:
            return i
        i += 1
    raise bad_query("Bad Request - Error in query syntax.")


def parse_reference(url: str) -> tuple[str, Key]:
    """``/accounts(id)``, ``accounts(key='x')`` or a whole URL of it: set name and key."""
    match = re.fullmatch(r"(?:https?://[^/]+)?/?(?:api/data/v9\.\d/)?(\w+)\((.+)\)", url)
    if match is None:
        raise bad_payload(f"The URI '{url}' is not a valid entity reference.")
    return match[1], Key(unquote(match[2]))
