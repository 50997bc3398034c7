"""The port of secrets on Azure Key Vault, through the public SDK, which it loads when it is first used."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from crm_core.errors import Misconfigured, StoreUnavailable
from crm_core.ports import Clock, count
from crm_core.storage.batch import Missing
from crm_core.storage.clients import RETRIES, Once, transport
from crm_core.storage.secrets import KEY_BYTES, bundle_json, parse_key

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.exceptions import HttpResponseError
    from azure.keyvault.secrets import SecretClient

VAULT_SECONDS = 60.0
"""How long a process uses its copy of a bundle."""
DATA_KEY = "crmhub-data-key"
DATA_KEY_SECONDS = 900.0
"""How long a process uses its copy of the data key."""
SETTLED_SECONDS = 3.0
"""After this nobody else is about to make the first data key (the vault's times are whole seconds)."""
RECOVER_SECONDS, RECOVER_TRIES = 2.0, 5
_VAULT_NAME = re.compile(r"[0-9A-Za-z-]{1,100}")


class AzureSecrets:
    """`Secrets` on Azure Key Vault, and the data key of the `Cipher`. Raises StoreUnavailable and Misconfigured.

    A bundle is one secret: a JSON object that a person may also change there. Role: Key Vault Secrets Officer. A
    deleted bundle stays in the vault, recoverable, for as long as the vault's soft delete says.
    (Microsoft Learn, "About Azure Key Vault secrets" and "Azure Key Vault soft-delete overview".)
    """

    def __init__(
        self, url: str, credential: "Callable[[], TokenCredential]", clock: Clock, *, ca_bundle: str = ""
    ) -> None:
        """Calls nobody. `url`: of the vault; `credential` is called once, on first use."""
        self._url = url
        self._credential = credential
        self._clock = clock
        self._ca_bundle = ca_bundle
        self._client = Once(self._connect)
        self._copies: dict[str, tuple[Mapping[str, str], float]] = {}
        self._key: tuple[str, bytes, float] | None = None

    def _connect(self) -> "_Vault":
        from azure.keyvault.secrets import SecretClient

        credential, over = self._credential(), transport(self._ca_bundle)
        # A vault says for which resource it wants a token, and the SDK compares that with the vault's domain.
        # A local one has no such domain.
        local = urlsplit(self._url).hostname in {"localhost", "127.0.0.1", "::1"}
        client = SecretClient(
            self._url,
            credential,
            transport=over,
            retry_total=RETRIES,
            verify_challenge_resource=not local,
        )
        return _Vault(client, credential)

    def close(self) -> None:
        self._client.close()

    def get(self, tenant: str, name: str) -> Mapping[str, str] | None:
        """From this process's copy if it is at most 60 s old."""
        secret = _secret_name(tenant, name)
        copy = self._copies.get(secret)
        if copy is not None and self._clock.monotonic() < copy[1]:
            count("secrets_from_memory", connection=name)
            return copy[0]
        count("secrets_asked", connection=name)
        try:
            with _vault_call(f"get of the secret {secret}"):
                text = self._client.get().secrets.get_secret(secret).value or ""
        except Missing:
            self._copies.pop(secret, None)
            return None
        return self._keep(secret, _read_bundle(secret, text))

    def _keep(self, secret: str, bundle: Mapping[str, str]) -> Mapping[str, str]:
        kept = MappingProxyType(dict(bundle))
        self._copies[secret] = (kept, self._clock.monotonic() + VAULT_SECONDS)
        return kept

    def put(self, tenant: str, name: str, bundle: Mapping[str, str]) -> str:
        """Also over a secret of this name that was deleted and that the vault still keeps: it is recovered first."""
        secret = _secret_name(tenant, name)
        tags = {"tenant": tenant, "connection": name}
        version = self._set(secret, bundle_json(bundle), content_type="application/json", tags=tags)
        self._keep(secret, bundle)
        return version

    def _set(self, secret: str, text: str, **more: Any) -> str:
        client = self._client.get().secrets
        for attempt in range(1, RECOVER_TRIES + 1):
            try:
                with _vault_call(f"set of the secret {secret}"):
                    return client.set_secret(secret, text, **more).properties.version or ""
            except _Kept:
                if attempt == RECOVER_TRIES:
                    raise
            with suppress(Missing, _Kept), _vault_call(f"recovery of the secret {secret}"):
                client.begin_recover_deleted_secret(secret)
            self._clock.sleep(RECOVER_SECONDS)
        raise AssertionError

    def delete(self, tenant: str, name: str) -> None:
        secret = _secret_name(tenant, name)
        self._copies.pop(secret, None)
        with suppress(Missing), _vault_call(f"deletion of the secret {secret}"):
            self._client.get().secrets.begin_delete_secret(secret)

    def invalidate(self, tenant: str, name: str) -> None:
        """The next `get` asks the vault."""
        self._copies.pop(_secret_name(tenant, name), None)

    # --- the data key --------------------------------------------------------------------------------------------

    def data_key(self) -> bytes:
        """The 32 bytes of the data key: its oldest version that is enabled; made if there is none.

        The oldest, so that instances that make it at once end with the same one. To change it, add a version and
        disable the older ones; what the old key has encrypted is then as good as gone.
        """
        key = self._key
        if key is not None and self._clock.monotonic() < key[2]:
            return key[1]
        try:
            version = self._first_version()
            data = key[1] if key is not None and key[0] == version else self._read_key(version)
        except StoreUnavailable:
            if key is None:
                raise
            version, data, _ = key  # a vault that is away for a while stops nobody
        self._key = (version, data, self._clock.monotonic() + DATA_KEY_SECONDS)
        return data

    def _read_key(self, version: str) -> bytes:
        try:
            with _vault_call(f"get of the secret {DATA_KEY}"):
                text = self._client.get().secrets.get_secret(DATA_KEY, version).value or ""
        except Missing:
            raise StoreUnavailable(f"the secret {DATA_KEY} is being changed") from None
        return parse_key(text, f"The secret {DATA_KEY}")

    def _first_version(self) -> str:
        """Waits while another instance may be about to make an older one."""
        for _ in range(3):
            versions = self._key_versions()
            now = self._clock.now().timestamp()
            if versions and now - versions[0][0] >= SETTLED_SECONDS:
                break
            if not versions:
                self._set(DATA_KEY, os.urandom(KEY_BYTES).hex())
            self._clock.sleep(SETTLED_SECONDS)
        else:
            versions = self._key_versions()
        if not versions:
            raise StoreUnavailable(f"the secret {DATA_KEY} is being made")
        return versions[0][1]

    def _key_versions(self) -> list[tuple[float, str]]:
        """(when it was made, version) of those that are enabled, oldest first."""
        try:
            with _vault_call(f"list of the versions of the secret {DATA_KEY}"):
                found = list(self._client.get().secrets.list_properties_of_secret_versions(DATA_KEY))
        except Missing:
            return []
        return sorted(
            (each.created_on.timestamp() if each.created_on else 0.0, each.version or "")
            for each in found
            if each.enabled
        )


@dataclass(frozen=True)
class _Vault:
    """The client with its credential, which it does not close by itself."""

    secrets: "SecretClient"
    credential: "TokenCredential"

    def close(self) -> None:
        self.secrets.close()
        close: Callable[[], None] | None = getattr(self.credential, "close", None)
        if close is not None:
            close()


class _Kept(StoreUnavailable):
    """The vault keeps a deleted secret of this name, or is busy deleting or recovering it."""


def _secret_name(tenant: str, name: str) -> str:
    """Key Vault's names have letters of either case alike, digits and dashes; the digest tells everything else."""
    if not _VAULT_NAME.fullmatch(name):
        raise ValueError("the name of a bundle has letters, digits and dashes")
    digest = hashlib.sha256(f"{tenant}\x1f{name}".encode()).hexdigest()[:8]
    return f"crmhub-{name}-{digest}"


def _read_bundle(secret: str, text: str) -> dict[str, str]:
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise Misconfigured(
            f"The secret {secret} in the vault is no JSON object of texts; save the connection's secrets again."
        )
    return data


@contextmanager
def _vault_call(what: str) -> Iterator[None]:
    """Counts one call to the vault and turns the SDK's errors into ours; their messages are not repeated."""
    from azure.core.exceptions import AzureError, HttpResponseError

    count("vault_calls")
    try:
        yield
    except HttpResponseError as error:
        raise _vault_refusal(error, what) from None
    except AzureError as error:
        raise StoreUnavailable(f"{what}: {type(error).__name__}") from None
    except ValueError:  # the SDK's check of what the vault says about itself, or an answer that is no JSON
        raise Misconfigured(f"{what}: what answers at KEY_VAULT_URL is no vault.") from None


def _vault_refusal(error: "HttpResponseError", what: str) -> Exception:
    from azure.core.exceptions import ClientAuthenticationError

    told = error.error
    inner = (told.innererror or {}).get("code", "") if told else ""
    reason = f"{what}: {error.status_code or type(error).__name__} {inner}".rstrip()
    if error.status_code == 404:
        return Missing(reason)
    if error.status_code == 409:
        return _Kept(
            f"{reason}. The vault still keeps a deleted secret of this name: recover or purge it there."
        )
    if inner == "SecretDisabled":
        return Misconfigured(f"{reason}. Enable the secret in the vault.")
    if error.status_code == 403:
        return Misconfigured(
            f'{reason}. Give the identity of the hub the role "Key Vault Secrets Officer" at the vault, and let its'
            " network in."
        )
    if isinstance(error, ClientAuthenticationError):  # a 401, or there was no token to send
        return Misconfigured(
            f"{reason}. The vault takes no token of the hub: check that the app has its managed identity, in the"
            " vault's tenant, and the client id."
        )
    return StoreUnavailable(reason)
