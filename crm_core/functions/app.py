"""The app: every route and trigger registered on one FunctionApp, and how loud the libraries are."""

import azure.functions as func

from crm_core.functions import (
    batch,
    conflicts,
    crm,
    deadletters,
    deliveries,
    endpoint,
    exports,
    history,
    integrations,
    logs,
    mappings,
    presencias,
    record_batch,
    records,
    resolving,
    run_undo,
    runs,
    system,
    triggers,
    webhooks,
)
from crm_core.log import quiet_libraries

__all__ = [
    "batch",
    "build",
    "conflicts",
    "crm",
    "deadletters",
    "deliveries",
    "exports",
    "history",
    "integrations",
    "logs",
    "mappings",
    "presencias",
    "record_batch",
    "records",
    "resolving",
    "run_undo",
    "runs",
    "system",
    "webhooks",
]


def build() -> func.FunctionApp:
    quiet_libraries()
    app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
    endpoint.register(app)
    triggers.register(app)
    return app
