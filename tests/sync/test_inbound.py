"""Webhooks of apps that can't be asked: what a body says is the change, whatever order they come in and however often."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from crm_core.connection_admin import Wanted
from crm_core.connector import Hook
from crm_core.errors import BadRequest, Conflict, NotSupported, SignatureInvalid
from crm_core.model.connection import DEFAULT_TENANT, EntitySync, Schedule
from crm_core.model.record import Record
from crm_core.storage import layout
from crm_core.storage.events import Inbound
from crm_core.sync import deadletters, intake
from tests.sync.receivers import told
from tests.sync.test_crash import TABLE_CALLS, Points, crashing_work

SECRET = "whsec_" + base64.b64encode(b"what the app signs with.........").decode()
TOKEN = "a-long-token-of-the-app"


@pytest.fixture
def hub():
    with told() as found:
        yield found


class App:
    """An app that posts to the hub."""

    def __init__(self, hub, entities=None, settings=None, secret=TOKEN, slug="app", **wanted):
        self.hub = hub
        entities = {"contact": "pull"} if entities is None else entities
        settings = {"proof": "header", "keys": "contact: id"} if settings is None else settings
        made = hub.hub.admin.create(
            DEFAULT_TENANT,
            slug,
            "webhook",
            Wanted(
                settings,
                {"webhook_secret": secret},
                {name: EntitySync.from_json(each) for name, each in entities.items()},
                **wanted,
            ),
        )
        self.connection = hub.hub.hooks.renew(made, at_once=False)
        self.hub.hub.forget(self.connection)
        (self.address,) = self.connection.hooks

    def post(self, body, headers=None, query=None):
        """Gives the event's id."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"x-hub-token": TOKEN} if headers is None else headers
        sent = Hook({"content-type": "application/json", **headers}, query or {}, data)
        self.hub.clock.ahead += datetime.resolution * 1000
        found = self.hub.hub.receiver.receive(self.address, sent, "1.2.3.4")
        assert isinstance(found, str)
        return found

    def tell(self, body, **more):
        """A post, and its work; gives the outcome."""
        event_id = self.post(body, **more)
        self.hub.work()
        return self.event(event_id).outcome

    def event(self, event_id):
        return self.hub.hub.engine.events.get(DEFAULT_TENANT, self.connection.uid, event_id)

    def record(self, rid, entity="contact"):
        record_id = layout.derived_record_id(DEFAULT_TENANT, self.connection.uid, entity, rid)
        found = self.hub.hub.engine.records.get(DEFAULT_TENANT, entity, record_id)
        return found.content if found else None


def backwards(hub):
    """What waits in the fresh lane is worked on from the last message to the first."""
    messages = list(hub.queue.receive(layout.FRESH, limit=32))
    for message in reversed(messages):
        hub.hub.handle(layout.FRESH, message.body, 1)
        hub.queue.delete(layout.FRESH, message)
    hub.work()


def fields(record):
    assert isinstance(record, Record)
    return dict(record.fields)


def test_what_a_body_says_makes_a_record_and_changes_it(hub):
    app = App(hub)
    assert app.tell({"id": "7", "last_name": "Torres", "city": "Lima", "colour": "red"}) == "merged"
    assert fields(app.record("7")) == {"last_name": "Torres", "city": "Lima"}
    assert app.tell({"id": 7, "city": "Cusco"}) == "merged"
    record = app.record("7")
    assert fields(record) == {"last_name": "Torres", "city": "Cusco"}  # what is not told stays
    assert (record.version, record.links[app.connection.uid].rid) == (2, "7")
    app.tell({"id": "7", "city": None})
    assert fields(app.record("7")) == {"last_name": "Torres"}


def test_a_repeat_changes_nothing(hub):
    app = App(hub)
    for _ in range(3):
        app.tell({"id": "7", "last_name": "Torres"})
    assert app.record("7").version == 1


def test_what_comes_late_does_not_undo_what_came_after_it(hub):
    """The messages of two webhooks are worked on in the wrong order."""
    app = App(hub)
    app.tell({"id": "7", "last_name": "Torres", "city": "Lima"})
    app.post({"id": "7", "city": "Cusco"})
    app.post({"id": "7", "city": "Puno", "phone": "1"})
    backwards(hub)
    assert fields(app.record("7")) == {"last_name": "Torres", "city": "Puno", "phone": "1"}


def test_a_delete_and_what_came_before_and_after_it(hub):
    app = App(hub, {"contact": {"direction": "pull", "deletes": "propagate"}})
    app.tell({"id": "7", "last_name": "Torres"})
    app.post({"id": "7", "city": "Cusco"})
    app.post({"id": "7", "deleted": True})
    backwards(hub)
    assert app.record("7").dead
    app.tell({"id": "7", "city": "Puno"})
    record = app.record("7")
    assert (record.dead, record.fields["city"]) == (False, "Puno")


def test_a_delete_of_what_was_never_told_of_is_remembered(hub):
    app = App(hub)
    app.post({"id": "7", "last_name": "Torres"})
    app.post({"id": "7", "deleted": True})
    backwards(hub)
    assert not isinstance(app.record("7"), Record)
    app.tell({"id": "7", "last_name": "Torres"})
    assert fields(app.record("7")) == {"last_name": "Torres"}


def test_webhooks_of_one_microsecond_are_all_merged(hub):
    app = App(hub)
    hub.clock.now = lambda: datetime(2030, 1, 1, tzinfo=UTC)
    names = ("last_name", "city", "phone", "email", "mobile")
    for name in names:
        app.post({"id": "8", name: "x"})
    hub.work()
    assert fields(app.record("8")) == dict.fromkeys(names, "x")


def test_a_part_that_comes_late_still_brings_what_no_later_one_has_told_of(hub):
    app = App(hub)
    app.tell({"id": "7", "last_name": "Torres"})
    app.post({"id": "7", "phone": "1", "city": "Lima"})
    app.post({"id": "7", "city": "Puno"})
    backwards(hub)
    assert fields(app.record("7")) == {"last_name": "Torres", "phone": "1", "city": "Puno"}
    app.post({"id": "8", "last_name": "Quispe", "phone": "2"})
    app.post({"id": "8", "city": "Ica", "phone": None})
    backwards(hub)
    assert fields(app.record("8")) == {"last_name": "Quispe", "city": "Ica"}


def test_a_late_part_does_not_undo_a_later_one_that_said_what_was_there(hub):
    app = App(hub)
    app.tell({"id": "7", "last_name": "Torres", "city": "Lima"})
    app.post({"id": "7", "city": "Puno"})
    app.post({"id": "7", "city": "Lima"})
    backwards(hub)
    assert fields(app.record("7")) == {"last_name": "Torres", "city": "Lima"}


@pytest.mark.parametrize("deletes", ["mark", "propagate", "ignore"])
def test_a_part_after_a_delete_brings_the_record_back_with_all_that_it_had(hub, deletes):
    app = App(hub, {"contact": {"direction": "pull", "deletes": deletes}})
    app.tell({"id": "7", "last_name": "Torres", "city": "Lima", "email": "ana@example.com"})
    app.tell({"id": "7", "deleted": True})
    app.tell({"id": "7", "city": "Puno"})
    record = app.record("7")
    assert not record.dead
    assert fields(record) == {"last_name": "Torres", "city": "Puno", "email": "ana@example.com"}


def test_a_delete_at_one_app_takes_nothing_of_another_one_away(hub):
    app = App(hub, {"contact": {"direction": "pull", "match": "email"}})
    other = App(hub, {"contact": {"direction": "pull", "match": "email"}}, slug="other")
    app.tell({"id": "7", "last_name": "Torres", "email": "ana@example.com"})
    other.tell({"id": "x", "email": "ana@example.com", "city": "Lima"})
    other.tell({"id": "x", "deleted": True})
    other.tell({"id": "x", "phone": "2"})
    found = fields(app.record("7"))
    assert {**found, "deleted_at": None} == {
        "last_name": "Torres",
        "email": "ana@example.com",
        "city": "Lima",
        "phone": "2",
        "deleted_at": None,
    }


@pytest.mark.parametrize("known", [False, True])
def test_a_second_delete_is_later_than_what_came_before_it(hub, known):
    app = App(hub, {"contact": {"direction": "pull", "deletes": "propagate"}})
    if known:
        app.tell({"id": "7", "last_name": "Torres"})
    app.tell({"id": "7", "deleted": True})
    app.post({"id": "7", "last_name": "Quispe"})
    app.post({"id": "7", "deleted": True})
    backwards(hub)
    record = app.record("7")
    assert not isinstance(record, Record) or record.dead


@pytest.mark.parametrize("key", ["\ud800", "x" * 201, 7.5, {"a": 1}, ["a"], ["\ud800"], "a\x00b"])
def test_a_key_that_is_none_sets_its_record_aside_and_no_other(hub, key):
    app = App(hub)
    if key == 7.5:
        assert app.tell([{"id": key, "last_name": "Kept"}]) == "merged"  # its text is a key like any other
        return
    app.tell([{"id": "1", "last_name": "A"}, {"id": key, "last_name": "B"}, {"id": "2", "last_name": "C"}])
    assert [fields(app.record(rid))["last_name"] for rid in ("1", "2")] == ["A", "C"]
    (letter,) = hub.hub.table.query(layout.DEADLETTERS).rows
    assert "key" in str(letter.values)


@pytest.mark.parametrize("number", [b"1e999", b"-1e401", b"NaN", b"Infinity"])
def test_a_key_that_is_no_number_of_this_world_sets_its_record_aside_and_no_other(hub, number):
    app = App(hub)
    kept = b'{"id": "1", "last_name": "A"}, %s, {"id": "2", "last_name": "C"}'
    app.tell(b"[" + kept % (b'{"id": %s, "last_name": "B"}' % number) + b"]")
    assert [fields(app.record(rid))["last_name"] for rid in ("1", "2")] == ["A", "C"]
    (letter,) = hub.hub.table.query(layout.DEADLETTERS).rows
    assert "key" in str(letter.values)


@pytest.mark.parametrize("number", [b"1e999", b"NaN"])
@pytest.mark.parametrize("name", [b"last_name", b"status", b"at", b"updated_at", b"deleted"])
def test_a_value_that_is_no_number_of_this_world_stops_no_other_record(hub, name, number):
    app = App(hub)
    app.tell(b'[{"id": "1", "%s": %s}, {"id": "2", "last_name": "C"}]' % (name, number))
    assert fields(app.record("2")) == {"last_name": "C"}


@pytest.mark.parametrize("value", [{"a": 1}, ["a"], "\ud800"])
@pytest.mark.parametrize("name", ["last_name", "status"])
def test_a_value_that_is_no_single_one_sets_its_record_aside_and_no_other(hub, name, value):
    app = App(hub)
    app.tell([{"id": "1", name: value}, {"id": "2", "last_name": "C"}])
    assert app.record("1") is None
    assert fields(app.record("2")) == {"last_name": "C"}


def test_what_the_hub_keeps_for_itself_is_not_told(hub):
    app = App(hub)
    app.tell({"id": "1", "last_name": "A", "deleted_at": "2020-01-01T00:00:00Z"})
    assert fields(app.record("1")) == {"last_name": "A"}


def test_a_field_made_of_several_properties_is_told_by_all_of_them(hub):
    mapping = {"fields": {"last_name": {"from": "{nombre} {apellido}"}}}
    app = App(hub, mappings={"contact": mapping})
    app.tell({"id": "1", "nombre": "Ana", "apellido": "Quispe"})
    app.tell({"id": "1", "nombre": "Anita", "city": "Lima"})
    assert fields(app.record("1")) == {"last_name": "Ana Quispe", "city": "Lima"}


def test_a_reference_of_several_kinds(hub):
    app = App(hub, {"case": "pull"}, {"proof": "header", "keys": "case: id"})
    app.tell({"id": "1", "title": "T", "customer_id": "7", "customer_type": "contact"})
    assert fields(app.record("1", "case"))["customer_type"] == "contact"
    app.tell({"id": "1", "customer_id": None})
    assert fields(app.record("1", "case")) == {"title": "T"}
    app.tell({"id": "2", "title": "U", "customer_id": "7", "customer_type": "nobody"})
    assert app.record("2", "case") is None


def test_a_dead_letter_of_a_record_leads_to_the_webhook_that_told_of_it(hub):
    app = App(hub, {"visit": "pull"}, {"proof": "header", "keys": "visit: id"})
    app.tell({"id": "1", "at": "yesterday"})
    found, _ = deadletters.page(hub.hub.engine, DEFAULT_TENANT, deadletters.Wanted(), {}, top=10)
    source, letter = deadletters.find(hub.hub.engine, DEFAULT_TENANT, found[0].id, "key:test")
    with pytest.raises(Conflict, match="replay the webhook"):
        source.replay(letter)
    hub.work()
    assert app.record("1", "visit") is None


def test_a_replay_waits_until_the_connection_goes_on(hub):
    app = App(hub)
    first = app.post({"id": "7", "last_name": "Torres"})
    hub.work()
    hub.hub.forget(hub.hub.admin.pause(app.connection, paused=True))
    with pytest.raises(Conflict, match="is paused"):
        intake.replay(hub.hub.engine, DEFAULT_TENANT, app.connection.uid, app.event(first))


def test_what_comes_to_a_connection_without_an_address_is_found_again(hub, monkeypatch):
    """Such as that of presences, whose address everybody knows."""
    monkeypatch.setattr("crm_core.sync.schedule.OVERDUE_SECONDS", -1.0)
    app = App(hub)
    plain = hub.hub.hooks.remove(app.connection)
    hub.hub.forget(plain)
    states = hub.hub.states.read(DEFAULT_TENANT, plain.uid)
    assert states.connection.hooked
    sent = Hook(
        {"content-type": "application/json", "x-hub-token": TOKEN}, {}, b'{"id": "7", "last_name": "T"}'
    )
    event_id = hub.hub.receiver.receive_at((DEFAULT_TENANT, plain.uid), sent, "1.2.3.4")
    (message,) = hub.queue.receive(layout.FRESH)
    hub.hub.engine.events.open(
        DEFAULT_TENANT, plain.uid, Inbound.from_message(json.loads(message.body)["event"])
    )
    hub.queue.delete(layout.FRESH, message)  # it is lost after its row was written
    hub.hub.tick()
    hub.work()
    assert app.event(event_id).outcome == "merged"


def test_an_edit_here_and_one_there_of_different_fields_are_both_kept(hub):
    app = App(hub)
    app.tell({"id": "7", "last_name": "Torres", "city": "Lima"})
    hub.editor().update(app.record("7").id, {"city": "Puno"})
    app.tell({"id": "7", "last_name": "Torres", "city": "Lima", "phone": "1"})
    assert fields(app.record("7")) == {"last_name": "Torres", "city": "Puno", "phone": "1"}


def test_a_list_and_several_entities_of_one_body(hub):
    settings = {"proof": "header", "keys": "visit: visita.codigo\nsale: venta.codigo"}
    mappings = {
        "visit": {
            "zone": "America/Lima",
            "fields": {
                "at": {"to": "visita.fecha"},
                "customer_name": {"to": "cliente.nombre"},
                "external_id": {"to": "visita.codigo"},
            },
        },
        "sale": {
            "fields": {
                "visit_id": {"to": "visita.codigo", "direction": "in"},
                "external_id": {"to": "venta.codigo"},
            }
        },
    }
    app = App(hub, {"visit": "pull", "sale": "pull"}, settings, mappings=mappings)
    one = {"visita": {"codigo": "V-1", "fecha": "2024-01-15T14:30:00"}, "cliente": {"nombre": "Juan Pérez"}}
    two = {"visita": {"codigo": "V-2"}, "cliente": {"nombre": "Ana"}, "venta": {"codigo": "S-2"}}
    assert app.tell([one, two]) == "merged"
    visit = app.record("V-1", "visit")
    assert fields(visit) == {
        "external_id": "V-1",
        "at": "2024-01-15T19:30:00Z",
        "customer_name": "Juan Pérez",
    }
    assert app.record("V-1", "sale") is None
    sale = app.record("S-2", "sale")
    assert fields(sale) == {"external_id": "S-2", "visit_id": app.record("V-2", "visit").id}


def test_parts_of_a_list_that_tell_of_one_record_are_one_change(hub):
    app = App(hub)
    app.tell([{"id": "7", "last_name": "Torres", "city": "Lima"}, {"id": "7", "city": "Cusco"}])
    assert fields(app.record("7")) == {"last_name": "Torres", "city": "Cusco"}


def test_without_keys_a_body_says_entity_and_id(hub):
    app = App(hub, settings={"proof": "header"})
    assert app.tell({"entity": "contact", "id": "7", "last_name": "Torres"}) == "merged"
    assert app.tell({"entity": "account", "id": "7", "name": "Not read here"}) == "about nothing here"
    assert app.tell({"id": "7", "last_name": "Other"}) == "about nothing here"
    assert fields(app.record("7")) == {"last_name": "Torres"}


@pytest.mark.parametrize("body", [b"[1]", b'"text"', b"{", b"null"])
def test_what_nobody_understands_is_kept(hub, body):
    app = App(hub)
    event_id = app.post(body)
    hub.work()
    assert app.event(event_id).outcome == "not understood"


XML = """<?xml version="1.0" encoding="ISO-8859-1"?>
<n:pedido xmlns:n="urn:x" tipo="web"><cliente id="7"><apellido>N\xfa\xf1ez</apellido><ciudad/></cliente></n:pedido>"""


def xml_app(hub):
    mapping = {"fields": {"last_name": {"to": "cliente.apellido"}, "city": {"to": "cliente.ciudad"}}}
    return App(
        hub, settings={"proof": "header", "keys": "contact: cliente.@id"}, mappings={"contact": mapping}
    )


def test_xml_is_read_like_json(hub):
    app = xml_app(hub)
    headers = {"x-hub-token": TOKEN, "content-type": "application/xml"}
    assert app.tell(XML.encode("latin-1"), headers=headers) == "merged"
    assert fields(app.record("7")) == {"last_name": "Núñez"}


def test_values_of_xml_are_of_the_kinds_that_their_fields_have(hub):
    mapping = {
        "account": {"fields": {"email": {"to": "correo.#text"}, "employees": {"to": "n.m"}}},
        "contact": {"fields": {"email_opt_out": {"to": "no"}}},
    }
    settings = {"proof": "header", "keys": "account: @id\ncontact: c\norder: pedido"}
    entities = dict.fromkeys(("account", "contact", "order"), "pull")
    app = App(hub, entities, settings, mappings=mapping)
    body = (
        "<r id='7'><correo tipo='casa'>ana@example.com</correo><n><m>12</m></n><no>true</no><c>3</c><pedido>P1</pedido>"
        "<lines><description>A box</description><quantity>2</quantity></lines></r>"
    )
    app.tell(body.encode(), headers={"x-hub-token": TOKEN, "content-type": "text/xml"})
    account = fields(app.record("7", "account"))
    assert (account["email"], account["employees"]) == ("ana@example.com", 12)
    assert fields(app.record("3"))["email_opt_out"] is True
    (line,) = fields(app.record("P1", "order"))["lines"]
    assert (line["description"], line["quantity"]) == ("A box", "2")


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE a [<!ENTITY b "x">]><a><cliente id="7"><apellido>&b;</apellido></cliente></a>',
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x"><a/>',
        b"<a><b></a>",
        b"",
        b"{}",
        b"<a>" * 60 + b"</a>" * 60,
        b'<?xml version="1.0" encoding="no-such"?><a/>',
    ],
)
def test_xml_that_is_none_or_would_grow_is_kept_and_not_read(hub, body):
    app = xml_app(hub)
    event_id = app.post(body, headers={"x-hub-token": TOKEN, "content-type": "text/xml"})
    hub.work()
    assert (app.event(event_id).outcome, app.record("7")) == ("not understood", None)


def test_a_value_that_cannot_be_read_waits_for_a_person_and_the_others_go_on(hub):
    app = App(hub, {"visit": "pull"}, {"proof": "header", "keys": "visit: id"})
    app.tell([{"id": "1", "at": "yesterday"}, {"id": "2", "at": "2026-01-01T00:00:00Z"}])
    assert app.record("1", "visit") is None
    assert fields(app.record("2", "visit")) == {"at": "2026-01-01T00:00:00Z"}
    (letter,) = hub.hub.table.query(layout.DEADLETTERS).rows
    assert "at: " in str(letter.values)


def test_a_paused_connection_keeps_what_comes_and_works_on_it_later(hub, monkeypatch):
    monkeypatch.setattr("crm_core.sync.schedule.OVERDUE_SECONDS", -1.0)
    app = App(hub)
    paused = hub.hub.admin.pause(app.connection, paused=True)
    hub.hub.forget(paused)
    event_id = app.post({"id": "7", "last_name": "Torres"})
    hub.work()
    assert app.event(event_id).state == "open"
    hub.hub.tick()
    assert list(hub.queue.receive(layout.FRESH)) == []
    hub.hub.forget(hub.hub.admin.pause(paused, paused=False))
    hub.hub.tick()
    hub.work()
    assert app.event(event_id).outcome == "merged"
    assert fields(app.record("7")) == {"last_name": "Torres"}


def test_a_replay_comes_in_once_more(hub):
    app = App(hub)
    first = app.post({"id": "7", "last_name": "Torres", "city": "Lima"})
    hub.work()
    app.tell({"id": "7", "city": "Puno"})
    intake.replay(hub.hub.engine, DEFAULT_TENANT, app.connection.uid, app.event(first))
    hub.work()
    assert app.record("7").fields["city"] == "Lima"


def test_a_match_rule_links_what_is_told_to_the_record_that_is_there(hub):
    app = App(hub, {"contact": {"direction": "pull", "match": "email"}})
    other = App(hub, {"contact": {"direction": "pull", "match": "email"}}, slug="other")
    app.tell({"id": "7", "last_name": "Torres", "email": "ana@example.com"})
    other.tell({"id": "x", "email": "Ana@example.com", "phone": "1"})
    record = app.record("7")
    assert fields(record) == {"last_name": "Torres", "email": "Ana@example.com", "phone": "1"}
    assert record.links.keys() == {app.connection.uid, other.connection.uid}
    other.tell({"id": "y", "email": "ana@example.com"})  # a second one with that key: a person is asked
    assert [each.reviews for each in [other_record(hub, other, "y")]] != [()]


def other_record(hub, app, rid):
    record_id = layout.derived_record_id(DEFAULT_TENANT, app.connection.uid, "contact", rid)
    apart = layout.separate_record_id(record_id)
    found = hub.hub.engine.records.get(DEFAULT_TENANT, "contact", apart)
    assert found is not None
    return found.content


def test_a_crash_at_any_call_loses_nothing_and_does_nothing_twice(hub, monkeypatch):
    """A worker that dies before or after any of its calls; the tick finds what is open."""
    monkeypatch.setattr("crm_core.sync.schedule.OVERDUE_SECONDS", -1.0)
    points = Points()
    for name in TABLE_CALLS:
        points.around(hub.hub.table, name, monkeypatch)
    points.around(hub.queue, "send", monkeypatch)
    app = App(hub)
    at, crashed = 0, True
    while crashed:
        sent = app.post({"id": str(at), "last_name": f"Name {at}"})
        crashed = crashing_work(hub, points, at)
        hub.work()
        hub.hub.tick()
        hub.work()
        assert app.event(sent).state == "done"
        record = app.record(str(at))
        assert (fields(record), record.version) == ({"last_name": f"Name {at}"}, 1)
        at += 1
    assert at > 5


# --- proof -------------------------------------------------------------------------------------------------------


def test_standard_webhooks_by_the_reference_implementation(hub):
    app = App(hub, settings={"keys": "contact: id"}, secret=SECRET)
    body = json.dumps({"id": "7", "last_name": "Torres"})
    now = hub.clock.now()
    signature = Webhook(SECRET).sign("msg_1", now, body)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    assert app.tell(body.encode(), headers=headers) == "merged"
    assert app.tell(body.encode(), headers=headers) == "a repeat"
    with pytest.raises(SignatureInvalid):
        app.post(body.encode() + b" ", headers=headers)
    with pytest.raises(SignatureInvalid):
        app.post(body.encode(), headers={**headers, "webhook-id": "msg_2"})


@pytest.mark.parametrize(
    ("proof", "header", "prove"),
    [
        ("hmac-hex", "X-Hub-Signature-256", lambda digest: "sha256=" + digest.hex()),
        ("hmac-hex", "X-Shop-Hmac", lambda digest: digest.hex()),
        ("hmac-base64", "X-Shop-Hmac", lambda digest: base64.b64encode(digest).decode()),
    ],
)
def test_hmac_over_the_body(hub, proof, header, prove):
    app = App(hub, settings={"proof": proof, "proof_header": header, "keys": "contact: id"})
    body = b'{"id": "7", "last_name": "Torres"}'
    right = {header.lower(): prove(hmac.digest(TOKEN.encode(), body, hashlib.sha256))}
    assert app.tell(body, headers=right) == "merged"
    wrong = {header.lower(): prove(hmac.digest(b"other", body, hashlib.sha256))}
    for headers in (wrong, {}, {header.lower(): ""}):
        with pytest.raises(SignatureInvalid):
            app.post(body, headers=headers)


def test_query_and_basic(hub):
    app = App(hub, settings={"proof": "query", "keys": "contact: id"})
    assert app.tell({"id": "7"}, headers={}, query={"token": TOKEN}) == "merged"
    with pytest.raises(SignatureInvalid):
        app.post({"id": "7"}, headers={}, query={"token": "other"})
    basic = App(hub, settings={"proof": "basic", "keys": "contact: id"}, secret="ana:pw", slug="basic")
    right = {"authorization": "Basic " + base64.b64encode(b"ana:pw").decode()}
    assert basic.tell({"id": "7"}, headers=right) == "merged"
    with pytest.raises(SignatureInvalid):
        basic.post({"id": "7"}, headers={"authorization": "Basic " + base64.b64encode(b"ana:no").decode()})


def test_without_a_secret_nothing_gets_in(hub):
    app = App(hub, secret="")
    for headers in ({}, {"x-hub-token": ""}):
        with pytest.raises(SignatureInvalid):
            app.post({"id": "7"}, headers=headers)


# --- what is refused by name -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"proof": "rot13"}, "settings.proof"),
        ({"proof_header": "X-Own"}, "settings.proof_header"),
        ({"proof": "header", "proof_header": "X Own"}, "settings.proof_header"),
        ({"proof": "header", "proof_header": "ce-token"}, "settings.proof_header"),
        ({"proof": "header", "proof_header": "User-Agent"}, "settings.proof_header"),
        ({"keys": "person: id"}, "settings.keys"),
        ({"keys": "contact"}, "settings.keys"),
        ({"keys": "contact: a..b"}, "settings.keys"),
    ],
)
def test_a_wrong_setting_is_named(hub, settings, field):
    with pytest.raises(BadRequest) as raised:
        App(hub, settings=settings)
    assert [each.field for each in raised.value.errors] == [field]


def test_it_cannot_be_pulled(hub):
    with pytest.raises(BadRequest, match="schedule: "):
        App(hub, schedule=Schedule(minutes=5))
    app = App(hub)
    assert app.connection.schedule == Schedule()
    with pytest.raises(BadRequest, match="can't be asked"):
        hub.hub.start_run(DEFAULT_TENANT, "app", ["contact"], "incremental", "key:test")
    with pytest.raises(NotSupported):
        hub.hub.open(DEFAULT_TENANT, app.connection.uid).connector.get("contact", "7")
