"""What is wrong with a connection that a person wants, against what its connector declares: pure functions."""

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from crm_core.connector import Connector
from crm_core.errors import BadRequest, FieldError
from crm_core.mapping_admin import Mappings
from crm_core.model.connection import Connection, EntitySync, Schedule
from crm_core.model.fields import Type
from crm_core.model.filters import parse_filter
from crm_core.model.mapping import EntityMap
from crm_core.model.matching import matcher
from crm_core.model.overrides import effective_or_declared
from crm_core.settings import VAULT_REFERENCE

MAX_SETTING = 2000
MAX_SECRET = 16_000
"""Long enough for a certificate with its chain."""
QUERY = "url_query"
"""The secret of a connector whose address may have a query."""


def connection_errors(
    kind: type[Connector], connection: Connection, secrets: Mapping[str, str]
) -> list[FieldError]:
    """One for each field that does not fit: settings, secrets, entities, schedule. Mappings have their own check."""
    return [
        *_setting_errors(kind, connection.settings, secrets),
        *_entity_errors(kind, connection.entities, connection.mappings),
        *_delivery_errors(kind, connection),
        *_schedule_errors(kind, connection.schedule),
    ]


def check_receiver(
    kind: type[Connector],
    before: Connection,
    after: Connection,
    bundle: Mapping[str, str],
    given: Mapping[str, str],
) -> None:
    """Secrets don't go to another receiver than the one that they were given for. Raises BadRequest."""
    was, now = (each.settings.get(kind.delivers_to, "") for each in (before, after))
    if was and now and urlsplit(was)[:2] != urlsplit(now)[:2] and not bundle.keys() <= given.keys():
        path = f"settings.{kind.delivers_to}"
        names = ", ".join(sorted(bundle.keys() - given.keys()))
        raise BadRequest.field(path, f"{path}: is another receiver; give the secrets anew with it ({names}).")


def _setting_errors(
    kind: type[Connector], settings: Mapping[str, str], secrets: Mapping[str, str]
) -> list[FieldError]:
    errors = []
    needed = kind.needed(settings)
    for place, values, secret, longest in (
        ("settings", settings, False, MAX_SETTING),
        ("secrets", secrets, True, MAX_SECRET),
    ):
        declared = {each.name: each for each in kind.settings if each.secret == secret}
        for name, value in values.items():
            path = f"{place}.{name}"
            if name not in declared:
                other = any(each.name == name for each in kind.settings)
                where = f"belongs to {'settings' if secret else 'secrets'}" if other else "is unknown"
                errors.append(
                    FieldError(path, f"{path}: {where}; {kind.label} has {', '.join(declared)} here.")
                )
            elif len(value) > longest:
                errors.append(FieldError(path, f"{path}: is longer than {longest} characters."))
            elif value.lstrip().lower().startswith(VAULT_REFERENCE.lower()):
                # The platform resolves references in the app's own settings only.
                errors.append(FieldError(path, f"{path}: is a Key Vault reference; enter the value itself."))
            elif value and declared[name].kind == "url" and not _is_address(value):
                errors.append(FieldError(path, f"{path}: {_no_address(kind, value)}"))
        errors.extend(
            FieldError(f"{place}.{name}", f"{place}.{name}: is missing ({each.label}).")
            for name, each in declared.items()
            if name in needed and not values.get(name)
        )
    return errors


def _is_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return (
        parts.scheme in ("https", "http") and bool(parts.hostname) and not parts.query and not parts.fragment
    )


def _no_address(kind: type[Connector], value: str) -> str:
    if "?" in value and any(each.name == QUERY for each in kind.settings):
        return f"what follows the ? may be a secret; put it into secrets.{QUERY}."
    return "expected an address such as https://example.com."


def _entity_errors(
    kind: type[Connector], entities: Mapping[str, EntitySync], mappings: Mappings
) -> Sequence[FieldError]:
    known = ", ".join(kind.entities)
    unknown = [name for name in entities if name not in kind.entities]
    if not entities:
        return [FieldError("entities", f"entities: name at least one of {known}.")]
    errors = [
        FieldError(
            f"entities.{name}", f"entities.{name}: {kind.label} has no such entity here; it has {known}."
        )
        for name in unknown
    ]
    for name in entities.keys() - set(unknown):
        emap = effective_or_declared(kind.entities[name], mappings.get(name))
        errors.extend(_sync_errors(f"entities.{name}", emap, entities[name]))
        if not kind.delivers_to:
            errors.extend(
                FieldError(
                    f"entities.{name}.{what}", f"entities.{name}.{what}: {kind.label} is told of no events."
                )
                for what in ("events", "becomes")
                if getattr(entities[name], what)
            )
    return errors


def _delivery_errors(kind: type[Connector], connection: Connection) -> Iterator[FieldError]:
    """Whoever is told of changes has an address."""
    pushes = any(each.pushes for each in connection.entities.values())
    if kind.delivers_to and pushes and not connection.settings.get(kind.delivers_to):
        path = f"settings.{kind.delivers_to}"
        yield FieldError(path, f"{path}: is missing; what is pushed is delivered there.")


def _schedule_errors(kind: type[Connector], schedule: Schedule) -> Iterator[FieldError]:
    if not kind.polls and schedule != Schedule():
        text = f"schedule: {kind.label} can't be asked for changes: they come by its webhooks. Leave it out."
        yield FieldError("schedule", text)


def _sync_errors(path: str, emap: EntityMap, sync: EntitySync) -> Iterator[FieldError]:
    """What is wrong with how one entity is to be kept in step."""
    known = ", ".join(emap.by_field)
    for name in sync.policies:
        if name not in emap.by_field:
            yield FieldError(
                f"{path}.policies.{name}",
                f"{path}.policies.{name}: is no field here; known are {known}.",
            )
    if sync.match:
        field = emap.entity.by_name.get(sync.match)
        if sync.match not in emap.by_field or field is None or field.type is not Type.TEXT:
            texts = ", ".join(each for each in emap.by_field if emap.entity.by_name[each].type is Type.TEXT)
            yield FieldError(f"{path}.match", f"{path}.match: expected a text field, one of {texts}.")
    for what in ("filter", "becomes"):
        text = getattr(sync, what)
        if text:
            try:
                matcher(parse_filter(text), emap.entity)
            except BadRequest as error:
                yield FieldError(f"{path}.{what}", f"{path}.{what}: {error.message}")
