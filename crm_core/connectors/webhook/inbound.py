"""What comes in: how it proves itself, and which records a body tells of.

An app that can't be asked tells a record by its key: a property of the body, for each entity its own (`keys`). A body may
tell of several entities at once, and be a list.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crm_core.connector import STORED_HEADERS, STORED_PREFIXES, Account, Change, Event, Hook
from crm_core.connectors.webhook.xml_values import of_xml
from crm_core.errors import BadAnswer, BadRequest, SignatureInvalid
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import Type, checked_text
from crm_core.model.json_text import dump_json
from crm_core.model.mapping import EntityMap
from crm_core.model.override_fields import Path, at, path_of
from crm_core.model.xml_text import is_xml
from crm_core.protocols.signatures import (
    STANDARD_WEBHOOKS,
    AnyOf,
    BasicAuth,
    Encoding,
    HeaderToken,
    Hmac,
    QueryToken,
    Scheme,
    secrets_of,
)

STANDARD = "standard"
PROOFS = (STANDARD, "hmac-hex", "hmac-base64", "header", "query", "basic")
HEADERS = {"hmac-hex": "X-Hub-Signature-256", "hmac-base64": "X-Hub-Signature-256", "header": "X-Hub-Token"}
PARAMETER = "token"
ID_HEADER = "webhook-id"
MAX_ITEMS = 1000
MAX_KEY = 200
NO_KEY = "[]"
_GOOD_KEY = re.compile(r"[^\x00\ud800-\udfff]+", re.DOTALL)
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_KEY = re.compile(r"(\w+)\s*:\s*(\S+)")


@dataclass(frozen=True)
class _Key:
    """Where a body says which record of an entity it tells of."""

    entity: str
    path: Path


class Incoming:
    """What one connection takes, as its settings describe it. Raises BadRequest with the setting's name."""

    def __init__(self, account: Account) -> None:
        settings = account.settings
        self._proof = settings.get("proof") or STANDARD
        self._scheme = _scheme(self._proof, settings.get("proof_header", ""))
        self._secrets = secrets_of(account.secrets.get("webhook_secret", ""))
        self._keys = _keys(settings.get("keys", ""))

    def verify(self, hook: Hook, now: float) -> str:
        if not self._secrets:
            raise SignatureInvalid("The connection has no webhook_secret.")
        return self._scheme.proof(hook, self._secrets, now)

    def parse(self, hook: Hook, maps: Mapping[str, EntityMap]) -> list[Event]:
        """The changes that a body tells, by record; `maps`: of the entities that the hub has. Raises BadAnswer."""
        body = hook.tree()
        has_texts_alone = is_xml(hook.headers.get("content-type", ""))
        items = body if isinstance(body, list) else [body]
        if not all(isinstance(each, Mapping) for each in items) or len(items) > MAX_ITEMS:
            raise BadAnswer(f"The body is no object, and no list of at most {MAX_ITEMS} objects.")
        # By its signed id a message is known again; a bare token proves no more than who sends.
        when = hook.headers.get(ID_HEADER, "") if self._proof == STANDARD else ""
        found: dict[tuple[str, str], Change] = {}
        for item in items:
            for entity, rid in self._named(item):
                emap = maps[entity]
                change = _change(emap, rid, of_xml(emap, item) if has_texts_alone else item)
                found[entity, change.rid] = _after(found.get((entity, change.rid)), change)
        return [Event(entity, rid, when, change) for (entity, rid), change in found.items()]

    def _named(self, item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(entity, remote id) of each record that an object tells of."""
        said = item.get("entity")
        own = [_Key(said, ("id",))] if not self._keys and isinstance(said, str) and said in ENTITIES else []
        for key in self._keys or own:
            rid = at(item, key.path)
            if rid is not None and rid != "" and not isinstance(rid, bool):
                yield key.entity, _key_text(rid)


def _key_text(rid: Any) -> str:
    """A key as text; what can't be one becomes a text that `_change` refuses."""
    if isinstance(rid, str):
        return rid
    if isinstance(rid, (Mapping, list)):
        return NO_KEY
    try:
        return dump_json(rid).decode()
    except BadRequest:  # a number that no JSON of ours has
        return NO_KEY


def _change(emap: EntityMap, rid: str, item: Mapping[str, Any]) -> Change:
    """A key that is none, or a value that can't be kept, sets this record aside and no other."""
    printable = rid.encode("ascii", "backslashreplace").decode()[:MAX_KEY]
    if len(rid) > MAX_KEY or not _GOOD_KEY.fullmatch(rid) or rid[:1] in "[{":
        return Change(printable, {}, problem=f"The key is no text of at most {MAX_KEY} characters.")
    if item.get("deleted") in (True, "true"):  # as text where the body is XML
        return Change(rid, None)
    try:
        fields = emap.told(item)
        _check(emap, item, fields)
    except (ValueError, TypeError, ArithmeticError) as error:
        return Change(rid, {}, problem=f"The body can't be read: {error}.")
    return Change(rid, fields, modified=str(fields.get("updated_at") or ""))


def _check(emap: EntityMap, item: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Raises ValueError for an object or a list that stands where a single value does, and for text that no store takes."""
    for each in emap.fields:
        given = each.take(item) if each.take else item.get(each.native)
        several = emap.entity.by_name[each.field].type in (Type.LINES, Type.CHOICES)
        if each.readable and not several and isinstance(given, (Mapping, list)):
            raise ValueError(f"{each.native}: expected a single value")
    for name, value in fields.items():
        if isinstance(value, str):
            try:
                checked_text(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


def _after(one: Change | None, other: Change) -> Change:
    """Two parts of a body that tell of one record: the later one stands over the earlier one."""
    if one is None or one.fields is None or other.fields is None or one.problem or other.problem:
        return other if one is None or not one.problem else one
    return Change(other.rid, {**one.fields, **other.fields}, modified=other.modified or one.modified)


def _scheme(proof: str, header: str) -> Scheme:
    if proof not in PROOFS:
        raise BadRequest.field("settings.proof", f"settings.proof: expected one of {', '.join(PROOFS)}.")
    takes = proof in HEADERS or proof == "query"
    if header and not (takes and _HEADER.fullmatch(header)):
        what = "expected the name of a header" if takes else f"'{proof}' has its own; leave it out"
        raise BadRequest.field("settings.proof_header", f"settings.proof_header: {what}.")
    name = header.lower() or HEADERS.get(proof, "").lower()
    if name in STORED_HEADERS or name.startswith(STORED_PREFIXES):
        raise BadRequest.field(
            "settings.proof_header",
            f"settings.proof_header: {header} is kept with each event; take another one.",
        )
    if proof in ("hmac-hex", "hmac-base64"):
        encoding = Encoding.HEX if proof == "hmac-hex" else Encoding.BASE64
        return AnyOf(tuple(Hmac(name, encoding=encoding, prefix=prefix) for prefix in ("sha256=", "")))
    if proof == "header":
        return HeaderToken(name)
    if proof == "query":
        return QueryToken(header or PARAMETER)
    return BasicAuth() if proof == "basic" else STANDARD_WEBHOOKS


def _keys(setting: str) -> Sequence[_Key]:
    """Lines of `entity: property`."""
    found: list[_Key] = []
    for line in filter(None, map(str.strip, setting.splitlines())):
        parts = _KEY.fullmatch(line)
        if parts is None or parts[1] not in ENTITIES:
            raise BadRequest.field(
                "settings.keys",
                "settings.keys: expected lines of 'entity: property', such as 'visit: id'; entities are "
                f"{', '.join(ENTITIES)}.",
            )
        try:
            found.append(_Key(parts[1], path_of(parts[2])))
        except ValueError as error:
            raise BadRequest.field("settings.keys", f"settings.keys: {parts[2]}: {error}.") from None
    return found
