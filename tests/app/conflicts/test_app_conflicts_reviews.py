"""Twins, merged rows and what a system refuses, over HTTP: seen, decided, and then looked at on both sides and in the hub."""

import uuid

import pytest

from tests.app.conflicts.conftest import choice, path_of, patient

pytestmark = pytest.mark.xdist_group("app-conflicts")


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
