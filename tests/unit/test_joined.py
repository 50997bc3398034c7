"""Fields of other records in what deliveries tell: which there are, and what of them is refused by name."""

import pytest

from crm_core.connectors.dynamics365.tables import TABLES
from crm_core.connectors.webhook.maps import MAPS
from crm_core.errors import BadRequest
from crm_core.model.entities import APPOINTMENT, CASE, LEAD
from crm_core.model.fields import Type
from crm_core.model.joined import joined, references
from crm_core.model.mapping_lint import warnings
from crm_core.model.overrides import effective


@pytest.mark.parametrize(
    ("entity", "name", "kind"),
    [
        (APPOINTMENT, "lead_id.email", Type.TEXT),
        (APPOINTMENT, "lead_id.status", Type.CHOICE),
        (APPOINTMENT, "lead_id.created_at", Type.INSTANT),
        (APPOINTMENT, "id", Type.TEXT),
        (APPOINTMENT, "event_time", Type.INSTANT),
        (APPOINTMENT, "lead_id.contact_id", None),  # a reference of a reference
        (APPOINTMENT, "lead_id.contact_id.email", None),
        (APPOINTMENT, "lead_id.", None),
        (APPOINTMENT, "lead_id", None),
        (APPOINTMENT, "at.email", None),
        (APPOINTMENT, ".email", None),
        (CASE, "customer_id.name", None),  # of which entity is not known
    ],
)
def test_what_can_be_named(entity, name, kind):
    found = joined(entity, name)
    assert (found.type if found else None) == kind


def test_the_references_to_follow():
    names = ["at", "lead_id.email", "id", "lead_id.phone", "contact_id.email"]
    assert references(APPOINTMENT, names) == {"lead_id": "lead", "contact_id": "contact"}


def test_it_is_told_and_never_read():
    document = {
        "fields": {"lead_id.email": {"to": "who.email"}, "lead_id.last_name": {}, "id": {"to": "key"}},
        "targets": {"who.name": {"template": "{lead_id.last_name|upper} at {place}"}},
    }
    emap = effective(MAPS["appointment"], document)
    row = {"who": {"email": "other@example.com"}, "key": "7", "place": "Lima"}
    assert emap.told(row) == {"place": "Lima"}
    fields = {"lead_id.email": "ana@example.com", "lead_id.last_name": "Quispe", "place": "Lima", "id": "7"}
    assert emap.outward(fields, {}) == {
        "who": {"email": "ana@example.com", "name": "QUISPE at Lima"},
        "place": "Lima",
        "key": "7",
    }


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"fields": {"lead_id.email": "who"}}, "fields.lead_id.email"),
        ({"fields": {"lead_id.email": {"from": "{who}"}}}, "fields.lead_id.email.from"),
        ({"fields": {"lead_id.email": {"to": "who", "direction": "in"}}}, "fields.lead_id.email.direction"),
        ({"fields": {"lead_id.nothing": {"to": "who"}}}, "fields.lead_id.nothing"),
        ({"targets": {"who": {"template": "{lead_id.email}"}}}, "targets.who.template"),
    ],
)
def test_what_can_not_be_is_named(document, field):
    with pytest.raises(BadRequest) as raised:
        effective(MAPS["appointment"], document)
    assert f"appointment.{field}" in [each.field for each in raised.value.errors]


def test_a_system_that_is_written_to_has_none():
    with pytest.raises(BadRequest, match="is no field of lead"):
        effective(TABLES["lead"], {"fields": {"account_id.name": {"to": "x_name"}}})


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        ({"mobile": {"to": "cliente.numero_documento", "direction": "out"}}, 1),
        ({"phone": {"to": ["tel", "dni"], "direction": "out"}}, 1),
        ({"phone": {"to": "telefono"}, "email": {"to": "documento"}}, 0),
        ({"mobile": {"to": "cliente.numero_documento", "direction": "in"}}, 0),
    ],
)
def test_a_phone_that_stands_for_a_document_is_warned_of(fields, warned):
    emap = effective(MAPS[LEAD.name], {"fields": fields})
    assert len(list(warnings(emap))) == warned
