"""Many conflicts decided at once, people who decide at once, and the examples of the documentation."""

import json
import os
import re
import subprocess
import threading
import uuid

import pytest

from tests.app.conflicts.conftest import PATH, path_of, patient
from tests.app.conftest import API_KEY, ROOT

pytestmark = pytest.mark.xdist_group("app-conflicts")


class TestRaces:
    def test_a_choice_while_pulls_bring_newer_values_decides_what_was_seen_or_nothing(self, linked):
        """Whoever wins, no value is lost silently: both sides and the hub end equal, or a person is asked again."""
        sides, record, one, two = linked("Rojas", {"telephone1": "1"}, policy="manual")
        sides.clash(one, two, telephone1=("2", "3"))
        item = sides.asked("b", "value")
        answers = []

        def decide():
            answers.append(
                sides.hub("POST", path_of(item), {"take": "theirs"}, headers={"If-Match": item["etag"]})
            )

        person = threading.Thread(target=decide)
        sides.edit("b", two, telephone1="5")
        run = sides.hub("POST", "/api/runs", {"connection": sides.slugs["b"]}).headers["Operation-Location"]
        person.start()
        person.join()
        sides.hub.ended(run)
        (answer,) = answers
        assert answer.status_code in (200, 412), answer.text
        if answer.status_code == 412:
            newer = sides.asked("b", "value")
            assert (newer["ours"], newer["theirs"]) == ("2", "5")
            sides.decide(newer, "theirs")
        for _ in range(3):
            for name in sides.slugs:
                sides.pull(name)
        for again in sides.waiting("a") + sides.waiting("b"):
            sides.decide(again, "theirs")
        patient(lambda: sides.is_calm(record))
        for name in sides.slugs:
            sides.pull(name)
        held = sides.values("a", one)["telephone1"], sides.values("b", two)["telephone1"]
        assert held == ("5", "5")  # the newest edit was made upon what the person chose


class TestMany:
    """Many at once: shown first, then done as a run."""

    @pytest.fixture
    def crowd(self, sides):
        """Five people whose phone, and of the last two the mobile, both sides changed; the city tells two groups apart."""
        sides.connect("a", policy="manual")
        sides.connect("b", policy="manual")
        rows = {}
        for number in range(5):
            city = "Lima" if number < 3 else "Cusco"
            rows[
                sides.add("a", lastname=f"P{number}", telephone1="1", mobilephone="1", address1_city=city)
            ] = number
        sides.pull("a")
        patient(lambda: len(sides.rows("b")) == 5)
        people = {}
        records = [each for page in sides.hub.pages("/api/records/contacts?top=500") for each in page]
        for each in records:
            patient(lambda each=each: sides.is_calm(each["id"]))
            (two,) = sides.named("b", each["last_name"])
            (one,) = sides.named("a", each["last_name"])
            people[each["last_name"]] = (each["id"], one, two)
        for name, (_, one, two) in people.items():
            mobile = name in ("P3", "P4")
            sides.edit("a", one, telephone1="2", **({"mobilephone": "2"} if mobile else {}))
            sides.edit("b", two, telephone1="3", **({"mobilephone": "3"} if mobile else {}))
        sides.pull("a")
        patient(lambda: len(sides.waiting("b")) == 7)
        return sides, people

    def many(self, sides, body, status=202, more=""):
        answer = sides.hub("POST", f"{PATH}/resolve{more}", body)
        assert answer.status_code == status, answer.text
        return answer

    def done(self, sides, body):
        return sides.hub.ended(self.many(sides, body).headers["Operation-Location"])

    def behind(self, sides, record):
        """The fields that some side lacks."""
        return [name for each in sides.record(record)["links"] for name in each["behind"]]

    def test_lists_are_filtered_and_paged(self, crowd):
        sides, people = crowd
        assert len(sides.waiting("b", field="phone")) == 5
        assert len(sides.waiting("b", kind="value,flip", field="mobile")) == 2
        assert sides.waiting("a") == sides.waiting("b", kind="match,merge") == []
        lima = sides.waiting("b", filter="city eq 'Lima'")
        assert {each["record"] for each in lima} == {people[f"P{number}"][0] for number in range(3)}
        assert sides.waiting("b", since="2099-01-01T00:00:00Z") == []
        pages = list(sides.hub.pages(f"{PATH}?entity=contacts&connection={sides.slugs['b']}&top=2"))
        ids = [each["id"] for page in pages for each in page]
        assert sorted(ids) == sorted({each["id"] for each in sides.waiting("b")})
        assert max(map(len, pages)) <= 4
        assert len(pages) >= 3
        for wrong, name in (
            ("kind=odd", "kind"), ("filter=city eq 'x'", "filter"), ("entity=contacts&field=nope", "field"),
            ("since=yesterday", "since"),
        ):  # fmt: skip
            answer = sides.hub("GET", f"{PATH}?{wrong}")
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, name)

    def test_a_preview_does_nothing_and_what_it_shows_is_done(self, crowd):
        sides, people = crowd
        where = {"entity": "contacts", "connection": sides.slugs["b"], "filter": "city eq 'Lima'"}
        before = [sides.hub.ok("GET", f"/api/records/contacts/{each[0]}") for each in people.values()]
        told = self.many(sides, {"where": where, "take": "theirs", "preview": True}, 200).json()
        assert told["done"] is False
        assert told["counts"] == {
            "conflicts": 3, "left": 0, "pushes": {sides.slugs["a"]: {"update": 3}}, "countIsLowerBound": False,
        }  # fmt: skip
        assert {each["record"] for each in told["value"]} == {people[f"P{number}"][0] for number in range(3)}
        assert all(each["would"]["fields"] == {"phone": {"old": "2", "new": "3"}} for each in told["value"])
        assert [sides.hub.ok("GET", f"/api/records/contacts/{each[0]}") for each in people.values()] == before
        run = self.done(sides, {"where": where, "take": "theirs", "as_of": told["as_of"]})
        assert (run["mode"], run["status"], run["origin"]) == ("resolve", "succeeded", "key:settings")
        assert (run["counts"]["updated"], run["counts"]["unchanged"], run["counts"]["failed"]) == (3, 0, 0)
        assert run["left"] == []
        for name, (record, one, two) in people.items():
            phone = "3" if name in ("P0", "P1", "P2") else "2"
            patient(lambda one=one, phone=phone: sides.values("a", one)["telephone1"] == phone)
            assert sides.values("b", two)["telephone1"] == "3"
            assert sides.record(record)["phone"] == phone
        again = self.done(sides, {"where": where, "take": "theirs", "as_of": told["as_of"]})
        assert (again["counts"]["updated"], again["left"]) == (0, [])
        assert len(sides.waiting("b")) == 4

    def test_what_has_changed_since_the_preview_is_left_and_told(self, crowd):
        sides, people = crowd
        where = {"entity": "contacts", "field": "phone"}
        told = self.many(sides, {"where": where, "take": "ours", "preview": True}, 200).json()
        changed, _, two = people["P1"]
        sides.edit("b", two, telephone1="9")
        sides.pull("b")
        edited, *_ = people["P2"]
        sides.hub.ok("PATCH", f"/api/records/contacts/{edited}", {"phone": "8"})
        run = self.done(sides, {"where": where, "take": "ours", "as_of": told["as_of"]})
        assert (run["counts"]["updated"], run["counts"]["unchanged"]) == (3, 2)
        left = {each["id"].split("~")[1]: each["why"] for each in run["left"]}
        assert left.keys() == {changed, edited}
        looked = told["as_of"].split("~")[0]
        assert all(why == f"It has changed since {looked}; look at it again." for why in left.values())
        waiting = {each["record"]: each for each in sides.waiting("b", field="phone")}
        assert (waiting[changed]["theirs"], waiting[edited]["ours"]) == ("9", "8")
        now = self.done(sides, {"where": where, "take": "ours"})  # as they are now
        assert now["counts"]["updated"] == 2
        for name, phone in {"P0": "2", "P1": "2", "P2": "8"}.items():
            _, one, two = people[name]
            patient(lambda two=two, phone=phone: sides.values("b", two)["telephone1"] == phone)
            patient(lambda one=one, phone=phone: sides.values("a", one)["telephone1"] == phone)

    def test_several_fields_of_a_record_are_decided_by_one_write_and_a_value_is_one_of_a_field(self, crowd):
        sides, people = crowd
        record, one, two = people["P3"]
        version = sides.record(record)["version"]
        where = {"connection": sides.slugs["b"], "kind": "value"}
        assert (
            self.done(
                sides,
                {"where": {**where, "field": "mobile", "entity": "contacts"}, "take": "value", "value": "7"},
            )["counts"]["updated"]
            == 2
        )
        assert sides.record(record)["version"] == version + 1
        for name in ("P3", "P4"):  # what was decided first is there: nothing of these two changes any more
            patient(lambda name=name: self.behind(sides, people[name][0]) == ["phone"])
        assert self.done(sides, {"where": where, "take": "theirs"})["counts"]["updated"] == 5
        patient(lambda: sides.is_calm(record))
        for values in (sides.values("a", one), sides.values("b", two)):
            assert (values["telephone1"], values["mobilephone"]) == ("3", "7")
        for each, *_ in people.values():
            patient(lambda each=each: sides.is_calm(each))
        sides.quiet()

    def test_pages_of_a_preview(self, crowd):
        sides, _ = crowd
        body = {"where": {"entity": "contacts"}, "take": "ours", "preview": True}
        first = self.many(sides, body, 200, "?top=2").json()
        assert first["counts"]["conflicts"] == 7
        seen = [each["id"] for each in first["value"]]
        page = first
        while "nextLink" in page:
            path = page["nextLink"].removeprefix("https://hub.example.test").removeprefix(f"{PATH}/resolve")
            page = self.many(sides, body, 200, path).json()
            seen += [each["id"] for each in page["value"]]
        assert sorted(seen) == sorted(each["id"] for each in sides.waiting("b"))

    def test_matches_are_answered_at_once(self, linked):
        mail = f"{uuid.uuid4().hex}@x.example"
        sides, record, *_ = linked("Twin", {"emailaddress1": mail}, match="email")
        for number in range(3):
            sides.add("a", lastname=f"Twin {number}", emailaddress1=mail)
        sides.pull("a")
        patient(lambda: len(sides.waiting(kind="match")) == 3)
        body = {"where": {"connection": sides.slugs["a"], "entity": "contacts"}, "take": "separate"}
        told = self.many(sides, {**body, "preview": True}, 200).json()
        assert told["counts"]["pushes"] == {sides.slugs["b"]: {"create": 3}}
        assert self.done(sides, body)["counts"]["updated"] == 3
        patient(lambda: len(sides.rows("b")) == 4)
        assert not any(sides.waiting(name) for name in sides.slugs)
        patient(lambda: sides.is_calm(record))
        sides.quiet()

    def test_a_wrong_request_is_named(self, sides):
        sides.connect("a")
        here = {"connection": sides.slugs["a"]}
        for body, where in (
            ({"where": {}, "take": "ours"}, "where"),
            ({"where": {"kind": "value"}, "take": "ours"}, "where"),
            ({"where": {**here, "kind": "refused"}, "take": "ours"}, "take"),
            ({"where": {**here, "kind": "match"}, "take": "theirs"}, "take"),
            ({"where": here, "take": "retry"}, "take"),
            ({"where": here, "take": "value", "value": "1"}, "where"),
            (
                {"where": {"entity": "contacts", "field": "last_name"}, "take": "value", "value": None},
                "last_name",
            ),
            ({"where": {"entity": "contacts", "field": "phone"}, "take": "value"}, "value"),
            ({"where": here, "take": "ours", "value": "1"}, "value"),
            ({"where": here, "take": "ours", "as_of": "now"}, "as_of"),
        ):
            answer = sides.hub("POST", f"{PATH}/resolve", body)
            assert answer.status_code == 400, answer.text
            assert answer.json()["errors"][0]["field"] == where, answer.text


def test_the_examples_of_the_documentation_hold(linked):
    """docs/sync.md, "What a person decides": as they stand there, with this hub's address, ids and names."""
    text = (ROOT / "docs" / "sync.md").read_text(encoding="utf-8")
    examples = [line for line in text.splitlines() if line.startswith("curl") and "/api/conflicts" in line]
    assert len(examples) == 6
    values = {"telephone1": "1", "jobtitle": "1", "mobilephone": "1", "department": "1"}
    sides, record, one, two = linked("Rojas", values, policy="manual")
    sides.clash(one, two, **dict.fromkeys(values, ("2", "3")))
    patient(lambda: len(sides.waiting("b")) == 4)
    items = {each["field"]: each for each in sides.waiting("b")}
    asks = [None, "mobile", "mobile", "job_title", None, None]
    told = []
    for line, name in zip(examples, asks, strict=True):
        item = items.get(name, {"id": "", "etag": ""})
        command = re.sub(r'(If-Match: )"\w+"', lambda found, item=item: found[1] + item["etag"], line)
        command = command.replace('"demo"', f'"{sides.slugs["b"]}"')
        names = {"HUB": sides.hub.url, "KEY": API_KEY, "ID": item["id"]}
        done = subprocess.run(
            ["bash", "-c", command],
            env={**os.environ, **names, "NO_PROXY": "*"},
            capture_output=True,
            check=True,
        )
        told.append(json.loads(done.stdout))
    listed, whole, decided, fields, preview, run = told
    assert {each["id"] for each in listed["value"]} >= {each["id"] for each in items.values()}
    assert whole["choices"]
    assert decided["mobile"] == "3"
    assert (fields["phone"], fields["job_title"]) == ("2", "Buyer")
    assert (preview["done"], preview["counts"]["conflicts"]) == (False, 0)  # the phone was decided before
    assert run["mode"] == "resolve"
    assert sides.record(record)["version"] > whole["version"]
