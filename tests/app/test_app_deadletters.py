"""What failed and waits for a person, over HTTP and Azurite."""

import json
import uuid

import pytest
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

from tests.app.conftest import SECRET, SOON, host, settings_of, wait_until
from tests.conftest import ACCOUNT, ACCOUNT_KEY, running_azurite

pytestmark = pytest.mark.xdist_group("app-deadletters")

PATH = "/api/deadletters"


@pytest.fixture(scope="module")
def storage():
    with running_azurite(ACCOUNT, ACCOUNT_KEY) as own:
        yield own


@pytest.fixture(scope="module")
def hub(storage, authority, tmp_path_factory):
    with host(storage, authority, tmp_path_factory, SOON) as hub:
        yield hub


@pytest.fixture(scope="module")
def remote(start_sandbox):
    return start_sandbox("--records", "0")


@pytest.fixture(scope="module")
def linked(hub, remote):
    """A connection that has the hub's leads both ways: (its slug, its uid)."""
    slug = f"dead-{uuid.uuid4().hex[:8]}"
    body = {
        "slug": slug, "connector": "dynamics365", "settings": settings_of(remote.facts),
        "secrets": {"client_secret": SECRET}, "entities": {"lead": "both"}, "schedule": {},
    }  # fmt: skip
    made = hub.ok("POST", "/api/integrations", body)
    hub.run(slug)
    yield slug, made["uid"]
    hub.ok("DELETE", f"/api/integrations/{slug}?confirm=true")


@pytest.fixture
def refused(hub, linked):
    """Three leads whose owner the remote does not know: (their record ids, the cause)."""
    slug, uid = linked
    body = {"owner_email": "nobody@example.com"}
    made = [
        hub.ok("POST", "/api/records/leads", {"last_name": f"Quispe {uuid.uuid4()}", **body})["id"]
        for _ in range(3)
    ]
    cause = f"{uid}~BadRequest~owner_email"
    wait_until(lambda: len(members(hub, cause)) == 3)
    yield made, cause
    for each in made:
        hub("DELETE", f"/api/records/leads/{each}?confirm=true")
    wait_until(lambda: not members(hub, cause))
    assert slug


def members(hub, cause, more=""):
    return [each for page in hub.pages(f"{PATH}/causes/{cause}?top=50{more}") for each in page]


def group(hub, cause, more=""):
    """What every page tells of one cause, added up."""
    groups = [each for page in hub.pages(f"{PATH}?top=1000{more}") for each in page if each["cause"] == cause]
    return groups[0] | {"count": sum(each["count"] for each in groups)} if groups else None


@pytest.fixture
def stray(storage, hub):
    """A message that is none; gives its dead letter, without its payload."""
    text = f"no message: {uuid.uuid4()} ñ"
    with QueueClient.from_connection_string(
        storage, "fresh", message_encode_policy=TextBase64EncodePolicy()
    ) as queue:
        queue.send_message(text, time_to_live=-1)

    def mine():
        for each in members(hub, "hub~NotAJob~"):
            shown = hub("GET", f"{PATH}/{each['id']}")
            if shown.status_code == 200 and shown.json()["payload"] == text:
                return each
        return None

    return wait_until(mine)


def test_what_a_system_refuses_is_one_group_with_its_words(hub, linked, refused):
    slug, _ = linked
    made, cause = refused
    found = group(hub, cause, f"&connection={slug}")
    assert (found["connection"], found["connector"]) == (slug, "dynamics365")
    assert (found["code"], found["field"], found["count"]) == ("BadRequest", "owner_email", 3)
    assert "nobody@example.com" in found["message"]
    assert found["oldest"] < found["newest"]
    assert (found["kinds"], found["entities"], len(found["examples"])) == ({"refused": 3}, {"lead": 3}, 3)
    items = members(hub, cause)
    assert {each["record"] for each in items} == set(made)
    assert {each["entity"] for each in items} == {"lead"}
    paged = [each["id"] for page in hub.pages(f"{PATH}/causes/{cause}?top=1") for each in page]
    assert sorted(paged) == sorted(each["id"] for each in items)
    assert group(hub, cause, "&entity=accounts") is None
    newest = max(each["time"] for each in items)
    before = group(hub, cause, f"&until={newest}")  # nothing, if all have the same time
    assert (before["count"] if before else 0) == sum(each["time"] < newest for each in items)
    assert group(hub, cause, "&since=2999-01-01T00:00:00Z") is None


def test_one_is_tried_without_doing_it_then_discarded_with_a_reason(hub, refused, problem):
    _, cause = refused
    item = members(hub, cause)[0]
    where = f"{PATH}/{item['id']}"
    told = hub.ok("POST", f"{where}/replay?dry_run=true")
    assert (told["done"], told["values"]) == (False, {"owner_email": "nobody@example.com"})
    assert hub.ok("GET", where)["payload"] is None
    problem(
        hub("PATCH", where, {"payload": "{}"}), 409, "Conflict",
        f"A record's values are edited over PATCH /api/records/leads/{item['record']}; what was refused is then sent again.",
    )  # fmt: skip
    answer = hub("POST", f"{where}/discard", {})
    problem(answer, 400, "BadRequest", "reason: field required.", "reason")
    assert hub("POST", f"{where}/discard", {"reason": "they left"}).status_code == 204
    assert len(members(hub, cause)) == 2
    assert hub("GET", where).status_code == 404
    assert hub("POST", f"{where}/replay").status_code == 404
    other = members(hub, cause)[0]
    answer = hub("POST", f"{PATH}/{other['id']}/replay")
    assert (answer.status_code, answer.json()["done"]) == (202, True)
    wait_until(
        lambda: len(members(hub, cause)) == 2 and hub("GET", f"{PATH}/{other['id']}").status_code == 200
    )


def test_many_are_done_by_their_cause(hub, refused, problem):
    _, cause = refused
    body = {"cause": cause, "reason": "they left", "per_minute": 100}
    counted = hub.ok("POST", f"{PATH}/discard?dry_run=true", body)
    assert (counted["count"], counted["countIsLowerBound"], counted["done"]) == (3, False, False)
    assert len(members(hub, cause)) == 3
    answer = hub("POST", f"{PATH}/discard", body)
    assert (answer.status_code, answer.json()) == (202, {"way": "discard", "done": True, "per_minute": 100})
    wait_until(lambda: not members(hub, cause))


def test_a_message_is_shown_edited_and_done(hub, linked, stray, problem):
    _, uid = linked
    where = f"{PATH}/{stray['id']}"
    problem(
        hub("POST", f"{where}/replay?dry_run=true"), 400, "BadRequest",
        "payload: is no message of the hub: JSON with v, job, tenant, connection and entity. Edit it by PATCH, or discard it.",
        "payload",
    )  # fmt: skip
    message = json.dumps({"v": 1, "job": "push", "tenant": "default", "connection": uid, "entity": "lead"})
    edited = hub.ok("PATCH", where, {"payload": message})
    assert (edited["payload"], edited["edited"]["by"]) == (message, "key:settings")
    told = hub.ok("POST", f"{where}/replay?dry_run=true")
    assert told == {
        "id": stray["id"], "would": "send the message again", "job": "push", "connection": uid, "entity": "lead",
        "done": False,
    }  # fmt: skip
    assert hub("POST", f"{where}/replay").status_code == 202
    gone = hub("GET", where)
    assert (gone.status_code, gone.json()["code"]) == (404, "NotFound")
    assert "was replayed by key:settings at " in gone.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field", "message"),
    [
        ("GET", "?top=0", None, 400, "top", "top: expected a whole number from 1 to 1000."),
        ("GET", "?since=yesterday", None, 400, "since", "since: expected a time with a zone, such as 2026-11-24T13:45:00Z."),
        ("GET", "?skiptoken=x", None, 400, "skiptoken", "skiptoken: belongs to another query or was changed; follow nextLink as it is."),
        ("GET", "?nope=1", None, 400, "nope", "nope: is no parameter of this route; known are connection, entity, since, until, top, skiptoken."),
        ("POST", "/replay", {}, 400, "cause", "cause: name a cause, a connection or a time; not everything at once."),
        ("POST", "/replay", {"cause": "x", "until": "soon"}, 400, "until", "until: expected a time with a zone, such as 2026-11-24T13:45:00Z."),
        ("POST", "/replay", {"cause": "x", "per_minute": 0}, 400, "per_minute", "per_minute: input should be greater than or equal to 1."),
        ("POST", "/discard", {"cause": "x"}, 400, "reason", "reason: field required."),
        ("GET", "/nothing", None, 404, None, "There is no dead letter 'nothing'; GET /api/deadletters lists them."),
        ("GET", "/closed~1", None, 404, None, "There is no dead letter 'closed~1'; GET /api/deadletters lists them."),
        ("POST", "/a~b~c~refused~d/replay", None, 404, None, "There is no open conflict 'a~b~c~refused~d'; it may have been decided."),
    ],
)  # fmt: skip
def test_bad_input_is_named(hub, problem, method, path, body, status, field, message):
    code = "BadRequest" if status == 400 else "NotFound"
    problem(hub(method, PATH + path, body), status, code, message, *([field] if field else []))
