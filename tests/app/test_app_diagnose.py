"""A diagnosis through the whole hub: each check is broken in earnest, and only that is told, with what to do."""

import json
import re
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from azure.data.tables import TableServiceClient, UpdateMode
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

CHECKS = ["settings", "secrets", "token", "connectivity", "permission", "storage", "queues"]
FIELDS = {"check", "status", "milliseconds", "found", "code", "message", "remedy"}
ADDRESS = "Check the address in the connection's settings, and that network and firewalls let the hub reach it; try again."
REFUSED = "No connection to '127.0.0.1': it refuses or can't be reached."
WRONG_SECRET = "a-wrong~secret+of/tests"

pytestmark = [pytest.mark.xdist_group("app-api"), pytest.mark.usefixtures("demo")]


def diagnose(api, slug):
    """Every check by its name; the form of the answer is looked at on the way."""
    answer = api.ok("GET", f"/api/crm/system/diagnose?connection={slug}")
    assert answer["connection"] == slug
    assert [each["check"] for each in answer["checks"]] == CHECKS
    for each in answer["checks"]:
        assert each.keys() == FIELDS
        assert type(each["milliseconds"]) is int
        assert each["milliseconds"] >= 0
        well = each["status"] == "ok"
        assert (
            (each["message"], each["remedy"]) == (None, None) if well else each["message"] and each["remedy"]
        )
    failed = any(each["status"] == "failed" for each in answer["checks"])
    assert answer["status"] == ("failed" if failed else "ok")
    return {each["check"]: each for each in answer["checks"]}


def statuses(checks):
    return {name: each["status"] for name, each in checks.items()}


def all_ok_but(**others):
    return {**dict.fromkeys(CHECKS, "ok"), **others}


@pytest.fixture
def tables(azurite):
    with TableServiceClient.from_connection_string(azurite) as service:
        yield service.get_table_client


def test_a_connection_that_works_is_ok_in_every_check(api, connect, sandbox, tables, azurite):
    connect("sound")
    seen = sandbox.last_request()
    checks = diagnose(api, "sound")
    assert statuses(checks) == all_ok_but()
    assert checks["secrets"]["found"] == {"names": ["client_secret"]}
    token = checks["token"]["found"]
    assert token["audience"] == sandbox.url
    assert re.fullmatch(r"[0-9a-f]{16}", token["fingerprint"])
    assert 3000 < token["expires_in_seconds"] <= 3600
    assert checks["connectivity"]["found"] == {"host": urlsplit(sandbox.url).netloc}
    assert checks["permission"]["found"]["entities"] == {"account": "ok"}
    assert checks["permission"]["found"]["user_id"]
    assert {name: found.keys() for name, found in checks["queues"]["found"].items()} == {
        lane: {"messages", "oldest_seconds"} for lane in ("fresh", "bulk")
    }
    asked = [
        (each["method"], each["path"].rpartition("/")[2], each["status"])
        for each in sandbox.requests_since(seen)
    ]
    # The base address without credentials, then with them who we are, and one record with its owner and currency.
    *first, owner, currency = [each for each in asked if each[1] != "openid-configuration"]
    assert first == [
        ("POST", "token", 200), ("GET", "v9.2", 401), ("GET", "WhoAmI", 200), ("GET", "accounts", 200),
    ]  # fmt: skip
    assert {owner, currency} == {("GET", "systemusers", 200), ("GET", "transactioncurrencies", 200)}


def waiting_messages(azurite):
    """Of both lanes, those that nobody can see yet too."""
    with QueueServiceClient.from_connection_string(azurite) as service:
        clients = [service.get_queue_client(lane) for lane in ("fresh", "bulk")]
        return sum(each.get_queue_properties().approximate_message_count for each in clients)


def test_a_diagnosis_leaves_nothing_behind(api, connect, tables, azurite):
    connect("tidy")
    before = waiting_messages(azurite)
    diagnose(api, "tidy")
    assert list(tables("keys").query_entities("PartitionKey eq 'default~diagnose'")) == []
    assert waiting_messages(azurite) <= before  # those that wait for their time may be others'
    with BlobServiceClient.from_connection_string(azurite) as service:
        assert list(service.get_container_client("crmhub").list_blobs("diagnose/")) == []


def test_each_diagnosis_asks_for_a_token_of_its_own(api, connect):
    connect("anew")
    prints = {diagnose(api, "anew")["token"]["found"]["fingerprint"] for _ in range(2)}
    assert len(prints) == 2


def test_the_only_connection_needs_no_name(api, demo):
    answer = api.ok("GET", "/api/crm/system/diagnose")
    assert (answer["status"], answer["connection"]) == ("ok", "demo")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_url": "https://evil.example"},
         "settings.base_url: Credentials may not go to https://evil.example: allowed are"),
        ({"api_version": "latest"}, "settings.api_version: Expected a version such as v9.2."),
        ({"color": "blue"}, "settings.color: is unknown;"),
        ({"base_url": ""}, "settings.base_url: is missing (Environment URL)."),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(api, connect, tables, change, message):
    """As older code, or a hand in the table, may have left it; the API itself takes none."""
    uid = connect("astray")["uid"]
    row = tables("config").get_entity("default", f"connection~{uid}")
    data = json.loads(row["json"])
    row["json"] = json.dumps({**data, "settings": {**data["settings"], **change}})
    tables("config").update_entity(row, UpdateMode.REPLACE)
    checks = diagnose(api, "astray")
    skipped = dict.fromkeys(("token", "connectivity", "permission"), "skipped")
    assert statuses(checks) == all_ok_but(settings="failed", **skipped)
    assert checks["settings"]["message"].startswith(message)
    assert checks["settings"]["code"] == "BadRequest"
    assert checks["settings"]["remedy"] == "Correct the connection by PATCH /api/integrations/astray."
    assert checks["token"]["message"] == "Not tried: it needs settings."
    assert checks["permission"]["message"] == "Not tried: it needs token and connectivity."


def test_a_connector_that_is_gone_is_a_wrong_setting(api, connect, tables):
    uid = connect("orphan")["uid"]
    row = tables("config").get_entity("default", f"connection~{uid}")
    row["json"] = json.dumps({**json.loads(row["json"]), "connector": "retired"})
    tables("config").update_entity(row, UpdateMode.REPLACE)
    settings = diagnose(api, "orphan")["settings"]
    assert (settings["status"], settings["message"]) == (
        "failed", "There is no connector 'retired'; there are dynamics365, odoo, webhook.",
    )  # fmt: skip


def test_secrets_that_are_gone_are_named(api, connect, tables):
    uid = connect("bare")["uid"]
    tables("secrets").delete_entity("default", f"bundle~{uid}")
    checks = diagnose(api, "bare")
    skipped = dict.fromkeys(("token", "connectivity", "permission"), "skipped")
    assert statuses(checks) == all_ok_but(secrets="failed", **skipped)
    assert checks["secrets"]["code"] == "Misconfigured"
    assert checks["secrets"]["message"] == "secrets.client_secret: is missing (Client secret)."
    assert (
        checks["secrets"]["remedy"] == "Save the connection's secrets again by PATCH /api/integrations/bare."
    )


def test_secrets_of_another_key_are_told_apart_from_those_that_are_gone(api, connect, tables):
    uid = connect("sealed")["uid"]
    row = tables("secrets").get_entity("default", f"bundle~{uid}")
    row["sealed"] = "1.00000000." + str(row["sealed"]).split(".")[2]
    tables("secrets").update_entity(row, UpdateMode.REPLACE)
    checks = diagnose(api, "sealed")
    skipped = dict.fromkeys(("token", "connectivity", "permission"), "skipped")
    assert statuses(checks) == all_ok_but(secrets="failed", **skipped)
    assert "can't be read: sealed with another key (00000000)" in checks["secrets"]["message"]


def test_a_secret_that_is_refused_fails_the_token_only(api, connect):
    connect("refused", secrets={"client_secret": WRONG_SECRET})
    checks = diagnose(api, "refused")
    assert statuses(checks) == all_ok_but(token="failed", permission="skipped")
    token = checks["token"]
    assert (token["code"], token["remedy"]) == (
        "AuthFailed", "Correct the credentials there, or here by PATCH /api/integrations/refused.",
    )  # fmt: skip
    assert token["message"].startswith("AADSTS7000215: Invalid client secret provided.")
    assert token["message"].endswith("Enter the secret's value, not its id.")
    assert checks["permission"]["message"] == "Not tried: it needs token."


def test_a_secret_that_was_changed_elsewhere_is_refused_although_a_token_is_at_hand(
    api, connect, start_sandbox
):
    """The token that a process or the store keeps would still work for an hour."""
    other = start_sandbox("--records", "1")
    origin = other.url
    connect("rotated", settings={**api.ok("GET", "/api/integrations/demo")["settings"], "base_url": origin,
                                 "authority": origin, "client_id": other.facts["client_id"]})  # fmt: skip
    assert statuses(diagnose(api, "rotated")) == all_ok_but()
    other.fault("status", status=401, path="*/oauth2/v2.0/token", count=None)
    assert len(api.ok("GET", "/api/crm/accounts?connection=rotated")["value"]) == 1
    assert diagnose(api, "rotated")["token"]["status"] == "failed"


def test_a_remote_that_is_stopped_is_not_reached(api, connect, start_sandbox):
    other = start_sandbox("--records", "1")
    origin = other.url
    connect("stopped", settings={
        **api.ok("GET", "/api/integrations/demo")["settings"], "base_url": origin, "authority": origin,
    })  # fmt: skip
    assert statuses(diagnose(api, "stopped")) == all_ok_but()
    other.process.terminate()
    other.process.wait(20)
    checks = diagnose(api, "stopped")
    assert statuses(checks) == all_ok_but(token="failed", connectivity="failed", permission="skipped")
    for check, remedy in (
        ("token", "Check the sign-in address and the network, and try again."),
        ("connectivity", ADDRESS),
    ):
        told = checks[check]
        assert (told["code"], told["message"], told["remedy"]) == ("Unavailable", REFUSED, remedy)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"kind": "reset"}, "The connection to '127.0.0.1' broke off."),
        (
            {"kind": "status", "status": 503, "message": "Out of order"},
            "dynamics365 answered 503: Out of order",
        ),
    ],
)
def test_a_host_that_does_not_answer_fails_connectivity_while_the_token_is_given(
    api, connect, faults, fault, message
):
    connect("silent")
    faults(**fault, path="/api/data/v9.2", count=None)
    checks = diagnose(api, "silent")
    assert statuses(checks) == all_ok_but(connectivity="failed", permission="skipped")
    assert (checks["connectivity"]["code"], checks["connectivity"]["message"]) == ("Unavailable", message)


def test_a_missing_privilege_is_named_with_its_entity(api, connect, faults):
    connect("guest", entities={"account": "pull", "contact": "pull"})
    faults("privilege", code="prvReadContact", path="*/contacts*")
    checks = diagnose(api, "guest")
    assert statuses(checks) == all_ok_but(permission="failed")
    permission = checks["permission"]
    assert permission["code"] == "NotPermitted"
    assert "is missing prvReadContact privilege" in permission["message"]
    entities = permission["found"]["entities"]
    assert (entities["account"], entities["contact"]) == ("ok", permission["message"])
    assert permission["remedy"] == (
        "Give the hub's user at Microsoft Dynamics 365 what the message names, such as a role with that privilege."
    )


def test_a_user_that_the_remote_does_not_know_fails_permission(api, connect, sandbox):
    connect("stranger-there")
    sandbox.control("POST", "options", {"app_user": "missing"})
    try:
        checks = diagnose(api, "stranger-there")
    finally:
        sandbox.control("POST", "options", {"app_user": "ok"})
    assert statuses(checks) == all_ok_but(permission="failed")
    assert "The user is not a member of the organization." in checks["permission"]["message"]


def test_a_remote_that_counts_the_calls_says_how_long_to_wait(api, connect, faults):
    connect("busy")
    faults("throttle", retry_after=17, path="*/accounts*", count=None)
    permission = diagnose(api, "busy")["permission"]
    assert (permission["code"], permission["remedy"]) == (
        "RateLimited", "Wait 17 s and try again: Microsoft Dynamics 365 counts the hub's calls.",
    )  # fmt: skip


# --- the hub's own storage -----------------------------------------------------------------------------------------


DENIED = "AuthorizationPermissionMismatch"
REFUSALS = {
    "Table": ("application/json", json.dumps({"odata.error": {"code": DENIED, "message": {"value": "no"}}})),
    "": (
        "application/xml",
        f"<?xml version='1.0'?><Error><Code>{DENIED}</Code><Message>no</Message></Error>",
    ),
}


class Way:
    """What lies between a hub and its storage account: it can refuse what a role or network rule would."""

    def __init__(self, service: str, target: str) -> None:
        self.refuse: Callable[[str, str], bool] = lambda _method, _path: False
        port = urlsplit(target).port
        way, (kind, text) = self, REFUSALS.get(service, REFUSALS[""])

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if way.refuse(self.command, self.path):
                    self.answer(403, {"x-ms-error-code": DENIED, "Content-Type": kind}, text.encode())
                    return
                connection = HTTPConnection("127.0.0.1", port, timeout=30)
                try:
                    connection.request(self.command, self.path, body, dict(self.headers))
                    answer = connection.getresponse()
                    kept = {
                        name: value for name, value in answer.getheaders() if name.lower() not in OF_ONE_HOP
                    }
                    self.answer(answer.status, kept, answer.read())
                finally:
                    connection.close()

            def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_MERGE = handle_any  # noqa: N815  # found by name

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port, self._behind = self._server.server_port, port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def through(self, text: str) -> str:
        """The connection string, its address replaced."""
        return text.replace(f":{self._behind}/", f":{self.port}/")

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@contextmanager
def refusing(way, refuse):
    way.refuse = refuse
    try:
        yield
    finally:
        way.refuse = lambda _method, _path: False


@pytest.fixture(scope="module")
def ways(azurite):
    """One for each service of the account."""
    endpoints = dict(re.findall(r"(\w+)Endpoint=([^;]+);", azurite))
    made = {name.lower(): Way(name, url) for name, url in endpoints.items()}
    yield made
    for way in made.values():
        way.close()


@pytest.fixture(scope="module")
def guarded(start_hub, azurite, ways):
    """A second instance of the hub, over the same storage account by ways that a test can bar."""
    account = azurite
    for way in ways.values():
        account = way.through(account)
    return start_hub(AzureWebJobsStorage=account)


def test_a_hub_that_may_read_its_tables_but_not_write_fails_storage_only(guarded, ways, connect):
    connect("read-only")
    assert statuses(diagnose(guarded, "read-only")) == all_ok_but()
    with refusing(ways["table"], lambda method, path: method == "POST" and path.endswith("/$batch")):
        checks = diagnose(guarded, "read-only")
    assert statuses(checks) == all_ok_but(storage="failed")
    storage = checks["storage"]
    assert storage["code"] == "Misconfigured"
    assert storage["message"].startswith("transaction on table keys: 403")
    assert storage["remedy"].startswith(
        "Check the setting AzureWebJobsStorage, that the hub's identity has the roles"
    )


def test_a_hub_that_may_not_write_blobs_fails_storage(guarded, ways, connect):
    connect("no-blobs")
    with refusing(ways["blob"], lambda method, _: method == "PUT"):
        checks = diagnose(guarded, "no-blobs")
    assert statuses(checks) == all_ok_but(storage="failed")
    assert checks["storage"]["message"].startswith("put to container crmhub: 403")


def test_a_hub_that_may_read_its_queues_but_not_send_fails_queues_only(guarded, ways, connect):
    connect("no-sender")
    with refusing(ways["queue"], lambda method, path: method == "POST" and "/messages" in path):
        checks = diagnose(guarded, "no-sender")
    assert statuses(checks) == all_ok_but(queues="failed")
    queues = checks["queues"]
    assert (queues["code"], queues["message"].partition(".")[0]) == (
        "Misconfigured", "send to queue fresh: 403 AuthorizationPermissionMismatch",
    )  # fmt: skip
    assert queues["remedy"].startswith(
        "Check the setting AzureWebJobsStorage, that the hub's identity has the role"
    )


def test_a_queue_service_that_is_not_there_fails_queues_only(guarded, ways, connect):
    connect("no-queues")
    with refusing(ways["queue"], lambda _method, _path: True):
        assert statuses(diagnose(guarded, "no-queues")) == all_ok_but(queues="failed")


def test_work_that_waits_is_counted(api, connect, azurite):
    """A message that nobody can see yet counts too."""
    connect("waiting")
    with QueueServiceClient.from_connection_string(azurite) as service:
        client = service.get_queue_client("bulk")
        before = client.get_queue_properties().approximate_message_count
        sent = client.send_message("aGVsbG8=", visibility_timeout=600)
        try:
            found = diagnose(api, "waiting")["queues"]["found"]
        finally:
            client.delete_message(sent)
    assert found["bulk"] == {"messages": before + 1, "oldest_seconds": None}
