"""One token for all instances: claims in the store, and real processes that race for a token over Azurite."""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from crm_core.connector import Account, Tools
from crm_core.errors import AuthFailed, StoreUnavailable
from crm_core.protocols.auth import CLAIM_SECONDS
from crm_core.protocols.entra import ClientCredentials
from crm_core.protocols.guard import Guard, Origins
from crm_core.protocols.http import Http
from crm_core.storage.azure import AzureTable, StorageAccount
from crm_core.storage.memory import MemoryTable
from crm_core.storage.secrets import Cipher, StoredTokens
from crm_core.system import SystemClock, SystemIds
from tests.contract.fake_azure import fake_azure

SECRET = "planted~client-secret&0123"
ROOT = Path(__file__).resolve().parents[2]
NOW = 1_800_000_000.0
TOKEN_PATH = "POST /tenant-1/oauth2/v2.0/token"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with fake_azure(tmp_path_factory.mktemp("azure")) as fake:
        yield fake


@pytest.fixture
def azure(server):
    server.reset()
    server.clients["tenant-1", "client-1"] = SECRET
    return server


def credentials(url, ca, tokens, tenant, stack):
    """What one instance of the hub has of a connection."""
    clock = SystemClock()
    http = Http(Guard(allow_loopback=True, allow_private=False), clock, ca_bundle=ca)
    stack.callback(http.close)
    return ClientCredentials(
        Account(tenant, "uid-1", {}, {"client_secret": SECRET}),
        Tools(http, tokens, clock, SystemIds()),
        authority=url,
        tenant_id="tenant-1",
        client_id="client-1",
        client_secret=SECRET,
        scope="https://org.crm.dynamics.com/.default",
        origins=Origins((), allow_loopback=True),
    )


def child():
    """One process of the race: says when it is ready, begins at a line, says its token."""
    from crm_core.protocols import auth

    connection, url, ca, tenant, auth.CLAIM_SECONDS = *sys.argv[1:5], float(sys.argv[5])
    with ExitStack() as stack:
        table = AzureTable(StorageAccount(connection))
        stack.callback(table.close)
        own = credentials(url, ca, StoredTokens(table, Cipher(b"k" * 32)), tenant, stack)
        table.get("secrets", tenant, "warm")  # loads the SDK
        import msal  # noqa: F401  # loaded before the race begins

        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        sys.stdout.write(own.headers()["Authorization"] + "\n")


@contextmanager
def process(azurite, azure, tenant, claim_seconds=CLAIM_SECONDS):
    command = [sys.executable, "-c", "from tests.contract.test_identity_tokens import child; child()"]
    command += [azurite, azure.url, str(azure.ca), tenant, str(claim_seconds)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def begin(*running):
    for each in running:
        assert each.stdout.readline() == "ready\n"
    for each in running:
        each.stdin.write("go\n")
        each.stdin.flush()


def test_two_processes_make_one_token_call(azurite, azure):
    azure.token_seconds = 1.5
    with process(azurite, azure, "race") as one, process(azurite, azure, "race") as other:
        begin(one, other)
        got = {each.stdout.readline() for each in (one, other)}
        assert (one.wait(10), other.wait(10)) == (0, 0)
    (line,) = got
    assert line.removeprefix("Bearer ").strip() in azure.issued
    assert azure.count(TOKEN_PATH) == 1


def test_a_killed_process_holds_nobody_up_for_long(azurite, azure):
    azure.token_seconds = 1.0
    with process(azurite, azure, "killed", 2.0) as first, process(azurite, azure, "killed", 2.0) as second:
        begin(first)
        while not azure.count(TOKEN_PATH):
            time.sleep(0.01)
        first.kill()
        started = time.monotonic()
        begin(second)
        line = second.stdout.readline()
        assert second.wait(10) == 0
    assert line.removeprefix("Bearer ").strip() in azure.issued
    assert azure.count(TOKEN_PATH) == 2
    assert time.monotonic() - started < 9


# --- claims ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "azurite"])
def tokens(request):
    if request.param == "memory":
        yield StoredTokens(MemoryTable(), Cipher(b"k" * 32))
        return
    table = AzureTable(StorageAccount(request.getfixturevalue("azurite")))
    yield StoredTokens(table, Cipher(b"k" * 32))
    for row in table.query("secrets", pk="claims").rows:
        table.delete("secrets", row.pk, row.rk)
    table.close()


def test_one_of_many_gets_the_claim(tokens):
    assert tokens.claim("claims", "u", NOW, 10)
    assert tokens.claim("claims", "u", NOW, 10) == ""
    assert tokens.claim("claims", "other", NOW, 10)
    assert tokens.get("claims", "u") is None


def test_a_claim_ends_by_itself(tokens):
    first = tokens.claim("claims", "u", NOW, 10)
    assert tokens.claim("claims", "u", NOW + 9.9, 10) == ""
    second = tokens.claim("claims", "u", NOW + 10, 10)
    assert second not in ("", first)
    tokens.release("claims", "u", first)  # it is somebody else's now
    assert tokens.claim("claims", "u", NOW + 11, 10) == ""


def test_a_claim_from_the_far_future_is_a_wrong_clock(tokens):
    assert tokens.claim("claims", "u", NOW + 3600, 10)
    assert tokens.claim("claims", "u", NOW, 10)


def test_a_released_claim_is_free_and_the_old_token_stays(tokens):
    tokens.put("claims", "u", "old", 5.0)
    claim = tokens.claim("claims", "u", NOW, 10)
    assert tokens.get("claims", "u") == ("old", 5.0)
    tokens.release("claims", "u", claim)
    assert tokens.get("claims", "u") == ("old", 5.0)
    assert tokens.claim("claims", "u", NOW, 10)


def test_a_token_ends_the_claim(tokens):
    claim = tokens.claim("claims", "u", NOW, 10)
    tokens.put("claims", "u", "new", 7.0)
    tokens.release("claims", "u", claim)
    assert tokens.get("claims", "u") == ("new", 7.0)
    assert tokens.claim("claims", "u", NOW, 10)


def test_a_dropped_token_is_gone(tokens):
    tokens.put("claims", "u", "new", 7.0)
    tokens.drop("claims", "u")
    tokens.drop("claims", "u")
    assert tokens.get("claims", "u") is None
    tokens.release("claims", "u", "claim")


# --- instances in one process ----------------------------------------------------------------------------------------


@pytest.fixture
def instance(azure):
    table = MemoryTable()
    with ExitStack() as stack:
        yield lambda tokens=None: credentials(
            azure.url, str(azure.ca), tokens or StoredTokens(table, Cipher(b"k" * 32)), "default", stack
        )


def together(*calls):
    """Runs the calls at once; gives what each returned or raised."""
    results = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(index):
        barrier.wait()
        try:
            results[index] = calls[index]()
        except Exception as error:  # noqa: BLE001  # the test looks at it
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_twenty_cold_workers_of_four_instances_make_one_token_call(azure, instance):
    azure.token_seconds = 0.3
    instances = [instance() for _ in range(4)]
    got = together(*(each.headers for each in instances for _ in range(5)))
    assert len({each["Authorization"] for each in got}) == 1
    assert azure.count(TOKEN_PATH) == 1


def test_a_refused_token_is_replaced_once_for_all(azure, instance):
    instances = [instance() for _ in range(4)]
    first = instances[0].headers()
    assert all(each.headers() == first for each in instances)
    azure.token_seconds = 0.3
    got = together(*((lambda each=each: each.headers(force=True, rejected=first)) for each in instances))
    (second,) = {each["Authorization"] for each in got}
    assert second != first["Authorization"]
    assert azure.count(TOKEN_PATH) == 2


def test_a_failure_frees_the_claim_at_once(azure, instance):
    azure.clients["tenant-1", "client-1"] = "changed"
    one, other = instance(), instance()
    started = time.monotonic()
    got = together(one.headers, other.headers)
    assert [type(each) for each in got] == [AuthFailed, AuthFailed]
    assert time.monotonic() - started < CLAIM_SECONDS / 2
    azure.clients["tenant-1", "client-1"] = SECRET
    one.headers()
    assert time.monotonic() - started < CLAIM_SECONDS / 2


def test_a_store_that_takes_no_claim_stops_nobody(azure, instance):
    class Down(StoredTokens):
        def claim(self, *_):
            raise StoreUnavailable("planted")

    assert instance(Down(MemoryTable(), Cipher(b"k" * 32))).headers()["Authorization"].startswith("Bearer ")
