"""What the code needs of Azure, what infra/main.bicep deploys, and where the two differ.

`differences` is pure: of a template as the Bicep CLI compiles it, and of needs as `needs_of_the_code` finds them.
"""

import ast
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.data.tables import TableServiceClient
from azure.keyvault.secrets import SecretClient
from azure.storage.blob import BlobClient, BlobServiceClient, ContainerClient
from azure.storage.queue import QueueClient, QueueServiceClient

from crm_core.errors import Misconfigured
from crm_core.functions.app import build
from crm_core.settings import MIN_API_KEY, NAMES, VAULT_REFERENCE, load
from crm_core.storage import azure, key_vault, layout
from tests.unit.arm import Deployment, Resource

ROOT = Path(__file__).resolve().parents[2]

STORAGE = "Microsoft.Storage/storageAccounts"
VAULT = "Microsoft.KeyVault/vaults"
INSIGHTS = "Microsoft.Insights/components"
IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities"
ROLE = "Microsoft.Authorization/roleAssignments"
SITE = "Microsoft.Web/sites"

# Microsoft Learn, "Azure built-in roles".
ROLES = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1": "Storage Blob Data Reader",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "19e7f393-937e-4f77-808e-94535e297925": "Storage Queue Data Reader",
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": "Storage Table Data Contributor",
    "76199698-9eea-4c19-bc75-cec21354c6b6": "Storage Table Data Reader",
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": "Key Vault Secrets Officer",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
}
_INCLUDED = {"Storage Blob Data Contributor": "Storage Blob Data Owner"}
"""A role, and one that allows all that it does."""
# The Functions host with its storage by identity (Microsoft Learn, "Connecting to host storage with an identity"):
# locks, keys and packages are blobs, the triggers read queues, diagnostic events are rows.
HOST_ROLES = {
    (STORAGE, "Storage Blob Data Owner"),
    (STORAGE, "Storage Queue Data Contributor"),
    (STORAGE, "Storage Table Data Contributor"),
}
TELEMETRY_ROLE = (INSIGHTS, "Monitoring Metrics Publisher")

# What the platform reads of the settings, beside those of its storage that the hub reads too.
PLATFORM_SETTINGS = {
    "PYTHON_THREADPOOL_THREAD_COUNT",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
}
# Microsoft Learn, "App settings reference": Flex Consumption plan deprecations.
FORBIDDEN_SETTINGS = re.compile(
    r"FUNCTIONS_(WORKER_|EXTENSION_VERSION|MAX_HTTP_CONCURRENCY)|SCM_DO_BUILD_|ENABLE_ORYX_BUILD|TZ$"
    r"|WEBSITE_(RUN_FROM_PACKAGE|CONTENT|MAX_DYNAMIC_|VNET_ROUTE_ALL|TIME_ZONE|NODE_DEFAULT_VERSION|MOUNT_ENABLED)"
)
FORBIDDEN_SITE_CONFIG = {
    "alwaysOn", "appSettings", "ftpsState", "functionAppScaleLimit", "linuxFxVersion", "netFrameworkVersion",
    "preWarmedInstanceCount", "pythonVersion", "use32BitWorkerProcess", "windowsFxVersion", "websiteTimeZone",
}  # fmt: skip


# --- the code ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Port:
    """A class of storage/azure.py or key_vault.py: the SDK's clients in it, and what a reader's role is enough for."""

    resource: str
    clients: tuple[type, ...]
    reads: frozenset[str]
    reader: str
    writer: str


PORTS = {
    "AzureTable": Port(
        STORAGE, (TableServiceClient,), frozenset(), "Storage Table Data Reader", "Storage Table Data Contributor"
    ),
    "AzureQueue": Port(
        STORAGE,
        (QueueServiceClient, QueueClient),
        frozenset({"get_queue_properties", "peek_messages"}),
        "Storage Queue Data Reader",
        "Storage Queue Data Contributor",
    ),
    "AzureBlob": Port(
        STORAGE,
        (BlobServiceClient, ContainerClient, BlobClient),
        frozenset({"download_blob", "list_blob_names"}),
        "Storage Blob Data Reader",
        "Storage Blob Data Contributor",
    ),
    "AzureSecrets": Port(
        VAULT,
        (SecretClient,),
        frozenset({"get_secret", "list_properties_of_secret_versions"}),
        "Key Vault Secrets User",
        "Key Vault Secrets Officer",
    ),
}  # fmt: skip
_CALLS_NOBODY = {
    "close",
    "from_connection_string",
    "get_queue_client",
    "get_blob_client",
    "get_container_client",
}


def role_of(port: str, source: str) -> tuple[str, str]:
    """The least role that a class of this source needs, by the methods of the SDK's clients that it names."""
    (found,) = (
        each for each in ast.parse(source).body if isinstance(each, ast.ClassDef) and each.name == port
    )
    about = PORTS[port]
    offered = {name for client in about.clients for name in dir(client) if not name.startswith("_")}
    used = {each.attr for each in ast.walk(found) if isinstance(each, ast.Attribute)} & offered
    calls = used - _CALLS_NOBODY
    return about.resource, about.reader if calls <= about.reads else about.writer


@dataclass(frozen=True)
class Needs:
    tables: frozenset[str]
    queues: frozenset[str]
    containers: frozenset[str]
    roles: frozenset[tuple[str, str]]
    connections: frozenset[str]
    """Names of the settings that triggers find their storage by."""
    threads: int


def source_of_ports() -> str:
    return "".join(Path(inspect.getfile(each)).read_text() for each in (azure, key_vault))


def needs_of_the_code() -> Needs:
    source = source_of_ports()
    triggers = [each.get_trigger().get_dict_repr() for each in build().get_functions()]
    triggers = [each for each in triggers if "queueName" in each]
    queues = json.loads((ROOT / "host.json").read_text())["extensions"]["queues"]
    roles = {role_of(port, source) for port in PORTS} | HOST_ROLES | {TELEMETRY_ROLE}
    return Needs(
        tables=frozenset(layout.TABLES),
        queues=frozenset(layout.QUEUES) | {each["queueName"] for each in triggers},
        containers=frozenset({layout.CONTAINER}),
        roles=frozenset((kind, role) for kind, role in roles if (kind, _INCLUDED.get(role, "")) not in roles),
        connections=frozenset(each["connection"] for each in triggers),
        threads=queues["batchSize"] + queues["newBatchThreshold"],
    )


# --- the template ------------------------------------------------------------------------------------------------


PARAMETERS = {"hubApiKey": "k" * MIN_API_KEY}


def differences(template: Mapping[str, Any], needs: Needs) -> list[str]:
    """What is missing there, what nobody needs, and what is there but wrong; nothing if all is well."""
    deployed = Deployment(template, PARAMETERS)
    package = deployed.one(SITE).properties["functionAppConfig"]["deployment"]["storage"]["value"]
    containers = needs.containers | {package.rsplit("/", 1)[-1]}
    return [
        *_unlike("table", needs.tables, _names(deployed, f"{STORAGE}/tableServices/tables")),
        *_unlike("queue", needs.queues, _names(deployed, f"{STORAGE}/queueServices/queues")),
        *_unlike("container", containers, _names(deployed, f"{STORAGE}/blobServices/containers")),
        *_wrong_roles(deployed, needs),
        *_wrong_settings(deployed, needs),
        *_wrong_app(deployed),
    ]


def settings_of(deployed: Deployment) -> dict[str, str]:
    """The app's settings as the deployment makes them, references unresolved."""
    (found,) = (each for each in deployed.of(f"{SITE}/config") if each.names[-1] == "appsettings")
    return dict(found.properties)


def environment_of(deployed: Deployment) -> dict[str, str]:
    """What the app finds in its environment: its settings, references resolved as the platform would."""
    site = deployed.one(SITE)
    readable = {
        deployed.given(each)["secretUriWithVersion"]: each.properties["value"]
        for each in deployed.of(f"{VAULT}/secrets")
    }
    if site.properties.get("keyVaultReferenceIdentity") != deployed.one(IDENTITY).id:
        readable = {}
    environment = {"WEBSITE_HOSTNAME": deployed.given(site)["defaultHostName"]}
    for name, value in settings_of(deployed).items():
        reference = re.fullmatch(re.escape(VAULT_REFERENCE) + r"SecretUri=(.+)\)", value)
        environment[name] = readable.get(reference[1], value) if reference else value
    return environment


def _names(deployed: Deployment, kind: str) -> set[str]:
    return {each.names[-1] for each in deployed.of(kind)}


def _unlike(what: str, needed: frozenset[str], found: set[str]) -> Iterator[str]:
    for name in sorted(needed - found):
        yield f"{what} {name} is missing"
    for name in sorted(found - needed):
        yield f"{what} {name} is needed by nobody"


def _wrong_roles(deployed: Deployment, needs: Needs) -> Iterator[str]:
    principal = deployed.given(deployed.one(IDENTITY))["principalId"]
    kinds = {each.id: each.type for each in deployed.resources}
    found = set()
    for each in deployed.of(ROLE):
        role = ROLES.get(each.properties["roleDefinitionId"].rsplit("/", 1)[-1], "that nobody knows")
        kind = kinds.get(each.body.get("scope", ""), "the whole resource group")
        found.add(f"{role} at {kind}")
        if (
            each.properties["principalId"] != principal
            or each.properties["principalType"] != "ServicePrincipal"
        ):
            yield f"role {role} is not the app's"
    yield from _unlike("role", frozenset(f"{role} at {kind}" for kind, role in needs.roles), found)


def _wrong_settings(deployed: Deployment, needs: Needs) -> Iterator[str]:
    names = set(settings_of(deployed))
    for name in sorted(names):
        if FORBIDDEN_SETTINGS.match(name):
            yield f"setting {name} is not for this plan"
        elif name not in {*NAMES, *PLATFORM_SETTINGS}:
            yield f"setting {name} is read by nobody"
    connections = {
        f"{prefix}__{key}"
        for prefix in needs.connections
        for key in ("accountName", "credential", "clientId")
    }
    for name in sorted((PLATFORM_SETTINGS | connections) - names):
        yield f"setting {name} is missing"
    yield from _wrong_for_the_platform(deployed, needs)
    yield from _wrong_for_the_hub(deployed)


def _wrong_for_the_platform(deployed: Deployment, needs: Needs) -> Iterator[str]:
    environment = environment_of(deployed)
    client = deployed.given(deployed.one(IDENTITY))["clientId"]
    expected = {
        "APPLICATIONINSIGHTS_CONNECTION_STRING": deployed.given(deployed.one(INSIGHTS))["ConnectionString"],
        "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": f"ClientId={client};Authorization=AAD",
    }
    for prefix in needs.connections:
        expected[f"{prefix}__credential"] = "managedidentity"
    for name, value in expected.items():
        if environment.get(name) != value:
            yield f"setting {name} is not {value}"
    if int(environment.get("PYTHON_THREADPOOL_THREAD_COUNT", "0")) < needs.threads:
        yield f"setting PYTHON_THREADPOOL_THREAD_COUNT is below the {needs.threads} messages at a time of host.json"


def _wrong_for_the_hub(deployed: Deployment) -> Iterator[str]:
    """By its own reader of settings."""
    try:
        settings = load(environment_of(deployed))
    except Misconfigured as error:
        yield from (f"setting {each.message}" for each in error.errors)
        return
    places = deployed.given(deployed.one(STORAGE))["primaryEndpoints"]
    found = (settings.storage.table_uri, settings.storage.queue_uri, settings.storage.blob_uri)
    if found != tuple(places[each].rstrip("/") for each in ("table", "queue", "blob")):
        yield "settings lead to another storage account"
    if f"{settings.vault_url}/" != deployed.given(deployed.one(VAULT))["vaultUri"]:
        yield "settings lead to another vault"
    client = deployed.given(deployed.one(IDENTITY))["clientId"]
    if {settings.storage.client_id, settings.vault_client_id} != {client}:
        yield "settings name another identity"
    if settings.api_key != PARAMETERS["hubApiKey"]:
        yield "setting HUB_API_KEY is not the key that was given"


def _wrong_app(deployed: Deployment) -> Iterator[str]:
    site, identity = deployed.one(SITE), deployed.one(IDENTITY)
    config = site.properties["functionAppConfig"]
    package = config["deployment"]["storage"]
    if site.body.get("identity", {}).get("userAssignedIdentities") != {identity.id: {}}:
        yield "app has another identity"
    if package["authentication"] != {
        "type": "UserAssignedIdentity",
        "userAssignedIdentityResourceId": identity.id,
    }:
        yield "app reads its package as somebody else"
    if not package["value"].startswith(deployed.given(deployed.one(STORAGE))["primaryEndpoints"]["blob"]):
        yield "app reads its package from another account"
    for name in sorted(FORBIDDEN_SITE_CONFIG & set(site.properties.get("siteConfig", {}))):
        yield f"siteConfig.{name} is not for this plan"
    concurrency = config["scaleAndConcurrency"]["triggers"]["http"]["perInstanceConcurrency"]
    if str(concurrency) != settings_of(deployed).get("PYTHON_THREADPOOL_THREAD_COUNT"):
        yield "app gets another number of HTTP requests at a time than it has threads"
    for each in deployed.resources:
        if each.type in (ROLE, f"{STORAGE}/blobServices/containers") and not _waits(deployed, site, each):
            yield f"app does not wait for {each.symbol}"


def _waits(deployed: Deployment, one: Resource, other: Resource) -> bool:
    """Whether one resource is deployed after another."""
    before = set(one.body.get("dependsOn", ()))
    return other.symbol in before or any(
        _waits(deployed, each, other) for each in deployed.resources if each.symbol in before
    )
