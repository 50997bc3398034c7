"""Secrets at rest: one cipher, the local bundle store and the cache of tokens. (`azure.py` has the vault.)

A ciphertext is bound to its tenant and name, so a row can't be put in another's place.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from crm_core.errors import BadRequest, Misconfigured
from crm_core.model.record import SCHEMA_VERSION
from crm_core.ports import Row, RowChanged, RowExists, Table
from crm_core.storage import layout

KEY_BYTES = 32
NONCE_BYTES = 12
MAX_BUNDLE_BYTES = 24_000
"""Of a bundle as JSON: a secret of Key Vault holds 25,600 bytes (Key Vault service limits), a property of a table
row 64 KiB of UTF-16, which are 24,500 bytes once they are encrypted.
"""


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


def bundle_json(bundle: Mapping[str, str]) -> str:
    """A bundle as it is kept. Raises BadRequest for one that is too large, naming its longest secret."""
    text = json.dumps(dict(bundle))
    if len(text) > MAX_BUNDLE_BYTES:  # JSON in ASCII: a character is a byte
        longest = max(bundle, key=lambda name: len(bundle[name]))
        raise BadRequest.field(
            f"secrets.{longest}",
            f"secrets.{longest}: is too long; the secrets of a connection take {MAX_BUNDLE_BYTES} bytes together,"
            f" these are {len(text)}.",
        )
    return text


class Cipher:
    """AES-256-GCM. `key`: 32 bytes, or who gives them when they are first needed. No repr shows the key."""

    def __init__(self, key: bytes | Callable[[], bytes]) -> None:
        self._key: Callable[[], bytes] = (lambda: key) if isinstance(key, bytes) else key

    def __repr__(self) -> str:
        return "Cipher()"

    @property
    def key_id(self) -> str:
        return _key_id(self._key())

    def seal(self, data: bytes, *about: str) -> str:
        """Text that only `open` with the same `about` reads."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce, key = os.urandom(NONCE_BYTES), self._key()
        sealed = AESGCM(key).encrypt(nonce, data, _about(about))
        return f"1.{_key_id(key)}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *about: str) -> bytes:
        """Raises ValueError if it was sealed with another key, for something else, or was changed."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            version, key_id, body = sealed.split(".")
            raw = base64.urlsafe_b64decode(body)
        except ValueError:
            raise ValueError("not a sealed text") from None
        key = self._key()
        if version != "1" or key_id != _key_id(key):
            raise ValueError(f"sealed with another key ({key_id}), this one is {_key_id(key)}")
        try:
            return AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _about(about))
        except InvalidTag:
            raise ValueError("the sealed text was changed, or belongs elsewhere") from None


def _key_id(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:8]


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
        sealed = self._cipher.seal(bundle_json(bundle).encode(), tenant, name, "bundle")
        row = Row(tenant, f"bundle~{name}", {"v": SCHEMA_VERSION, "sealed": sealed})
        return self._table.upsert(layout.SECRETS, row)

    def delete(self, tenant: str, name: str) -> None:
        self._table.delete(layout.SECRETS, tenant, f"bundle~{name}")

    def invalidate(self, tenant: str, name: str) -> None:
        """Nothing to do: no copies are kept."""


class StoredTokens:
    """Access tokens, encrypted, shared by all instances. A token that can't be read is as good as none."""

    def __init__(self, table: Table, cipher: Cipher) -> None:
        self._table = table
        self._cipher = cipher

    def get(self, tenant: str, uid: str) -> tuple[str, float] | None:
        row = self._table.get(layout.SECRETS, tenant, _token_rk(uid))
        if row is None or not row.values["sealed"]:
            return None
        try:
            data = json.loads(self._cipher.open(str(row.values["sealed"]), tenant, uid, "token"))
        except ValueError:
            return None
        return str(data["token"]), float(data["expires"])

    def put(self, tenant: str, uid: str, token: str, expires: float) -> None:
        data = json.dumps({"token": token, "expires": expires}).encode()
        sealed = self._cipher.seal(data, tenant, uid, "token")
        # Without "claimed": the row is written anew.
        self._table.upsert(
            layout.SECRETS, Row(tenant, _token_rk(uid), {"v": SCHEMA_VERSION, "sealed": sealed})
        )

    def claim(self, tenant: str, uid: str, now: float, seconds: float) -> str:
        """As `TokenStore` says; the claim is a time in the token's row, set under its ETag."""
        row = self._table.get(layout.SECRETS, tenant, _token_rk(uid))
        try:
            if row is None:
                fresh = Row(tenant, _token_rk(uid), {"v": SCHEMA_VERSION, "sealed": ""})
                return self._table.insert(layout.SECRETS, fresh.with_values(claimed=now + seconds))
            # One that ends later than any could is of a clock that is wrong.
            if now < float(row.values.get("claimed", 0.0)) <= now + 2 * seconds:
                return ""
            return self._table.replace(layout.SECRETS, row.with_values(claimed=now + seconds), row.etag)
        except (RowExists, RowChanged):
            return ""

    def release(self, tenant: str, uid: str, claim: str) -> None:
        """A claim that another instance has taken over, or a token that came, stays."""
        row = self._table.get(layout.SECRETS, tenant, _token_rk(uid))
        if row is not None and row.etag == claim:
            with suppress(RowChanged):
                self._table.replace(layout.SECRETS, row.with_values(claimed=0.0), claim)

    def drop(self, tenant: str, uid: str) -> None:
        self._table.delete(layout.SECRETS, tenant, _token_rk(uid))


def _token_rk(uid: str) -> str:
    return f"token~{uid}"
