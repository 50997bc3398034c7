"""The rim: Azure Functions in, calls of the hub, HTTP out. No decisions about data are made here."""
