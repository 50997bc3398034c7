"""A load under which the hub's host is killed again and again: `make soak` prints what came of it.

Azurite, the Dataverse sandbox and the hub are processes, as in `make run`, and are spoken to over HTTP only.
"""
