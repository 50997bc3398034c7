"""The pure half of deliveries: what is told, who wants it, when it is sent again, and its body."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from crm_core.connector import Account
from crm_core.connectors.webhook import Webhook
from crm_core.connectors.webhook.deliver import Outgoing, mapped
from crm_core.connectors.webhook.maps import MAPS, named
from crm_core.errors import BadRequest
from crm_core.model.connection import EntitySync
from crm_core.model.entities import ENTITIES
from crm_core.model.overrides import effective
from crm_core.model.record import Record, Stamp
from crm_core.model.record_event import MAX_CHARACTERS, RecordEvent, event_of, fitted
from crm_core.protocols.signatures import signing_key
from crm_core.retry import DELIVERY_SECONDS, delivery_delay
from crm_core.sync.deliver import passes, verdict
from crm_core.sync.merge import old_values
from tests.sync.receivers import SECRET

NOW = "2026-11-24T13:45:00.000000Z"
ID = "0a3f8c1e-0000-4000-8000-000000000001"
APPOINTMENT = ENTITIES["appointment"]


def record(version=1, *, dead=False, entity="appointment", **fields):
    return Record(ID, entity, fields, Stamp(NOW, "hub"), {"time": NOW}, version, dead=dead)


def step(before: Record | None, after: Record) -> RecordEvent:
    return event_of(before, after, old_values(before, after) if before else {}, NOW, "hub")


class TestWhatHappened:
    def test_a_new_record_is_created_with_nothing_before(self):
        event = step(None, record(status="planned"))
        assert (event.kind, event.old, event.fields) == ("created", {}, {"status": "planned"})
        assert event.before() is None

    def test_a_change_bears_the_values_before_null_where_there_was_none(self):
        event = step(record(status="planned"), record(2, status="done", notes="x"))
        assert (event.kind, event.old) == ("updated", {"status": "planned", "notes": None})
        assert event.before().fields == {"status": "planned"}

    @pytest.mark.parametrize("gone", [{"dead": True}, {"deleted_at": NOW}])
    def test_dead_or_marked_is_deleted_and_back_is_created(self, gone):
        live, dead = record(status="done"), record(2, status="done", **gone)
        assert step(live, dead).kind == "deleted"
        assert step(dead, replace(dead, version=3)).kind == "updated"
        back = step(dead, record(3, status="done"))
        assert (back.kind, back.old) == ("created", {})

    def test_it_comes_back_from_its_row_as_it_was(self):
        event = step(record(status="planned"), record(2, status="done"))
        assert RecordEvent.from_json(ID, "appointment", 2, json.loads(json.dumps(event.to_json()))) == event

    def test_values_that_no_row_holds_are_cut_the_longest_first_and_named(self):
        before, after = record(notes="a" * MAX_CHARACTERS), record(2, notes="b" * 9, place="Lima")
        event = fitted(step(before, after))
        assert (event.cut, event.fields, event.old) == (("notes",), {"place": "Lima"}, {"place": None})

    def test_several_copies_share_the_room(self):
        event = step(None, record(notes="a" * 1000, place="b" * (MAX_CHARACTERS // 2 - 2000)))
        assert (fitted(event).cut, fitted(event, 2).cut) == ((), ())
        assert fitted(event, 3).cut == ("place",)


class TestWhoWantsIt:
    @pytest.mark.parametrize(
        ("before", "after", "wanted"),
        [
            ({"status": "planned"}, {"status": "done"}, True),
            (None, {"status": "done"}, True),
            ({"status": "done"}, {"status": "done", "notes": "x"}, False),
            ({"status": "done"}, {"status": "planned"}, False),
            ({"status": "planned"}, {"status": "done", "project": "B"}, False),
            ({}, {"status": "done"}, True),
        ],
    )
    def test_becomes_is_true_now_and_was_not_before(self, before, after, wanted):
        sync = EntitySync("push", filter="project ne 'B'", becomes="status eq 'done'")
        after = {"project": "A", **after}
        before = record(**{"project": "A", **before}) if before is not None else None
        assert passes(sync, APPOINTMENT, step(before, record(2, **after))) is wanted

    def test_a_field_that_changes_and_changes_back_becomes_it_once(self):
        sync = EntitySync("push", becomes="status eq 'done'")
        states = [
            record(n, status=status) for n, status in enumerate(["planned", "done", "planned", "done"], 1)
        ]
        told = [passes(sync, APPOINTMENT, step(*pair)) for pair in itertools.pairwise(states)]
        assert told == [True, False, True]

    def test_only_the_kinds_that_are_named(self):
        sync = EntitySync("push", events=("deleted",))
        live = record(status="done")
        assert not passes(sync, APPOINTMENT, step(None, live))
        assert passes(sync, APPOINTMENT, step(live, record(2, dead=True, status="done")))


class TestWhenItIsSentAgain:
    def test_the_schedule_is_that_of_standard_webhooks(self):
        minute, hour = 60, 3600
        assert (
            0, 5, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour
        ) == DELIVERY_SECONDS  # fmt: skip
        assert [delivery_delay(tries) for tries in range(1, 11)] == [*DELIVERY_SECONDS[1:], None]

    def test_a_receiver_can_ask_for_longer_but_not_for_ever(self):
        assert delivery_delay(1, 60) == 60
        assert delivery_delay(4, 60) == 7200
        assert delivery_delay(1, 10**9) == 86_400

    @pytest.mark.parametrize("status", [200, 201, 204, 299])
    def test_any_2xx_is_enough(self, status):
        assert verdict(1, status, None).state == "done"

    @pytest.mark.parametrize("status", [0, 199, 300, 302, 400, 404, 410, 429, 500, 503])
    def test_anything_else_comes_again_until_the_last_attempt(self, status):
        assert (verdict(1, status, None).state, verdict(1, status, None).delay) == ("open", 5)
        assert verdict(9, status, None).state == "open"
        assert verdict(10, status, None).state == "failed"
        assert "10 attempts" in verdict(10, status, None).outcome

    def test_a_redirect_has_its_own_words(self):
        assert "redirect" in verdict(1, 302, None).outcome
        assert "redirect" not in verdict(1, 404, None).outcome


class TestItsBody:
    def test_a_mapping_renames_nests_and_adds_constants(self):
        document: dict[str, Any] = {
            "fields": {
                "status": {"to": "estado", "direction": "out", "values": [{"ours": "done", "theirs": "Realizada"}],
                           "unmapped": "default", "default": {"theirs": "Otra"}},
                "notes": None,
            },
            "targets": {"origen": {"constant": "CRM"}, "lugar.texto": {"template": "En {place|upper}"}},
        }  # fmt: skip
        emap = effective(MAPS["appointment"], document)
        event = step(record(notes="x"), record(2, status="done", contact_id=ID, place="Lima"))
        message = mapped("u", emap, "7", event)
        assert json.loads(message.body) == {
            "estado": "Realizada", "contact_id": ID, "place": "Lima", "origen": "CRM", "lugar": {"texto": "En LIMA"},
        }  # fmt: skip
        assert message.content_type.startswith("application/json")
        assert message.headers == {
            "ce-specversion": "1.0", "ce-id": "7", "ce-source": "/connections/u", "ce-type": "crmhub.appointment.updated",
            "ce-subject": ID, "ce-time": NOW,
        }  # fmt: skip
        other = step(None, record(status="planned"))
        assert json.loads(mapped("u", emap, "7", other).body)["estado"] == "Otra"

    def test_only_what_the_mapping_names_if_the_settings_say_so(self):
        document = {
            "fields": {"place": {"to": "lugar"}},
            "targets": {"texto": {"template": "{notes} {project}"}},
        }
        emap = named(effective(MAPS["appointment"], document), document)
        event = step(None, record(place="Lima", notes="x", project="P", status="done"))
        assert json.loads(mapped("u", emap, "7", event).body) == {"lugar": "Lima", "texto": "x P"}

    def test_what_a_change_has_emptied_is_null(self):
        event = step(record(place="Lima", notes="x"), record(2, notes="x"))
        assert json.loads(mapped("u", MAPS["appointment"], "7", event).body) == {"place": None, "notes": "x"}

    def test_every_entity_can_be_told_as_it_is(self):
        for name, entity in ENTITIES.items():
            assert MAPS[name].by_field.keys() >= {each.name for each in entity.fields if each.required}


class TestItsSettings:
    @staticmethod
    def outgoing(settings, secrets):
        return Outgoing(Account("default", "u", {"url": "https://x.example", **settings}, secrets), None)

    @pytest.mark.parametrize(
        ("settings", "secrets", "named"),
        [
            ({}, {"token": "t"}, "settings.token_header"),
            ({"token_header": "webhook-id"}, {"token": "t"}, "settings.token_header"),
            ({"token_header": "X Y"}, {"token": "t"}, "settings.token_header"),
            ({"headers": "no colon"}, {}, "settings.headers"),
            ({"headers": "Content-Type: text/plain"}, {}, "settings.headers"),
            ({}, {"signing_secret": "whsec_c2hvcnQ="}, "secrets.signing_secret"),
            ({}, {"signing_secret": f"{SECRET} no-base64!"}, "secrets.signing_secret"),
        ],
    )
    def test_a_wrong_one_is_refused_by_its_name(self, settings, secrets, named):
        with pytest.raises(BadRequest) as caught:
            self.outgoing(settings, secrets)
        assert [each.field for each in caught.value.errors] == [named]
        assert "no-base64" not in caught.value.message

    def test_a_key_has_24_to_64_bytes(self):
        import base64

        for size, good in ((23, False), (24, True), (64, True), (65, False)):
            text = "whsec_" + base64.b64encode(b"k" * size).decode()
            if good:
                assert len(signing_key(text)) == size
            else:
                with pytest.raises(ValueError, match="24 to 64"):
                    signing_key(text)

    def test_it_is_only_told(self):
        assert Webhook.delivers_to == "url"
        assert {each.name for each in Webhook.settings if each.secret} == {
            "signing_secret",
            "token",
            "url_query",
            "webhook_secret",
        }
