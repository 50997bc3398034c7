"""What apps write into the hub's own records, and what people decide, over HTTP; a Dataverse gets it."""

import time
import uuid

import pytest

from tests.app.conftest import SECRET, SOON, lone_host, settings_of

pytestmark = pytest.mark.xdist_group("app-records")

LEADS = "/api/records/leads"


@pytest.fixture(scope="module")
def hub(authority, tmp_path_factory):
    with lone_host(authority, tmp_path_factory, SOON) as hub:
        yield hub


@pytest.fixture(scope="module")
def remote(start_sandbox):
    return start_sandbox("--records", "0")


@pytest.fixture
def linked(hub, remote):
    """Gives the name of a connection that has the hub's leads both ways; it goes with the test, and so do the leads."""
    made = []

    def make(**sync):
        slug = f"both-{uuid.uuid4().hex[:8]}"
        body = {
            "slug": slug, "connector": "dynamics365", "settings": settings_of(remote.facts),
            "secrets": {"client_secret": SECRET}, "entities": {"lead": {"direction": "both", **sync}}, "schedule": {},
        }  # fmt: skip
        body["settings"] = {name: value for name, value in body["settings"].items() if value}
        hub.ok("POST", "/api/integrations", body)
        made.append(slug)
        hub.run(slug)
        return slug

    yield make
    for slug in made:
        hub.ok("DELETE", f"/api/integrations/{slug}?confirm=true")
    for page in list(hub.pages(f"{LEADS}?top=500")):
        for lead in page:
            hub("DELETE", f"{LEADS}/{lead['id']}?confirm=true")


def lead_rows(remote):
    return {row["id"]: row["values"] for row in remote.control("GET", "rows/lead?limit=100000")}


def soon(look, seconds=30):
    """What `look` gives once it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return found


def named(remote, name):
    return [rid for rid, values in lead_rows(remote).items() if values.get("lastname") == name]


def values(remote, rid):
    return lead_rows(remote)[rid]


def is_live(hub, where, slug):
    return any(
        each["connection"] == slug and each["state"] == "live" for each in hub.ok("GET", where)["links"]
    )


def created(hub, **fields):
    answer = hub("POST", LEADS, {"last_name": f"Quispe {uuid.uuid4()}", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


class TestWrites:
    def test_a_record_is_made_read_changed_and_deleted(self, hub):
        made = hub("POST", LEADS, {"last_name": "Rojas", "email": "r@example.com"})
        assert made.status_code == 201
        item = made.json()
        assert made.headers["Location"] == f"{LEADS}/{item['id']}"
        assert made.headers["ETag"] == item["etag"] == '"1"'
        assert (item["last_name"], item["links"]) == ("Rojas", [])
        where = f"{LEADS}/{item['id']}"
        assert hub.ok("GET", where) == item
        changed = hub("PATCH", where, {"email": None, "phone": "1"}, headers={"If-Match": item["etag"]})
        assert (changed.status_code, changed.json()["version"], changed.headers["ETag"]) == (200, 2, '"2"')
        assert "email" not in changed.json()
        same = hub.ok("PATCH", where, {"phone": "1"})
        assert same == changed.json()
        told = hub.ok("GET", f"{where}/history")["value"]
        assert [(step["change"], step["origin"], step.get("by"), step["old"]) for step in told] == [
            ("create", "hub", "key:settings", {}),
            ("update", "hub", "key:settings", {"email": "r@example.com", "phone": None}),
        ]
        assert hub("DELETE", f"{where}?confirm=true", headers={"If-Match": '"1"'}).status_code == 412
        assert hub("DELETE", f"{where}?confirm=true").status_code == 204
        assert hub("GET", where).status_code == 404
        assert hub("PATCH", where, {"phone": "2"}).status_code == 404
        assert all(each["id"] != item["id"] for page in hub.pages(LEADS) for each in page)
        assert hub.ok("GET", f"{where}/history")["value"][-1]["change"] == "delete"

    def test_a_version_that_is_gone_is_412(self, hub, problem):
        item = created(hub)
        where = f"{LEADS}/{item['id']}"
        hub.ok("PATCH", where, {"phone": "1"})
        answer = hub("PATCH", where, {"phone": "2"}, headers={"If-Match": '"1"'})
        problem(
            answer, 412, "Stale",
            'The record is of version 2 by now, not "1"; read it again and decide anew.',
        )  # fmt: skip

    def test_the_same_create_twice_makes_one(self, hub):
        key = {"Idempotency-Key": f"key {uuid.uuid4()}"}
        body = {"last_name": f"Once {uuid.uuid4()}"}
        first, second = (hub("POST", LEADS, body, headers=key) for _ in range(2))
        assert first.status_code == second.status_code == 201
        assert first.json() == second.json()
        filtered = f"{LEADS}?filter=last_name eq '{body['last_name']}'"
        assert sum(len(page) for page in hub.pages(filtered)) == 1

    @pytest.mark.parametrize(
        ("body", "field", "message"),
        [
            ({}, "last_name", "last_name: required to create lead."),
            ({"last_name": None}, "last_name", "last_name: can't be emptied."),
            ({"last_name": "x", "nope": 1}, "nope", None),
            (
                {"last_name": "x", "created_at": "2026-01-01T00:00:00Z"},
                "created_at",
                "created_at: is read only; leave it out.",
            ),
            ({"last_name": "x", "deleted_at": None}, "deleted_at", "deleted_at: is read only; leave it out."),
            ({"last_name": "x", "rating": "boiling"}, "rating", "rating: expected one of hot, warm, cold."),
            (
                {"last_name": "x", "account_id": "7"},
                "account_id",
                "account_id: expected the id of a stored record.",
            ),
            (
                {"last_name": "x", "account_id": "3f5f4fd2-3d0a-5d0c-9f5b-1d2f4b6f7a10"},
                "account_id",
                "account_id: there is no stored account '3f5f4fd2-3d0a-5d0c-9f5b-1d2f4b6f7a10'.",
            ),
        ],
    )
    def test_what_is_wrong_is_named_with_the_remedy(self, hub, body, field, message):
        answer = hub("POST", LEADS, body)
        assert answer.status_code == 400, answer.text
        (error,) = answer.json()["errors"]
        assert error["field"] == field
        assert message in (None, error["message"])

    def test_a_delete_has_to_be_confirmed(self, hub):
        item = created(hub)
        assert hub("DELETE", f"{LEADS}/{item['id']}").status_code == 400
        assert hub("GET", f"{LEADS}/{item['id']}").status_code == 200


class TestFlow:
    def test_what_an_app_writes_reaches_the_remote_once_and_what_is_done_there_comes_back(
        self, hub, remote, linked
    ):
        slug = linked()
        item = created(hub, email="a@example.com")
        (rid,) = soon(lambda: named(remote, item["last_name"]))
        where = f"{LEADS}/{item['id']}"
        soon(lambda: is_live(hub, where, slug))
        hub.ok("PATCH", where, {"email": "b@example.com"})
        soon(lambda: values(remote, rid)["emailaddress1"] == "b@example.com")
        remote.control("PATCH", f"rows/lead/{rid}", {"values": {"telephone1": "555"}})
        assert hub.run(slug)["status"] == "succeeded"
        assert hub.ok("GET", where)["phone"] == "555"
        hub.ok("DELETE", f"{where}?confirm=true")
        soon(lambda: not named(remote, item["last_name"]))

    def test_a_conflict_waits_for_a_person_and_is_decided_over_http(self, hub, remote, linked):
        slug = linked(policy="manual")
        item = created(hub, phone="1")
        (rid,) = soon(lambda: named(remote, item["last_name"]))
        where = f"{LEADS}/{item['id']}"
        soon(lambda: is_live(hub, where, slug))
        remote.fault("status", path="*/leads*", status=503, count=None)
        hub.ok("PATCH", where, {"phone": "2"})
        remote.control("PATCH", f"rows/lead/{rid}", {"values": {"telephone1": "3"}})
        remote.control("DELETE", "faults")
        hub.run(slug)

        def open_ones():
            return hub.ok("GET", f"/api/conflicts?entity=leads&connection={slug}&kind=value")["value"]

        (asked,) = soon(open_ones)
        assert (asked["field"], asked["ours"], asked["theirs"], asked["base"]) == ("phone", "2", "3", "1")
        assert (asked["record"], asked["connection"], asked["ways"]) == (
            item["id"],
            slug,
            ["ours", "theirs", "value"],
        )
        assert asked.items() <= hub.ok("GET", f"/api/conflicts/{asked['id']}").items()
        assert hub("POST", f"/api/conflicts/{asked['id']}", {"take": "separate"}).status_code == 400
        assert values(remote, rid)["telephone1"] == "3"
        decided = hub.ok("POST", f"/api/conflicts/{asked['id']}", {"take": "value", "value": "4"})
        assert decided["phone"] == "4"
        soon(lambda: values(remote, rid)["telephone1"] == "4")
        assert open_ones() == []
        assert hub("GET", f"/api/conflicts/{asked['id']}").status_code == 404
        assert hub("POST", f"/api/conflicts/{asked['id']}", {"take": "ours"}).status_code == 404

    def test_two_rows_that_a_person_says_are_one_become_one_record(self, hub, remote, linked):
        slug = linked(match="email")
        mail = f"{uuid.uuid4().hex}@example.com"
        item = created(hub, email=mail)
        soon(lambda: named(remote, item["last_name"]))
        soon(lambda: is_live(hub, f"{LEADS}/{item['id']}", slug))
        twin = {"lastname": "Twin", "emailaddress1": mail, "telephone1": "555"}
        remote.control("POST", "rows/lead", {"values": twin})
        hub.run(slug)

        def open_ones():
            return hub.ok("GET", f"/api/conflicts?entity=leads&connection={slug}&kind=match")["value"]

        (asked,) = soon(open_ones)
        assert (asked["other"], asked["ways"]) == (item["id"], ["separate", "link"])
        decided = hub.ok("POST", f"/api/conflicts/{asked['id']}", {"take": "link"})
        assert (decided["id"], decided["last_name"], decided["phone"]) == (
            item["id"],
            item["last_name"],
            "555",
        )
        assert open_ones() == []
        assert hub.ok("GET", f"{LEADS}/{asked['record']}")["id"] == item["id"]

    def test_an_undo_goes_to_the_remote_and_why_tells_what_each_side_holds(self, hub, remote, linked):
        slug = linked(policy="remote")
        item = created(hub, phone="1", email="a@example.com")
        (rid,) = soon(lambda: named(remote, item["last_name"]))
        where = f"{LEADS}/{item['id']}"
        soon(lambda: is_live(hub, where, slug))
        remote.control("PATCH", f"rows/lead/{rid}", {"values": {"telephone1": "2"}})
        run = hub.run(slug)
        told = hub.ok("GET", f"{where}/why/phone")
        assert (told["value"], told["replaced"], told["run"]) == ("2", "1", run["id"])
        assert (told["from"], told["decided"]) == ({"origin": slug, "by": None}, None)
        assert told["connections"] == [{"connection": slug, "state": "same", "known": True, "holds": "2"}]
        back = hub.ok("POST", f"{where}/undo", {"version": 1}, headers={"If-Match": f'"{told["version"]}"'})
        assert back["phone"] == "1"
        assert "phone" in back["undone"]["fields"]
        soon(lambda: values(remote, rid)["telephone1"] == "1")

        def holds():
            (held,) = hub.ok("GET", f"{where}/why/phone")["connections"]
            return held == {"connection": slug, "state": "same", "known": True, "holds": "1"}

        soon(holds)

    def test_a_conflict_that_a_policy_decided_is_told_with_its_loser(self, hub, remote, linked):
        slug = linked(policy="remote")
        item = created(hub, phone="1")
        (rid,) = soon(lambda: named(remote, item["last_name"]))
        where = f"{LEADS}/{item['id']}"
        soon(lambda: is_live(hub, where, slug))
        remote.fault("status", path="*/leads*", status=503, count=None)
        hub.ok("PATCH", where, {"phone": "2"})
        remote.control("PATCH", f"rows/lead/{rid}", {"values": {"telephone1": "3"}})
        (held,) = hub.ok("GET", f"{where}/why/phone")["connections"]
        assert (held["state"], held["holds"]) == ("waits", "1")
        remote.control("DELETE", "faults")
        soon(lambda: hub.run(slug)["status"] == "succeeded" and hub.ok("GET", where)["phone"] == "3")
        told = hub.ok("GET", f"{where}/why/phone")
        assert (told["value"], told["policy"]) == ("3", "remote")
        assert {name: told["decided"][name] for name in ("won", "lost", "policy", "origin", "by")} == {
            "won": "3", "lost": "2", "policy": "remote", "origin": slug, "by": None,
        }  # fmt: skip
        step = hub.ok("GET", f"{where}/history")["value"][-1]
        assert (step["losers"], step["policies"]) == ({"phone": "2"}, {"phone": "remote"})
        assert (step["old"]["phone"], step["new"]["phone"]) == ("2", "3")

    def test_a_deleted_record_lives_again_by_an_undo_there_too(self, hub, remote, linked):
        slug = linked()
        item = created(hub, phone="1")
        soon(lambda: named(remote, item["last_name"]))
        where = f"{LEADS}/{item['id']}"
        soon(lambda: is_live(hub, where, slug))
        hub.ok("DELETE", f"{where}?confirm=true")
        soon(lambda: not named(remote, item["last_name"]))
        assert hub("GET", where).status_code == 404
        back = hub.ok("POST", f"{where}/undo", {"version": 1})
        assert (back["last_name"], back["phone"]) == (item["last_name"], "1")
        soon(lambda: named(remote, item["last_name"]))
        assert hub.ok("GET", where)["phone"] == "1"

    def test_a_run_is_undone_by_a_plan_that_is_looked_at_first(self, hub, remote, linked):
        slug = linked(policy="remote")
        items = [created(hub, phone=str(number)) for number in range(3)]
        rids = [soon(lambda item=item: named(remote, item["last_name"]))[0] for item in items]
        for item in items:
            soon(lambda item=item: is_live(hub, f"{LEADS}/{item['id']}", slug))
        for rid in rids:
            remote.control("PATCH", f"rows/lead/{rid}", {"values": {"telephone1": "wrong"}})
        run = hub.run(slug)
        assert run["counts"]["updated"] == 3
        hub.ok("PATCH", f"{LEADS}/{items[0]['id']}", {"phone": "right"})
        asked = hub("POST", f"/api/runs/{run['id']}/undo")
        assert asked.status_code == 202
        plan = hub.ended(asked.headers["Operation-Location"])
        assert (plan["mode"], plan["of"], plan["undoes"], plan["status"]) == (
            "plan", "undo", run["id"], "succeeded",
        )  # fmt: skip
        assert (plan["plan"]["update"], plan["plan"]["conflict"]) == (2, 1)
        assert plan["plan"]["pushes"] == {slug: {"create": 0, "update": 2, "delete": 0}}
        by_record = {each["record_id"]: each for each in plan["decisions"]}
        assert by_record[items[1]["id"]]["fields"]["phone"] == {"old": "wrong", "new": "1"}
        assert by_record[items[1]["id"]]["connection"] == slug
        left = by_record[items[0]["id"]]["conflicts"]["phone"]
        assert (left["ours"], left["theirs"], left["base"], left["wins"]) == ("right", "0", "wrong", "ours")
        assert "Changed again at version" in left["why"]
        done = hub("POST", f"/api/runs/{plan['id']}/apply")
        assert done.status_code == 202, done.text
        undo = hub.ended(done.headers["Operation-Location"])
        assert (undo["mode"], undo["status"], undo["outcome"]["applied"]) == ("undo", "succeeded", 2)
        assert undo["counts"]["updated"] == 2
        for number, rid in enumerate(rids):
            phone = "right" if number == 0 else str(number)
            soon(lambda rid=rid, phone=phone: values(remote, rid)["telephone1"] == phone)
            assert hub.ok("GET", f"{LEADS}/{items[number]['id']}")["phone"] == phone
        step = hub.ok("GET", f"{LEADS}/{items[1]['id']}/history")["value"][-1]
        assert (step["run"], step["by"], step["origin"]) == (undo["id"], "key:settings", "hub")
        again = hub("POST", f"/api/runs/{run['id']}/undo").headers["Operation-Location"]
        assert hub.ended(again)["plan"]["update"] == 0

    def test_what_can_not_be_undone_is_said(self, hub, remote, linked):
        slug = linked()
        run = hub.run(slug, "push")
        answer = hub("POST", f"/api/runs/{run['id']}/undo")
        assert answer.status_code == 400
        assert answer.json()["detail"] == (
            "run_id: a run of mode push changes no stored record; there is nothing to undo."
        )
        assert hub("POST", "/api/runs/0000-0000/undo").status_code == 404

    def test_what_was_written_while_a_connection_was_paused_goes_once_it_is_resumed(
        self, hub, remote, linked
    ):
        slug = linked()
        hub.ok("POST", f"/api/integrations/{slug}/pause")
        item = created(hub)
        hub.ok("POST", f"/api/integrations/{slug}/resume")
        soon(lambda: named(remote, item["last_name"]), seconds=20)

    def test_a_wrong_question_for_conflicts_is_named(self, hub):
        for parameters, field in (("kind=odd", "kind"), ("entity=gadgets", None), ("top=0", "top")):
            answer = hub("GET", f"/api/conflicts?{parameters}")
            assert answer.status_code in (400, 404), answer.text
            if field:
                assert answer.json()["errors"][0]["field"] == field
