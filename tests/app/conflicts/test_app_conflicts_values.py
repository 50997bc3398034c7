"""Conflicts of values over HTTP: made by people at both sides, seen, decided, and then looked at on both sides and in the hub."""

import threading
from itertools import pairwise

import pytest

from tests.app.conflicts.conftest import choice, path_of, patient

pytestmark = pytest.mark.xdist_group("app-conflicts")


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
