"""What can be made to happen at the Odoo sandbox: faults, late commits, people, webhooks, other versions and modules."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sandbox.app import App
from sandbox.frame import Request
from sandbox.odoo import Odoo
from sandbox.store import Clock
from sandbox.testing import Client, running

KEY = {"Authorization": "bearer sandbox-odoo-key"}
PARTNER = "res.partner"


@pytest.fixture(scope="module")
def sandbox():
    with running(Odoo()) as server:
        yield server


@pytest.fixture
def client(sandbox):
    with Client(sandbox.url) as client:
        assert client.call("POST", "/_sandbox/reset").status == 204
        client.call("DELETE", "/_sandbox/requests")
        yield client


def call(client, model, method, headers=KEY, **arguments):
    return client.call("POST", f"/json/2/{model}/{method}", arguments, headers)


def made(client, model=PARTNER, **values):
    return call(client, model, "create", vals_list=[values]).json()[0]


def control(client, method, path, body=None):
    answer = client.call(method, f"/_sandbox/{path}", body)
    assert answer.status in (200, 204), answer.body
    return answer.json() if answer.body else None


def fault(client, **told):
    control(client, "POST", "faults", told)


# --- faults -------------------------------------------------------------------------------------------------


def test_a_gateway_fails_with_html(client):
    fault(client, kind="status", status=502)
    answer = call(client, PARTNER, "search", domain=[])
    assert (answer.status, answer.headers["Content-Type"]) == (502, "text/html")
    assert b"nginx" in answer.body
    assert call(client, PARTNER, "search", domain=[]).status == 200


def test_an_exception_is_told_in_the_words_of_the_protocol(client):
    name = "psycopg2.errors.SerializationFailure"
    fault(client, kind="status", code=name, count=2)
    answer = call(client, PARTNER, "search", domain=[])
    assert (answer.status, answer.json()["name"]) == (500, name)
    body = {"jsonrpc": "2.0", "params": {"service": "common", "method": "version", "args": []}}
    answer = client.call("POST", "/jsonrpc", body)
    assert (answer.status, answer.json()["error"]["data"]["name"]) == (200, name)


def test_a_connection_breaks_before_or_after_the_write(client):
    for kind, rows in (("reset", 0), ("reset_after", 1)):
        fault(client, kind=kind)
        with pytest.raises(OSError):
            call(client, PARTNER, "create", vals_list=[{"name": kind}])
        assert call(client, PARTNER, "search_count", domain=[["name", "=", kind]]).json() == rows


def test_garbage_is_no_json(client):
    fault(client, kind="garbage")
    with pytest.raises(ValueError):
        call(client, PARTNER, "search", domain=[]).json()


def test_keys_do_not_stand_in_the_log(client):
    args = ["crm", 2, "sandbox-odoo-key", PARTNER, "search", [[]]]
    body = {"jsonrpc": "2.0", "params": {"service": "object", "method": "execute_kw", "args": args}}
    assert "result" in client.call("POST", "/jsonrpc", body).json()
    call(client, PARTNER, "search", domain=[])
    log = control(client, "GET", "requests")
    assert [entry["path"] for entry in log] == ["/jsonrpc", "/json/2/res.partner/search"]
    assert "sandbox-odoo-key" not in json.dumps(log)


def test_revoked_keys_are_refused_until_the_reset(client):
    assert control(client, "POST", "tokens/revoke")["revoked"] == 2
    assert call(client, PARTNER, "search", domain=[]).status == 401
    control(client, "POST", "reset")
    assert call(client, PARTNER, "search", domain=[]).status == 200


def test_the_reader_may_read_and_not_write_and_rights_can_be_taken(client):
    reader = {"Authorization": "bearer sandbox-odoo-reader"}
    assert call(client, PARTNER, "search", reader, domain=[]).status == 200
    answer = call(client, PARTNER, "create", reader, vals_list=[{"name": "x"}])
    assert (answer.status, answer.json()["name"]) == (403, "odoo.exceptions.AccessError")
    control(client, "POST", "options", {"deny": {"crm.lead": ["write"]}})
    lead = made(client, "crm.lead", name="L")
    assert call(client, "crm.lead", "write", ids=[lead], vals={"name": "M"}).status == 403


# --- time ---------------------------------------------------------------------------------------------------


def write_dates(client, ids):
    rows = call(client, PARTNER, "read", ids=ids, fields=["write_date"]).json()
    return {row["id"]: row["write_date"] for row in rows}


def test_a_late_commit_appears_with_its_old_time_and_number(client):
    control(client, "POST", "clock", {"set": "2026-03-01T12:00:00.400Z", "frozen": True})
    pending = control(client, "POST", "rows/res.partner", {"values": {"name": "Late"}, "lag": 5})
    assert pending["pending"] is True
    late = int(pending["id"])
    control(client, "POST", "clock", {"advance": 2})
    early = made(client, name="Early")
    assert early == late + 1
    assert write_dates(client, [late, early]) == {early: "2026-03-01 12:00:02"}
    control(client, "POST", "clock", {"advance": 4})
    assert write_dates(client, [late, early]) == {late: "2026-03-01 12:00:00", early: "2026-03-01 12:00:02"}


def test_writes_of_clients_can_commit_late_and_are_refused_at_once(client):
    control(client, "POST", "clock", {"set": "2026-03-01T12:00:00Z", "frozen": True})
    control(client, "POST", "options", {"api_lag": 10})
    assert call(client, PARTNER, "create", vals_list=[{"name": False}]).status == 422
    key = made(client, name="Late")
    assert call(client, PARTNER, "search", domain=[["id", "=", key]]).json() == []
    control(client, "POST", "clock", {"advance": 11})
    assert call(client, PARTNER, "search", domain=[["id", "=", key]]).json() == [key]


def test_order_by_time_and_number_loses_rows_where_the_cursor_has_seconds(client):
    """Rows of one second are sorted by its fractions, which a client does not see."""
    control(client, "POST", "clock", {"set": "2026-03-01T12:00:00.100Z", "frozen": True})
    first, second = made(client, name="A"), made(client, name="B")
    control(client, "POST", "clock", {"advance": 0.5})
    call(client, PARTNER, "write", ids=[first], vals={"name": "A2"})
    rows = call(
        client, PARTNER, "search", domain=[["id", "in", [first, second]]], order="write_date, id"
    ).json()
    assert rows == [second, first]
    at = "2026-03-01 12:00:00"
    after = ["|", ["write_date", ">", at], "&", ["write_date", "=", at], ["id", ">", second]]
    assert call(client, PARTNER, "search", domain=[["id", "in", rows], *after]).json() == []


def test_a_load_conflicts_with_another_of_the_same_row(client):
    control(client, "POST", "options", {"load_conflicts": 1})
    answer = call(client, PARTNER, "load", fields=["id", "name"], data=[["hub.c1", "One"]]).json()
    assert answer["ids"] is False
    assert answer["messages"][0]["message"] == "could not serialize access due to concurrent update\n"
    control(client, "POST", "options", {"load_seconds": 60})
    told = [
        call(client, PARTNER, "load", fields=["id", "name"], data=[["hub.c1", "One"]]).json()
        for _ in range(3)
    ]
    assert [bool(each["ids"]) for each in told] == [True, False, False]


# --- people -------------------------------------------------------------------------------------------------


def test_people_create_change_merge_and_delete(client):
    row = control(client, "POST", "rows/res.partner", {"values": {"name": "P", "is_company": True}})
    kid = made(client, name="Kid", parent_id=int(row["id"]))
    other = made(client, name="Other")
    control(client, "PATCH", f"rows/res.partner/{row['id']}", {"values": {"city": "Lima"}})
    shown = control(client, "GET", f"rows/res.partner/{row['id']}")["values"]
    assert (shown["city"], shown["name"]) == ("Lima", "P")
    control(client, "POST", f"rows/res.partner/{row['id']}/merge", {"into": str(other)})
    assert call(client, PARTNER, "read", ids=[kid], fields=["parent_id"]).json()[0]["parent_id"][0] == other
    control(client, "DELETE", f"rows/res.partner/{kid}")
    assert control(client, "GET", "stats")["deleted"][PARTNER] == 2


def test_samples_are_the_same_for_the_same_seed(client):
    tables = [PARTNER, "product.template", "crm.lead", "sale.order", "mail.activity"]
    seen = []
    for _ in range(2):
        control(client, "POST", "reset")
        control(client, "POST", "fill", {"tables": tables, "count": 30, "seed": 3})
        rows = [call(client, t, "search_read", domain=[], fields=["display_name"]).json() for t in tables]
        assert all(len(each) >= 30 for each in rows)
        seen.append(rows)
    assert seen[0] == seen[1]


def test_rows_and_custom_fields_stay_in_the_file(tmp_path):
    file = tmp_path / "odoo.json"
    app = App(Odoo(), data=file)
    model = app.system.db.store.table("ir.model").where("model", PARTNER)[0].id
    values = {"model_id": int(model), "name": "x_hub", "field_description": "Hub", "ttype": "char"}
    app.system.person_create("ir.model.fields", values, None, None)
    key = app.system.person_create(PARTNER, {"name": "Kept", "x_hub": "q"}, None, None)["id"]
    app.save()
    again = App(Odoo(), data=file)
    body = json.dumps({"ids": [int(key)], "fields": ["name", "x_hub"]}).encode()
    headers = {"authorization": KEY["Authorization"], "content-type": "application/json"}
    answer = again.handle(Request("POST", "/json/2/res.partner/read", headers=headers, body=body))
    assert json.loads(answer.body) == [{"id": int(key), "name": "Kept", "x_hub": "q"}]


# --- webhooks -----------------------------------------------------------------------------------------------


@pytest.fixture
def receiver():
    """A server that keeps what is posted to it."""
    posts = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            posts.append(
                (dict(self.headers), json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            )
            self.send_response(500)  # whatever it answers, nothing is sent again
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", posts
    server.shutdown()
    thread.join()
    server.server_close()


def taken(posts, count):
    """The posts so far, once there are so many; and that there are no more of them."""
    deadline = time.monotonic() + 10
    while len(posts) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    found = list(posts)
    posts.clear()
    return found


def rule(client, url, trigger):
    model = call(client, "ir.model", "search", domain=[["model", "=", PARTNER]]).json()[0]
    names = ["name", "country_id", "write_date"]
    fields = call(
        client, "ir.model.fields", "search", domain=[["model", "=", PARTNER], ["name", "in", names]]
    ).json()
    action = made(
        client, "ir.actions.server", name="hook", model_id=model, state="webhook", webhook_url=url,
        webhook_field_ids=[[6, 0, fields]],
    )  # fmt: skip
    made(
        client,
        "base.automation",
        name="rule",
        model_id=model,
        trigger=trigger,
        action_server_ids=[[6, 0, [action]]],
    )
    return action


def test_webhooks_are_posted_many_times_after_the_commit(client, receiver):
    url, posts = receiver
    action = rule(client, url, "on_create_or_write")
    key = made(client, name="Hook", country_id=57)
    found = taken(posts, 13)
    assert len(found) == 13
    headers, body = found[0]
    assert all(each == body for _, each in found)
    assert headers["User-Agent"].startswith("python-requests/")
    assert body.pop("write_date")[19] == "."  # microseconds
    assert body == {
        "_action": f"hook(#{action})", "_id": key, "_model": PARTNER, "country_id": 57, "id": key, "name": "Hook",
    }  # fmt: skip
    call(client, PARTNER, "write", ids=[key], vals={"name": "Hook 2"})
    assert len(taken(posts, 2)) == 2
    call(client, PARTNER, "create", vals_list=[{"name": "a"}, {"name": "b"}])
    assert len(taken(posts, 26)) == 26
    call(client, PARTNER, "action_archive", ids=[key])
    assert len(taken(posts, 2)) == 2
    assert call(client, PARTNER, "create", vals_list=[{"name": "a"}, {"name": False}]).status == 422
    assert taken(posts, 0) == []


def test_a_webhook_tells_a_delete_once(client, receiver):
    url, posts = receiver
    rule(client, url, "on_unlink")
    key = made(client, name="Gone")
    call(client, PARTNER, "unlink", ids=[key])
    ((_, body),) = taken(posts, 1)
    assert (body["_id"], body["name"]) == (key, "Gone")


def test_an_incoming_webhook_names_its_row(client):
    model = call(client, "ir.model", "search", domain=[["model", "=", PARTNER]]).json()[0]
    key = made(client, "base.automation", name="in", model_id=model, trigger="on_webhook")
    url = call(client, "base.automation", "read", ids=[key], fields=["url"]).json()[0]["url"]
    path = "/" + url.split("/", 3)[3]
    assert (client.call("POST", path, {"_model": PARTNER, "_id": 1}).json()) == {"status": "ok"}
    assert client.call("POST", path, {}).status == 500
    assert client.call("POST", "/web/hook/0", {}).status == 404


# --- versions and modules -----------------------------------------------------------------------------------


def execute(app, model, method, *args, **named):
    params = {
        "service": "object",
        "method": "execute_kw",
        "args": ["crm", 2, "admin", model, method, list(args), named],
    }
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "params": params}).encode()
    headers = {"content-type": "application/json"}
    return json.loads(app.handle(Request("POST", "/jsonrpc", headers=headers, body=body)).body)


@pytest.mark.parametrize("version", range(14, 20))
def test_an_older_version_has_no_json2_and_other_fields(version):
    app = App(Odoo(version=version))
    headers = {"authorization": KEY["Authorization"], "content-type": "application/json"}
    answer = app.handle(Request("POST", "/json/2/res.users/context_get", headers=headers))
    assert answer.status == (200 if version >= 19 else 404)
    old = version < 19
    fields = {
        m: set(execute(app, m, "fields_get")["result"]) for m in (PARTNER, "res.users", "sale.order.line")
    }
    assert ("mobile" in fields[PARTNER]) is old
    assert ("groups_id" in fields["res.users"], "group_ids" in fields["res.users"]) == (old, not old)
    assert ("tax_id" in fields["sale.order.line"], "tax_ids" in fields["sale.order.line"]) == (old, not old)
    assert ("__last_update" in fields[PARTNER]) is (version <= 16)
    assert execute(app, PARTNER, "search", [["foo", "=", 1]])["error"]["code"] == (200 if old else 0)
    product = execute(app, "product.product", "create", {"name": "P", "list_price": 10})["result"]
    order = {"partner_id": 1, "order_line": [[0, 0, {"product_id": product, "product_uom_qty": 2}]]}
    key = execute(app, "sale.order", "create", order)["result"]
    assert execute(app, "sale.order", "read", [key], ["amount_total"])["result"][0]["amount_total"] == 23.0


def test_before_19_times_are_compared_to_the_microsecond():
    for version, later in ((18, 1), (19, 0)):
        clock = Clock(lambda: 1_772_366_400.5)
        app = App(Odoo(version=version, clock=clock))
        key = execute(app, PARTNER, "create", {"name": "T"})["result"]
        at = execute(app, PARTNER, "read", [key], ["write_date"])["result"][0]["write_date"]
        found = execute(app, PARTNER, "search_count", [["id", "=", key], ["write_date", ">", at]])["result"]
        assert found == later


def test_stock_is_there_where_its_module_is():
    app = App(Odoo(modules=("stock",)))
    product = execute(app, "product.product", "create", {"name": "Stored", "is_storable": True})["result"]
    place = execute(app, "stock.location", "search", [["usage", "=", "internal"]])["result"][0]
    quant = {"product_id": product, "location_id": place, "inventory_quantity": 7}
    key = execute(app, "stock.quant", "create", quant)["result"]
    assert (
        execute(app, "product.product", "read", [product], ["qty_available"])["result"][0]["qty_available"]
        == 0
    )
    assert "result" not in execute(app, "stock.quant", "action_apply_inventory", [key])
    assert (
        execute(app, "product.product", "read", [product], ["qty_available"])["result"][0]["qty_available"]
        == 7
    )
    booked = execute(app, "stock.quant", "search_read", [["product_id", "=", product]], ["quantity"])[
        "result"
    ]
    assert sorted(q["quantity"] for q in booked) == [-7, 7]


@pytest.mark.parametrize(("version", "modules"), [(14, ()), (17, ("stock",)), (19, ()), (19, ("stock",))])
def test_every_version_has_samples(version, modules):
    system = Odoo(version=version, modules=modules)
    for table in (*system.main_tables, *system.side_tables):
        assert not system.filled(table)
        assert system.fill(table, 10, 1) >= 10
        assert system.filled(table)


def test_a_version_that_is_none_is_refused():
    with pytest.raises(ValueError, match="no such version: 20"):
        Odoo(version=20)
