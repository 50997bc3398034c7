"""Settings: every wrong one is named, no value is shown."""

import pytest

from crm_core.errors import Misconfigured
from crm_core.settings import NAMES, load

GOOD = {
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
    "HUB_API_KEY": "k" * 32,
    "INTEGRATION_ENCRYPTION_KEY": "e" * 32,
}
CRM = {
    "CRM_TENANT_ID": "t",
    "CRM_CLIENT_ID": "c",
    "CRM_CLIENT_SECRET": "very-secret",
    "CRM_D365_BASE_URL": "https://org.crm.dynamics.com",
    "CRM_API_VERSION": "v9.0",
}
DYNAMICS = {
    "DYNAMICS_365_TENANT_ID": "t",
    "DYNAMICS_365_CLIENT_ID": "c",
    "DYNAMICS_365_CLIENT_SECRET": "very-secret",
    "DYNAMICS_365_RESOURCE_URL": "https://org.crm.dynamics.com/",
    "DYNAMICS_365_API_VERSION": "9.0",
}


@pytest.mark.parametrize("family", [CRM, DYNAMICS, {**CRM, **DYNAMICS}], ids=["crm", "dynamics", "both"])
def test_either_family_or_both_alike_make_the_default_connection(family):
    settings = load({**GOOD, **family})
    (default,) = settings.defaults
    assert (default.slug, default.connector, default.minutes) == ("dynamics365", "dynamics365", 60)
    assert default.settings["base_url"].rstrip("/") == "https://org.crm.dynamics.com"
    assert default.secrets == {"client_secret": "very-secret"}
    assert "very-secret" not in repr(settings)
    assert "kkkk" not in repr(settings)


def test_without_them_there_is_no_default_connection():
    assert load(GOOD).defaults == ()


@pytest.mark.parametrize(
    ("more", "minutes"),
    [
        ({"DYNAMICS_365_SYNC_INTERVAL": "3600000"}, 60),
        ({"DYNAMICS_365_SYNC_INTERVAL": "60000"}, 1),
        ({"DYNAMICS_365_SYNC_ENABLED": "false"}, None),
        ({"DYNAMICS_365_SYNC_ENABLED": "true"}, 60),
    ],
)
def test_the_interval_is_in_milliseconds(more, minutes):
    assert [each.minutes for each in load({**GOOD, **CRM, **more}).defaults] == [minutes]


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"HUB_API_KEY": ""}, "HUB_API_KEY"),
        ({"HUB_API_KEY": "short"}, "HUB_API_KEY"),
        ({"HUB_API_KEY": "@Microsoft.KeyVault(SecretUri=https://v/secrets/x)"}, "HUB_API_KEY"),
        ({"INTEGRATION_ENCRYPTION_KEY": ""}, "INTEGRATION_ENCRYPTION_KEY"),
        ({"AzureWebJobsStorage": ""}, "AzureWebJobsStorage"),
        (
            {"AzureWebJobsStorage": "", "AzureWebJobsStorage__tableServiceUri": "https://t"},
            "AzureWebJobsStorage__queueServiceUri",
        ),
        ({"ALLOW_LOOPBACK": "perhaps"}, "ALLOW_LOOPBACK"),
        ({"ALLOW_LOOPBACK": "true", "WEBSITE_INSTANCE_ID": "i"}, "ALLOW_LOOPBACK"),
        ({"ALLOW_LOOPBACK": "true", "WEBSITE_POD_NAME": "p"}, "ALLOW_LOOPBACK"),
        ({"LEASE_SECONDS": "-1"}, "LEASE_SECONDS"),
        ({"BATCH_RECORDS": "many"}, "BATCH_RECORDS"),
        ({"PUBLIC_URL": "hub.example.com"}, "PUBLIC_URL"),
        ({"DYNAMICS_365_SYNC_INTERVAL": "5000"}, "DYNAMICS_365_SYNC_INTERVAL"),
        ({"DYNAMICS_365_SYNC_ENABLED": "si"}, "DYNAMICS_365_SYNC_ENABLED"),
        ({"CRM_TENANT_ID": "t"}, "CRM_CLIENT_ID or DYNAMICS_365_CLIENT_ID"),
        ({**CRM, "DYNAMICS_365_TENANT_ID": "other"}, "CRM_TENANT_ID and DYNAMICS_365_TENANT_ID"),
        ({**CRM, "DYNAMICS_365_API_VERSION": "9.2"}, "CRM_API_VERSION and DYNAMICS_365_API_VERSION"),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(more, name):
    with pytest.raises(Misconfigured) as caught:
        load({**GOOD, **more})
    assert name in {error.field for error in caught.value.errors}
    assert "very-secret" not in str(caught.value)


def test_storage_by_identity_takes_the_account_name():
    environ = {key: value for key, value in GOOD.items() if key != "AzureWebJobsStorage"}
    storage = load(
        {**environ, "AzureWebJobsStorage__accountName": "acc", "AzureWebJobsStorage__clientId": "i"}
    ).storage
    assert storage.table_uri == "https://acc.table.core.windows.net"
    assert storage.queue_uri == "https://acc.queue.core.windows.net"
    assert storage.blob_uri == "https://acc.blob.core.windows.net"
    assert storage.client_id == "i"


def test_the_public_address_comes_from_settings():
    assert (
        load({**GOOD, "WEBSITE_HOSTNAME": "app.azurewebsites.net"}).public_url
        == "https://app.azurewebsites.net"
    )
    assert load({**GOOD, "PUBLIC_URL": "https://hub.example.com/"}).public_url == "https://hub.example.com"


def test_every_name_is_listed_once():
    assert len(NAMES) == len(set(NAMES))


SALES = {
    "COMERCIAL_WEBHOOK_URL": "https://sales.example.com/api/x/",
    "COMERCIAL_WEBHOOK_TOKEN": "sales-token",
}


def test_the_sales_app_and_the_crm_are_connections_of_their_own():
    receiver, sender = load({**GOOD, **SALES, "CRM_WEBHOOK_TOKEN": "crm-token"}).defaults
    assert (receiver.slug, receiver.settings, receiver.secrets) == (
        "comercial", {"url": SALES["COMERCIAL_WEBHOOK_URL"]}, {"token": "sales-token"},
    )  # fmt: skip
    assert (sender.slug, sender.settings, sender.secrets) == (
        "presencia-crm",
        {},
        {"webhook_secret": "crm-token"},
    )
    assert "-token" not in repr((receiver, sender))


@pytest.mark.parametrize("name", SALES)
def test_an_address_goes_with_its_token(name):
    with pytest.raises(Misconfigured) as raised:
        load({**GOOD, **{each: value for each, value in SALES.items() if each != name}})
    assert [each.field for each in raised.value.errors] == [name]


def test_a_token_with_blanks_would_be_several():
    with pytest.raises(Misconfigured) as raised:
        load({**GOOD, "CRM_WEBHOOK_TOKEN": "correct horse"})
    assert [each.field for each in raised.value.errors] == ["CRM_WEBHOOK_TOKEN"]
