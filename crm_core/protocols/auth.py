"""How a connection proves who it is. `msal` is imported with the first token request."""

import base64
import copy
import hashlib
import json
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from crm_core.connector import Account, Answer, Request, TokenFacts, Tools
from crm_core.errors import (
    AuthFailed,
    BadAnswer,
    FieldError,
    HubError,
    Misconfigured,
    StoreUnavailable,
    Unavailable,
    VendorError,
)
from crm_core.log import Log, plain
from crm_core.ports import count
from crm_core.protocols.guard import Origins, origin_of, same_origin
from crm_core.protocols.rest import explain_status, redact

_log = Log("crm_core.auth")

RENEW_SECONDS = 300.0
"""A token is renewed this long before it ends (or after half its life, if that is later)."""
TOKEN_REQUEST_SECONDS = 15.0
CLAIM_SECONDS = 10.0
"""How long the other instances of the hub leave the asking to one of them; after that they ask themselves."""
POLL_SECONDS = 0.25
MAX_REJECTED = 8

# Microsoft Learn, "Microsoft Entra authentication and authorization error codes".
REMEDIES = {
    "7000215": "Enter the secret's value, not its id.",
    "7000222": "The secret has expired: create a new one.",
    "700016": "The application is not in this tenant: check client id and tenant id.",
    "700027": "The certificate is not one of the application's, or has ended: upload its public part there.",
    "90002": "There is no such tenant: check the tenant id.",
    "500011": "The environment's address is not known in this tenant: check it.",
}


class Auth(Protocol):
    """The credentials of one connection as headers."""

    def headers(self, force: bool = False, rejected: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """`force`: those in `rejected` (default: the current ones) were refused, others are needed; the same
        ones back mean that there are none. Raises AuthFailed, Unavailable, RateLimited, Misconfigured.
        """
        ...

    def asked(self) -> bool:
        """Whether the current credentials are this process's own latest: nobody has newer ones."""
        ...

    def invalidate(self) -> None:
        """The current credentials were refused: never use them again."""
        ...

    def facts(self, *, fresh: bool = False) -> TokenFacts | None:
        """Of the token that `headers` gives, or with `fresh` of a new one; None if there are no tokens."""
        ...


class Lasting:
    """Credentials that every call bears as they are, such as an API key: there are no others, and none to ask for."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def headers(self, force: bool = False, rejected: Mapping[str, str] | None = None) -> Mapping[str, str]:  # noqa: ARG002
        return self._headers

    def asked(self) -> bool:
        return True

    def invalidate(self) -> None:
        """A person gives another one."""

    def facts(self, *, fresh: bool = False) -> TokenFacts | None:  # noqa: ARG002  # as `Auth` has it
        return None


@dataclass(frozen=True)
class _Token:
    text: str = field(repr=False)
    renew_at: float
    expires: float
    """Epoch seconds, both."""
    asked: bool = False
    """By this process; others were left in the store by another."""


class _Tokens(ABC):
    """The tokens of one connection: looked for in memory, then in the token store, then asked for.

    One request at a time, however many threads and instances of the hub need one.
    """

    def __init__(self, account: Account, tools: Tools, system: str, audience: str, *told: str) -> None:
        """`audience`: whom the token is for; `told`: everything else that it depends on, secrets too."""
        self._account = account
        self._tools = tools
        self._system = system
        self._audience = audience
        # Marks a stored token as asked for with exactly these credentials: after a change of the secret
        # a test must prove the new one, not live on a token of the old.
        self._mark = hashlib.sha256("\n".join((*told, audience)).encode()).hexdigest()[:16]
        self._lock = threading.Lock()
        self._held: _Token | None = None
        self._rejected: tuple[str, ...] = ()
        self._failures = 0
        self._failure: HubError | None = None

    @abstractmethod
    def _request(self) -> Mapping[str, Any]:
        """A new token as msal gives it. Raises as `Auth.headers`."""

    def headers(self, force: bool = False, rejected: Mapping[str, str] | None = None) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._current(force, rejected).text}"}

    def facts(self, *, fresh: bool = False) -> TokenFacts:
        if fresh:
            with self._lock:
                token = self._held = self._asked()
        else:
            token = self._current(force=False, rejected=None)
        fingerprint = hashlib.sha256(token.text.encode()).hexdigest()[:16]
        return TokenFacts(
            _audience(token.text) or self._audience.removesuffix("/.default"),
            token.expires,
            token.renew_at,
            fingerprint,
        )

    def _current(self, force: bool, rejected: Mapping[str, str] | None) -> _Token:
        """As `headers` says."""
        held = self._held
        if not force and held is not None and self._good(held):
            count("tokens_from_memory", connection=self._account.uid)
            return held
        refused = ""
        if force:
            refused = rejected.get("Authorization", "").removeprefix("Bearer ") if rejected else ""
            refused = refused or (held.text if held else "")
        seen = self._failures
        with self._lock:
            self._refuse(refused)
            held = self._held
            if held is None or not self._good(held):
                if self._failure is not None and self._failures != seen:
                    # Another thread asked while this one waited: its failure is ours. A copy, because
                    # every raise adds to an exception's traceback.
                    raise copy.copy(self._failure)
                held = self._held = self._stored() or self._claimed()
            return held

    def asked(self) -> bool:
        held = self._held
        return held is None or held.asked

    def invalidate(self) -> None:
        with self._lock:
            self._refuse(self._held.text if self._held else "")
            self._held = None

    def _refuse(self, text: str) -> None:
        if text and text not in self._rejected:
            _log.warning("token", outcome="rejected", connection=self._account.uid, audience=self._audience)
            # Replaced, never changed: `_good` reads it without the lock.
            self._rejected = (*self._rejected, text)[-MAX_REJECTED:]

    def _good(self, token: _Token) -> bool:
        return token.text not in self._rejected and self._tools.clock.now().timestamp() < token.renew_at

    def _stored(self) -> _Token | None:
        """The token that another instance of the hub left, if it is good."""
        found = self._tools.tokens.get(self._account.tenant, self._account.uid)
        if found is None:
            return None
        mark, _, text = found[0].partition(" ")
        token = _Token(text, found[1] - RENEW_SECONDS, found[1])
        if mark != self._mark or not self._good(token):
            return None
        count("tokens_from_store", connection=self._account.uid)
        self._got("shared", found[1] - self._tools.clock.now().timestamp())
        return token

    def _claimed(self) -> _Token:
        """The token that another instance is just asking for, or a new one. The lock is held."""
        clock, name = self._tools.clock, (self._account.tenant, self._account.uid)
        give_up = clock.monotonic() + CLAIM_SECONDS
        claim = self._claim()
        while not claim and clock.monotonic() < give_up:
            clock.sleep(POLL_SECONDS)
            found = self._stored()
            if found is not None:
                return found
            claim = self._claim()
        try:
            # Between our look and our claim another instance may have come and gone.
            found = self._stored() if claim else None
            if found is None:
                return self._asked()
        except BaseException:
            # The others need not wait for one that failed.
            self._release(name, claim)
            raise
        self._release(name, claim)
        return found

    def _release(self, name: tuple[str, str], claim: str) -> None:
        if claim:
            with suppress(StoreUnavailable):
                self._tools.tokens.release(*name, claim)

    def _claim(self) -> str:
        now = self._tools.clock.now().timestamp()
        try:
            return self._tools.tokens.claim(self._account.tenant, self._account.uid, now, CLAIM_SECONDS)
        except StoreUnavailable:
            return "nobody's"  # a second call for a token is better than none

    def _asked(self) -> _Token:
        """A new token from the authority, also put into the store. The lock is held."""
        count("tokens_asked", connection=self._account.uid)
        try:
            text, seconds = self._read(self._request())
        except HubError as error:
            self._failure, self._failures = error, self._failures + 1
            self._not_got(error)
            raise
        self._failure = None
        self._got("renewed" if self._held or self._rejected else "new", seconds)
        if text in self._rejected:
            # The authority insists on it; asking on every call would not help.
            self._rejected = tuple(each for each in self._rejected if each != text)
        now = self._tools.clock.now().timestamp()
        try:
            self._tools.tokens.put(
                self._account.tenant, self._account.uid, f"{self._mark} {text}", now + seconds
            )
        except (StoreUnavailable, Misconfigured) as error:
            _log.warning("token not kept", connection=self._account.uid, error=error.code)
        return _Token(text, now + seconds - min(RENEW_SECONDS, seconds / 2), now + seconds, asked=True)

    def _got(self, outcome: str, seconds: float) -> None:
        _log.info(
            "token",
            outcome=outcome,
            connection=self._account.uid,
            audience=self._audience,
            expires_in=round(seconds),
        )

    def _not_got(self, error: HubError) -> None:
        vendor = error if isinstance(error, VendorError) else None
        _log.warning(
            "token",
            outcome="refused",
            connection=self._account.uid,
            audience=self._audience,
            error=error.code,
            status=vendor.vendor_status if vendor else None,
            vendor_code=plain(vendor.vendor_code) if vendor else "",
            request_id=vendor.request_id if vendor else "",
        )

    def _read(self, result: Mapping[str, Any]) -> tuple[str, float]:
        """(token, lifetime in seconds); raises BadAnswer if they can't be used."""
        text, seconds = result.get("access_token"), result.get("expires_in")
        if (
            not isinstance(text, str)
            or not re.fullmatch(r"[\x21-\x7e]+", text)
            or not isinstance(seconds, int | float)
            or not 0 < seconds < 1e9
        ):
            raise BadAnswer("The token answer has no usable token or lifetime.", system=self._system)
        return text, float(seconds)


@dataclass(frozen=True)
class Certificate:
    """A client's certificate with its private key, as msal takes them. `parse` makes one."""

    private_key: str = field(repr=False)
    chain: str = field(repr=False)
    """PEM, the client's own certificate first."""
    passphrase: str = field(default="", repr=False)

    @classmethod
    def parse(cls, pem: str, passphrase: str, name: str) -> "Certificate":
        """From PEM text with one RSA private key and its certificate (others of the chain may follow).

        Raises Misconfigured that names the field `name`, or `name`_passphrase, and shows nothing of the text.
        """
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        keys = re.findall(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----", pem, re.DOTALL
        )
        texts = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)
        if len(keys) != 1 or not texts:
            raise _wrong(name, "expected PEM text with one private key and its certificate")
        if "ENCRYPTED" in keys[0] and not passphrase:
            raise _wrong(f"{name}_passphrase", "is missing; the private key is encrypted")
        try:
            # msal knows no passphrase for a key that needs none.
            used = passphrase if "ENCRYPTED" in keys[0] else ""
            key = load_pem_private_key(keys[0].encode(), used.encode() or None)
            publics = [x509.load_pem_x509_certificate(text.encode()).public_key() for text in texts]
        except (ValueError, TypeError, UnsupportedAlgorithm):
            reason = "the private key or the certificate can't be read"
            raise _wrong(name, f"{reason}; check the passphrase too" if passphrase else reason) from None
        if not isinstance(key, RSAPrivateKey):
            raise _wrong(name, "the private key is no RSA key; Microsoft Entra takes RSA")
        own = [text for text, public in zip(texts, publics, strict=True) if public == key.public_key()]
        if not own:
            raise _wrong(name, "the certificate belongs to another private key")
        return cls(keys[0], "\n".join([*own, *(text for text in texts if text not in own)]), used)


def _wrong(name: str, what: str) -> Misconfigured:
    message = f"{name}: {what}."
    return Misconfigured(message, errors=[FieldError(name, message)])


class ClientCredentials(_Tokens):
    """Tokens of Microsoft Entra for an application with a secret or certificate (OAuth 2.0 client credentials).

    `authority`: such as https://login.microsoftonline.com; `origins`: where the secret may go.
    """

    def __init__(
        self,
        account: Account,
        tools: Tools,
        *,
        authority: str,
        tenant_id: str,
        client_id: str,
        client_secret: str = "",
        certificate: Certificate | None = None,
        scope: str,
        origins: Origins,
        system: str = "",
    ) -> None:
        """Calls nobody. Raises Misconfigured for a missing part, a shared tenant name or a strange authority."""
        proof = certificate.private_key + certificate.chain if certificate else client_secret
        named = {"tenant id": tenant_id, "client id": client_id, "client secret": proof}
        for name, value in named.items():
            if not value:
                raise Misconfigured(f"The connection has no {name}.")
        if tenant_id.lower() in {"common", "organizations", "consumers"}:
            raise Misconfigured(
                f"The tenant id '{tenant_id}' names no tenant; enter the one of the organisation."
            )
        origins.check(authority)
        self._authority = f"{origin_of(authority)}/{quote(tenant_id, safe='')}"
        super().__init__(account, tools, system, scope, self._authority, client_id, proof)
        self._client_id = client_id
        self._credential: Any = client_secret
        if certificate is not None:
            self._credential = {
                "private_key": certificate.private_key,
                "public_certificate": certificate.chain,
                "passphrase": certificate.passphrase,
            }
        self._scope = scope
        self._secrets = tuple(each for each in {client_secret, *account.secrets.values()} if each)
        self._http = _MsalHttp(tools, self._authority, account.uid, self._secrets)
        self._app: Any = None

    def __repr__(self) -> str:
        return f"ClientCredentials({self._authority}, client_id={self._client_id})"

    def _request(self) -> Mapping[str, Any]:
        """What msal makes of the token endpoint's answer. Raises as `Auth.headers`."""
        import msal  # type: ignore[import-untyped]  # msal ships no types

        self._http.cache.clear()
        self._http.last = None
        try:
            if self._app is None:
                self._app = msal.ConfidentialClientApplication(
                    self._client_id,
                    client_credential=self._credential,
                    authority=self._authority,
                    instance_discovery=False,  # the authority was judged by `origins`
                    azure_region=False,  # or msal looks into the environment
                    http_client=self._http,
                    http_cache=self._http.cache,
                )
            # msal's own memory would give back the token that was just refused.
            self._app.remove_tokens_for_client()
            result: Mapping[str, Any] = self._app.acquire_token_for_client([self._scope])
        except (ValueError, KeyError, TypeError, AttributeError):
            # msal takes the types of an answer for granted, and its texts quote it; what was answered is
            # known here.
            result = {}
        if "access_token" in result:
            return result
        raise self._refusal(self._http.last)

    def _refusal(self, answer: Answer | None) -> HubError:
        """The error in a refusing answer of the token endpoint."""
        if answer is None or answer.status < 400:
            return BadAnswer("The authority's answer is not one of a token endpoint.", system=self._system)
        told = answer.json()  # an object: checked when it came
        lines = str(told.get("error_description") or told.get("error") or "").splitlines()
        line = lines[0] if lines else "The authority gives no reason."
        code = re.search(r"AADSTS(\d+)", line)
        number = code[1] if code else ""
        remedy = REMEDIES.get(number, "")
        message = redact(line, self._secrets)
        return AuthFailed(
            f"{message} {remedy}".strip(),
            system=self._system,
            vendor_status=answer.status,
            vendor_code=number or redact(str(told.get("error", "")), self._secrets)[:100],
            request_id=re.sub(r"[^\w-]", "", str(told.get("trace_id", "")))[:80],
        )


class ManagedIdentity(_Tokens):
    """Tokens for the identity that the platform gives to the app; `client_id` names one that a person made.

    Its endpoint comes from the platform's environment, which msal reads itself: no connection can name it, so
    the guard of outbound addresses has no say. (Microsoft Learn, "How to use managed identities for App Service":
    the resource is the address without /.default.)
    """

    def __init__(
        self, account: Account, tools: Tools, *, resource: str, client_id: str = "", system: str = ""
    ) -> None:
        """Calls nobody."""
        super().__init__(account, tools, system, resource, "managed identity", client_id)
        self._resource = resource
        self._client_id = client_id

    def __repr__(self) -> str:
        return f"ManagedIdentity({self._resource}, client_id={self._client_id})"

    def _request(self) -> Mapping[str, Any]:
        import msal

        identity = (
            msal.UserAssignedManagedIdentity(client_id=self._client_id)
            if self._client_id
            else msal.SystemAssignedManagedIdentity()
        )
        http = _IdentityHttp()
        try:
            # Made anew each time: msal's own memory would give back the token that was just refused.
            client = msal.ManagedIdentityClient(identity, http_client=http)
            result: Mapping[str, Any] = client.acquire_token_for_client(resource=self._resource)
        except (ValueError, KeyError, TypeError, AttributeError):
            result = {}  # as with ClientCredentials
        finally:
            http.close()
        if "access_token" in result:
            return result
        raise AuthFailed(
            f"The platform's identity endpoint gives no token for {self._resource} (status {http.status}): check that"
            " the app has this managed identity, and its client id.",
            system=self._system,
            vendor_status=http.status,
        )


class _IdentityHttp:
    """msal's way to the platform's identity endpoint. Raises Unavailable and BadAnswer."""

    def __init__(self) -> None:
        import requests

        self._session = requests.Session()
        self._session.trust_env = False  # a proxy must not see the platform's header
        self.status: int | None = None

    def get(
        self, url: str, params: Any = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> "_MsalResponse":
        import requests

        try:
            found = self._session.get(
                url, params=params, headers=headers, timeout=TOKEN_REQUEST_SECONDS, allow_redirects=False
            )
        except requests.RequestException:
            # Its text and the request in it hold the platform's header.
            failure = Unavailable(
                "The platform's identity endpoint does not answer; has the app a managed identity?"
            )
        else:
            self.status = found.status_code
            if found.status_code < 500 and found.status_code != 429:
                answer = Answer(found.status_code, dict(found.headers), found.content)
                _check_object(answer)
                return _MsalResponse(answer)
            failure = Unavailable(
                f"The platform's identity endpoint answered {found.status_code}; it does so for an address that Entra"
                " does not know, too.",
                vendor_status=found.status_code,
            )
        raise failure

    def close(self) -> None:
        self._session.close()


class _MsalResponse:
    """What msal reads of an answer."""

    def __init__(self, answer: Answer) -> None:
        self.status_code = answer.status
        self.text = answer.body.decode("utf-8", "replace")
        self.headers = dict(answer.headers)

    def raise_for_status(self) -> None:
        """Nothing to do: what msal would raise for was raised before."""


class _MsalHttp:
    """msal's way to the authority: through the hub's transport, to the authority's origin only.

    Raises Unavailable and RateLimited itself, because msal tells them by exceptions of all kinds. `cache`: what
    msal keeps of answers; emptied before each token request, because the hub has its own rules for trying again.
    """

    def __init__(self, tools: Tools, authority: str, connection: str, secrets: tuple[str, ...]) -> None:
        self._tools = tools
        self._authority = authority
        self._connection = connection
        self._secrets = secrets
        self.last: Answer | None = None
        self.cache: dict[str, Any] = {}

    def get(
        self, url: str, params: Any = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> _MsalResponse:
        return self._send("GET", url, params, headers, None)

    def post(
        self,
        url: str,
        params: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> _MsalResponse:
        body = data if isinstance(data, str) else urlencode(data or {})
        typed = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self._send("POST", url, params, typed, body.encode())

    def close(self) -> None:
        """The transport is the hub's."""

    def _send(
        self, method: str, url: str, params: Any, headers: Mapping[str, str] | None, body: bytes | None
    ) -> _MsalResponse:
        self.last = None
        if not same_origin(url, self._authority):
            # A discovery document could name any token endpoint.
            raise BadAnswer("The authority names an endpoint at another origin; the secret isn't sent there.")
        if params:
            url += ("&" if "?" in url else "?") + urlencode(params)
        named = {name: str(value) for name, value in (headers or {}).items()}
        request = Request(method, url, named, body, timeout=TOKEN_REQUEST_SECONDS)
        try:
            answer = self._tools.transport.send(request, connection=self._connection)
        except Unavailable as error:
            error.outcome_unknown = False  # asking twice for a token does no harm
            raise
        self.last = answer
        if answer.status >= 500 or answer.status == 429:
            refusal = explain_status(answer, "The token endpoint", now=self._tools.clock.now())
            refusal.message = redact(refusal.message, self._secrets)
            refusal.args = (refusal.message,)
            if isinstance(refusal, Unavailable):
                refusal.outcome_unknown = False
            raise refusal
        if 300 <= answer.status < 400:
            raise BadAnswer("The authority redirects; the hub does not follow.", vendor_status=answer.status)
        _check_object(answer)
        return _MsalResponse(answer)


def _check_object(answer: Answer) -> None:
    """Raises BadAnswer unless the answer is a JSON object. (msal logs the whole text of one that is no JSON.)"""
    try:
        fits = isinstance(answer.json(), dict)
    except BadAnswer:
        fits = False
    if not fits:
        raise BadAnswer("The authority's answer is not a JSON object.", vendor_status=answer.status)


def _audience(text: str) -> str:
    """The audience that a token names itself; "" if it is no JWT. Unverified: who takes the token has to do that."""
    try:
        body = text.split(".")[1]
        named = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["aud"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return named[:200] if isinstance(named, str) else ""
