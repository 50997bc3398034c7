"""Infrastructure and code agree, both ways: what infra/main.bicep compiles to, and what the code needs.

The Bicep CLI is named by BICEP; without it the tests that compile are skipped.
"""

import copy
import json
import os
import re
import subprocess

import pytest

from crm_core.settings import MIN_API_KEY, load
from tests.unit.arm import Deployment
from tests.unit.infra import (
    FORBIDDEN_SITE_CONFIG,
    INSIGHTS,
    PARAMETERS,
    PORTS,
    ROLES,
    ROOT,
    SITE,
    STORAGE,
    VAULT,
    differences,
    environment_of,
    needs_of_the_code,
    role_of,
    settings_of,
    source_of_ports,
)

BICEP = os.environ.get("BICEP", "")
INFRA = ROOT / "infra"

compiled = pytest.mark.skipif(not BICEP, reason="BICEP does not name the Bicep CLI")


@pytest.fixture(scope="module")
def whole():
    """The template as it is compiled; not to be altered."""
    command = [BICEP, "build", INFRA / "main.bicep", "--stdout"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture
def template(whole):
    """One to plant a fault in."""
    return copy.deepcopy(whole)


@pytest.fixture(scope="module")
def needs():
    return needs_of_the_code()


@pytest.fixture
def wrong(template, needs):
    """What is found wrong after a fault was planted, in one text."""
    assert differences(template, needs) == []
    return lambda: "\n".join(differences(template, needs))


def renamed(template, old, new):
    """Renames one of the app's settings in their expression."""
    settings = template["resources"]["app::appSettings"]
    assert settings["properties"].count(f"'{old}'") == 1
    settings["properties"] = settings["properties"].replace(f"'{old}'", f"'{new}'")


SETTINGS = (
    "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__credential",
    "AzureWebJobsStorage__clientId",
    "KEY_VAULT_URL",
    "HUB_API_KEY",
    "PYTHON_THREADPOOL_THREAD_COUNT",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
)

# --- as it is ------------------------------------------------------------------------------------------------------


@compiled
def test_infrastructure_and_code_agree(whole, needs):
    assert differences(whole, needs) == []
    assert tuple(settings_of(Deployment(whole, PARAMETERS))) == SETTINGS


@compiled
def test_the_hub_reads_its_settings(whole):
    deployed = Deployment(whole, PARAMETERS)
    settings = load(environment_of(deployed))
    account = deployed.one(STORAGE).names[-1]
    assert settings.storage.connection_string == ""
    assert settings.storage.queue_uri == f"https://{account}.queue.core.windows.net"
    assert settings.vault_url == f"https://{deployed.one(VAULT).names[-1]}.vault.azure.net"
    assert settings.api_key == PARAMETERS["hubApiKey"]
    assert settings.encryption_key == ""
    assert settings.public_url == deployed.output("HUB_URL")
    assert not settings.allow_loopback
    assert deployed.output("IDENTITY_CLIENT_ID") == settings.vault_client_id


@compiled
def test_more_settings_come_beside_those_of_the_template_and_replace_none(whole):
    more = {"CRM_TENANT_ID": "t", "KEY_VAULT_URL": "https://elsewhere.vault.azure.net"}
    plain = settings_of(Deployment(whole, PARAMETERS))
    found = settings_of(Deployment(whole, {**PARAMETERS, "settings": more}))
    assert found == {**plain, "CRM_TENANT_ID": "t"}


@compiled
@pytest.mark.parametrize(
    ("kind", "what", "value"),
    [
        (STORAGE, "allowSharedKeyAccess", False),
        (STORAGE, "allowBlobPublicAccess", False),
        (STORAGE, "minimumTlsVersion", "TLS1_2"),
        (STORAGE, "supportsHttpsTrafficOnly", True),
        (f"{STORAGE}/blobServices/containers", "publicAccess", "None"),
        (VAULT, "enableRbacAuthorization", True),
        (VAULT, "enableSoftDelete", True),
        (VAULT, "enablePurgeProtection", True),
        (VAULT, "softDeleteRetentionInDays", 90),
        (INSIGHTS, "DisableLocalAuth", True),
        (SITE, "httpsOnly", True),
        (SITE, "siteConfig", {"minTlsVersion": "1.2"}),
        (f"{SITE}/basicPublishingCredentialsPolicies", "allow", False),
    ],
)
def test_no_way_in_but_the_identity(whole, kind, what, value):
    found = Deployment(whole, PARAMETERS).of(kind)
    assert found
    assert [each.properties[what] for each in found] == [value] * len(found)


@compiled
def test_names_are_as_azure_wants_them(whole):
    deployed = Deployment(whole, PARAMETERS)
    assert re.fullmatch(r"[a-z0-9]{3,24}", deployed.one(STORAGE).names[-1])
    assert re.fullmatch(r"[a-z][a-z0-9-]{1,22}[a-z0-9]", deployed.one(VAULT).names[-1])
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,58}[a-z0-9]", deployed.one(SITE).names[-1])


@compiled
def test_nothing_secret_is_told(whole):
    deployed = Deployment(whole, PARAMETERS)
    told = [str(deployed.output(name)) for name in whole["outputs"]]
    assert not [each for each in told if PARAMETERS["hubApiKey"] in each]
    assert whole["parameters"]["hubApiKey"]["type"] == "securestring"
    assert "defaultValue" not in whole["parameters"]["hubApiKey"]


@compiled
def test_every_parameter_is_described_and_the_app_can_start_with_what_they_allow(whole):
    parameters = whole["parameters"]
    assert [name for name, each in parameters.items() if not each["metadata"].get("description")] == []
    assert parameters["hubApiKey"]["minLength"] == MIN_API_KEY
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.11,<3.14"' in pyproject
    assert parameters["pythonVersion"]["allowedValues"] == ["3.11", "3.12", "3.13"]


@compiled
def test_azd_gives_the_parameters_and_finds_the_app(whole):
    given = json.loads((INFRA / "main.parameters.json").read_text())["parameters"]
    needed = {name for name, each in whole["parameters"].items() if "defaultValue" not in each}
    assert needed <= set(given) <= set(whole["parameters"])
    (service,) = re.findall(r"^services:\n  (\w+):$", (ROOT / "azure.yaml").read_text(), re.MULTILINE)
    assert Deployment(whole, PARAMETERS).one(SITE).body["tags"] == {"azd-service-name": service}


@compiled
def test_the_page_names_every_parameter_output_and_role(whole, needs):
    page = (ROOT / "docs" / "deploy.md").read_text()
    names = [f"`{name}`" for name in [*whole["parameters"], *whole["outputs"]]]
    assert [each for each in (*names, *(role for _, role in needs.roles)) if each not in page] == []
    defaults = {name: each.get("defaultValue") for name, each in whole["parameters"].items()}
    shown = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, flags=re.MULTILINE))
    assert set(shown) == set(defaults)
    for name, value in defaults.items():
        if isinstance(value, int) or (isinstance(value, str) and not value.startswith("[")):
            assert shown[name] == str(value)


# --- planted faults ------------------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("name", SETTINGS)
def test_a_typo_in_a_setting_is_caught(template, wrong, name):
    renamed(template, name, typo := f"{name[:-1]}_")
    assert f"setting {typo} is read by nobody" in wrong()
    rest = wrong().replace(f"setting {typo} is read by nobody", "")
    # Without a vault the hub would ask for a key of its own.
    assert (name if name != "KEY_VAULT_URL" else "INTEGRATION_ENCRYPTION_KEY") in rest


@compiled
@pytest.mark.parametrize(
    "name",
    ["FUNCTIONS_WORKER_RUNTIME", "FUNCTIONS_EXTENSION_VERSION", "WEBSITE_RUN_FROM_PACKAGE",
     "SCM_DO_BUILD_DURING_DEPLOYMENT", "ENABLE_ORYX_BUILD", "WEBSITE_CONTENTSHARE",
     "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING", "FUNCTIONS_WORKER_PROCESS_COUNT", "FUNCTIONS_MAX_HTTP_CONCURRENCY",
     "FUNCTIONS_WORKER_RUNTIME_VERSION", "WEBSITE_MAX_DYNAMIC_APPLICATION_SCALE_OUT", "WEBSITE_VNET_ROUTE_ALL"],
)  # fmt: skip
def test_a_setting_that_the_plan_forbids_is_caught(template, wrong, name):
    template["parameters"]["settings"]["defaultValue"] = {name: "1"}
    assert wrong() == f"setting {name} is not for this plan"


@compiled
@pytest.mark.parametrize("name", sorted(FORBIDDEN_SITE_CONFIG))
def test_a_property_that_the_plan_forbids_is_caught(template, wrong, name):
    template["resources"]["app"]["properties"]["siteConfig"][name] = "x"
    assert wrong() == f"siteConfig.{name} is not for this plan"


@compiled
@pytest.mark.parametrize(
    ("value", "other", "found"),
    [
        ("'managedidentity'", "'managedIdentity'", "AzureWebJobsStorage__credential is not managedidentity"),
        ("reference('identity').clientId", "reference('identity').principalId", "name another identity"),
        ("format('crmhub{0}', variables('suffix'))", "'elsewhere'", "another storage account"),
        ("reference('vault').vaultUri", "'https://elsewhere.vault.azure.net/'", "another vault"),
        ("reference('vault').vaultUri", "reference('vault::apiKey').secretUri", "KEY_VAULT_URL is no vault"),
        (
            "secretUriWithVersion",
            "secretUri",
            "HUB_API_KEY is a Key Vault reference that the platform did not",
        ),
        ("Authorization=AAD", "Authorization=aad", "APPLICATIONINSIGHTS_AUTHENTICATION_STRING is not"),
        ("string(variables('threads'))", "'8'", "below the 12 messages at a time"),
    ],
)
def test_a_wrong_value_is_caught(template, wrong, value, other, found):
    settings = template["resources"]["app::appSettings"]
    assert value in settings["properties"]
    settings["properties"] = settings["properties"].replace(value, other, 1)
    assert found in wrong()


@compiled
@pytest.mark.parametrize(("variable", "what"), [("tables", "table"), ("queues", "queue")])
def test_a_missing_or_needless_table_or_queue_is_caught(template, wrong, variable, what):
    whole = template["variables"][variable]
    for name in whole:
        template["variables"][variable] = [each for each in whole if each != name]
        assert wrong() == f"{what} {name} is missing"
    template["variables"][variable] = [*whole, "extra"]
    assert wrong() == f"{what} extra is needed by nobody"


@compiled
def test_a_wrong_container_is_caught(template, wrong):
    template["variables"]["hubContainer"] = "crm-hub"
    assert wrong() == "container crmhub is missing\ncontainer crm-hub is needed by nobody"


@compiled
def test_a_package_elsewhere_is_caught(template, wrong):
    storage = template["resources"]["app"]["properties"]["functionAppConfig"]["deployment"]["storage"]
    storage["value"] = "https://elsewhere.blob.core.windows.net/other"
    assert "container other is missing" in wrong()
    assert "container app-package is needed by nobody" in wrong()
    assert "app reads its package from another account" in wrong()
    storage["authentication"]["type"] = "SystemAssignedIdentity"
    assert "app reads its package as somebody else" in wrong()


def role_places(template):
    """(object, key) of every GUID of a role in the template."""
    variables = template["variables"]
    yield from ((variables["storageRoles"], name) for name in variables["storageRoles"])
    yield from ((variables, name) for name in ("keyVaultSecretsOfficer", "monitoringMetricsPublisher"))


@compiled
def test_a_wrong_role_is_caught(template, wrong):
    """Any of the others that are known, and one that is not, in place of each."""
    places = list(role_places(template))
    assert len(places) == 5
    for holder, name in places:
        right = holder[name]
        for other in [*ROLES, "00000000-0000-0000-0000-000000000000"]:
            holder[name] = other
            assert other == right or f"role {ROLES[right]} at" in wrong()
        holder[name] = right


@compiled
def test_a_missing_or_needless_role_is_caught(template, wrong):
    roles = template["variables"]["storageRoles"]
    queue = roles.pop("Storage Queue Data Contributor")
    assert wrong() == f"role Storage Queue Data Contributor at {STORAGE} is missing"
    roles["Storage Queue Data Contributor"] = queue
    roles["Storage Blob Data Contributor"] = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
    assert wrong() == f"role Storage Blob Data Contributor at {STORAGE} is needed by nobody"


@compiled
@pytest.mark.parametrize("symbol", ["storageRole", "vaultRole", "insightsRole"])
def test_a_role_that_is_too_wide_or_not_the_apps_is_caught(template, wrong, symbol):
    role = template["resources"][symbol]
    scope = role.pop("scope")
    assert "at the whole resource group is needed by nobody" in wrong()
    role["scope"] = scope
    role["properties"]["principalId"] = "somebody"
    assert "is not the app's" in wrong()


@compiled
@pytest.mark.parametrize(
    "symbol", ["storageRole", "vaultRole", "insightsRole", "storage::blobService::container"]
)
def test_an_app_that_starts_too_early_is_caught(template, wrong, symbol):
    template["resources"]["app"]["dependsOn"].remove(symbol)
    assert f"app does not wait for {symbol}" in wrong()


@compiled
def test_an_app_with_another_identity_or_none_for_the_vault_is_caught(template, wrong):
    app = template["resources"]["app"]
    own = app["identity"]
    app["identity"] = {"type": "SystemAssigned"}
    assert wrong() == "app has another identity"
    app["identity"] = own
    del app["properties"]["keyVaultReferenceIdentity"]
    assert "HUB_API_KEY is a Key Vault reference that the platform did not resolve" in wrong()


@compiled
def test_more_requests_than_threads_are_caught(template, wrong):
    http = template["resources"]["app"]["properties"]["functionAppConfig"]["scaleAndConcurrency"]["triggers"]
    http["http"]["perInstanceConcurrency"] = 17
    assert wrong() == "app gets another number of HTTP requests at a time than it has threads"


def test_the_role_follows_from_what_the_code_calls():
    """Of code that only reads it is a reader's."""
    client = "class AzureSecrets:\n    def get(self, client):\n        return client.{}('x')\n"
    assert role_of("AzureSecrets", client.format("get_secret")) == (VAULT, "Key Vault Secrets User")
    assert role_of("AzureSecrets", client.format("set_secret")) == (VAULT, "Key Vault Secrets Officer")
    assert role_of("AzureSecrets", client.format("purge_deleted_secret")) == (
        VAULT,
        "Key Vault Secrets Officer",
    )
    source = source_of_ports()
    found = {port: role_of(port, source)[1] for port in PORTS}
    assert found == {
        "AzureTable": "Storage Table Data Contributor",
        "AzureQueue": "Storage Queue Data Contributor",
        "AzureBlob": "Storage Blob Data Contributor",
        "AzureSecrets": "Key Vault Secrets Officer",
    }


# --- make lint -----------------------------------------------------------------------------------------------------


def lint(file, bicep):
    environ = {**os.environ, "BICEP": bicep}
    command = [ROOT / ".ci" / "lint_infra", file]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@compiled
@pytest.mark.parametrize(
    ("right", "slip", "said"),
    [
        ("", "", ""),
        ("allowSharedKeyAccess: false", "allowSharedKeyAcess: false", "BCP089"),
        ("location: location", "location: 'westeurope'", "no-hardcoded-location"),
        ("var threads = 16", "var threads = 16\nvar spare = 1", "no-unused-vars"),
        ("var threads = 16", "var threads  =  16", "+var threads = 16"),
    ],
)
def test_lint_says_all_that_the_bicep_cli_says(tmp_path, right, slip, said):
    text = (INFRA / "main.bicep").read_text()
    assert right in text
    (tmp_path / "main.bicep").write_text(text.replace(right, slip, 1) if right else text)
    (tmp_path / "bicepconfig.json").write_text((INFRA / "bicepconfig.json").read_text())
    done = lint(tmp_path / "main.bicep", BICEP)
    assert (done.returncode == 0) == (not said), done.stderr
    assert said in done.stderr


def test_lint_says_that_it_skips():
    done = lint(INFRA / "main.bicep", "")
    assert done.returncode == 0
    assert "is skipped: BICEP does not name the Bicep CLI" in done.stdout
    assert lint(INFRA / "main.bicep", "/nowhere/bicep").returncode != 0


def test_make_lint_runs_it():
    recipe = (ROOT / "Makefile").read_text().split("\nlint: ")[1].split("\n\n")[0]
    assert ".ci/lint_infra" in recipe
