"""Settings: the only reader of the environment. Every wrong one is named, with what to do, and no value is shown.

The table in README.md lists them all; a test compares.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from crm_core.errors import FieldError, Misconfigured

STORAGE = "AzureWebJobsStorage"
VAULT_REFERENCE = "@Microsoft.KeyVault("
MIN_API_KEY = 32
# Key Vault's domains in the public cloud, in China and for the US government (Microsoft Learn, "About keys,
# secrets, and certificates": vault domains); a loopback address is a local stand-in.
_VAULT = re.compile(
    r"https://[a-z0-9-]{3,24}\.(vault\.azure\.net|vault\.azure\.cn|vault\.usgovcloudapi\.net)"
)
_LOCAL_VAULT = re.compile(r"https://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")

# The names of two families that both describe the default Dynamics 365 connection.
_DYNAMICS = {
    "tenant_id": ("CRM_TENANT_ID", "DYNAMICS_365_TENANT_ID"),
    "client_id": ("CRM_CLIENT_ID", "DYNAMICS_365_CLIENT_ID"),
    "client_secret": ("CRM_CLIENT_SECRET", "DYNAMICS_365_CLIENT_SECRET"),
    "base_url": ("CRM_D365_BASE_URL", "DYNAMICS_365_RESOURCE_URL"),
    "api_version": ("CRM_API_VERSION", "DYNAMICS_365_API_VERSION"),
}
DYNAMICS, RECEIVER, SENDER = "dynamics365", "comercial", "presencia-crm"
"""Slugs of the connections that settings describe."""
_SALES = ("COMERCIAL_WEBHOOK_URL", "COMERCIAL_WEBHOOK_TOKEN")
_PRESENCES = "CRM_WEBHOOK_TOKEN"
_REQUIRED = ("tenant_id", "client_id", "client_secret", "base_url")
_SYNC_ENABLED, _SYNC_INTERVAL = "DYNAMICS_365_SYNC_ENABLED", "DYNAMICS_365_SYNC_INTERVAL"

_TUNING = (
    "FRESH_SLICE_SECONDS", "BULK_SLICE_SECONDS", "LEASE_SECONDS", "BATCH_RECORDS", "BATCH_SECONDS", "PAGE_RECORDS",
    "BRAKE_DELETES", "BRAKE_DELETES_PERCENT", "BRAKE_CREATES", "BRAKE_CREATES_PERCENT", "PUSH_RECORDS",
    "PUSH_START_SECONDS", "ATTEMPT_SECONDS", "PUSH_DELAY_SECONDS", "SWEEP_BUCKETS", "BREAKER_FLIPS", "BREAKER_SECONDS",
    "PLAN_HOURS", "LOG_DAYS", "EXPORT_DAYS", "RUN_DAYS", "EVENT_DAYS", "DELIVERY_DAYS", "HISTORY_DAYS",
)  # fmt: skip
_HOOKS = ("WEBHOOKS_PER_MINUTE", "WEBHOOKS_PER_SOURCE", "WEBHOOKS_REFUSED")
_HOOK_ORIGINS = "WEBHOOK_ORIGINS"
_STORAGE_URIS = ("tableServiceUri", "queueServiceUri", "blobServiceUri")
_STORAGE_KEYS = ("accountName", *_STORAGE_URIS, "credential", "clientId")

NAMES = (
    STORAGE, *(f"{STORAGE}__{key}" for key in _STORAGE_KEYS), "HUB_API_KEY", "INTEGRATION_ENCRYPTION_KEY",
    "KEY_VAULT_URL", "AZURE_CLIENT_ID",
    "PUBLIC_URL", "ALLOW_LOOPBACK", "ALLOW_PRIVATE_HOSTS", "CA_BUNDLE", *_TUNING, *_HOOKS, _HOOK_ORIGINS,
    *(name for pair in _DYNAMICS.values() for name in pair), _SYNC_ENABLED, _SYNC_INTERVAL,
    *_SALES, _PRESENCES,
)  # fmt: skip
"""Every setting of the hub; the platform's own (WEBSITE_...) aside."""


@dataclass(frozen=True)
class StorageSettings:
    """A connection string, or the addresses of the services for a managed identity (`client_id`: a user-assigned one)."""

    connection_string: str = field(default="", repr=False)
    table_uri: str = field(default="", repr=False)
    queue_uri: str = field(default="", repr=False)
    blob_uri: str = field(default="", repr=False)
    client_id: str = ""


@dataclass(frozen=True)
class DefaultConnection:
    """A connection that the hub's own settings describe. `recipe`: the rest of it, "" for what its connector usually has.
    `minutes` None: not pulled by itself.
    """

    slug: str
    connector: str
    settings: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    minutes: int | None = None
    recipe: str = ""


@dataclass(frozen=True)
class HookSettings:
    """How many webhooks a minute one instance takes: of an address, of a source, and how many wrong ones of a source.

    `origins`: senders that the CloudEvents handshake allows, in lower case.
    """

    per_minute: float = 6000
    per_source: float = 6000
    refused: float = 60
    origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    storage: StorageSettings
    api_key: str = field(repr=False)
    encryption_key: str = field(repr=False)
    """Used only without a vault."""
    vault_url: str
    """"" where there is none: secrets are then in the table storage, encrypted."""
    vault_client_id: str
    """Of the identity for the vault; "" is the app's own."""
    public_url: str
    instance: str
    allow_loopback: bool
    allow_private_hosts: bool
    ca_bundle: str
    defaults: tuple[DefaultConnection, ...]
    tuning: Mapping[str, float]
    hooks: HookSettings = HookSettings()


def load(environ: Mapping[str, str]) -> Settings:
    """Raises Misconfigured that names every wrong setting at once."""
    reader = _Reader(environ)
    storage, allow_loopback = reader.storage(), reader.flag("ALLOW_LOOPBACK")
    vault_url = reader.vault_url(allow_loopback=allow_loopback)
    settings = Settings(
        storage=storage,
        api_key=reader.api_key(),
        encryption_key=reader.encryption_key(),
        vault_url=vault_url,
        vault_client_id=reader.text("AZURE_CLIENT_ID") or reader.text(f"{STORAGE}__clientId"),
        public_url=reader.public_url(),
        instance=reader.instance() or "local",
        allow_loopback=allow_loopback,
        allow_private_hosts=reader.flag("ALLOW_PRIVATE_HOSTS"),
        ca_bundle=reader.text("CA_BUNDLE"),
        defaults=reader.defaults(),
        tuning=reader.tuning(),
        hooks=reader.hooks(),
    )
    if settings.allow_loopback and reader.instance():
        reader.wrong("ALLOW_LOOPBACK", "is for a local hub only; remove it from the app's settings in Azure")
    if reader.errors:
        raise Misconfigured(reader.errors[0].message, errors=reader.errors)
    return settings


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.errors: list[FieldError] = []

    def wrong(self, name: str, what: str) -> None:
        self.errors.append(FieldError(name, f"{name} {what}."))

    def instance(self) -> str:
        """The instance's name in Azure, "" elsewhere. Flex Consumption sets no WEBSITE_INSTANCE_ID but a pod's name."""
        return self.text("WEBSITE_INSTANCE_ID") or self.text("WEBSITE_POD_NAME")

    def text(self, name: str) -> str:
        value = self._environ.get(name, "").strip()
        if value.startswith(VAULT_REFERENCE):
            # The platform passes a reference through as text when it could not resolve it.
            self.wrong(
                name,
                "is a Key Vault reference that the platform did not resolve; check the app's access to it",
            )
            return ""
        return value

    def needed(self, name: str, why: str) -> str:
        value = self.text(name)
        if not value and not any(error.field == name for error in self.errors):
            self.wrong(name, f"is missing; {why}")
        return value

    def flag(self, name: str) -> bool:
        value = self.text(name).lower()
        if value not in ("", "0", "1", "true", "false"):
            self.wrong(name, "is neither true nor false")
        return value in ("1", "true")

    def number(self, name: str) -> float | None:
        value = self.text(name)
        if not value:
            return None
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            self.wrong(name, "is no number above 0")
            return None
        return number

    def tuning(self) -> dict[str, float]:
        values = {name.lower(): self.number(name) for name in _TUNING}
        return {name: value for name, value in values.items() if value is not None}

    def hooks(self) -> HookSettings:
        per_minute, per_source, refused = (self.number(name) for name in _HOOKS)
        origins = tuple(each.strip().lower() for each in self.text(_HOOK_ORIGINS).split(",") if each.strip())
        usual = HookSettings()
        return HookSettings(
            per_minute or usual.per_minute, per_source or usual.per_source, refused or usual.refused, origins
        )

    def api_key(self) -> str:
        key = self.text("HUB_API_KEY")
        if not key:
            self.wrong(
                "HUB_API_KEY", "is missing; make one of at least 32 characters, callers send it as X-API-KEY"
            )
        elif len(key) < MIN_API_KEY:
            self.wrong("HUB_API_KEY", f"is shorter than {MIN_API_KEY} characters")
        return key

    def encryption_key(self) -> str:
        """Not needed where a vault is set, right or wrong: it holds the key."""
        if self._environ.get("KEY_VAULT_URL", "").strip():
            return self.text("INTEGRATION_ENCRYPTION_KEY")
        return self.needed(
            "INTEGRATION_ENCRYPTION_KEY", "it encrypts the secrets of connections (or set KEY_VAULT_URL)"
        )

    def vault_url(self, *, allow_loopback: bool) -> str:
        url = self.text("KEY_VAULT_URL").rstrip("/").lower()
        if url and not _VAULT.fullmatch(url) and not _LOCAL_VAULT.fullmatch(url):
            self.wrong("KEY_VAULT_URL", "is no vault's address such as https://name.vault.azure.net")
        elif _LOCAL_VAULT.fullmatch(url) and not allow_loopback:
            self.wrong("KEY_VAULT_URL", "is a loopback address; that is for a local hub with ALLOW_LOOPBACK")
        return url

    def public_url(self) -> str:
        url = self.text("PUBLIC_URL")
        if url and not url.startswith(("https://", "http://")):
            self.wrong("PUBLIC_URL", "is no address such as https://hub.example.com")
        host = self.text("WEBSITE_HOSTNAME")
        if not url and host:
            local = host.startswith(("localhost", "127.0.0.1"))
            url = f"{'http' if local else 'https'}://{host}"
        return url.rstrip("/")

    def storage(self) -> StorageSettings:
        """By connection string, or by identity with the account's name or the services' addresses."""
        connection_string = self.text(STORAGE)
        parts = {key: self.text(f"{STORAGE}__{key}") for key in _STORAGE_KEYS}
        if connection_string:
            return StorageSettings(connection_string)
        name = parts["accountName"]
        uris = {
            key: parts[key] or (name and f"https://{name}.{key.removesuffix('ServiceUri')}.core.windows.net")
            for key in _STORAGE_URIS
        }
        if not any(uris.values()):
            self.wrong(STORAGE, f"is missing; set it to a connection string, or set {STORAGE}__accountName")
        for key in _STORAGE_URIS:
            if any(uris.values()) and not uris[key]:
                self.wrong(
                    f"{STORAGE}__{key}", f"is missing; set it, or {STORAGE}__accountName instead of all three"
                )
        return StorageSettings(
            "", uris["tableServiceUri"], uris["queueServiceUri"], uris["blobServiceUri"], parts["clientId"]
        )

    def defaults(self) -> tuple[DefaultConnection, ...]:
        found = (self._dynamics(), self._receiver(), self._sender())
        return tuple(each for each in found if each is not None)

    def _receiver(self) -> DefaultConnection | None:
        """The sales app that is told of presences."""
        url, token = (self.text(name) for name in _SALES)
        if not url and not token:
            return None
        if not (url and token):
            self.wrong(
                _SALES[0] if token else _SALES[1], "is missing, though the other one of the two is set"
            )
        return DefaultConnection(RECEIVER, "webhook", {"url": url}, {"token": token}, recipe=RECEIVER)

    def _sender(self) -> DefaultConnection | None:
        """The CRM that tells of presences."""
        token = self.text(_PRESENCES)
        if len(token.split()) > 1:
            self.wrong(_PRESENCES, "has blanks in it; take one without")
        return (
            DefaultConnection(SENDER, "webhook", {}, {"webhook_secret": token}, recipe=SENDER)
            if token
            else None
        )

    def _dynamics(self) -> DefaultConnection | None:
        """From either family of names; both set and different is an error by name."""
        values = {key: self._either(*names) for key, names in _DYNAMICS.items()}
        enabled = self.text(_SYNC_ENABLED).lower()
        if enabled not in ("", "true", "false", "1", "0"):
            self.wrong(_SYNC_ENABLED, "is neither true nor false")
        minutes: int | None = self._interval_minutes()
        if not any(values[key] for key in _REQUIRED):
            return None
        for key in _REQUIRED:
            if not values[key]:
                self.wrong(
                    " or ".join(_DYNAMICS[key]), "is missing, though others of the default connection are set"
                )
        settings = {key: value for key, value in values.items() if value and key != "client_secret"}
        secrets = {"client_secret": values["client_secret"]}
        minutes = None if enabled in ("false", "0") else minutes
        return DefaultConnection(DYNAMICS, "dynamics365", settings, secrets, minutes)

    def _either(self, first: str, second: str) -> str:
        one, other = self.text(first), self.text(second)
        if one and other and _normal(first, one) != _normal(second, other):
            self.wrong(f"{first} and {second}", "are both set and differ; keep one of them")
        return one or other

    def _interval_minutes(self) -> int:
        milliseconds = self.number(_SYNC_INTERVAL)
        if milliseconds is None:
            return 60
        if milliseconds < 60_000:
            self.wrong(
                _SYNC_INTERVAL,
                "is in milliseconds and at least 60000; changes faster than that come by webhooks",
            )
        return max(1, round(milliseconds / 60_000))


def _normal(name: str, value: str) -> str:
    """Values that mean the same compare equal: v9.2 and 9.2, a trailing slash."""
    return value.lower().removeprefix("v") if name.endswith("_VERSION") else value.rstrip("/")
