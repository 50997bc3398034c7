"""The entry point that Azure Functions looks for."""

from crm_core.functions.app import build

app = build()
