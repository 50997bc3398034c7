"""One module per remote system, found by discovery: the module's name is the connector's."""
