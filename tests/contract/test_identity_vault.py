"""Secrets in Key Vault: azure-identity and azure-keyvault-secrets against a vault of our own over TLS."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from crm_core.errors import BadRequest, Misconfigured, StoreUnavailable
from crm_core.ports import measured
from crm_core.settings import load
from crm_core.storage.clients import managed_identity
from crm_core.storage.key_vault import DATA_KEY, AzureSecrets
from crm_core.storage.memory import MemoryTable
from crm_core.storage.secrets import Cipher, StoredTokens
from tests.contract.fake_azure import HEADER, IDENTITY, VAULT_RESOURCE, fake_azure

SECRET = "planted~vault-secret&0123"
UID = "0a1b2c3d-0000-4000-8000-000000000001"


class Clock:
    """The real time, plus what was slept and skipped."""

    def __init__(self):
        self.ahead = 0.0

    def now(self):
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def monotonic(self):
        return time.monotonic() + self.ahead

    def sleep(self, seconds):
        self.ahead += seconds


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with fake_azure(tmp_path_factory.mktemp("azure")) as fake:
        yield fake


@pytest.fixture
def azure(server, monkeypatch):
    server.reset()
    monkeypatch.setenv("IDENTITY_ENDPOINT", server.identity_url)
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    return server


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def instance(azure, clock):
    """Makes what one process has of the vault."""
    with ExitStack() as stack:

        def make(url=azure.url, client_id=IDENTITY):
            vault = AzureSecrets(url, managed_identity(client_id), clock, ca_bundle=str(azure.ca))
            stack.callback(vault.close)
            return vault

        yield make


@pytest.fixture
def vault(instance):
    return instance()


def only(azure):
    """The one secret in the vault: its name and its versions."""
    ((name, versions),) = azure.vault.items()
    return name, versions


def test_making_one_calls_nobody(azure, vault):
    assert azure.asked == []


def test_a_bundle_is_one_secret(azure, vault):
    with measured() as meter:
        version = vault.put("default", UID, {"client_secret": SECRET, "ñ": "日本"})
        assert vault.get("default", UID) == {"client_secret": SECRET, "ñ": "日本"}
    name, (kept,) = only(azure)
    assert name.startswith(f"crmhub-{UID}-")
    assert kept["version"] == version
    assert json.loads(kept["value"]) == {"client_secret": SECRET, "ñ": "日本"}
    assert kept["tags"] == {"tenant": "default", "connection": UID}
    assert meter.counts() == {("vault_calls", ""): 1, ("secrets_from_memory", UID): 1}
    assert azure.count(f"/msi/token {VAULT_RESOURCE}") == 1


def test_the_app_s_own_identity_is_asked_for_without_a_client_id(azure, instance):
    vault = instance(client_id="")
    vault.put("default", UID, {"a": "b"})
    assert vault.get("default", UID) == {"a": "b"}


def test_what_is_not_there_is_none_and_can_be_deleted(azure, vault):
    assert vault.get("default", UID) is None
    vault.delete("default", UID)


def test_tenants_do_not_see_each_other(azure, vault, instance):
    vault.put("one", UID, {"a": "1"})
    vault.put("two", UID, {"a": "2"})
    other = instance()
    assert (other.get("one", UID), other.get("two", UID)) == ({"a": "1"}, {"a": "2"})
    other.delete("one", UID)
    assert other.get("two", UID) == {"a": "2"}
    # Names in a vault are alike in either case.
    assert len({name.lower() for name in azure.vault} | {name.lower() for name in azure.deleted}) == 2
    vault.put("one", "abc", {"a": "3"})
    vault.put("one", "ABC", {"a": "4"})
    assert len({name.lower() for name in azure.vault}) == 3


@pytest.mark.parametrize("name", ["", "a/b", "a~b", "x" * 101, "ñ"])
def test_a_name_that_a_vault_can_not_have(vault, name):
    with pytest.raises(ValueError):
        vault.get("default", name)


def test_a_copy_is_kept_for_a_minute(azure, vault, instance, clock):
    vault.put("default", UID, {"a": "1"})
    other = instance()
    other.put("default", UID, {"a": "2"})
    with measured() as meter:
        clock.ahead += 59
        assert vault.get("default", UID) == {"a": "1"}
        assert meter.total("vault_calls") == 0
        clock.ahead += 2
        assert vault.get("default", UID) == {"a": "2"}
        assert vault.get("default", UID) == {"a": "2"}
        assert meter.total("vault_calls") == 1
    other.put("default", UID, {"a": "3"})
    vault.invalidate("default", UID)
    assert vault.get("default", UID) == {"a": "3"}


def test_a_copy_can_not_be_changed(vault):
    given = {"a": "1"}
    vault.put("default", UID, given)
    given["a"] = "2"
    kept = vault.get("default", UID)
    assert kept == {"a": "1"}
    with pytest.raises(TypeError):
        kept["a"] = "2"


def test_a_deleted_bundle_is_gone_and_its_name_can_be_taken_again(azure, vault):
    vault.put("default", UID, {"a": "1"})
    vault.delete("default", UID)
    assert vault.get("default", UID) is None
    assert azure.vault == {}
    version = vault.put("default", UID, {"a": "2"})
    assert azure.count("POST /deletedsecrets/") == 1
    _, versions = only(azure)
    assert versions[-1]["version"] == version
    vault.invalidate("default", UID)
    assert vault.get("default", UID) == {"a": "2"}


def test_a_deleted_secret_that_is_not_recovered_in_time(azure, vault):
    azure.refuse = azure.error(409, "Conflict", "ObjectIsBeingDeleted")
    with pytest.raises(StoreUnavailable, match="recover or purge it"):
        vault.put("default", UID, {"a": "2"})


def test_a_bundle_that_is_too_large_is_refused_by_name(azure, vault):
    with pytest.raises(BadRequest) as caught:
        vault.put("default", UID, {"short": "x", "client_certificate": "y" * 24_000})
    assert [error.field for error in caught.value.errors] == ["secrets.client_certificate"]
    assert azure.asked == []


@pytest.mark.parametrize("verb", ["get", "put", "delete", "key"])
@pytest.mark.parametrize(
    ("refusal", "kind", "says"),
    [
        ((403, "Forbidden", "ForbiddenByRbac"), Misconfigured, "Key Vault Secrets Officer"),
        ((403, "Forbidden", "SecretDisabled"), Misconfigured, "Enable the secret"),
        ((400, "BadParameter", ""), StoreUnavailable, "400"),
    ],
)
def test_refusals(azure, vault, verb, refusal, kind, says):
    azure.refuse = azure.error(*refusal)
    calls = {
        "get": lambda: vault.get("default", UID),
        "put": lambda: vault.put("default", UID, {"a": SECRET}),
        "delete": lambda: vault.delete("default", UID),
        "key": vault.data_key,
    }
    with pytest.raises(kind, match=says) as caught:
        calls[verb]()
    assert SECRET not in str(caught.value)
    assert "planted-vault-message" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_vault_that_does_not_answer(instance):
    vault = instance("https://127.0.0.1:1")
    with pytest.raises(StoreUnavailable, match="get of the secret"):
        vault.get("default", UID)


def test_a_vault_whose_certificate_is_not_trusted(azure, clock):
    vault = AzureSecrets(azure.url, managed_identity(), clock)
    with pytest.raises(StoreUnavailable):
        vault.get("default", UID)
    vault.close()


@pytest.mark.parametrize("client_id", ["another", ""])
def test_an_identity_that_the_app_does_not_have(azure, instance, client_id):
    if not client_id:
        azure.identity_answers = [(400, {"statusCode": 400, "message": "none"}, {})]
    with pytest.raises(Misconfigured, match="managed identity"):
        instance(client_id=client_id).get("default", UID)


def test_what_answers_is_no_vault(azure, vault):
    azure.refuse = (200, b"<html>", {})
    with pytest.raises((Misconfigured, StoreUnavailable)):
        vault.get("default", UID)


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"client_secret": 5}'])
def test_a_bundle_that_a_person_has_broken(azure, vault, text):
    vault.put("default", UID, {"client_secret": SECRET})
    only(azure)[1][-1]["value"] = text
    vault.invalidate("default", UID)
    with pytest.raises(Misconfigured, match="no JSON object of texts"):
        vault.get("default", UID)


# --- the data key ----------------------------------------------------------------------------------------------------


def test_the_data_key_is_made_when_it_is_first_needed_and_kept(azure, vault, instance, clock):
    with measured() as meter:
        key = vault.data_key()
        first = meter.total("vault_calls")
        assert vault.data_key() == key
        assert meter.total("vault_calls") == first
    assert len(key) == 32
    name, versions = only(azure)
    assert (name, len(versions)) == (DATA_KEY, 1)
    clock.ahead += 10
    with measured() as meter:
        assert instance().data_key() == key
        assert meter.total("vault_calls") == 2
    assert len(versions) == 1


def test_instances_that_make_it_at_once_end_with_the_same_key(azure, instance):
    racers = 4
    barrier = threading.Barrier(racers)

    def before(method, _path):
        # All have seen that there is none before one makes it; that takes less than the seconds that each then waits.
        if method == "PUT":
            barrier.wait(10)
        while method == "GET" and 0 < len(azure.vault.get(DATA_KEY, ())) < racers:
            time.sleep(0.01)

    azure.before = before
    vaults = [instance() for _ in range(racers)]
    with ThreadPoolExecutor(racers) as pool:
        keys = list(pool.map(lambda vault: vault.data_key(), vaults))
    assert len(azure.vault[DATA_KEY]) == racers
    assert len(set(keys)) == 1
    assert instance().data_key() == keys[0]


def test_a_slow_racer_s_key_is_not_used(azure, instance, clock):
    """One has made a key and uses it; another, which saw none, writes its own later."""
    first = instance()
    key = first.data_key()
    azure.vault[DATA_KEY].append(
        {"version": "0" * 32, "created": int(time.time()) + 60, "enabled": True, "value": "f" * 64}
    )
    clock.ahead += 1000
    assert (first.data_key(), instance().data_key()) == (key, key)


def test_a_rotated_key_makes_old_tokens_as_good_as_none(azure, instance, clock):
    vault, table = instance(), MemoryTable()
    tokens = StoredTokens(table, Cipher(vault.data_key))
    tokens.put("default", UID, "old-token", 1e12)
    assert tokens.get("default", UID) == ("old-token", 1e12)
    (old,) = azure.vault[DATA_KEY]
    azure.vault[DATA_KEY].append({**old, "version": "f" * 32, "value": "0123456789abcdef" * 4})
    old["enabled"] = False
    clock.ahead += 1000
    assert tokens.get("default", UID) is None
    assert vault.data_key().hex() == "0123456789abcdef" * 4
    tokens.put("default", UID, "new-token", 1e12)
    assert StoredTokens(table, Cipher(instance().data_key)).get("default", UID) == ("new-token", 1e12)


def test_a_known_key_outlives_the_vault(azure, vault, clock):
    key = vault.data_key()
    clock.ahead += 1000
    azure.refuse = (503, {}, {"Retry-After": "0"})
    assert vault.data_key() == key


def test_a_deleted_key_is_recovered(azure, vault, instance, clock):
    key = vault.data_key()
    azure.vault[DATA_KEY][0]["created"] -= 100
    azure.deleted[DATA_KEY] = azure.vault.pop(DATA_KEY)
    clock.ahead += 1000
    assert instance().data_key() == key


def test_a_key_that_a_person_has_broken(azure, vault):
    vault.data_key()
    only(azure)[1][0]["value"] = "short"
    other = AzureSecrets(azure.url, managed_identity(), Clock(), ca_bundle=str(azure.ca))
    with pytest.raises(Misconfigured, match=f"The secret {DATA_KEY} is wrong") as caught:
        other.data_key()
    other.close()
    assert "short" not in caught.value.message


def test_nothing_secret_is_logged_or_shown(azure, vault, caplog, loud):
    loud()
    vault.put("default", UID, {"client_secret": SECRET})
    vault.invalidate("default", UID)
    vault.get("default", UID)
    key = vault.data_key()
    cipher = Cipher(vault.data_key)
    shown = f"{caplog.text}\n{vault!r} {cipher!r} {vars(cipher)!r} {managed_identity()!r}"
    hidden = [SECRET, key.hex(), HEADER, *azure.issued]
    assert [each for each in hidden if each in shown] == []
    assert caplog.text.count(UID) > 0  # it would have been seen


# --- settings --------------------------------------------------------------------------------------------------------

GOOD = {"AzureWebJobsStorage": "UseDevelopmentStorage=true", "HUB_API_KEY": "k" * 32}


@pytest.mark.parametrize(
    "url",
    [
        "https://hub-1.vault.azure.net",
        "https://HUB.vault.azure.net/",
        "https://hub.vault.azure.cn",
        "https://hub.vault.usgovcloudapi.net",
    ],
)
def test_with_a_vault_no_encryption_key_is_needed(url):
    settings = load({**GOOD, "KEY_VAULT_URL": url})
    assert settings.vault_url == url.rstrip("/").lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://hub.vault.azure.net", "hub.vault.azure.net", "https://vault.azure.net", "https://hub.vault.azure.net.evil.example",
        "https://evil.example/hub.vault.azure.net", "https://user@hub.vault.azure.net", "https://hub.vault.azure.net:8443",
        "https://hub.vault.azure.net/secrets", "https://a.b.vault.azure.net", "https://127.0.0.1:8443",
        "@Microsoft.KeyVault(SecretUri=https://x)", "https://[",
    ],
)  # fmt: skip
def test_what_is_no_vault_is_named(url):
    with pytest.raises(Misconfigured) as caught:
        load({**GOOD, "KEY_VAULT_URL": url})
    assert {error.field for error in caught.value.errors} == {"KEY_VAULT_URL"}
    assert url not in caught.value.message


def test_a_loopback_vault_needs_the_setting():
    assert load({**GOOD, "KEY_VAULT_URL": "https://127.0.0.1:8443", "ALLOW_LOOPBACK": "1"}).vault_url


@pytest.mark.parametrize(
    ("more", "used"),
    [
        ({}, ""),
        ({"AzureWebJobsStorage__clientId": "storage"}, "storage"),
        ({"AZURE_CLIENT_ID": "own", "AzureWebJobsStorage__clientId": "storage"}, "own"),
    ],
)
def test_the_identity_of_the_vault(more, used):
    assert load({**GOOD, "KEY_VAULT_URL": "https://hub.vault.azure.net", **more}).vault_client_id == used


def test_without_a_vault_the_encryption_key_is_needed():
    with pytest.raises(Misconfigured, match="INTEGRATION_ENCRYPTION_KEY"):
        load(GOOD)
