"""Tokens of Microsoft Entra. `msal` is imported with the first token request."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from crm_core.connector import Account, Answer, Request, Tools
from crm_core.errors import (
    AuthFailed,
    BadAnswer,
    FieldError,
    HubError,
    Misconfigured,
    Unavailable,
)
from crm_core.protocols.auth import TOKEN_REQUEST_SECONDS, Tokens
from crm_core.protocols.guard import Origins, origin_of, same_origin
from crm_core.protocols.rest import explain_status, redact

# Microsoft Learn, "Microsoft Entra authentication and authorization error codes".
REMEDIES = {
    "7000215": "Enter the secret's value, not its id.",
    "7000222": "The secret has expired: create a new one.",
    "700016": "The application is not in this tenant: check client id and tenant id.",
    "700027": "The certificate is not one of the application's, or has ended: upload its public part there.",
    "90002": "There is no such tenant: check the tenant id.",
    "500011": "The environment's address is not known in this tenant: check it.",
}


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


class ClientCredentials(Tokens):
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


class ManagedIdentity(Tokens):
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
