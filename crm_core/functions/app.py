"""The app: every route and trigger registered on one FunctionApp."""

import azure.functions as func

from crm_core.functions import crm, endpoint, integrations, records, runs, system, triggers

__all__ = ["build", "crm", "integrations", "records", "runs", "system"]


def build() -> func.FunctionApp:
    app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
    endpoint.register(app)
    triggers.register(app)
    return app
