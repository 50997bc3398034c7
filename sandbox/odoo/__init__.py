"""A fake Odoo server: the rules of its ORM and of the models that a CRM is made of, over JSON-2, JSON-RPC and XML-RPC.

Layout:
    service.py   what the frame asks of a system; system.py makes it for the command line
    routes.py    HTTP: which path is what; json2.py, rpc.py and wire.py speak the protocols
    env.py       the database, and the environment of one call: user, context, time of the transaction
    schema.py    models and fields, read from data/ (record.py wrote it from a real server) for a version
    access.py    who may do what
    domains.py   search domains; values.py what a field takes and gives
    reading.py, grouping.py, writing.py, loading.py   the methods that every model has; orm.py puts them together
    hooks.py     outgoing webhooks of automation rules
    models/      what some models have of their own
    samples.py   rows for demos and tests
"""

from sandbox.odoo.env import Identity
from sandbox.odoo.service import Odoo

__all__ = ["Identity", "Odoo"]
