"""Public client libraries drive the Odoo sandbox over http, each by its own protocols."""

import pytest

from sandbox.odoo import Odoo
from sandbox.testing import running

MISSING = "Record does not exist or has been deleted"


@pytest.fixture(scope="module")
def server():
    with running(Odoo()) as server:
        yield server


@pytest.fixture(scope="module")
def port(server):
    return int(server.url.rpartition(":")[2])


def test_odoorpc_signs_in_reads_and_writes(server, port):
    import odoorpc

    odoo = odoorpc.ODOO("127.0.0.1", port=port)
    assert odoo.version == "19.0"
    with pytest.raises(odoorpc.error.RPCError):
        odoo.login("crm", "admin", "wrong")
    odoo.login("crm", "admin", "admin")
    partners = odoo.env["res.partner"]
    key = partners.create({"name": "By odoorpc"})
    assert partners.search([("name", "=", "By odoorpc")]) == [key]
    assert partners.read([key], ["name", "country_id"]) == [
        {"id": key, "name": "By odoorpc", "country_id": False}
    ]
    assert partners.write([key], {"city": "Here"}) is True
    assert partners.browse(key).city == "Here"
    assert partners.fields_get(["name"])["name"]["type"] == "char"
    with pytest.raises(odoorpc.error.RPCError, match=MISSING):
        partners.write([999999], {"name": "x"})
    assert partners.unlink([key]) is True
    assert partners.search([("id", "=", key)]) == []


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("", {"password": "admin"}),
        ("/xmlrpc", {"password": "admin"}),
        ("/jsonrpc", {"password": "admin"}),
        ("/json/2", {"api_key": "sandbox-odoo-key"}),
    ],
)
def test_odooly_signs_in_reads_and_writes(server, path, secret):
    import odooly

    client = odooly.Client(server.url + path, "crm", "admin", **secret)
    assert client.server_version == "19.0"
    partners = client.env["res.partner"]
    made = partners.create({"name": f"By odooly {path}"})
    assert made.name == f"By odooly {path}"
    assert partners.search_count([("name", "=", made.name)]) == 1
    made.write({"city": "Here"})
    assert made.city == "Here"
    assert not made.country_id
    assert "email" in partners.fields()
    assert partners.access("write")
    with pytest.raises(odooly.ServerError, match=MISSING):
        partners.browse(999999).write({"name": "x"})
    made.unlink()
    assert partners.search_count([("name", "=", f"By odooly {path}")]) == 0


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the client never closes its proxies
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("protocol", ["jsonrpc", "xmlrpc", "json2"])
def test_odoolib_signs_in_reads_and_writes(port, protocol):
    import odoolib

    connection = odoolib.get_connection(
        hostname="127.0.0.1", port=port, database="crm", login="admin", password="sandbox-odoo-key", protocol=protocol
    )  # fmt: skip
    partners = connection.get_model("res.partner")
    made = partners.create([{"name": f"By odoolib {protocol}"}])
    found = partners.search_read([("id", "in", made)], ["name"])
    assert found == [{"id": made[0], "name": f"By odoolib {protocol}"}]
    assert partners.write(made, {"city": "Here"}) is True
    with pytest.raises(Exception, match="Invalid field"):
        partners.search([["foo", "=", 1]])
    assert partners.unlink(made) is True
