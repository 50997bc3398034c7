"""Each kind of what waits for a person, over HTTP: made by people and faults at two Dataverse tenants, seen, decided, and then
looked at on both sides and in the hub.
"""

import json
import os
import re
import subprocess
import threading
import uuid
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import pytest

from tests.app.conftest import API_KEY, ROOT, SECRET, SOON, lone_host, settings_of, wait_until

pytestmark = pytest.mark.xdist_group("app-conflicts")

PATH = "/api/conflicts"
patient = partial(wait_until, seconds=150)
"""What a busy machine does not begin in time comes again with the next sweep."""
SETTINGS = {**SOON, "BREAKER_FLIPS": "2"}


@pytest.fixture(scope="module")
def hub(authority, tmp_path_factory):
    with lone_host(authority, tmp_path_factory, SETTINGS) as hub:
        yield hub


@pytest.fixture(scope="module")
def remotes(start_sandbox):
    return {name: start_sandbox("--records", "0") for name in "ab"}


@dataclass
class Sides:
    """Two tenants that share contacts through the hub, and what people do there. `slugs`: of their connections."""

    hub: object
    remotes: dict
    slugs: dict = field(default_factory=dict)

    def connect(self, name, **sync):
        slug = f"{name}-{uuid.uuid4().hex[:8]}"
        body = {
            "slug": slug, "connector": "dynamics365", "settings": settings_of(self.remotes[name].facts),
            "secrets": {"client_secret": SECRET}, "entities": {"contact": {"direction": "both", **sync}},
            "schedule": {},
        }  # fmt: skip
        body["settings"] = {key: value for key, value in body["settings"].items() if value}
        self.hub.ok("POST", "/api/integrations", body)
        self.slugs[name] = slug
        self.pull(name)

    def pull(self, name, mode="incremental"):
        run = self.hub.run(self.slugs[name], mode)
        assert run["status"] == "succeeded", run
        return run

    def add(self, name, **values):
        return self.remotes[name].control("POST", "rows/contact", {"values": values})["id"]

    def edit(self, name, rid, **values):
        self.remotes[name].control("PATCH", f"rows/contact/{rid}", {"values": values})

    def rows(self, name):
        found = self.remotes[name].control("GET", "rows/contact?limit=100000")
        return {row["id"]: row["values"] for row in found}

    def named(self, name, last):
        return [rid for rid, values in self.rows(name).items() if values.get("lastname") == last]

    def values(self, name, rid):
        return self.remotes[name].control("GET", f"rows/contact/{rid}")["values"]

    def waiting(self, side="", **which):
        which |= {"connection": self.slugs[side]} if side else {}
        parameters = "&".join(f"{name}={value}" for name, value in which.items())
        return [each for page in self.hub.pages(f"{PATH}?entity=contacts&{parameters}") for each in page]

    def asked(self, side, kind):
        """The one thing of a kind that waits at a side, as the list shows it."""
        (item,) = patient(lambda: self.waiting(side, kind=kind))
        return item

    def record(self, record_id):
        return self.hub.ok("GET", f"/api/records/contacts/{record_id}")

    def decide(self, item, take, status=200, **more):
        answer = self.hub("POST", f"{PATH}/{item['id']}", {"take": take, **more})
        assert answer.status_code == status, answer.text
        return answer.json()

    def both(self, last, **values):
        """A person who is at both sides; gives (the record's id, rid at a, rid at b)."""
        one = self.add("a", lastname=last, **values)
        self.pull("a")
        (two,) = patient(lambda: self.named("b", last))
        record = next(
            each
            for page in self.hub.pages("/api/records/contacts?top=500")
            for each in page
            if each.get("last_name") == last
        )
        patient(lambda: self.is_calm(record["id"]))
        return record["id"], one, two

    def is_calm(self, record_id):
        """Nothing is on its way: every side has the record, and what it is to have."""
        links = self.record(record_id)["links"]
        return len(links) == len(self.slugs) and all(
            each["state"] == "live" and not each["behind"] for each in links
        )

    def clash(self, one, two, **fields):
        """Both sides change the same fields: a's value becomes the hub's, and b's is asked about."""
        for name, (first, second) in fields.items():
            self.edit("a", one, **{name: first})
            self.edit("b", two, **{name: second})
        self.pull("a")

    def quiet(self):
        """A further round finds nothing to do at either side, and nothing waits."""
        for name in self.slugs:
            counts = self.pull(name)["counts"]
            assert not any(counts[each] for each in ("created", "updated", "deleted", "failed"))
        assert not any(self.waiting(name) for name in self.slugs)


@pytest.fixture
def sides(hub, remotes):
    for remote in remotes.values():
        remote.control("POST", "reset")
    made = Sides(hub, remotes)
    yield made
    for slug in made.slugs.values():
        hub.ok("DELETE", f"/api/integrations/{slug}?confirm=true")
    for page in list(hub.pages("/api/records/contacts?top=500")):
        for each in page:
            hub("DELETE", f"/api/records/contacts/{each['id']}?confirm=true")


@pytest.fixture
def linked(sides):
    """Gives the sides with one person at both."""

    def make(last, values=None, **sync):
        sides.connect("a", **sync)
        sides.connect("b", **sync)
        return sides, *sides.both(last, **(values or {}))

    return make


def path_of(item):
    return f"{PATH}/{item['id']}"


def choice(whole, take):
    (found,) = [each for each in whole["choices"] if each["take"] == take]
    return found


class TestValues:
    """Both sides changed a field."""

    @pytest.mark.parametrize(("take", "phone"), [("ours", "2"), ("theirs", "3"), ("value", "4")])
    @pytest.mark.parametrize("policy", ["manual", "skip"])
    def test_each_choice_is_told_before_and_holds_at_both_sides_after(self, linked, policy, take, phone):
        sides, record, one, two = linked("Rojas", {"telephone1": "1"}, policy=policy)
        sides.clash(one, two, telephone1=("2", "3"))
        item = sides.asked("b", "value")
        assert (item["field"], item["ours"], item["theirs"], item["base"]) == ("phone", "2", "3", "1")
        assert (item["record"], item["connection"]) == (record, sides.slugs["b"])
        whole = sides.hub.ok("GET", path_of(item))
        assert item.items() <= whole.items()
        assert whole["policy"] == policy
        assert (whole["ours_from"]["from"], whole["ours_from"]["version"]) == (sides.slugs["a"], 2)
        assert (whole["theirs_from"]["from"], whole["theirs_from"]["remote_id"]) == (sides.slugs["b"], two)
        assert {each["connection"]: (each["holds"], each["state"]) for each in whole["connections"]} == {
            sides.slugs["a"]: ("2", "same"),
            sides.slugs["b"]: ("3", "conflict"),
        }
        told = choice(whole, take)
        if take != "value":
            sent_to = {"ours": "b", "theirs": "a"}[take]
            (push,) = told["pushes"]
            held = {"ours": "3", "theirs": "2"}[take]
            assert (push["connection"], push["fields"]) == (
                sides.slugs[sent_to], {"phone": {"old": held, "new": phone}},
            )  # fmt: skip
            assert told["gives_up"] == {"phone": held}
        assert (sides.values("a", one)["telephone1"], sides.values("b", two)["telephone1"]) == ("2", "3")
        decided = sides.decide(item, take, **({"value": phone} if take == "value" else {}))
        assert decided["phone"] == phone
        patient(lambda: sides.is_calm(record))
        assert sides.values("a", one)["telephone1"] == sides.values("b", two)["telephone1"] == phone
        last = sides.hub.ok("GET", f"/api/records/contacts/{record}/history")["value"][-1]
        lost = {"ours": "3", "theirs": "2", "value": "3"}[take]
        assert (last["by"], last["losers"]) == ("key:settings", {"phone": lost})
        assert sides.hub("GET", path_of(item)).status_code == 404
        sides.decide(item, take, 404, **({"value": phone} if take == "value" else {}))
        sides.quiet()

    def test_of_skip_everything_that_side_changed_waits_and_is_decided_at_once_each_in_its_way(self, linked):
        sides, record, one, two = linked("Rojas", {"telephone1": "1", "jobtitle": "A"}, policy="skip")
        sides.edit("a", one, telephone1="2")
        sides.edit("b", two, telephone1="3", jobtitle="B", mobilephone="9")
        sides.pull("a")
        waiting = patient(lambda: sides.waiting("b"))
        assert {each["field"] for each in waiting} == {"phone", "job_title", "mobile"}
        fields = {
            "phone": {"take": "ours"},
            "job_title": {"take": "theirs"},
            "mobile": {"take": "value", "value": "8"},
        }
        decided = sides.hub.ok("POST", path_of(waiting[0]), {"fields": fields})
        assert (decided["phone"], decided["job_title"], decided["mobile"]) == ("2", "B", "8")
        assert decided["version"] == waiting[0]["version"] + 1
        patient(lambda: sides.is_calm(record))
        for values in (sides.values("a", one), sides.values("b", two)):
            assert (values["telephone1"], values["jobtitle"], values["mobilephone"]) == ("2", "B", "8")
        sides.quiet()

    def test_what_an_app_wrote_says_who(self, linked):
        sides, record, one, two = linked("Rojas", {"telephone1": "1"}, policy="manual")
        sides.remotes["b"].fault("status", path="*/contacts*", status=503, count=None)
        sides.hub.ok("PATCH", f"/api/records/contacts/{record}", {"phone": "2"})
        sides.edit("b", two, telephone1="3")
        sides.remotes["b"].control("DELETE", "faults")
        sides.pull("b")
        whole = sides.hub.ok("GET", path_of(sides.asked("b", "value")))
        assert (whole["ours_from"]["from"], whole["ours_from"]["by"]) == ("hub", "key:settings")
        sides.decide(whole, "theirs")
        patient(lambda: sides.values("a", one)["telephone1"] == "3")

    def test_a_wrong_value_is_named(self, linked):
        sides, _, one, two = linked("Rojas", {"telephone1": "1"}, policy="manual")
        sides.clash(one, two, telephone1=("2", "3"), lastname=("Rojas A", "Rojas B"))
        patient(lambda: len(sides.waiting("b")) == 2)
        items = {each["field"]: each for each in sides.waiting("b")}
        for item, body, where in (
            (items["last_name"], {"take": "value", "value": None}, "value"),
            (items["phone"], {"take": "value"}, "value"),
            (items["phone"], {"fields": {"phone": {"take": "value"}}}, "fields.phone.value"),
            (items["last_name"], {"take": "value", "value": 7}, "value"),
            (items["phone"], {"take": "ours", "value": "7"}, "value"),
            (items["phone"], {"take": "separate"}, "take"),
            (items["phone"], {}, "take"),
            (items["phone"], {"take": "ours", "fields": {"phone": {"take": "ours"}}}, "take"),
            (items["phone"], {"fields": {"email": {"take": "ours"}}}, "fields.email"),
            (
                items["phone"],
                {"fields": {"last_name": {"take": "value", "value": 1}}},
                "fields.last_name.value",
            ),
        ):
            answer = sides.hub("POST", path_of(item), body)
            assert answer.status_code == 400, answer.text
            assert answer.json()["errors"][0]["field"] == where
        assert len(sides.waiting("b")) == 2

    def test_a_value_by_which_records_are_matched_is_not_given_twice(self, linked):
        sides, _, one, two = linked("Rojas", {"emailaddress1": "a@x.example"}, policy="manual", match="email")
        other, *_ = sides.both("Paz", emailaddress1="paz@x.example")
        sides.clash(one, two, emailaddress1=("b@x.example", "c@x.example"))
        item = sides.asked("b", "value")
        problem = sides.decide(item, "value", 409, value="paz@x.example")
        assert other in problem["detail"]
        sides.decide(item, "theirs")
        patient(lambda: sides.values("a", one)["emailaddress1"] == "c@x.example")
        sides.remotes["a"].control(
            "POST", "rows/contact", {"values": {"lastname": "Two", "emailaddress1": "c@x.example"}}
        )
        sides.pull("a")
        assert sides.asked("a", "match")["other"] == item["record"]  # the key is that record's now


class TestWhatIsSeen:
    """A person decides what they saw, or nothing."""

    def test_a_value_that_has_changed_since_is_refused(self, linked, problem):
        sides, record, one, two = linked("Rojas", {"telephone1": "1"}, policy="manual")
        sides.clash(one, two, telephone1=("2", "3"))
        item = sides.asked("b", "value")
        seen = sides.hub("GET", path_of(item))
        assert seen.headers["ETag"] == item["etag"]
        sides.edit("b", two, telephone1="5")
        sides.pull("b")
        answer = sides.hub("POST", path_of(item), {"take": "theirs"}, headers={"If-Match": item["etag"]})
        problem(
            answer, 412, "Stale",
            f"The conflict '{item['id']}' is not what was read any more; read it again and decide anew.",
        )  # fmt: skip
        fields = {"fields": {"phone": {"take": "theirs", "etag": item["etag"]}}}
        assert sides.hub("POST", path_of(item), fields).status_code == 412
        other = {"fields": {"mobile": {"take": "ours"}}}
        answer = sides.hub("POST", path_of(item), other, headers={"If-Match": item["etag"]})
        assert answer.status_code == 400, answer.text
        assert sides.record(record)["phone"] == "2"
        newer = sides.asked("b", "value")
        assert (newer["id"], newer["theirs"]) == (item["id"], "5")
        sides.hub.ok("PATCH", f"/api/records/contacts/{record}", {"phone": "6"})  # and our side
        again = sides.hub("POST", path_of(item), {"take": "ours"}, headers={"If-Match": newer["etag"]})
        assert again.status_code == 412
        newest = sides.asked("b", "value")
        done = sides.hub("POST", path_of(item), {"take": "ours"}, headers={"If-Match": newest["etag"]})
        assert (done.status_code, done.json()["phone"]) == (200, "6")
        patient(lambda: sides.is_calm(record))
        assert sides.values("a", one)["telephone1"] == sides.values("b", two)["telephone1"] == "6"

    def test_what_is_set_back_at_the_remote_is_no_conflict_any_more(self, linked):
        sides, record, one, two = linked("Rojas", {"telephone1": "1"}, policy="manual")
        sides.clash(one, two, telephone1=("2", "3"))
        item = sides.asked("b", "value")
        sides.edit("b", two, telephone1="1")
        sides.pull("b")
        sides.decide(item, "theirs", 404)
        patient(lambda: sides.is_calm(record))
        assert sides.values("b", two)["telephone1"] == "2"

    def test_of_many_people_with_choices_of_their_own_one_decides(self, linked):
        sides, record, one, two = linked("Rojas", {"telephone1": "1"}, policy="manual")
        sides.clash(one, two, telephone1=("2", "3"))
        item = sides.asked("b", "value")
        bodies = [{"take": "ours"}, {"take": "theirs"}, {"take": "value", "value": "4"}] * 2
        answers = [None] * len(bodies)
        go = threading.Barrier(len(bodies))

        def person(number):
            go.wait()
            answers[number] = sides.hub(
                "POST", path_of(item), bodies[number], headers={"If-Match": item["etag"]}
            )

        people = [threading.Thread(target=person, args=(number,)) for number in range(len(bodies))]
        for each in people:
            each.start()
        for each in people:
            each.join()
        assert sorted(each.status_code for each in answers) == [200, *[404] * (len(bodies) - 1)]
        (won,) = [each.json()["phone"] for each in answers if each.ok]
        patient(lambda: sides.is_calm(record))
        assert sides.values("a", one)["telephone1"] == sides.values("b", two)["telephone1"] == won
        assert sides.record(record)["phone"] == won
        sides.quiet()


class TestFlips:
    """Two systems, each of which puts a field right as it sees it."""

    @pytest.mark.parametrize("take", ["ours", "theirs", "value"])
    def test_it_is_a_conflict_with_its_story_whatever_the_policy_is(self, linked, take):
        sides, record, one, two = linked("Rojas", {"telephone1": "1"})
        rows = {"a": (one, "upper"), "b": (two, "lower")}
        taken = []
        for number in range(20):
            name = "ab"[number % 2]
            rid, value = rows[name]
            sides.edit(name, rid, telephone1=value)
            sides.pull(name)
            waiting = sides.waiting(kind="flip")
            if waiting:
                break
            taken.append((sides.slugs[name], value))
            patient(lambda: sides.is_calm(record))
        (item,) = waiting
        assert (item["connection"], item["field"], item["flips"]) == (sides.slugs[name], "phone", 2)
        assert (item["ours"], item["theirs"]) == (taken[-1][1], value)
        assert sides.waiting(kind="value") == []
        whole = sides.hub.ok("GET", path_of(item))
        assert whole["policy"] == "newest"
        story = whole["story"]
        assert [(each["from"], each["new"]) for each in story] == [
            *taken[-len(story) + 1 :],
            (sides.slugs[name], value),
        ]
        assert len(story) >= 3
        assert all(left["new"] == right["old"] for left, right in pairwise(story))
        assert all(each["time"] for each in story)
        expected = {"ours": item["ours"], "theirs": value, "value": "Middle"}[take]
        sides.decide(item, take, **({"value": "Middle"} if take == "value" else {}))
        patient(lambda: sides.is_calm(record))
        assert sides.values("a", one)["telephone1"] == sides.values("b", two)["telephone1"] == expected
        assert sides.record(record)["phone"] == expected
        sides.quiet()


class TestMatches:
    """Two rows of one system that may be one person."""

    @pytest.fixture
    def twins(self, linked):
        mail = f"{uuid.uuid4().hex}@x.example"
        sides, record, one, two = linked("Twin", {"emailaddress1": mail}, match="email")
        double = sides.add("a", lastname="Twin 2", emailaddress1=mail, telephone1="555", jobtitle="Buyer")
        sides.edit("a", one, jobtitle="Chief")
        sides.pull("a")
        patient(lambda: sides.is_calm(record))
        return sides, record, one, two, double

    def test_both_are_shown_and_linked_they_are_one_at_every_side(self, twins):
        sides, record, one, two, double = twins
        item = sides.asked("a", "match")
        assert item["other"] == record
        whole = sides.hub.ok("GET", path_of(item))
        assert [each["id"] for each in whole["records"]] == [item["record"], record]
        assert whole["differs"]["job_title"] == ["Buyer", "Chief"]
        told = choice(whole, "link")
        assert (told["record"], told["fields"]) == (record, {"phone": {"old": None, "new": "555"}})
        assert {"last_name": "Twin 2", "job_title": "Buyer"}.items() <= told["gives_up"].items()
        assert {push["connection"]: push["fields"] for push in told["pushes"]} == {
            slug: {"phone": {"old": None, "new": "555"}} for slug in sides.slugs.values()
        }
        assert sides.named("b", "Twin 2") == []  # made nowhere until somebody says so
        decided = sides.decide(item, "link")
        assert (decided["id"], decided["phone"], decided["job_title"]) == (record, "555", "Chief")
        patient(lambda: sides.is_calm(record))
        for values in (sides.values("a", one), sides.values("b", two)):
            assert (values["lastname"], values["telephone1"], values["jobtitle"]) == ("Twin", "555", "Chief")
        assert sides.values("a", double)["lastname"] == "Twin 2"  # left as it is
        assert sides.named("b", "Twin 2") == []
        assert sides.record(item["record"])["id"] == record
        sides.decide(item, "link", 404)
        sides.pull("a", "full")
        sides.quiet()

    def test_separate_they_are_two_at_every_side(self, twins):
        sides, _record, one, two, double = twins
        item = sides.asked("a", "match")
        whole = sides.hub.ok("GET", path_of(item))
        (push,) = choice(whole, "separate")["pushes"]
        assert (push["connection"], push["action"], push["record"]) == (
            sides.slugs["b"],
            "create",
            item["record"],
        )
        assert push["fields"]["last_name"] == {"old": None, "new": "Twin 2"}
        sides.decide(item, "separate")
        (made,) = patient(lambda: sides.named("b", "Twin 2"))
        patient(lambda: sides.is_calm(item["record"]))
        assert sides.values("b", made)["telephone1"] == "555"
        assert (sides.values("a", one)["jobtitle"], sides.values("b", two)["jobtitle"]) == ("Chief", "Chief")
        assert sides.values("a", double)["jobtitle"] == "Buyer"
        sides.decide(item, "separate", 404)
        sides.pull("a", "full")
        sides.quiet()

    @pytest.mark.parametrize("changed", ["record", "other"])
    def test_a_record_that_has_changed_since_it_was_seen_is_not_linked(self, twins, changed):
        sides, _record, one, _, double = twins
        item = sides.asked("a", "match")
        sides.edit("a", double if changed == "record" else one, mobilephone="7")
        sides.pull("a")
        for take in ("link", "separate"):
            answer = sides.hub("POST", path_of(item), {"take": take}, headers={"If-Match": item["etag"]})
            assert answer.status_code == 412, answer.text
        newer = sides.asked("a", "match")
        answer = sides.hub("POST", path_of(newer), {"take": "link"}, headers={"If-Match": newer["etag"]})
        assert (answer.status_code, answer.json()["mobile"]) == (200, "7")

    def test_two_people_of_whom_one_says_link_and_the_other_separate(self, twins):
        sides, _record, *_ = twins
        item = sides.asked("a", "match")
        sides.decide(item, "separate")
        sides.decide(item, "link", 404)
        assert sides.record(item["record"])["id"] == item["record"]


class TestMerges:
    """Two rows that a person made one at the remote."""

    @pytest.fixture
    def merged(self, linked):
        sides, record, one, two = linked("Loser", {"telephone1": "1", "jobtitle": "Buyer"})
        winner, first, second = sides.both("Winner", telephone1="2")
        sides.remotes["a"].control("POST", f"rows/contact/{one}/merge", {"into": first})
        sides.pull("a")
        return sides, (record, one, two), (winner, first, second)

    def test_linked_the_hub_does_the_same(self, merged):
        sides, (record, _, two), (winner, first, second) = merged
        item = sides.asked("a", "merge")
        assert (item["record"], item["other"]) == (record, winner)
        whole = sides.hub.ok("GET", path_of(item))
        assert choice(whole, "link")["record"] == winner
        decided = sides.decide(item, "link")
        assert (decided["id"], decided["phone"]) == (winner, "2")
        patient(lambda: sides.is_calm(winner))
        for values in (sides.values("a", first), sides.values("b", second)):
            assert (values["lastname"], values["telephone1"], values["jobtitle"]) == ("Winner", "2", "Buyer")
        assert sides.record(record)["id"] == winner
        assert sides.values("b", two)["lastname"] == "Loser"  # left as it is
        sides.pull("a", "full")
        sides.quiet()

    def test_separate_the_record_stays_without_a_row_there(self, merged):
        sides, (record, _, two), (_winner, first, second) = merged
        item = sides.asked("a", "merge")
        sides.decide(item, "separate")
        sides.edit("b", two, mobilephone="9")
        sides.pull("b")
        kept = sides.record(record)
        assert (kept["id"], kept["last_name"], kept["mobile"]) == (record, "Loser", "9")
        assert {each["connection"]: each["state"] for each in kept["links"]} == {
            sides.slugs["a"]: "gone",
            sides.slugs["b"]: "live",
        }
        assert sides.values("a", first)["lastname"] == sides.values("b", second)["lastname"] == "Winner"
        assert len(sides.named("a", "Loser")) <= 1  # the row that was merged away, if it is shown at all
        sides.decide(item, "separate", 404)
        sides.pull("a", "full")
        sides.quiet()


class TestRefused:
    """What a remote does not take: as a conflict and as a dead letter, under one id."""

    @pytest.fixture
    def refused(self, linked):
        sides, record, one, two = linked("Rojas", {"telephone1": "1"})
        sides.remotes["b"].fault(
            "status", path=f"*contacts({two})*", method="PATCH", status=400, message="The phone is wrong.", count=1
        )  # fmt: skip
        sides.edit("a", one, telephone1="x")
        sides.pull("a")
        return sides, record, one, two, sides.asked("b", "refused")

    def test_it_says_what_the_vendor_said_and_is_found_from_everywhere(self, refused):
        sides, record, _, two, item = refused
        assert (item["field"], item["ours"], item["theirs"]) == ("phone", "x", "1")
        assert item["message"].endswith("400: The phone is wrong.")
        letter = sides.hub.ok("GET", item["links"]["deadletter"])
        assert (letter["id"], letter["message"]) == (item["id"], item["message"])
        assert letter["links"] == {
            "conflict": path_of(item),
            "record": f"/api/records/contacts/{record}",
        }
        (waits,) = sides.record(record)["waiting"]
        assert (waits["id"], waits["kind"], waits["field"]) == (item["id"], "refused", "phone")
        (state,) = sides.hub.ok(
            "GET", f"/api/integrations/status?connection={sides.slugs['b']}&waiting=true"
        )["value"]
        assert state["waiting"] == {
            "conflict": 0, "review": 0, "refused": 1, "parked": 0, "countIsLowerBound": False,
            "conflicts": f"/api/conflicts?connection={sides.slugs['b']}&entity=contacts",
            "deadletters": f"/api/deadletters?connection={sides.slugs['b']}&entity=contacts",
        }  # fmt: skip
        held = {
            each["connection"]: each["state"] for each in sides.hub.ok("GET", path_of(item))["connections"]
        }
        assert held == {sides.slugs["a"]: "same", sides.slugs["b"]: "refused"}
        assert sides.values("b", two)["telephone1"] == "1"

    @pytest.mark.parametrize("take", ["retry", "value", "edit", "replay"])
    def test_it_is_sent_again_as_it_is_or_as_something_else(self, refused, take):
        sides, record, one, two, item = refused
        if take == "edit":
            sides.hub.ok("PATCH", f"/api/records/contacts/{record}", {"phone": "y"})
        elif take == "replay":
            sides.hub.ok("POST", f"{item['links']['deadletter']}/replay")
        else:
            sides.decide(item, take, **({"value": "y"} if take == "value" else {}))
        patient(lambda: sides.is_calm(record))
        expected = "x" if take in ("retry", "replay") else "y"
        assert sides.values("a", one)["telephone1"] == sides.values("b", two)["telephone1"] == expected
        assert "waiting" not in sides.record(record)
        sides.decide(item, "retry", 404)
        sides.quiet()

    def test_a_create_that_is_refused_as_a_whole_is_made_once_it_is_sent_again(self, sides):
        sides.connect("a")
        sides.connect("b")
        sides.remotes["b"].fault(
            "status", path="*contacts*", method="PATCH", status=400, message="Not this one.", count=None
        )
        sides.add("a", lastname="Rojas")
        sides.pull("a")
        item = sides.asked("b", "parked")
        assert "Not this one." in item["message"]
        assert item["links"]["deadletter"].endswith(item["id"])
        (push,) = choice(sides.hub.ok("GET", path_of(item)), "retry")["pushes"]
        assert (push["action"], push["fields"]["last_name"]["new"]) == ("create", "Rojas")
        sides.remotes["b"].control("DELETE", "faults")
        assert sides.named("b", "Rojas") == []
        sides.decide(item, "retry")
        patient(lambda: sides.is_calm(item["record"]))
        assert len(sides.named("b", "Rojas")) == 1
        sides.quiet()


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
