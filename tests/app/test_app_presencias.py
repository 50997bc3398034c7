"""Presences between a CRM and a sales app, with the payload and the header of docs/recipes/presencias.md."""

import json

import pytest

from tests.app.conftest import wait_until

pytestmark = pytest.mark.xdist_group("app-presencias")

TOKEN = "the-token-of-the-sales-app-0123456789"
CRM_TOKEN = "the-token-of-the-crm-0123456789"
ROUTE = "/api/webhook-presencia-crm/"
PAYLOAD = {
    "id_presencia_crm": "CRM-123",
    "cliente": {
        "nombres_completos_razon_social": "Juan Pérez",
        "tipo_documento": "DNI",
        "numero_documento": "12345678",
        "telefono_principal": "999888777",
        "email_principal": "juan@example.com",
        "direccion": "Lima",
        "distrito": "Lima",
    },
    "fecha_hora_presencia": "2024-01-15T14:30:00",
    "proyecto_interes": "OASIS 2 (AUCALLAMA)",
    "medio_captacion": "campo_opc",
    "modalidad": "presencial",
    "status_presencia": "realizada",
    "resultado_interaccion": "interesado_seguimiento",
    "observaciones": "Presencia desde CRM. Lugar: Sala de ventas.",
}


@pytest.fixture(scope="module")
def sales(start_sandbox):
    """It takes only what bears its token."""
    return start_sandbox("--token", TOKEN, system="sales")


@pytest.fixture(scope="module")
def hub(start_hub, sales):
    return start_hub(
        COMERCIAL_WEBHOOK_URL=f"{sales.url}/webhooks",
        COMERCIAL_WEBHOOK_TOKEN=TOKEN,
        CRM_WEBHOOK_TOKEN=CRM_TOKEN,
    )


@pytest.fixture(autouse=True)
def empty(sales):
    sales.control("POST", "reset")


def told(sales):
    """What the sales app was posted, by the id of the presence."""
    posts = [each for each in sales.control("GET", "requests") if each["method"] == "POST"]
    bodies = [json.loads(each["body"]) for each in posts]
    return {each["id_presencia_crm"]: each for each in bodies}


def post(hub, payload, token=CRM_TOKEN):
    headers = {"X-CRM-Webhook-Token": token} if token is not None else {}
    return hub("POST", ROUTE, payload, key=None, headers=headers)


def stored(hub, entity, external_id):
    found = hub.ok("GET", f"/api/records/{entity}?filter=external_id eq '{external_id}'")
    return found["value"]


def visit_of(hub, payload):
    answer = post(hub, payload)
    assert answer.status_code == 202, answer.text
    (visit,) = wait_until(lambda: stored(hub, "visits", payload["id_presencia_crm"]))
    return visit


def test_a_presence_makes_a_visit(hub):
    visit = visit_of(hub, PAYLOAD)
    assert {
        name: visit[name] for name in visit if name not in ("id", "entity", "etag", "version", "links")
    } == {
        "external_id": "CRM-123",
        "customer_name": "Juan Pérez",
        "document_type": "DNI",
        "document_number": "12345678",
        "phone": "999888777",
        "email": "juan@example.com",
        "street": "Lima",
        "district": "Lima",
        "at": "2024-01-15T19:30:00Z",
        "project": "OASIS 2 (AUCALLAMA)",
        "acquisition_channel": "OPC",
        "modality": "in_person",
        "status": "done",
        "outcome": "interesado_seguimiento",
        "notes": "Presencia desde CRM. Lugar: Sala de ventas.",
    }
    assert stored(hub, "sales", "V-123") == []


def test_the_short_payload_of_a_test(hub):
    payload = {
        "id_presencia_crm": "TEST-001",
        "cliente": {
            "nombres_completos_razon_social": "Cliente Test",
            "tipo_documento": "DNI",
            "numero_documento": "12345678",
            "telefono_principal": "999888777",
        },
        "fecha_hora_presencia": "2024-01-15T14:30:00",
        "proyecto_interes": "OASIS 2 (AUCALLAMA)",
        "medio_captacion": "campo_opc",
        "modalidad": "presencial",
        "status_presencia": "realizada",
    }
    visit = visit_of(hub, payload)
    assert (visit["customer_name"], visit.get("email")) == ("Cliente Test", None)


def test_a_repeat_changes_nothing_and_a_change_changes_the_visit(hub):
    payload = {**PAYLOAD, "id_presencia_crm": "CRM-200"}
    visit = visit_of(hub, payload)
    for _ in range(2):
        post(hub, payload)
    post(hub, {"id_presencia_crm": "CRM-200", "status_presencia": "cancelada"})

    def changed():
        (now,) = stored(hub, "visits", "CRM-200")
        return now["status"] == "canceled" and now

    after = wait_until(changed)
    assert (after["version"], after["id"], after["phone"]) == (2, visit["id"], "999888777")


def test_a_sale_comes_with_the_presence_that_led_to_it(hub):
    sale = {
        "id_venta_crm": "V-300", "unidad": "MZ A LT 4", "monto_total": 45000.5, "moneda": "PEN",
        "fecha_venta": "2024-01-16", "status_venta": "completada",
    }  # fmt: skip
    visit = visit_of(hub, {**PAYLOAD, "id_presencia_crm": "CRM-300", "venta": sale})
    (found,) = wait_until(lambda: stored(hub, "sales", "V-300"))
    wanted = {
        "external_id": "V-300", "visit_id": visit["id"], "unit": "MZ A LT 4", "amount": "45000.5", "currency": "PEN",
        "date": "2024-01-16", "status": "closed", "project": "OASIS 2 (AUCALLAMA)",
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("token", [None, "", "wrong", CRM_TOKEN + "x"])
def test_without_the_token_nothing_gets_in(hub, problem, token):
    answer = post(hub, {**PAYLOAD, "id_presencia_crm": "CRM-400"}, token)
    problem(answer, 401, "SignatureInvalid", "The webhook could not be verified.")
    assert stored(hub, "visits", "CRM-400") == []


def test_it_answers_no_challenge(hub, problem):
    """The address is everybody's to know: it sends nothing back that is not proven."""
    answer = hub("POST", f"{ROUTE}?validationToken=anything", key=None, data=b"")
    problem(answer, 401, "SignatureInvalid", "The webhook could not be verified.")


def test_a_hub_that_has_no_token_takes_none(start_hub, azurite, problem, api):
    answer = post(api, PAYLOAD, "wrong")
    problem(answer, 401, "SignatureInvalid", "The webhook could not be verified.")


def test_the_mapping_warns_of_the_phone_that_stands_for_a_document(hub):
    for entity, field in (("appointments", "lead_id.mobile"), ("leads", "mobile")):
        (warning,) = hub.ok("GET", f"/api/integrations/comercial/mappings/{entity}")["warnings"]
        assert warning.startswith(f"fields.{field}: a phone number is sent as cliente.numero_documento")
    assert hub.ok("GET", "/api/integrations/comercial/mappings/visits")["warnings"] == []


# --- to the sales app --------------------------------------------------------------------------------------------


def test_a_visit_is_told_in_the_form_in_which_it_came(hub, sales):
    payload = {**PAYLOAD, "id_presencia_crm": "CRM-500"}
    post(hub, payload)
    assert wait_until(lambda: told(sales).get("CRM-500")) == payload


def lead_of(hub, **fields):
    lead = {
        "first_name": "Ana", "last_name": "Quispe", "mobile": "987654321", "email": "ana@example.com",
        "city": "Huacho", "interest": "OASIS 2 (AUCALLAMA)", "source": "Facebook", **fields,
    }  # fmt: skip
    return hub.ok("POST", "/api/records/leads", lead)["id"]


def test_an_appointment_that_becomes_done_is_told_as_a_presence(hub, sales):
    lead = lead_of(hub)
    wanted = {"lead_id": lead, "at": "2024-01-15T19:30:00Z", "place": "Sala de ventas", "status": "planned"}
    made = hub.ok("POST", "/api/records/appointments", wanted)["id"]
    hub.ok("PATCH", f"/api/records/appointments/{made}", {"notes": "not yet"})
    hub.ok("PATCH", f"/api/records/appointments/{made}", {"status": "done"})
    name = f"CRM-{made}"
    assert wait_until(lambda: told(sales).get(name)) == {
        "id_presencia_crm": name,
        "cliente": {
            "nombres_completos_razon_social": "Ana Quispe",
            "tipo_documento": "DNI",
            "numero_documento": "987654321",
            "telefono_principal": "987654321",
            "email_principal": "ana@example.com",
            "direccion": "Huacho",
            "distrito": "Huacho",
        },
        "fecha_hora_presencia": "2024-01-15T14:30:00",
        "proyecto_interes": "OASIS 2 (AUCALLAMA)",
        "medio_captacion": "redes_facebook",
        "modalidad": "presencial",
        "status_presencia": "realizada",
        "resultado_interaccion": "interesado_seguimiento",
        "observaciones": "Presencia desde CRM. Lugar: Sala de ventas.",
    }
    (sent,) = [each for each in sales.control("GET", "requests") if name in each["body"]]
    assert "x-crm-webhook-token" in sent["headers"]  # the app takes nothing without the right one


def test_a_lead_that_has_come_is_told_as_a_presence(hub, sales):
    lead = lead_of(hub, source="Periódico")
    hub.ok("PATCH", f"/api/records/leads/{lead}", {"x_tipificacion": "EN SEGUIMIENTO"})
    hub.ok("PATCH", f"/api/records/leads/{lead}", {"x_tipificacion": "YA ASISTIO"})
    found = wait_until(lambda: told(sales).get(f"CRM-LEAD-{lead}"))
    assert found["cliente"]["nombres_completos_razon_social"] == "Ana Quispe"
    assert found["medio_captacion"] == "otro"
    assert found["observaciones"] == "Lead tipificado como YA ASISTIO."


def test_a_test_is_sent_by_hand(hub, sales):
    answer = hub.ok("POST", "/api/test-webhook/")
    assert answer["receiver"]["status"] == 200
    payload = json.loads(answer["payload"])
    assert list(told(sales).values()) == [payload]
    assert payload["id_presencia_crm"].startswith("CRM-TEST-")


def test_the_presence_of_a_record_is_sent_by_hand(hub, sales, problem):
    lead = lead_of(hub)
    made = hub.ok("POST", "/api/records/appointments", {"lead_id": lead, "at": "2024-01-15T19:30:00Z"})["id"]
    hub.ok("POST", "/api/test-webhook/", {"appointment": made})
    assert told(sales)[f"CRM-{made}"]["cliente"]["telefono_principal"] == "987654321"
    answer = hub("POST", "/api/test-webhook/", {"appointment": "none"})
    problem(answer, 404, "NotFound", "There is no appointment 'none'.")
    answer = hub("POST", "/api/test-webhook/", {"appointment": made, "lead": lead})
    said = "body: names appointment and lead; name one of them, or none."
    problem(answer, 400, "BadRequest", said, "body")
    answer = hub("POST", "/api/test-webhook/", {"cita": made})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "cita")


def test_what_the_sales_app_answers_is_told(hub, sales, problem):
    sales.control("POST", "faults", {"kind": "status", "status": 503, "count": 1})
    answer = hub("POST", "/api/test-webhook/")
    assert (answer.status_code, answer.json()["code"]) == (503, "Unavailable")
    assert answer.json()["vendor"]["status"] == 503
