"""A record's history in pages, why a field is as it is, the way back, and deleted records in lists: over HTTP."""

import uuid

import pytest

pytestmark = pytest.mark.xdist_group("app-api")

CONTACTS = "/api/records/contacts"
NOBODY = "3f5f4fd2-3d0a-5d0c-9f5b-1d2f4b6f7a10"


def created(api, entities="contacts", **fields):
    fields = fields if entities == "accounts" else {"last_name": "Quispe", **fields}
    answer = api("POST", f"/api/records/{entities}", fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def told(api):
    """Gives the address of a contact that was changed five times, and what it was at each version."""
    item = created(api, first_name="Ada", last_name="Q", phone="0")
    where = f"{CONTACTS}/{item['id']}"
    states = [{"first_name": "Ada", "last_name": "Q", "phone": "0"}]
    for number in range(1, 6):
        change = {"phone": str(number), **({"city": f"city {number}"} if number % 2 else {"city": None})}
        api.ok("PATCH", where, change)
        states.append({name: value for name, value in (states[-1] | change).items() if value is not None})
    return where, states


class TestHistory:
    @pytest.mark.parametrize("top", [1, 2, 3, 6, 100])
    def test_pages_of_any_size_tell_both_values_of_each_step(self, api, told, top):
        where, states = told
        pages = list(api.pages(f"{where}/history?top={top}"))
        assert [len(page) for page in pages[:-1]] == [top] * (len(pages) - 1)
        steps = [step for page in pages for step in page]
        assert [step["version"] for step in steps] == [1, 2, 3, 4, 5, 6]
        assert (steps[0]["change"], steps[0]["old"], steps[0]["new"]) == ("create", {}, states[0])
        for step, before, after in zip(steps[1:], states, states[1:], strict=False):
            assert (step["origin"], step["by"], step["run"]) == ("hub", "key:settings", "")
            for name in step["old"].keys() | step["new"].keys():
                assert step["old"][name] == before.get(name) != after.get(name) == step["new"][name]

    def test_a_place_belongs_to_its_record(self, api, told, problem):
        page = api.ok("GET", f"{told[0]}/history?top=2")
        token = page["nextLink"].partition("skiptoken=")[2]
        other = created(api)
        answer = api("GET", f"{CONTACTS}/{other['id']}/history?top=2&skiptoken={token}")
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["field"] == "skiptoken"


class TestWhy:
    def test_a_field_that_was_changed_set_once_and_never_set(self, api, told):
        where, _ = told
        steps = api.ok("GET", f"{where}/history")["value"]
        answer = api("GET", f"{where}/why/phone")
        assert answer.headers["ETag"] == '"6"'
        assert answer.json() == {
            "field": "phone", "value": "5", "set": True, "since": answer.json()["since"], "told": steps[-1]["time"],
            "from": {"origin": "hub", "by": "key:settings"}, "run": None, "version": 6, "replaced": "4",
            "policy": None, "decided": None, "connections": [], "erased": [],
        }  # fmt: skip
        once = api.ok("GET", f"{where}/why/first_name")
        assert (once["value"], once["version"], once["replaced"]) == ("Ada", 1, None)
        assert once["told"] == steps[0]["time"]
        never = api.ok("GET", f"{where}/why/email")
        assert (never["value"], never["set"], never["from"], never["since"]) == (None, False, None, None)

    def test_an_emptied_field_says_so(self, api, told):
        where, _ = told
        api.ok("PATCH", where, {"phone": None})
        emptied = api.ok("GET", f"{where}/why/phone")
        assert (emptied["value"], emptied["set"], emptied["replaced"], emptied["version"]) == (
            None,
            True,
            "5",
            7,
        )

    def test_no_such_field_is_404_and_names_those_there_are(self, api, told):
        answer = api("GET", f"{told[0]}/why/shoe_size")
        assert answer.status_code == 404
        assert "There is no field 'shoe_size' of contact; known are first_name" in answer.json()["detail"]


class TestUndo:
    @pytest.mark.parametrize("version", range(1, 7))
    def test_the_record_is_as_it_was_at_any_version(self, api, told, version):
        where, states = told
        back = api("POST", f"{where}/undo", {"version": version})
        item = back.json()
        wanted = states[version - 1]
        assert {
            name: item[name] for name in ("first_name", "last_name", "phone", "city") if name in item
        } == wanted
        changed = sorted(name for name in ("phone", "city") if states[5].get(name) != wanted.get(name))
        assert item["undone"] == {"version": version, "fields": changed, "left": []}
        assert item["version"] == (7 if changed else 6)
        assert back.headers["ETag"] == f'"{item["version"]}"'
        if changed:
            step = api.ok("GET", f"{where}/history?top=1000")["value"][-1]
            assert (step["change"], step["by"]) == ("update", "key:settings")

    def test_only_the_version_that_was_read_is_undone(self, api, told, problem):
        where, _ = told
        answer = api("POST", f"{where}/undo", {"version": 1}, headers={"If-Match": '"5"'})
        problem(
            answer, 412, "Stale",
            'The record is of version 6 by now, not "5"; read it again and decide anew.',
        )  # fmt: skip
        assert api.ok("POST", f"{where}/undo", {"version": 1}, headers={"If-Match": '"6"'})["phone"] == "0"

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"version": 7}, "version: expected one from 1 to 6."),
            ({"version": 0}, "version: input should be greater than or equal to 1."),
            ({"version": "1"}, "version: input should be a valid integer."),
            ({}, "version: field required."),
        ],
    )
    def test_a_wrong_version_is_named(self, api, told, body, message):
        answer = api("POST", f"{told[0]}/undo", body)
        assert (answer.status_code, answer.json()["errors"]) == (
            400,
            [{"field": "version", "message": message}],
        )

    def test_a_deleted_record_lives_again_and_no_undo_deletes(self, api, told):
        where, states = told
        api.ok("DELETE", f"{where}?confirm=true")
        assert api("POST", f"{where}/undo", {"version": 6}, headers={"If-Match": '"6"'}).status_code == 412
        back = api.ok("POST", f"{where}/undo", {"version": 6}, headers={"If-Match": '"7"'})
        assert (back["phone"], back["version"]) == (states[5]["phone"], 8)
        assert [step["change"] for step in api.ok("GET", f"{where}/history")["value"]][-2:] == [
            "delete",
            "revive",
        ]
        answer = api("POST", f"{where}/undo", {"version": 7})
        assert answer.status_code == 400
        assert answer.json()["detail"] == "version: the record was deleted at version 7; delete it instead."

    def test_a_reference_to_what_is_gone_is_left_and_named(self, api):
        company = created(api, "accounts", name="Gone soon")
        contact = created(api, first_name="Ada", account_id=company["id"])
        where = f"{CONTACTS}/{contact['id']}"
        api.ok("PATCH", where, {"account_id": None, "first_name": "Eva"})
        api.ok("DELETE", f"/api/records/accounts/{company['id']}?confirm=true")
        back = api.ok("POST", f"{where}/undo", {"version": 1})
        assert (back["first_name"], "account_id" in back) == ("Ada", False)
        assert back["undone"]["left"] == [
            {"field": "account_id", "message": f"account_id: there is no stored account '{company['id']}'."}
        ]
        again = created(api, "accounts", name="Here")
        api.ok("PATCH", where, {"account_id": again["id"]})
        version = api.ok("GET", where)["version"]
        api.ok("PATCH", where, {"account_id": None})
        assert api.ok("POST", f"{where}/undo", {"version": version})["account_id"] == again["id"]

    def test_what_only_a_system_sets_is_left_and_named(self, api, connect, account, sandbox):
        connect("undone", entities={"account": "pull"})
        rid = account(name="Before", telephone1="1")
        assert api.run("undone")["status"] == "succeeded"
        sandbox.update(rid, name="After")
        assert api.run("undone")["status"] == "succeeded"
        record = api.stored("undone")[rid]
        back = api.ok("POST", f"/api/records/accounts/{record['id']}/undo", {"version": 1})
        assert (back["name"], back["undone"]["fields"]) == ("Before", ["name"])
        left = {each["field"]: each["message"] for each in back["undone"]["left"]}
        assert left in ({}, {"updated_at": "updated_at: is read only."})  # it may be of the same second
        held = api.ok("GET", f"/api/records/accounts/{record['id']}/why/name")["connections"]
        assert [each["state"] for each in held if each["connection"] == "undone"] == ["differs"]
        assert [each["holds"] for each in held if each["connection"] == "undone"] == ["After"]

    def test_a_deleted_record_whose_match_key_is_another_s_by_now_stays_deleted(self, api, connect):
        connect("keys", entities={"contact": {"direction": "pull", "match": "email"}})
        mail = f"{uuid.uuid4().hex}@example.com"
        gone, other = created(api, email=mail), created(api)
        api.ok("DELETE", f"{CONTACTS}/{gone['id']}?confirm=true")
        api.ok("PATCH", f"{CONTACTS}/{other['id']}", {"email": mail})
        answer = api("POST", f"{CONTACTS}/{gone['id']}/undo", {"version": 1})
        assert answer.status_code == 409
        assert f"email: the contact {other['id']} has this value" in answer.json()["detail"]
        assert api("GET", f"{CONTACTS}/{gone['id']}").status_code == 404
        api.ok("PATCH", f"{CONTACTS}/{other['id']}", {"email": None})
        assert api.ok("POST", f"{CONTACTS}/{gone['id']}/undo", {"version": 1})["email"] == mail

    def test_nobody_has_no_history_no_reasons_and_no_way_back(self, api):
        for method, path, body in (
            ("GET", "history", None),
            ("GET", "why/phone", None),
            ("POST", "undo", {"version": 1}),
        ):
            assert api(method, f"{CONTACTS}/{NOBODY}/{path}", body).status_code == 404


class TestDeletedInLists:
    def test_living_ones_unless_deleted_ones_are_asked_for(self, api):
        name = f"list {uuid.uuid4()}"
        alive, dead = (created(api, first_name=name, phone=str(number)) for number in range(2))
        api.ok("DELETE", f"{CONTACTS}/{dead['id']}?confirm=true")

        def listed(more):
            query = f"{CONTACTS}?filter=first_name eq '{name}'&top=1{more}"
            return {each["id"]: each.get("deleted", False) for page in api.pages(query) for each in page}

        assert listed("") == {alive["id"]: False}
        assert listed("&deleted=with") == {alive["id"]: False, dead["id"]: True}
        assert listed("&deleted=only") == {dead["id"]: True}
        everything = [each["id"] for page in api.pages(f"{CONTACTS}?deleted=only&top=1000") for each in page]
        assert (dead["id"] in everything, alive["id"] in everything) == (True, False)

    def test_what_a_remote_deleted_is_marked_and_is_in_every_list(self, api, connect, account, sandbox):
        connect("marks", entities={"account": {"direction": "pull", "deletes": "mark"}})
        rid = account(name=f"Marked {uuid.uuid4()}")
        api.run("marks")
        sandbox.delete(rid)
        api.run("marks")
        record = api.stored("marks")[rid]
        query = f"/api/records/accounts?filter=name eq '{record['name']}'"
        for more in ("", "&deleted=with", "&deleted=only"):
            (found,) = [each for page in api.pages(query + more) for each in page]
            assert found["deleted_at"]
            assert "deleted" not in found
            (link,) = [each for each in found["links"] if each["connection"] == "marks"]
            assert link["state"] == "gone"

    def test_another_word_is_refused(self, api):
        answer = api("GET", f"{CONTACTS}?deleted=all")
        assert answer.json()["errors"] == [{"field": "deleted", "message": "deleted: expected with or only."}]
