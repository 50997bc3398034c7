"""The whole hub for the tests named test_app_*: Azurite, a Dataverse sandbox over TLS, and the app in its host.

Each test worker starts its own parts. Nothing is replaced inside a process: everything speaks HTTP over loopback.
"""

import http.client
import json
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import trustme

from devhost.child import Child
from tests.conftest import ACCOUNT, ACCOUNT_KEY, running_azurite

ROOT = Path(__file__).resolve().parent.parent.parent
API_KEY = "test-key-0123456789abcdef0123456789abcdef"
ENCRYPTION_KEY = "0123456789abcdef0123456789ABCDEF"
PUBLIC_URL = "https://hub.example.test"
SECRET = "the-demo~secret+of/tests"
WRONG_SECRET = "a-wrong~secret+of/tests"
RECORDS = 60
PATIENCE_SECONDS = 100.0
"""For a run: work that met a storage which did not answer comes again after 30 s, up to three times in that time."""
# A developer's own settings must not make a connection here.
FOREIGN = [
    f"{family}_{name}"
    for family, names in (
        ("CRM", "TENANT_ID CLIENT_ID CLIENT_SECRET D365_BASE_URL API_VERSION"),
        (
            "DYNAMICS_365",
            "TENANT_ID CLIENT_ID CLIENT_SECRET RESOURCE_URL API_VERSION SYNC_ENABLED SYNC_INTERVAL",
        ),
    )
    for name in names.split()
]
LEAKS = (
    re.compile(re.escape(SECRET)),
    re.compile(re.escape(WRONG_SECRET)),
    re.compile(re.escape(API_KEY)),
    re.compile(re.escape(ENCRYPTION_KEY)),
    re.compile(r"eyJ[\w-]+\.eyJ"),  # a token
    re.compile(r"Traceback|site-packages|\.py\b"),
)
BRAKE_DELETES = 600
"""More than other tests make and remove between two pulls of a connection that they share."""


def no_leak(text: str, where: str) -> None:
    """No secret, no token and no traceback is in a text."""
    for leak in LEAKS:
        assert not leak.search(text), f"{where} shows {leak.pattern}: {text[:2000]}"


def plain_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


@dataclass
class Sandbox:
    """A Dataverse server in a process of its own, and what a person and a fault do to it."""

    process: subprocess.Popen[str]
    facts: Mapping[str, Any]
    session: requests.Session = field(repr=False)

    @property
    def url(self) -> str:
        return str(self.facts["https"])

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the sandbox's control endpoint."""
        answer = self.session.request(
            method, self.facts["control"] + path, data=None if body is None else json.dumps(body), timeout=30
        )
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def create(self, **values: Any) -> str:
        """A person makes an account; gives its id."""
        return str(self.control("POST", "rows/account", {"values": values})["id"])

    def update(self, rid: str, **values: Any) -> None:
        self.control("PATCH", f"rows/account/{rid}", {"values": values})

    def delete(self, rid: str) -> None:
        self.control("DELETE", f"rows/account/{rid}")

    def values(self, rid: str) -> dict[str, Any]:
        """What the sandbox holds of an account."""
        values: dict[str, Any] = self.control("GET", f"rows/account/{rid}")["values"]
        return values

    def accounts(self) -> dict[str, dict[str, Any]]:
        """Every account by id."""
        return {row["id"]: row["values"] for row in self.control("GET", "rows/account?limit=100000")}

    def named(self, name: str) -> list[str]:
        """The ids of the accounts of a name."""
        return [rid for rid, values in self.accounts().items() if values["name"] == name]

    def fault(self, kind: str, **how: Any) -> None:
        self.control("POST", "faults", {"kind": kind, **how})

    def last_request(self) -> int:
        entries = self.control("GET", "requests")
        return int(entries[-1]["seq"]) if entries else 0

    def requests_since(self, seq: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.control("GET", f"requests?since={seq}")
        return found


@dataclass
class Hub:
    """The hub over HTTP. Every answer is looked through for secrets, tokens and tracebacks."""

    url: str
    child: Child = field(repr=False)
    session: requests.Session = field(repr=False)
    key: str = field(default=API_KEY, repr=False)

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = API_KEY,
        headers: Mapping[str, str] | None = None,
        data: bytes | str | None = None,
        clean: bool = True,
    ) -> requests.Response:
        """One call; `path` may be a link of the hub, `body` becomes JSON, `data` is sent as it is."""
        sent = {"Content-Type": "application/json"} if body is not None or data is not None else {}
        if key is not None:
            sent["X-API-KEY"] = key
        answer = self.session.request(
            method,
            self.url + path.removeprefix(PUBLIC_URL),
            data=json.dumps(body) if body is not None else data.encode() if isinstance(data, str) else data,
            headers={**sent, **(headers or {})},
            timeout=120,
            allow_redirects=False,
        )
        if clean:
            no_leak(f"{dict(answer.headers)} {answer.text}", f"{method} {path}")
        return answer

    def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The JSON of an answer that has to be a success."""
        answer = self(method, path, body, **more)
        assert answer.ok, f"{method} {path} -> {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def raw(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Bytes as they are, over a connection of their own: (status, headers, body)."""
        parts = urlsplit(self.url)
        assert parts.hostname
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        try:
            connection.connect()
            connection.sock.sendall(request)
            answer = http.client.HTTPResponse(connection.sock, method=request.split(b" ")[0].decode())
            answer.begin()
            body = answer.read()
            no_leak(f"{answer.getheaders()} {body.decode('utf-8', 'replace')}", str(request[:200]))
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body
        finally:
            connection.close()

    def pages(self, path: str, most: int = 1000) -> Iterator[list[dict[str, Any]]]:
        """Page after page, by nextLink."""
        for _ in range(most):
            page = self.ok("GET", path)
            yield page["value"]
            if "nextLink" not in page:
                return
            path = page["nextLink"]
            assert path.startswith(PUBLIC_URL + "/api/"), path
        pytest.fail(f"nextLink leads on and on after {most} pages")

    def run(
        self, connection: str, mode: str = "incremental", seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """Starts a run and waits for its end, or until the brake has stopped it."""
        started = self("POST", "/api/runs", {"connection": connection, "mode": mode})
        assert started.status_code == 202, started.text
        return self.ended(started.headers["Operation-Location"], seconds)

    def ended(self, where: str, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            run: dict[str, Any] = self.ok("GET", where)
            if run["status"] in ("succeeded", "failed", "stopped"):
                return run
            assert time.monotonic() < deadline, f"after {seconds} s: {run}"
            time.sleep(0.05)

    def stored(self, connection: str) -> dict[str, dict[str, Any]]:
        """The stored accounts that are linked to a connection, by remote id."""
        return {
            link["id"]: record
            for page in self.pages("/api/records/accounts?top=500")
            for record in page
            for link in record["links"]
            if link["connection"] == connection
        }


def settings_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a connection to the sandbox."""
    return {
        "base_url": facts["https"],
        "authority": facts["https"],
        "tenant_id": facts["tenant"],
        "client_id": facts["client_id"],
    }


def check_problem(
    answer: requests.Response,
    status: int,
    code: str,
    detail: str,
    *fields: str,
    messages: Mapping[str, str] | None = None,
    vendor: Mapping[str, Any] | None = None,
) -> None:
    """The answer is exactly this problem+json. `fields`: those of errors[] whose message is the detail."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    body = answer.json()
    trace = body.pop("traceId")
    assert re.fullmatch(r"[0-9a-f]{32}", trace)
    assert answer.headers["traceparent"].split("-")[1] == trace
    errors = [{"field": name, "message": detail} for name in fields]
    errors += [{"field": name, "message": message} for name, message in (messages or {}).items()]
    expected: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if errors:
        expected["errors"] = errors
    if vendor:
        expected["vendor"] = dict(vendor)
    assert body == expected
    assert answer.status_code == status


def _line(process: subprocess.Popen[str], seconds: float = 60) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], seconds)
    line = process.stdout.readline() if readable else ""
    if not line:
        process.kill()
        raise RuntimeError(f"the sandbox did not start: {process.communicate()[1]}")
    return line


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a private CA (ca.pem) and what it signed for loopback (chain.pem, key.pem)."""
    folder = tmp_path_factory.mktemp("authority")
    ca = trustme.CA()
    signed = ca.issue_cert("127.0.0.1", "localhost")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    signed.private_key_pem.write_to_path(folder / "key.pem")
    for blob in signed.cert_chain_pems:
        blob.write_to_path(folder / "chain.pem", append=True)
    return folder


@pytest.fixture(scope="session")
def start_sandbox(authority: Path) -> Iterator[Callable[..., Sandbox]]:
    """Starts sandboxes over http and https; all of them end with the session."""
    started: list[Sandbox] = []

    def start(*arguments: str, trusted: bool = True, system: str = "dynamics365") -> Sandbox:
        signed = ["--cert", str(authority / "chain.pem"), "--key", str(authority / "key.pem")]
        secret = ["--client-secret", SECRET] if system == "dynamics365" else []
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox", system, "--port", "0", "--tls-port", "0",
             *secret, *(signed if trusted else ()), *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        sandbox = Sandbox(process, {}, plain_session())
        started.append(sandbox)
        sandbox.facts = json.loads(_line(process))
        return sandbox

    yield start
    for sandbox in started:
        sandbox.session.close()
        sandbox.process.send_signal(signal.SIGTERM)
        _, errors = sandbox.process.communicate(timeout=20)
        assert (sandbox.process.returncode, errors) == (0, "")


@pytest.fixture(scope="session")
def sandbox(start_sandbox: Callable[..., Sandbox]) -> Sandbox:
    """The Dataverse server that the hub's connections lead to, with sample accounts."""
    found = start_sandbox("--records", str(RECORDS))
    # All tests together make more calls in five minutes than one system allows its caller.
    found.control("POST", "options", {"limits": {"requests": 10**9, "seconds": 10**9}})
    return found


def hub_environment(azurite: str, authority: Path) -> dict[str, str]:
    """The hub's settings."""
    return {
        **dict.fromkeys(FOREIGN, ""),
        "AzureWebJobsStorage": azurite,
        "HUB_API_KEY": API_KEY,
        "INTEGRATION_ENCRYPTION_KEY": ENCRYPTION_KEY,
        "ALLOW_LOOPBACK": "true",
        "ALLOW_PRIVATE_HOSTS": "false",
        "CA_BUNDLE": str(authority / "ca.pem"),
        "PUBLIC_URL": PUBLIC_URL,
        "PYTHON_THREADPOOL_THREAD_COUNT": "16",
        "PAGE_RECORDS": "25",
        "BRAKE_DELETES": str(BRAKE_DELETES),
        "WEBHOOK_ORIGINS": "eventgrid.azure.net, em.example",
        "WEBHOOKS_REFUSED": "6000",  # tests share an address
    }


@contextmanager
def host(
    azurite: str, authority: Path, tmp_path_factory: pytest.TempPathFactory, changes: Mapping[str, str]
) -> Iterator[Hub]:
    """The app under Microsoft's worker library; queues are polled often, so that a run begins at once."""
    settings = tmp_path_factory.mktemp("hub") / "settings.json"
    settings.write_text('{"IsEncrypted": false, "Values": {}}')
    environment = {**hub_environment(azurite, authority), **changes}
    arguments = ["--port", "0", "--settings", str(settings), "--poll-min", "0.05", "--poll-max", "0.2"]
    with Child(ROOT, *arguments, env=environment) as child, plain_session() as session:
        yield Hub(child.url, child, session)
        session.close()
        code = child.stop()
        output = "\n".join([*child.out, *child.err])
        for leak in LEAKS[:-1]:
            assert not leak.search(output), f"the log shows {leak.pattern}"
        for sign in ("bug while answering", "function failed", ") failed (invocation", "Traceback"):
            where = output.find(sign)
            assert where < 0, f"the log has {sign!r}: {output[max(0, where - 300) : where + 4000]}"
        assert code == 0, output[-8000:]


SOON = {"PUSH_DELAY_SECONDS": "0.1", "SWEEP_BUCKETS": "16", "ATTEMPT_SECONDS": "5", "PUSH_START_SECONDS": "2"}
"""What would wait for minutes is done within seconds."""


@contextmanager
def lone_host(
    authority: Path, tmp_path_factory: pytest.TempPathFactory, changes: Mapping[str, str]
) -> Iterator[Hub]:
    """As `host`, over a storage of its own: another instance at the same queues knows of a new connection a minute late."""
    with (
        running_azurite(ACCOUNT, ACCOUNT_KEY) as azurite,
        host(azurite, authority, tmp_path_factory, changes) as hub,
    ):
        yield hub


@pytest.fixture(scope="session")
def api(azurite: str, authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with host(azurite, authority, tmp_path_factory, {}) as hub:
        yield hub


@pytest.fixture(scope="module")
def start_hub(
    azurite: str, authority: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Hub]]:
    """Starts more instances of the hub over the same storage, with settings of their own; they end with the module."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(host(azurite, authority, tmp_path_factory, changes))


@pytest.fixture
def problem() -> Callable[..., None]:
    return check_problem


@pytest.fixture
def connect(api: Hub, sandbox: Sandbox) -> Iterator[Callable[..., dict[str, Any]]]:
    """Makes connections to the sandbox, by hand only unless told otherwise; they go with the test."""
    made: list[str] = []

    def make(slug: str, **changes: Any) -> dict[str, Any]:
        body = {
            "slug": slug,
            "connector": "dynamics365",
            "settings": settings_of(sandbox.facts),
            "secrets": {"client_secret": SECRET},
            "entities": {"account": "pull"},
            "schedule": {},
            **changes,
        }
        body["settings"] = {name: value for name, value in body["settings"].items() if value}
        answer = api("POST", "/api/integrations", body)
        assert answer.status_code == 201, answer.text
        made.append(slug)
        found: dict[str, Any] = answer.json()
        return found

    yield make
    for slug in made:
        api("DELETE", f"/api/integrations/{slug}?confirm=true")


@pytest.fixture(scope="session")
def demo(api: Hub, sandbox: Sandbox) -> dict[str, Any]:
    """The connection `demo`: the only one, unless a test makes another."""
    body = {
        "slug": "demo",
        "connector": "dynamics365",
        "settings": settings_of(sandbox.facts),
        "secrets": {"client_secret": SECRET},
        "entities": {"account": "pull"},
        "schedule": {},
    }
    answer = api("POST", "/api/integrations", body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def faults(sandbox: Sandbox) -> Iterator[Callable[..., None]]:
    """Adds faults to the sandbox; none is left after the test."""
    yield sandbox.fault
    sandbox.control("DELETE", "faults")


@pytest.fixture
def account(sandbox: Sandbox) -> Iterator[Callable[..., str]]:
    """A person makes accounts at the sandbox; they go with the test, if they are still there."""
    made: list[str] = []

    def make(**values: Any) -> str:
        made.append(sandbox.create(**values))
        return made[-1]

    yield make
    present = sandbox.accounts()
    for rid in made:
        if rid in present:
            sandbox.delete(rid)


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What a condition gives once it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"nothing after {seconds} s"
        time.sleep(0.05)
    return found


def too_many(api, sandbox, connection):
    """More records than may be marked as deleted without asking."""
    number = max(BRAKE_DELETES, len(sandbox.accounts()) // 20) + 25
    made = many_at_once(
        api, connection, [{"method": "create", "fields": {"name": "Lost by mistake"}}] * number
    )
    return [each["id"] for each in made]


def many_at_once(api, connection, operations):
    path = f"/api/crm/accounts/batch?connection={connection}&confirm=true"
    parts = [operations[start : start + 100] for start in range(0, len(operations), 100)]
    return [each for part in parts for each in api.ok("POST", path, {"operations": part})["value"]]
