"""A small local Functions host around Microsoft's own Python worker library.

It serves any Python v2 app folder (function_app.py, host.json, local.settings.json): HTTP, timer and queue
triggers with the platform's rules. It knows nothing of the app that it runs: `python -m devhost --app DIR`.
"""
