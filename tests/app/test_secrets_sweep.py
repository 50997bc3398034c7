"""Secrets and values planted wherever one can come in, looked for in every log line, answer, message, row and blob.

The hub runs in its host at the platform's debug level, over an Azurite of its own whose key is a secret too. A proxy
keeps what is sent to storage, so that messages and rows that are gone by the end are searched as well.
"""

import base64
import hashlib
import json
import re
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, quote_plus

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableServiceClient
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from crm_core.storage import layout
from crm_core.storage.secrets import Cipher
from devhost.child import Child
from tests.app.conftest import FOREIGN, ROOT, plain_session, settings_of
from tests.app.storage_proxy import recorded
from tests.conftest import running_azurite

pytestmark = pytest.mark.xdist_group("app-sweep")

ACCOUNT = "sweepaccount"
LOG, ANSWERS, QUEUES, BLOBS = "log", "answers", "queues", "blobs"
RECORDS, KEYS, STATE, RUNS, DEAD, EVENTS, JOURNAL = (
    f"table {name}"
    for name in (
        layout.RECORDS, layout.KEYS, layout.STATE, layout.RUNS, layout.DEADLETTERS, layout.EVENTS, layout.JOURNAL
    )
)  # fmt: skip


def core(name: str) -> str:
    """What is looked for: hex digits that no encoding of text changes and nothing else holds."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


@dataclass
class Planted:
    """One secret or value. `may`: where it has a right to be; nowhere else."""

    name: str
    may: frozenset[str] = frozenset()
    needles: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return f"{core(self.name)}~+/{self.name.replace(' ', '_')[:20]}"


def planted(name: str, *may: str) -> Planted:
    found = PLANTED.setdefault(name, Planted(name, frozenset(may)))
    found.needles = [core(name)]
    return found


PLANTED: dict[str, Planted] = {}

# Credentials of the hub itself.
API_KEY = planted("API key").text + "0" * 20
ENCRYPTION_KEY = f"{planted('INTEGRATION_ENCRYPTION_KEY').text}{'0' * 32}"[:32]
STORAGE_KEY = base64.b64encode(planted("storage account key").text.ljust(64, "0").encode()).decode()
DEFAULT_SECRET = planted("client secret of the default connection").text
# Credentials of connections.
SECRET = planted("client secret, also in vendors' messages").text
WRONG_SECRET = planted("wrong client secret, also in the refusal of the sign-in").text
PASSPHRASE = planted("passphrase of a certificate").text
WRONG_PASSPHRASE = planted("wrong passphrase").text
CERTIFICATE = planted("private key of a certificate")  # its needles are lines of the PEM text
TOKENS = planted("access tokens, one in a vendor's message")  # its needles are read while the hub runs
HOOK_KEY = planted("key of webhooks").text
WRONG_HOOK_KEY = planted("wrong key of webhooks").text
OTHER_HEADER = planted("other header of a webhook").text
# The body of a webhook is kept, and on its way in a message.
HOOK_BODY = planted("value in the body of a webhook", EVENTS, QUEUES, ANSWERS).text
UNPROVEN = planted("value in the body of a webhook without proof").text
# A receiver that is told of changes, and says what it was sent.
DELIVERY_TOKEN = planted("token of deliveries").text
SIGNING_SECRET = f"whsec_{core(planted('signing secret of deliveries').name)}{'0' * 28}"
SHORT_SECRET = f"whsec_{core(planted('signing secret that is none').name)}"
DELIVERED = planted("value that is delivered", RECORDS, EVENTS, ANSWERS).text
WORDS = planted("words of a receiver", EVENTS, ANSWERS).text
# What callers send as proof.
WRONG_KEY = planted("wrong API key").text
WRONG_BEARER = planted("wrong bearer token").text
BASIC = base64.b64encode(f"user:{planted('basic credentials').text}".encode()).decode()
FUNCTION_KEY = planted("function key in the query").text
IDEMPOTENCY_KEY = planted("Idempotency-Key").text
IF_MATCH = planted("If-Match").text
COOKIE = planted("cookie").text
BAGGAGE = planted("tracestate and a traceparent that is none").text
# Secrets in the wrong place.
IN_SETTINGS = planted("client secret among the settings").text
UNKNOWN_SETTING = planted("value of an unknown setting").text
UNKNOWN_SECRET = planted("value of an unknown secret").text
USERINFO = planted("password in an address").text
IN_QUERY = planted("password in the query of an address").text
IN_ORIGIN = planted("password in confirmed_origin").text
IN_AUTHORITY = planted("password in the sign-in address").text
CRON = planted("wrong cron text").text
UNKNOWN_FIELD = planted("value of an unknown field").text
WRONG_TYPE = planted("value of a wrong type").text
MALFORMED = planted("malformed body").text
UNKNOWN_OPTION = planted("value of an unknown query option").text
SKIPTOKEN = planted("forged skiptoken").text
# Names that a caller sends are in their own answer, which says that there is no such thing.
PATH = planted("part of a path", ANSWERS).text
CONNECTOR = planted("name of a connector", ANSWERS).text
FIELD_NAME = planted("name of an unknown field", ANSWERS).text
ENTITY = planted("name of an entity", ANSWERS).text
# Values of records: in records with their history, in answers, and in kept answers of an Idempotency-Key.
CREATED = planted("value of a create", ANSWERS, KEYS, RECORDS).text
UPDATED = planted("value of an update", ANSWERS, RECORDS).text
PULLED = planted("value at the remote system", ANSWERS, RECORDS).text
OLD = planted("old value", ANSWERS, RECORDS).text
BUG = planted("value in a bug's message in a pull").text
ODD = planted("value in a bug's message in a request").text
# Literals of filters come back in the caller's own nextLink, or in the answer that says what is wrong with them.
LITERAL = planted("literal of a filter", ANSWERS).text
NUMBER = planted("number in a filter", ANSWERS)
GUID = planted("id in a filter", ANSWERS)
WRONG_LITERAL = planted("literal of a wrong filter", ANSWERS).text
# What vendors say. Their reason is shown to people: in answers, and as the problem of a connection or run.
REASON = planted("value in a vendor's reason", ANSWERS, STATE, RUNS, JOURNAL).text
PAGE = planted("text of a vendor's error page", ANSWERS, STATE, RUNS, JOURNAL).text
GARBAGE = planted("answer that is no JSON").text
FEED = planted("delta and next links", STATE, RUNS)  # its needles are read from the sandbox's log
MESSAGE = planted("body of a message that is no job", QUEUES, DEAD).text

NUMBER.needles = [str(int(core(NUMBER.name), 16))[:15]]
_HEX = hashlib.sha256(GUID.name.encode()).hexdigest()
GUID_TEXT = f"{_HEX[:8]}-{_HEX[8:12]}-4{_HEX[13:16]}-8{_HEX[17:20]}-{_HEX[20:32]}"
GUID.needles = [GUID_TEXT]


# --- searching ---------------------------------------------------------------------------------------------------


def forms(needle: str) -> set[bytes]:
    """A text in every form in which it could hide: UTF-8 and UTF-16, for URLs, in JSON, hex and base64."""
    found = {needle.encode(), quote(needle, safe="").encode(), quote_plus(needle).encode()}
    found.add(quote(quote(needle, safe=""), safe="").encode())
    found.add(json.dumps(needle)[1:-1].encode())
    for data in (needle.encode(), needle.encode("utf-16-le"), needle.encode("utf-16-be")):
        found |= {data, data.hex().encode(), data.hex().upper().encode()}
        for before in range(3):  # base64 depends on what stands before; the digits that others share are cut
            text = base64.b64encode(b"\0" * before + data)[
                -(-before * 8 // 6) : (before + len(data)) * 8 // 6
            ]
            found |= {text, text.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def places_of(needles: list[str], corpus: dict[str, bytes]) -> set[str]:
    wanted = set().union(*map(forms, needles))
    return {place for place, data in corpus.items() if any(each in data for each in wanted)}


def stored(connection_string: str) -> dict[str, list[bytes]]:
    """Everything in a storage account: rows with what is compressed in them, messages, blobs."""
    found: dict[str, list[bytes]] = {}
    with TableServiceClient.from_connection_string(connection_string) as tables:
        for table in tables.list_tables():
            rows = found.setdefault(f"table {table.name}", [])
            for row in tables.get_table_client(table.name).list_entities():
                rows.append(repr(dict(row)).encode())
                packed = b"".join(row[name] for name in sorted(row) if re.fullmatch(r"z\d+", name))
                rows.append(zlib.decompress(packed) if packed else b"")
    with QueueServiceClient.from_connection_string(connection_string) as queues:
        for queue in queues.list_queues():
            for message in queues.get_queue_client(queue.name).peek_messages(max_messages=32):
                text = message.content.encode()
                found.setdefault(QUEUES, []).append(text)
                with suppress(ValueError):
                    found[QUEUES].append(base64.b64decode(text))
    with BlobServiceClient.from_connection_string(connection_string) as blobs:
        for container in blobs.list_containers():
            client = blobs.get_container_client(container.name)
            for blob in client.list_blobs():
                data = client.download_blob(blob.name).readall()
                found.setdefault(BLOBS, []).append(blob.name.encode() + b" " + data)
    return found


# --- the run -----------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """The hub at work, and all that it has said so far."""

    child: Child
    session: object
    sandbox: object
    connection_string: str
    recorder: object
    answers: list[bytes] = field(default_factory=list)

    def __call__(self, method, path, body=None, *, data=None, key=API_KEY, headers=None):
        sent = {"Content-Type": "application/json", **({"X-API-KEY": key} if key else {}), **(headers or {})}
        answer = self.session.request(
            method,
            self.child.url + path.removeprefix("https://hub.example.test"),
            data=data.encode() if data is not None else json.dumps(body) if body is not None else None,
            headers=sent,
            timeout=120,
        )
        self.answers.append(f"{answer.status_code} {dict(answer.headers)}\n{answer.text}".encode())
        return answer

    def run(self, connection, mode="incremental", seconds=60):
        started = self("POST", "/api/runs", {"connection": connection, "mode": mode})
        assert started.status_code == 202, started.text
        return self.ended(started.headers["Operation-Location"], seconds)

    def ended(self, where, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            run = self("GET", where).json()
            if run["status"] in ("succeeded", "failed"):
                return run
            assert time.monotonic() < deadline, run
            time.sleep(0.1)

    def tick(self):
        assert self.session.post(f"{self.child.url}/planted/tick", timeout=60).ok

    def send(self, text, queue=layout.FRESH):
        """A message on a lane by somebody who is not the hub."""
        with QueueServiceClient.from_connection_string(self.connection_string) as queues:
            queues.get_queue_client(queue).send_message(text)

    def dead_letters(self):
        with TableServiceClient.from_connection_string(self.connection_string) as tables:
            try:
                return [dict(row) for row in tables.get_table_client(layout.DEADLETTERS).list_entities()]
            except ResourceNotFoundError:
                return []

    def note_tokens(self):
        """The access tokens that are kept now, read as only the holder of the key can."""
        cipher = Cipher(ENCRYPTION_KEY.encode())
        with TableServiceClient.from_connection_string(self.connection_string) as tables:
            for row in tables.get_table_client(layout.SECRETS).list_entities():
                kind, _, uid = row["RowKey"].partition("~")
                if kind == "token" and row["sealed"]:
                    sealed = json.loads(cipher.open(row["sealed"], row["PartitionKey"], uid, "token"))
                    token = sealed["token"].rpartition(" ")[2]
                    _, claims, signature = token.split(".")
                    TOKENS.needles = sorted({*TOKENS.needles, claims, signature})
        return token

    def corpus(self):
        """Everything said and kept, by place."""
        found = stored(self.connection_string)
        for place, data in self.recorder.sent:
            found.setdefault(place, []).append(data)
        found[LOG] = ["\n".join([*self.child.out, *self.child.err]).encode()]
        found[ANSWERS] = self.answers
        return {place: b"\n".join(parts) for place, parts in found.items()}


def certificate():
    """PEM text of a key under the passphrase, with its certificate."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sweep")])
    now, day = datetime.now(UTC), timedelta(1)
    signed = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now - day, now + day
    ).sign(key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSPHRASE.encode()),
    ).decode()
    CERTIFICATE.needles = pem.splitlines()[3:8]
    return pem + signed.public_bytes(serialization.Encoding.PEM).decode()


@contextmanager
def started(authority, start_sandbox):
    with (
        running_azurite(ACCOUNT, STORAGE_KEY, {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{STORAGE_KEY}"}) as direct,
        recorded(direct) as (connection_string, recorder),
    ):
        sandbox = start_sandbox("--records", "8", "--client-secret", SECRET)
        facts = settings_of(sandbox.facts)
        environment = {
            **dict.fromkeys(FOREIGN, ""),
            "AzureWebJobsStorage": connection_string,
            "HUB_API_KEY": API_KEY,
            "INTEGRATION_ENCRYPTION_KEY": ENCRYPTION_KEY,
            "ALLOW_LOOPBACK": "true",
            "CA_BUNDLE": str(authority / "ca.pem"),
            "PUBLIC_URL": "https://hub.example.test",
            "PYTHON_THREADPOOL_THREAD_COUNT": "16",
            "PYTHON_ENABLE_DEBUG_LOGGING": "1",
            "PAGE_RECORDS": "3",
            "LEASE_SECONDS": "5",  # a pull that meets the bug leaves its lease to lapse
            "CRM_TENANT_ID": facts["tenant_id"],
            "CRM_CLIENT_ID": facts["client_id"],
            "CRM_CLIENT_SECRET": DEFAULT_SECRET,
            "CRM_D365_BASE_URL": facts["base_url"],
        }
        arguments = ["--port", "0", "--poll-min", "0.05", "--poll-max", "0.2"]
        app = ROOT / "tests" / "data" / "planted_app"
        with Child(app, *arguments, env=environment) as child, plain_session() as session:
            yield Run(child, session, sandbox, connection_string, recorder)


@pytest.fixture(scope="module")
def swept(authority, start_sandbox):
    """The hub after all of it."""
    with started(authority, start_sandbox) as run:
        settings = settings_of(run.sandbox.facts)
        connections(run, settings)
        bad_connections(run, settings)
        bad_requests(run)
        live(run)
        pulls(run)
        webhooks(run, settings)
        deliveries(run, start_sandbox)
        failures(run, settings)
        messages(run)
        yield run


def body_of(slug, settings, secrets, **more):
    return {
        "slug": slug, "connector": "dynamics365", "settings": settings, "secrets": secrets,
        "entities": {"account": "pull"}, "schedule": {}, **more,
    }  # fmt: skip


def connections(run, settings):
    """Good ones, and those whose credentials the authority refuses."""
    good = run("POST", "/api/integrations", body_of("good", settings, {"client_secret": SECRET}))
    assert good.status_code == 201, good.text
    certified = {"client_certificate": certificate(), "client_certificate_passphrase": PASSPHRASE}
    made = run(
        "POST", "/api/integrations", body_of("certified", {**settings, "auth": "certificate"}, certified)
    )
    assert made.status_code == 201, made.text
    for slug in ("good", "certified"):
        assert run("POST", f"/api/integrations/{slug}/test").status_code == 200
    run.note_tokens()
    assert run("POST", "/api/integrations/dynamics365/test").status_code in (400, 502, 503)
    assert run("POST", "/api/integrations", body_of("refused", settings, {"client_secret": WRONG_SECRET})).ok
    assert run("POST", "/api/integrations/refused/test").status_code == 502
    for status, text in (
        (400, WRONG_SECRET),
        (400, quote(WRONG_SECRET, safe="")),
        (503, f"no {WRONG_SECRET} now"),
    ):
        run.sandbox.fault(
            "status", path="*/oauth2/v2.0/token", status=status, message=text, code=WRONG_SECRET
        )
        assert run("POST", "/api/integrations/refused/test").status_code >= 500
        run.sandbox.control("DELETE", "faults")
    assert run.run("refused")["status"] == "failed"
    assert run("PATCH", "/api/integrations/certified",
               {"secrets": {"client_certificate_passphrase": WRONG_PASSPHRASE}}).status_code == 400  # fmt: skip


def bad_connections(run, settings):
    secrets = {"client_secret": SECRET}
    host = settings["base_url"].removeprefix("https://")
    wrong = [
        body_of("bad", {**settings, "client_secret": IN_SETTINGS}, {}),
        body_of("bad", {**settings, "password": UNKNOWN_SETTING}, secrets),
        body_of("bad", settings, {**secrets, "pin": UNKNOWN_SECRET}),
        body_of("bad", {**settings, "base_url": f"https://user:{quote(USERINFO, safe='')}@{host}"}, secrets),
        body_of("bad", {**settings, "base_url": f"{settings['base_url']}/?password={IN_QUERY}"}, secrets),
        body_of(
            "bad",
            {**settings, "base_url": f"https://{quote(USERINFO, safe='')}@{host}/?a={IN_QUERY}"},
            secrets,
        ),
        body_of(
            "bad", {**settings, "authority": f"https://u:{quote(IN_AUTHORITY, safe='')}@{host}"}, secrets
        ),
        body_of("bad", settings, secrets, confirmed_origin=f"https://u:{quote(IN_ORIGIN, safe='')}@{host}"),
        body_of("bad", settings, secrets, schedule={"cron": CRON}),
        body_of("bad", settings, secrets, schedule={"minutes": WRONG_TYPE}),
        body_of("bad", settings, secrets, note=UNKNOWN_FIELD),
        body_of("bad", settings, secrets, **{FIELD_NAME: "x"}),
        body_of("bad", settings, secrets, entities={ENTITY: "pull"}),
        body_of("bad", settings, secrets, entities={"account": WRONG_TYPE}),
    ]
    for body in wrong:
        answer = run("POST", "/api/integrations", body)
        assert answer.status_code == 400, (body, answer.text)
        change = {name: value for name, value in body.items() if name not in ("slug", "connector")}
        assert run("PATCH", "/api/integrations/good", change).status_code == 400
    answer = run("POST", "/api/integrations", {**body_of("bad", settings, secrets), "connector": CONNECTOR})
    assert answer.status_code == 404
    for data in (
        f'{{"slug": "bad", "secrets": {{"client_secret": "{MALFORMED}"',
        MALFORMED,
        f'["{MALFORMED}"]',
    ):
        assert run("POST", "/api/integrations", data=data).status_code == 400


def bad_requests(run):
    accounts = "/api/crm/accounts?connection=good"
    assert run("GET", accounts, key=WRONG_KEY).status_code == 401
    for text in (f"Bearer {WRONG_BEARER}", f"Basic {BASIC}"):
        assert run("GET", accounts, key=None, headers={"Authorization": text}).status_code == 401
    strange = {
        "Cookie": f"session={COOKIE}",
        "tracestate": f"x={BAGGAGE}",
        "traceparent": f"00-{BAGGAGE}-1-01",
    }
    assert run("GET", f"{accounts}&top=1&code={quote(FUNCTION_KEY)}", headers=strange).ok
    assert run("GET", f"{accounts}&password={quote(UNKNOWN_OPTION)}").status_code == 400
    assert run("GET", f"{accounts}&skiptoken={quote(SKIPTOKEN)}").status_code == 400
    assert run("GET", f"/api/crm/accounts/{core('part of a path')}?connection=good").status_code == 400
    assert run("GET", f"/api/crm/{quote(PATH, safe='')}/x/y").status_code == 404
    assert (
        run("POST", "/api/crm/accounts?connection=good", {"name": 7, "phone": [WRONG_TYPE]}).status_code
        == 400
    )
    assert run("POST", "/api/crm/accounts?connection=good", {"nickname": UNKNOWN_FIELD}).status_code == 400
    for text in (f"name eq '{WRONG_LITERAL}", f"name eq {WRONG_LITERAL}", f"employees eq '{WRONG_LITERAL}'"):
        assert run("GET", f"{accounts}&$filter={quote(text, safe='')}").status_code == 400, text


def live(run):
    accounts = "/api/crm/accounts"
    sent = {"Idempotency-Key": IDEMPOTENCY_KEY}
    for _ in range(2):
        made = run("POST", f"{accounts}?connection=good", {"name": CREATED}, headers=sent)
        assert made.status_code == 201, made.text
    assert run("POST", f"{accounts}?connection=good", {"name": "x"}, headers=sent).status_code == 422
    rid = made.json()["id"]
    for headers, status in (
        ({"If-Match": made.json()["etag"]}, 200),
        ({"If-Match": f'W/"{IF_MATCH}"'}, (400, 412)),
    ):
        answer = run("PATCH", f"{accounts}/{rid}?connection=good", {"phone": UPDATED[:30]}, headers=headers)
        assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text
    assert run("GET", f"{accounts}/{rid}?connection=good&raw=true").json()["name"] == CREATED
    text = f"name ne '{LITERAL}' and revenue ne {NUMBER.needles[0]} and accountid ne {GUID_TEXT}"
    first = run("GET", f"{accounts}?connection=good&top=2&$filter={quote(text, safe='')}")
    assert first.ok, first.text
    assert run("GET", first.json()["nextLink"]).ok
    odd = run.sandbox.create(name=f"odd {ODD}")
    for _ in range(2):
        assert run("GET", f"{accounts}/{odd}?connection=good").status_code == 500
    run.sandbox.delete(odd)


def pulls(run):
    kept = run.sandbox.create(name=OLD)
    assert run.run("good", "full")["status"] == "succeeded"
    run.sandbox.update(kept, name=PULLED)
    assert run.run("good")["status"] == "succeeded"
    records = [
        each for each in run("GET", "/api/records/accounts?top=100").json()["value"] if each["name"] == PULLED
    ]
    (record,) = records
    for path in ("", "/history"):
        assert run("GET", f"/api/records/accounts/{record['id']}{path}").ok
    assert run("PATCH", "/api/integrations/good", {"schedule": {"minutes": 1}}).ok
    run.tick()
    run.note_tokens()
    bug = run.sandbox.create(name=f"bug {BUG}")
    started = run("POST", "/api/runs", {"connection": "good", "mode": "full"})
    assert run.ended(started.headers["Operation-Location"], 120)["problem"]["code"] == "Poison"
    run.sandbox.delete(bug)
    links = {each["query"] for each in run.sandbox.requests_since(0)}
    tokens = {match for each in links for match in re.findall(r"(?:deltatoken|skiptoken)=([^&]{8,})", each)}
    assert len(tokens) > 2
    FEED.needles = sorted(tokens)


def webhooks(run, settings):
    """Some that get in, with the key wherever it may be, and some that do not."""
    secrets = {"client_secret": SECRET, "webhook_key": HOOK_KEY}
    assert run("POST", "/api/integrations", body_of("hooked", settings, secrets)).ok
    url = run("POST", "/api/integrations/hooked/webhook").json()["value"][0]["url"]
    rid = run.sandbox.create(name="Of a webhook")
    post = {"PrimaryEntityName": "account", "PrimaryEntityId": rid, "Value": HOOK_BODY}
    headers = {"X-Other": OTHER_HEADER, "Cookie": OTHER_HEADER, "User-Agent": "sweep"}
    good = [
        run("POST", url, post, key=None, headers={**headers, "X-Hub-Token": HOOK_KEY}),
        run("POST", f"{url}?code={quote(HOOK_KEY, safe='')}", post, key=None, headers=headers),
        run("POST", f"{url}?code={quote(HOOK_KEY, safe='')}", [HOOK_BODY], key=None, headers=headers),
    ]
    assert [each.status_code for each in good] == [202] * 3
    bad = {"Value": UNPROVEN}
    for path, more in (
        (url, {"X-Hub-Token": WRONG_HOOK_KEY}),
        (url, {"Authorization": f"Bearer {HOOK_KEY}", "X-API-KEY": WRONG_HOOK_KEY}),
        (f"{url}?code={quote(WRONG_HOOK_KEY, safe='')}", {}),
        (f"{url}x?code={quote(HOOK_KEY, safe='')}", {"X-Hub-Token": HOOK_KEY}),
    ):
        assert run("POST", path, bad, key=None, headers={**headers, **more}).status_code == 401
    deadline = time.monotonic() + 60
    for each in good:
        path = f"/api/events/{each.json()['id']}?connection=hooked"
        while (found := run("GET", path)).status_code == 404 or found.json()["state"] == "open":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert HOOK_BODY in found.json()["body"]


def deliveries(run, start_sandbox):
    """One that is refused, with words that hold our secrets, and then taken."""
    sales = start_sandbox("--token", DELIVERY_TOKEN, "--signing-secret", SIGNING_SECRET, system="sales")
    settings = {"url": f"{sales.url}/webhooks", "token_header": "X-CRM-Webhook-Token"}
    body = {
        "slug": "told", "connector": "webhook", "settings": settings, "schedule": {},
        "secrets": {"token": DELIVERY_TOKEN, "signing_secret": SHORT_SECRET},
        "entities": {"appointment": {"direction": "push"}},
    }  # fmt: skip
    assert run("POST", "/api/integrations", body).status_code == 400
    body["secrets"]["signing_secret"] = SIGNING_SECRET
    assert run("POST", "/api/integrations", body).status_code == 201
    said = f"{WORDS} {SIGNING_SECRET} {DELIVERY_TOKEN} {quote(DELIVERY_TOKEN, safe='')}"
    sales.fault("status", status=400, message=said, count=1)
    assert run("POST", "/api/integrations/told/test").status_code == 422
    sales.fault("status", status=400, message=said, count=1)
    assert run("POST", "/api/records/appointments", {"at": "2026-11-24T13:45:00Z", "notes": DELIVERED}).ok
    deadline = time.monotonic() + 60
    while not (found := run("GET", "/api/deliveries?connection=told&status=done").json()["value"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert WORDS in found[0]["attempts"][0]["words"]
    assert DELIVERED in run("GET", f"/api/deliveries/{found[0]['id']}?connection=told").json()["body"]


def failures(run, settings):
    """The remote system fails, and says things that it should not."""
    token = run.note_tokens()
    for how in (
        {
            "kind": "status",
            "status": 400,
            "code": "0x80040217",
            "message": f"{SECRET} and {token} are not {REASON}",
        },
        {"kind": "status", "status": 403, "message": f"Bearer {token} may not {REASON}"},
        {"kind": "status", "status": 500, "message": f"client_secret={SECRET} {REASON}"},
        {"kind": "status", "status": 503, "code": SECRET, "message": quote(token, safe="")},
        {"kind": "throttle", "message": f"{REASON} {SECRET}", "retry_after": "1"},
        {"kind": "html", "status": 502, "text": f"<html>{PAGE} {SECRET}</html>"},
        {"kind": "html", "status": 200, "text": f"<html>{GARBAGE} {SECRET}</html>"},
        {"kind": "garbage", "text": f"[{GARBAGE} {token}"},
        {"kind": "reset"},
    ):
        run.sandbox.fault(path="*/accounts*", count=None, **how)
        assert run("GET", "/api/crm/accounts?connection=good&top=1").status_code >= 400, how
        assert run("POST", "/api/crm/accounts?connection=good", {"name": "x"}).status_code >= 400, how
        started = run("POST", "/api/runs", {"connection": "good", "mode": "incremental"})
        assert started.status_code in (202, 409)
        run.tick()
        time.sleep(0.3)
        run.sandbox.control("DELETE", "faults")
    for path in (
        "/api/integrations",
        "/api/integrations/good",
        "/api/runs?top=50",
        "/api/connectors",
        "/api/openapi.json",
    ):
        assert run("GET", path).ok
    run.sandbox.control("POST", "tokens/revoke")
    assert run("POST", "/api/integrations/good/test").ok
    run.note_tokens()


def messages(run):
    """Messages that are no jobs of ours: not in base64, no JSON, of another version; then what is deleted goes."""
    before = len(run.dead_letters())
    run.send(MESSAGE)
    for text in (MESSAGE, json.dumps({"v": 1, "job": MESSAGE, "tenant": "default"})):
        run.send(base64.b64encode(text.encode()).decode())
    deadline = time.monotonic() + 60
    while len(run.dead_letters()) < before + 2:  # what is not in base64 the host itself sets aside
        assert time.monotonic() < deadline, run.dead_letters()
        time.sleep(0.2)
    assert run("DELETE", "/api/integrations/certified?confirm=true").status_code == 204


# --- what is found -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(swept):
    return swept.corpus()


def test_more_than_thirty_secrets_and_values_are_planted():
    assert len(PLANTED) > 45
    assert sum(not each.may for each in PLANTED.values()) >= 30


def test_every_planted_secret_is_where_it_may_be_and_nowhere_else(corpus):
    assert [each.name for each in PLANTED.values() if not each.needles] == []
    found = {each.name: places_of(each.needles, corpus) - each.may for each in PLANTED.values()}
    assert {name: places for name, places in found.items() if places} == {}


def test_what_may_be_somewhere_is_found_there(corpus):
    """So the search reads what it says it reads."""
    for name, place in (
        ("value at the remote system", RECORDS),
        ("old value", RECORDS),
        ("value of a create", KEYS),
        ("value in the body of a webhook", EVENTS),
        ("value that is delivered", EVENTS),
        ("words of a receiver", EVENTS),
        ("value in a vendor's reason", STATE),
        ("delta and next links", STATE),
        ("body of a message that is no job", QUEUES),
        ("body of a message that is no job", DEAD),
        ("literal of a filter", ANSWERS),
        ("part of a path", ANSWERS),
    ):
        assert place in places_of(PLANTED[name].needles, corpus), (name, place)


def test_everything_was_searched(corpus):
    tables = {f"table {name}" for name in layout.TABLES}
    assert corpus.keys() >= {LOG, ANSWERS, QUEUES, BLOBS, *tables}
    log = corpus[LOG].decode()
    for event in ("request", "remote request", "token", "job", "run", "tick", "pull failed", "poison",
                  "message is no job", "function failed", "bug while answering", "webhook", "webhook refused", "delivery"):  # fmt: skip
        assert f'"event":"{event}"' in log, event


def test_no_log_line_holds_a_token_or_a_traceback(corpus):
    log = corpus[LOG].decode()
    assert not re.search(r"eyJ[\w-]{4,}\.", log)
    assert "AccountKey" not in log
    assert "BEGIN" not in log
    # The host's own traceback of a failed function is of the error without its message.
    for line in log.splitlines():
        assert not line.startswith(("KeyError", "RuntimeError", "ValueError"))


LEAK = "0123456789abcdef~leak"
WAYS = {
    "as it is": lambda text: text,
    "for a URL": lambda text: quote(text, safe=""),
    "in base64": lambda text: base64.b64encode(f"x{text}y".encode()).decode(),
    "in base64 for URLs": lambda text: base64.urlsafe_b64encode(f"<?>{text}".encode()).decode(),
    "in UTF-16 in base64": lambda text: base64.b64encode(f"ab{text}".encode("utf-16-le")).decode(),
    "in hex": lambda text: text.encode().hex(),
}


def test_a_planted_leak_is_found_in_a_log_line_however_it_is_written(swept, corpus):
    leaks = {way: f"{core(way)}{LEAK}" for way in WAYS}
    assert places_of([*leaks.values()], corpus) == set()
    for way, leak in leaks.items():
        swept.session.post(f"{swept.child.url}/planted/log", data=WAYS[way](leak), timeout=60)
    time.sleep(1)  # the lines come through a pipe
    found = swept.corpus()
    assert {way: places_of([leak], found) for way, leak in leaks.items()} == {way: {LOG} for way in WAYS}


def test_a_planted_leak_is_found_in_each_store(swept):
    leak = f"{core('each store')}{LEAK}"
    with TableServiceClient.from_connection_string(swept.connection_string) as tables:
        table = tables.get_table_client(layout.STATS)
        table.upsert_entity({"PartitionKey": "leak", "RowKey": "1", "z0": zlib.compress(leak.encode())})
        table = tables.get_table_client(layout.CONFIG)
        table.upsert_entity({"PartitionKey": "leak", "RowKey": "1", "b": leak.encode("utf-16-le")})
    with BlobServiceClient.from_connection_string(swept.connection_string) as blobs:
        blobs.get_container_client(layout.CONTAINER).upload_blob("leak", leak.encode("utf-16-be"))
    with QueueServiceClient.from_connection_string(swept.connection_string) as queues:
        queues.create_queue("leak").send_message(base64.b64encode(leak.encode()).decode())
    swept("GET", f"/api/crm/{leak}/x/y")
    assert places_of([leak], swept.corpus()) == {
        f"table {layout.STATS}", f"table {layout.CONFIG}", BLOBS, QUEUES, ANSWERS,
    }  # fmt: skip
