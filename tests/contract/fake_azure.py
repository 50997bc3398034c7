"""A stand-in for Microsoft Entra and one Key Vault (TLS, one origin) and the platform's identity endpoint (http).

As far as azure-identity, azure-keyvault-secrets and msal look. Sources: Microsoft Learn, "OAuth 2.0 client
credentials flow", "How to use managed identities for App Service", the Key Vault REST reference (secrets).
"""

import base64
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import trustme
from cryptography.x509 import load_pem_x509_certificate

HEADER = "planted-identity-header"
IDENTITY = "6f7c2f0e-0000-4000-8000-000000000001"
"""The client id of the user-assigned identity that the app has; it has one of its own, too."""
VAULT_RESOURCE = "https://vault.azure.net"
Reply = tuple[int, Any, dict[str, str]]


def token(audience: str, tenant: str = "6f7c2f0e-0000-4000-8000-000000000002") -> str:
    """Well-formed and unsigned: Azurite looks at issuer, audience and times only."""
    now = int(time.time())
    claims = {"aud": audience, "iss": f"https://sts.windows.net/{tenant}/", "nbf": now - 60, "iat": now - 60,
              "exp": now + 3600, "jti": str(uuid.uuid4())}  # fmt: skip
    parts = (
        json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims, "planted-signature")
    )
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


class FakeAzure:
    """What is registered and kept, and what was asked."""

    def __init__(self) -> None:
        self.url = self.identity_url = ""
        self.ca = Path()
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.clients: dict[tuple[str, str], str] = {}
        """(tenant, client id) -> secret, or PEM of the certificate."""
        self.elsewhere: dict[str, Callable[[], str]] = {}
        """Resource -> who gives the tokens that the identity endpoint hands out for it."""
        self.vault: dict[str, list[dict[str, Any]]] = {}
        self.deleted: dict[str, list[dict[str, Any]]] = {}
        self.refuse: Reply | None = None
        """What the vault answers to everything, token or not."""
        self.identity_answers: list[Reply] = []
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        """Called with each request of the vault before it is answered."""
        self.token_seconds = 0.0
        self.asked: list[str] = []
        self.issued: dict[str, str] = {}

    def count(self, part: str) -> int:
        return sum(part in each for each in self.asked)

    # --- Entra -------------------------------------------------------------------------------------------------------

    def entra(self, tenant: str, path: str, form: dict[str, str]) -> Reply:
        here = f"{self.url}/{tenant}"
        if path == "v2.0/.well-known/openid-configuration":
            endpoints = {
                f"{each}_endpoint": f"{here}/oauth2/v2.0/{each}" for each in ("authorization", "token")
            }
            return 200, {"issuer": f"{here}/v2.0", **endpoints}, {}
        known = self.clients.get((tenant, form.get("client_id", "")))
        if known is None:
            return self.aadsts(700016, "was not found in the directory")
        if known.startswith("-----BEGIN"):
            key: Any = load_pem_x509_certificate(known.encode()).public_key()
            try:
                jwt.decode(
                    form.get("client_assertion", ""), key, ["PS256"], audience=f"{here}/oauth2/v2.0/token"
                )
            except jwt.PyJWTError:
                return self.aadsts(700027, "The certificate is not valid")
        elif form.get("client_secret") != known:
            return self.aadsts(7000215, "Invalid client secret provided")
        time.sleep(self.token_seconds)
        text = self.issue(form["scope"].removesuffix("/.default"), tenant)
        return 200, {"token_type": "Bearer", "expires_in": 3599, "access_token": text}, {}

    def aadsts(self, number: int, text: str) -> Reply:
        return 401, {"error": "invalid_client", "error_description": f"AADSTS{number}: {text}"}, {}

    def issue(self, audience: str, tenant: str = "") -> str:
        text = token(audience, tenant)
        self.issued[text] = audience
        return text

    # --- the identity endpoint ---------------------------------------------------------------------------------------

    def identity(self, query: dict[str, str], header: str) -> Reply:
        if self.identity_answers:
            return self.identity_answers.pop(0)
        if header != HEADER:
            return 401, {"statusCode": 401, "message": "wrong header"}, {}
        if query.get("client_id", IDENTITY) != IDENTITY:
            return (
                400,
                {"statusCode": 400, "message": "No User Assigned or Delegated Managed Identity found"},
                {},
            )
        resource = query["resource"]
        text = self.elsewhere[resource]() if resource in self.elsewhere else self.issue(resource)
        expires = str(int(time.time()) + 3599)
        return (
            200,
            {"access_token": text, "expires_on": expires, "resource": resource, "token_type": "Bearer"},
            {},
        )

    # --- Key Vault ---------------------------------------------------------------------------------------------------

    def key_vault(self, method: str, parts: list[str], bearer: str, body: dict[str, Any]) -> Reply:
        if self.issued.get(bearer) != VAULT_RESOURCE:
            challenge = f'Bearer authorization="{self.url}/tenant", resource="{VAULT_RESOURCE}"'
            return (
                401,
                {"error": {"code": "Unauthorized", "message": "no token"}},
                {"WWW-Authenticate": challenge},
            )
        self.before(method, "/".join(parts))
        if self.refuse is not None:
            return self.refuse
        with self.lock:
            return self.secret(method, parts, body)

    def secret(self, method: str, parts: list[str], body: dict[str, Any]) -> Reply:
        kind, name, *more = parts
        missing = 404, {"error": {"code": "SecretNotFound", "message": f"{name} was not found"}}, {}
        if kind == "deletedsecrets":
            if name not in self.deleted:
                return missing
            self.vault[name] = self.deleted.pop(name)
            return 200, self.shown(name, self.vault[name][-1]), {}
        if method == "PUT":
            if name in self.deleted:
                return self.error(409, "Conflict", "ObjectIsDeletedButRecoverable")
            created = int(time.time())
            version = {"version": uuid.uuid4().hex, "created": created, "enabled": True, **body}
            self.vault.setdefault(name, []).append(version)
            return 200, self.shown(name, version), {}
        if name not in self.vault:
            return missing
        if method == "DELETE":
            self.deleted[name] = self.vault.pop(name)
            recovery = {
                "recoveryId": f"{self.url}/deletedsecrets/{name}",
                "deletedDate": 1,
                "scheduledPurgeDate": 2,
            }
            return 200, {**self.shown(name, self.deleted[name][-1]), **recovery}, {}
        if more == ["versions"]:
            listed = [self.shown(name, each) for each in self.vault[name]]
            return 200, {"value": [{k: v for k, v in each.items() if k != "value"} for each in listed]}, {}
        wanted = [each for each in self.vault[name] if more in ([], [""], [each["version"]])]
        if not wanted:
            return missing
        if not wanted[-1]["enabled"]:
            return self.error(403, "Forbidden", "SecretDisabled")
        return 200, self.shown(name, wanted[-1]), {}

    def error(self, status: int, code: str, inner: str) -> Reply:
        return (
            status,
            {"error": {"code": code, "message": "planted-vault-message", "innererror": {"code": inner}}},
            {},
        )

    def shown(self, name: str, version: dict[str, Any]) -> dict[str, Any]:
        attributes = {
            "enabled": version["enabled"],
            "created": version["created"],
            "updated": version["created"],
        }
        return {"id": f"{self.url}/secrets/{name}/{version['version']}", "attributes": attributes,
                **{key: version[key] for key in ("value", "tags", "contentType") if key in version}}  # fmt: skip

    # --- the wire ----------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, header: Callable[[str], str], body: bytes) -> Reply:
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        segments = parts.path.strip("/").split("/")
        with self.lock:
            asked = f"{method} {parts.path}"
            self.asked.append(asked + (f" {query['resource']}" if "resource" in query else ""))
        if segments == ["msi", "token"]:
            return self.identity(query, header("X-IDENTITY-HEADER"))
        if segments[0] in ("secrets", "deletedsecrets"):
            bearer = header("Authorization").removeprefix("Bearer ")
            return self.key_vault(method, segments, bearer, json.loads(body or b"{}"))
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        return self.entra(segments[0], "/".join(segments[1:]), form)


def _server(fake: FakeAzure, context: ssl.SSLContext | None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content, headers = fake.answer(
                self.command, self.path, lambda name: self.headers.get(name, ""), body
            )
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815  # http.server finds them by name
        wbufsize = -1
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


@contextmanager
def fake_azure(folder: Path) -> Iterator[FakeAzure]:
    """Listens on loopback; `ca` is the file of the authority that its certificate comes from."""
    fake, authority = FakeAzure(), trustme.CA()
    fake.ca = folder / "fake-azure-ca.pem"
    authority.cert_pem.write_to_path(str(fake.ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    leaf.configure_cert(context)
    leaf.private_key_pem.write_to_path(str(folder / "leaf.key"))
    leaf.cert_chain_pems[0].write_to_path(str(folder / "leaf.pem"))
    servers = [_server(fake, context), _server(fake, None)]
    fake.url = f"https://127.0.0.1:{servers[0].server_port}"
    fake.identity_url = f"http://127.0.0.1:{servers[1].server_port}/msi/token"
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield fake
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
