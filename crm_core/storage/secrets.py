"""Secrets at rest: one cipher, the local bundle store and the cache of tokens.

A ciphertext is bound to its tenant and name, so a row can't be put in another's place.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping

from crm_core.errors import Misconfigured
from crm_core.model.record import SCHEMA_VERSION
from crm_core.ports import Row, Table
from crm_core.storage import layout

KEY_BYTES = 32
NONCE_BYTES = 12


def parse_key(text: str, setting: str) -> bytes:
    """The 32 bytes of a key: 32 ASCII characters as they are, or 32 bytes in base64 or hex.

    Raises Misconfigured that names the setting and never shows the value.
    """
    candidates: list[bytes] = []
    if len(text) == KEY_BYTES and text.isascii():
        candidates.append(text.encode())
    if len(text) == 2 * KEY_BYTES:
        try:
            candidates.append(bytes.fromhex(text))
        except ValueError:
            candidates.clear()
    if not candidates:
        try:
            candidates.append(base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True))
        except (binascii.Error, ValueError):
            candidates.clear()
    for candidate in candidates:
        if len(candidate) == KEY_BYTES:
            return candidate
    raise Misconfigured(
        f"{setting} is wrong: expected exactly 32 characters, or 32 bytes in base64 or hex. "
        'Make one with: python -c "import secrets; print(secrets.token_hex(32))"'
    )


class Cipher:
    """AES-256-GCM. Its repr shows the key's id only."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.key_id = hashlib.sha256(key).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Cipher(key_id={self.key_id!r})"

    def seal(self, data: bytes, *about: str) -> str:
        """Text that only `open` with the same `about` reads."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(self._key).encrypt(nonce, data, _about(about))
        return f"1.{self.key_id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *about: str) -> bytes:
        """Raises ValueError if it was sealed with another key, for something else, or was changed."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            version, key_id, body = sealed.split(".")
            raw = base64.urlsafe_b64decode(body)
        except ValueError:
            raise ValueError("not a sealed text") from None
        if version != "1" or key_id != self.key_id:
            raise ValueError(f"sealed with another key ({key_id}), this one is {self.key_id}")
        try:
            return AESGCM(self._key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _about(about))
        except InvalidTag:
            raise ValueError("the sealed text was changed, or belongs elsewhere") from None


def _about(parts: tuple[str, ...]) -> bytes:
    return "\x1f".join(parts).encode()


class LocalSecrets:
    """The bundles of secrets in the table `secrets`, for where there is no vault."""

    def __init__(self, table: Table, cipher: Cipher) -> None:
        self._table = table
        self._cipher = cipher

    def get(self, tenant: str, name: str) -> Mapping[str, str] | None:
        row = self._table.get(layout.SECRETS, tenant, f"bundle~{name}")
        if row is None:
            return None
        try:
            data: dict[str, str] = json.loads(
                self._cipher.open(str(row.values["sealed"]), tenant, name, "bundle")
            )
        except ValueError as error:
            raise Misconfigured(
                f"The secrets of connection {name} can't be read: {error}. Restore INTEGRATION_ENCRYPTION_KEY, "
                "or save the connection's secrets again."
            ) from None
        return data

    def put(self, tenant: str, name: str, bundle: Mapping[str, str]) -> str:
        data = json.dumps(dict(bundle)).encode()
        sealed = self._cipher.seal(data, tenant, name, "bundle")
        row = Row(tenant, f"bundle~{name}", {"v": SCHEMA_VERSION, "sealed": sealed})
        return self._table.upsert(layout.SECRETS, row)

    def delete(self, tenant: str, name: str) -> None:
        for kind in ("bundle", "token"):
            self._table.delete(layout.SECRETS, tenant, f"{kind}~{name}")


class StoredTokens:
    """Access tokens, encrypted, shared by all instances. A token that can't be read is as good as none."""

    def __init__(self, table: Table, cipher: Cipher) -> None:
        self._table = table
        self._cipher = cipher

    def get(self, tenant: str, uid: str) -> tuple[str, float] | None:
        row = self._table.get(layout.SECRETS, tenant, f"token~{uid}")
        if row is None:
            return None
        try:
            data = json.loads(self._cipher.open(str(row.values["sealed"]), tenant, uid, "token"))
        except ValueError:
            return None
        return str(data["token"]), float(data["expires"])

    def put(self, tenant: str, uid: str, token: str, expires: float) -> None:
        data = json.dumps({"token": token, "expires": expires}).encode()
        sealed = self._cipher.seal(data, tenant, uid, "token")
        self._table.upsert(
            layout.SECRETS, Row(tenant, f"token~{uid}", {"v": SCHEMA_VERSION, "sealed": sealed})
        )
