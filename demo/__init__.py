"""What `make run` does: starts the parts, fills the sandbox, drives the hub over HTTP only.

It imports nothing of the hub, the sandbox or the host: they are processes here, as they would be anywhere.
"""
