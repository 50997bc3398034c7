"""The token endpoint and OIDC discovery of Entra ID, as far as a daemon app needs them.

Web API: authenticate with OAuth; Microsoft identity platform: client credentials flow, AADSTS error codes.
"""

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import jwt
from cryptography.x509 import load_pem_x509_certificate

from sandbox.dynamics365.errors import Refused
from sandbox.dynamics365.org import Org
from sandbox.frame import Request, Response, json_response
from sandbox.store import Values

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEFAULT = "/.default"


@dataclass(frozen=True)
class Token:
    """What is known of an issued token."""

    audience: str
    expires: float


class TokenRefused(Exception):
    """An OAuth error on its way up."""

    def __init__(self, error: str, code: int, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.error, self.code, self.text, self.status = error, code, text, status


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Auth:
    """Gives out tokens and checks them."""

    def __init__(self, org: Org) -> None:
        self._org = org
        self._tokens: dict[str, Token] = {}
        self._key = org.random.randbytes(32)

    def revoke(self) -> int:
        """All tokens are void from now on."""
        count = len(self._tokens)
        self._tokens.clear()
        return count

    def handle(self, request: Request, parts: list[str]) -> Response | None:
        """``/{tenant}/...``; None for a path that is not ours."""
        tail = "/".join(parts[1:])
        if tail == "oauth2/v2.0/token":
            return (
                self._token(request, parts[0])
                if request.method == "POST"
                else Response(405, {"Allow": "POST"})
            )
        if tail == "v2.0/.well-known/openid-configuration":
            return self._discovery(request, parts[0])
        if tail == "discovery/instance":
            return self._instance(request)
        if tail == "discovery/v2.0/keys":
            return json_response(200, {"keys": []})
        return None

    def check(self, request: Request) -> None:
        """Refuse a request without a valid token (401), or whose app user does not exist or is disabled (403)."""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if not text or scheme.lower() != "bearer":
            raise self._unauthorized(request, "")
        token = self._tokens.get(text.strip())
        if token is None:
            raise self._unauthorized(request, "invalid_token", "The token is not valid.")
        if token.expires <= self._org.frame.clock.seconds():
            raise self._unauthorized(request, "invalid_token", "The token has expired.")
        if token.audience not in self._origins(request):
            raise self._unauthorized(request, "invalid_token", f"The audience '{token.audience}' is invalid.")
        if self._org.options["app_user"] == "missing":
            raise Refused(403, "0x80072560", "The user is not a member of the organization.")
        if self._org.options["app_user"] == "disabled":
            raise Refused(
                403,
                "0x80040225",
                f"The specified user(Id = {self._org.app_user}) is disabled. Consider enabling this user.",
            )

    def _origins(self, request: Request) -> set[str]:
        return self._org.origins | {request.origin}

    def _unauthorized(self, request: Request, error: str, text: str = "") -> Refused:
        where = f"{request.origin}/{self._org.identity.tenant}/oauth2/authorize"
        challenge = f"Bearer authorization_uri={where}, resource_id={request.origin}/"
        if error:
            challenge = f'Bearer error="{error}", error_description="{text}", authorization_uri="{where}", resource_id="{request.origin}/"'
        return Refused(401, "", text or "Unauthorized", {"WWW-Authenticate": challenge})

    def _token(self, request: Request, tenant: str) -> Response:
        form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
        try:
            audience = self._grant(request, tenant, form)
        except TokenRefused as refused:
            return self._error(refused)
        seconds = int(self._org.options["token_seconds"])
        value = self._issue(audience, seconds)
        return json_response(
            200,
            {"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": value},
            {"Cache-Control": "no-store, no-cache"},
        )

    def _grant(self, request: Request, tenant: str, form: dict[str, str]) -> str:
        """The audience that is granted; raises what is refused."""
        if tenant != self._org.identity.tenant:
            raise TokenRefused(
                "invalid_request",
                90002,
                f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.",
            )
        grant = form.get("grant_type")
        if grant is None:
            raise TokenRefused(
                "invalid_request",
                900144,
                "The request body must contain the following parameter: 'grant_type'.",
            )
        if grant != "client_credentials":
            raise TokenRefused(
                "unsupported_grant_type", 70003, f"The app requested an unsupported grant type '{grant}'."
            )
        client = form.get("client_id", "")
        if client != self._org.identity.client_id:
            raise TokenRefused(
                "unauthorized_client",
                700016,
                f"Application with identifier '{client}' was not found in the directory 'sandbox'.",
            )
        self._authenticate(request, form)
        return self._audience(request, form.get("scope", ""))

    def _authenticate(self, request: Request, form: dict[str, str]) -> None:
        if "client_assertion" in form:
            self._assertion(request, form)
        elif not form.get("client_secret"):
            raise TokenRefused(
                "invalid_client",
                7000218,
                "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
                401,
            )
        elif not hmac.compare_digest(
            form["client_secret"].encode(), self._org.identity.client_secret.encode()
        ):
            raise TokenRefused(
                "invalid_client",
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID.",
                401,
            )

    def _audience(self, request: Request, scope: str) -> str:
        """The resource of a scope. ``https://host//.default`` is granted, for an audience that the API refuses."""
        if not scope.endswith(DEFAULT):
            raise TokenRefused(
                "invalid_scope",
                1002012,
                f"The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).",
            )
        resource = scope.removesuffix(DEFAULT)
        if resource.rstrip("/") not in self._origins(request):
            raise TokenRefused(
                "invalid_resource",
                500011,
                f"The resource principal named {resource} was not found in the tenant named sandbox.",
            )
        return resource

    def _assertion(self, request: Request, form: dict[str, str]) -> None:
        """A certificate credential: well-formed, for this client, addressed to this endpoint, in its time."""
        reason = self._bad_assertion(request, form)
        if reason:
            raise TokenRefused(
                "invalid_client",
                700027,
                f"The certificate with identifier used to sign the client assertion is not valid. [{reason}]",
                401,
            )

    def _bad_assertion(self, request: Request, form: dict[str, str]) -> str:
        if form.get("client_assertion_type") != ASSERTION:
            return "client_assertion_type"
        try:
            head, body, signature = form["client_assertion"].split(".")
            header, claims = (
                json.loads(base64.urlsafe_b64decode(p + "=" * (-len(p) % 4))) for p in (head, body)
            )
        except (ValueError, binascii.Error):
            return "the assertion is no JWT"
        client = self._org.identity.client_id
        paths = {f"{o}/{self._org.identity.tenant}/oauth2/v2.0/token" for o in self._origins(request)}
        now = self._org.frame.clock.seconds()
        checks = {
            "alg": header.get("alg") in ("PS256", "RS256"),
            "x5t": bool(header.get("x5t#S256") or header.get("x5t")),
            "iss and sub": claims.get("iss") == claims.get("sub") == client,
            "aud": claims.get("aud") in paths,
            "jti": bool(claims.get("jti")),
            "exp": isinstance(claims.get("exp"), int | float) and claims["exp"] > now,
            "nbf": claims.get("nbf", now) <= now + 300,
            "signature": bool(signature) and self._signed(form["client_assertion"], header),
        }
        return ", ".join(name for name, good in checks.items() if not good)

    def _signed(self, assertion: str, header: Values) -> bool:
        """The signature, when a certificate is registered for the client."""
        pem = self._org.identity.certificate
        if not pem:
            return True
        certificate = load_pem_x509_certificate(pem.encode())
        key: Any = certificate.public_key()
        try:
            jwt.decode(
                assertion,
                key,
                algorithms=[header["alg"]],
                options={
                    "verify_signature": True,
                    "verify_exp": False,
                    "verify_aud": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.PyJWTError:
            return False
        return True

    def _issue(self, audience: str, seconds: int) -> str:
        now = self._org.frame.clock.seconds()
        identity = self._org.identity
        head = _b64(json.dumps({"typ": "JWT", "alg": "HS256"}).encode())
        claims = {
            "aud": audience, "iss": f"https://sts.windows.net/{identity.tenant}/", "tid": identity.tenant,
            "appid": identity.client_id, "oid": self._org.fixed("service principal"), "jti": self._org.new_id(),
            "iat": int(now), "nbf": int(now), "exp": int(now) + seconds, "ver": "1.0",
        }  # fmt: skip
        body = _b64(json.dumps(claims).encode())
        sign = _b64(hmac.new(self._key, f"{head}.{body}".encode(), hashlib.sha256).digest())
        value = f"{head}.{body}.{sign}"
        self._tokens[value] = Token(audience, now + seconds)
        return value

    def _error(self, refused: TokenRefused) -> Response:
        trace, correlation = self._org.new_id(), self._org.new_id()
        at = f"{self._org.now():%Y-%m-%d %H:%M:%SZ}"
        text = f"AADSTS{refused.code}: {refused.text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {at}"
        return json_response(refused.status, {
            "error": refused.error, "error_description": text, "error_codes": [refused.code], "timestamp": at,
            "trace_id": trace, "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={refused.code}",
        })  # fmt: skip

    def _discovery(self, request: Request, tenant: str) -> Response:
        """OIDC discovery with endpoints on the origin that was asked, so that MSAL stays here."""
        if tenant != self._org.identity.tenant:
            return self._error(TokenRefused("invalid_tenant", 90002, f"Tenant '{tenant}' not found."))
        here = f"{request.origin}/{tenant}"
        return json_response(200, {
            "issuer": f"{here}/v2.0",
            "token_endpoint": f"{here}/oauth2/v2.0/token",
            "authorization_endpoint": f"{here}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{here}/oauth2/v2.0/devicecode",
            "jwks_uri": f"{here}/discovery/v2.0/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "response_modes_supported": ["query", "fragment", "form_post"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "tenant_region_scope": "EU",
            "cloud_instance_name": "microsoftonline.com",
        })  # fmt: skip

    def _instance(self, request: Request) -> Response:
        host = request.origin.partition("://")[2]
        return json_response(200, {
            "tenant_discovery_endpoint": f"{request.origin}/{self._org.identity.tenant}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
        })  # fmt: skip
