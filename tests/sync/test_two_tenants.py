"""Two Dynamics tenants linked through the hub, over Azurite and HTTPS: contacts matched by e-mail, both ways.

Two instances of the hub work at once. CRMHUB_TWO_TENANTS_CONTACTS says how many contacts there are, in every test.
"""

import os
import random
from contextlib import ExitStack
from urllib.parse import urlencode

import pytest
import trustme

from sandbox.testing import Client
from tests.conftest import ORACLE_SECRET, running_oracle
from tests.sync.pairs import paired

CONTACTS = int(os.environ.get("CRMHUB_TWO_TENANTS_CONTACTS", "200"))
FEW = int(os.environ.get("CRMHUB_TWO_TENANTS_CONTACTS", "16"))
COLUMNS = {
    "firstname": "first_name",
    "lastname": "last_name",
    "emailaddress1": "email",
    "telephone1": "phone",
    "mobilephone": "mobile",
    "jobtitle": "job_title",
    "department": "department",
}
WRITES = "*$batch*"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def pair(azurite, remote, second_remote, tmp_path):
    second_remote.table = "contact"
    second_remote.options(limits={"requests": 10**9, "seconds": 10**9})
    ca = second_remote.sandbox.ca.read_bytes()
    sides = {"a": remote, "b": second_remote}
    with paired(azurite, remote, sides, ca, tmp_path, most=10 * CONTACTS) as pair:
        yield pair


class OracleSide:
    """The Dataverse oracle as a side of a pair, and what a person does there by its API."""

    table = "contact"

    def __init__(self, client):
        self.client = client
        form = {"grant_type": "client_credentials", "client_id": "person", "client_secret": ORACLE_SECRET}
        scope = {"scope": f"{client.origin}/.default"}
        answer = client.call("POST", "/t/oauth2/v2.0/token", urlencode({**form, **scope}).encode(), FORM)
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method, path, body=None):
        headers = {"Prefer": "return=representation"}
        answer = self.client.call(method, f"/api/data/v9.2/contacts{path}", body, headers)
        assert answer.status < 300, answer.body
        return answer.json() if answer.body else None

    def control(self, method, path, body):
        """Its clock is the machine's."""
        assert (method, path) == ("POST", "clock")

    def add(self, values):
        return self.call("POST", "", values)["contactid"]

    def update(self, rid, **values):
        self.call("PATCH", f"({rid})", values)

    def rows(self):
        found = self.call("GET", "?$top=5000")["value"]
        return {row["contactid"]: row for row in found}


@pytest.fixture
def oracle_pair(azurite, remote, tmp_path):
    """The sandbox as `a`, and as `b` a Dataverse server that is not of this repository."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "oracle-ca.pem")
    leaf = tmp_path / "leaf.pem"
    ca.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(leaf)
    with ExitStack() as stack:
        settings = stack.enter_context(running_oracle(leaf, leaf, records=0))
        client = stack.enter_context(Client(settings["base_url"], ca=tmp_path / "oracle-ca.pem"))
        sides = {"a": remote, "b": OracleSide(client)}
        pair = stack.enter_context(
            paired(azurite, remote, sides, ca.cert_pem.bytes(), tmp_path, most=10 * CONTACTS)
        )
        yield pair, settings


def link(pair, **how):
    for name in "ab":
        pair.connect(name, both_ways(**how))
    pair.settle()


def both_ways(**how):
    return {"contact": {"direction": "both", "match": "email", **how}}


def person(number, **more):
    return {
        "firstname": f"First {number}",
        "lastname": f"Last {number}",
        "emailaddress1": f"person{number}@example.com",
        "telephone1": f"{number}",
        **more,
    }


def filled(pair, count):
    """A half of the people is at one side, a quarter at the other, the rest at both, where each knows something else."""
    for number in range(count):
        at = ("a", "a", "b", "ab")[number % 4]
        for side in at:
            more = {"a": {"jobtitle": "Buyer"}, "b": {"department": "Sales"}}[side] if at == "ab" else {}
            pair.remotes[side].add(person(number, **more))


def by_email(rows):
    found = {}
    for rid, values in rows.items():
        email = values["emailaddress1"].casefold()
        assert email not in found, f"{email} is there twice"
        found[email] = (rid, values)
    return found


def assert_agree(pair, count):
    """Both sides and the hub hold the same people, each once, with the same values, and nothing is open."""
    a, b = (by_email(pair.rows(name)) for name in "ab")
    records = {each.fields["email"].casefold(): each for each in pair.records() if not each.dead}
    assert len(records) == sum(not each.dead for each in pair.records())
    assert a.keys() == records.keys()
    assert b.keys() == records.keys()
    assert len(a) == count
    for email, record in records.items():
        for column, name in COLUMNS.items():
            told = [side[email][1].get(column) or None for side in (a, b)]
            assert [*told, record.fields.get(name)] == [told[0]] * 3, (email, column, record)
        for name, side in (("a", a), ("b", b)):
            kept = record.links[pair.connections[name].uid]
            assert kept.state == "live"
            assert kept.rid == side[email][0]
            assert (kept.behind, kept.inflight, kept.attempt) == ({}, {}, None)
    assert not pair.items("push")
    assert not pair.items("conflict")


def assert_quiet(pair):
    """A further round asks each side for what is new, and does nothing else."""
    before = {name: each.requests() for name, each in pair.remotes.items()}
    records = pair.records()
    pair.both()
    assert {name: each.requests() - before[name] for name, each in pair.remotes.items()} == {"a": 1, "b": 1}
    assert pair.records() == records


def edit_both(pair, emails, seed=1):
    """People at both sides change the same contacts at once, every other one the same field too; gives what they wrote:
    `two` is the later text, of the field that only its author changed and, if `same`, of the other's as well.
    """
    rng = random.Random(seed)
    sides = {name: by_email(pair.rows(name)) for name in "ab"}
    wanted = {}
    for email in emails:
        first, second = rng.sample("ab", 2)
        same = rng.random() < 0.5
        one, two = f"1 of {first} {seed}", f"2 of {second} {seed}"
        rows = {name: sides[name][email][0] for name in "ab"}
        pair.remotes[first].update(rows[first], telephone1=one, mobilephone=f"M {seed}")
        if same:
            pair.later(2)
        phone = {"telephone1": two} if same else {}
        pair.remotes[second].update(rows[second], jobtitle=two, **phone)
        wanted[email] = {"one": one, "two": two, "same": same}
    return wanted


def test_people_of_both_sides_become_one_list_and_edits_of_both_sides_at_once_meet(pair):
    filled(pair, CONTACTS)
    link(pair)
    assert_agree(pair, CONTACTS)
    for number in (3, CONTACTS - 1):
        assert {"jobtitle": "Buyer", "department": "Sales"}.items() <= by_email(pair.rows("a"))[
            f"person{number}@example.com"
        ][1].items()
    assert_quiet(pair)
    emails = sorted(by_email(pair.rows("a")))
    wanted = edit_both(pair, emails[:: max(1, len(emails) // 60)])
    pair.settle()
    assert_agree(pair, CONTACTS)
    rows = by_email(pair.rows("b"))
    for email, each in wanted.items():
        values = rows[email][1]
        assert values["mobilephone"] == "M 1"
        assert values["jobtitle"] == each["two"]
        assert values["telephone1"] == each["two" if each["same"] else "one"]
    assert_quiet(pair)


@pytest.mark.parametrize("policy", ["newest", "remote", "local"])
def test_a_policy_decides_between_edits_of_both_sides(pair, policy):
    filled(pair, FEW)
    link(pair, policy=policy)
    wanted = edit_both(pair, sorted(by_email(pair.rows("a"))), seed=2)
    assert {each["same"] for each in wanted.values()} == {True, False}
    pair.settle()
    assert_agree(pair, FEW)
    rows = by_email(pair.rows("a"))
    for email, each in wanted.items():
        values = rows[email][1]
        assert values["jobtitle"] == each["two"]
        if not each["same"]:
            assert values["telephone1"] == each["one"]
        elif policy == "newest":
            assert values["telephone1"] == each["two"]
        else:  # where every side may overrule the hub, or none may, it depends on who is read last or first
            assert values["telephone1"] in (each["one"], each["two"])
    assert_quiet(pair)


@pytest.mark.parametrize("policy", ["manual", "skip"])
def test_a_person_decides_between_edits_of_both_sides(pair, policy):
    filled(pair, FEW)
    link(pair, policy=policy)
    assert not pair.conflicts()
    before = by_email(pair.rows("a"))
    wanted = edit_both(pair, sorted(before), seed=3)
    pair.settle()
    disputed = {email for email, each in wanted.items() if each["same"]}
    waiting = pair.conflicts()
    assert {each.record.fields["email"].casefold() for each in waiting} == disputed
    # With the phone, of which both changed it, goes what else the side changed that was read last.
    fields = {"manual": {"phone"}, "skip": {"phone", "job_title", "mobile"}}[policy]
    assert len(waiting) == len(disputed) * {"manual": 1, "skip": 2}[policy]
    assert {each.field for each in waiting} <= fields
    a, b = (by_email(pair.rows(name)) for name in "ab")
    for email, each in wanted.items():
        phones = {side[email][1]["telephone1"] for side in (a, b)}
        assert phones == ({each["one"], each["two"]} if each["same"] else {each["one"]})
    for number, each in enumerate(waiting):
        take = ("ours", "theirs")[number % 2] if each.field == "phone" else "theirs"
        pair.decide(each, take)
    pair.settle()
    assert_agree(pair, FEW)
    assert not pair.conflicts()
    rows = by_email(pair.rows("a"))
    for email, each in wanted.items():
        assert rows[email][1]["telephone1"] in (each["one"], each["two"])
        assert (rows[email][1]["jobtitle"], rows[email][1]["mobilephone"]) == (each["two"], "M 3")
    assert_quiet(pair)


def test_lost_messages_cost_time_only(pair):
    filled(pair, FEW)
    link(pair)
    emails = sorted(by_email(pair.rows("a")))
    wanted = edit_both(pair, emails, seed=4)
    for name in "ab":
        pair.start(name)
        assert pair.queue.size("fresh")
        pair.work_one("pull")
    assert pair.lose("push")
    assert pair.items("push")
    pair.settle()
    assert_agree(pair, FEW)
    assert {
        email for email in emails if by_email(pair.rows("b"))[email][1]["jobtitle"] == wanted[email]["two"]
    } == set(emails)
    assert_quiet(pair)


STORMS = {
    "429": [{"kind": "throttle", "path": "*/api/data/*", "retry_after": 7, "count": 12}],
    "5xx": [{"kind": "status", "path": "*/api/data/*", "status": 503, "count": 9, "skip": 1}],
    "reset": [{"kind": "reset", "path": "*/api/data/*", "count": 6, "skip": 2}],
    "reset after the write": [
        {"kind": "reset_after", "path": WRITES, "method": "POST", "count": 6},
        {"kind": "reset_after", "path": "*CreateMultiple*", "method": "POST", "count": 3},
    ],
    "parts of a batch": [
        {"kind": "status", "path": "*contacts(*", "method": "PATCH", "status": 500, "count": 20},
        {"kind": "throttle", "path": "*contacts(*", "method": "PATCH", "retry_after": 3, "count": 10},
    ],
    "broken answers": [
        {"kind": "truncate", "path": WRITES, "method": "POST", "count": 2},
        {"kind": "garbage", "path": "*CreateMultiple*", "method": "POST", "count": 1},
    ],
}


@pytest.mark.parametrize("storm", STORMS)
def test_a_storm_at_both_sides_loses_nothing_and_does_nothing_twice(pair, storm):
    """It comes with the first load, and again while people at both sides change the same contacts."""
    filled(pair, FEW)
    for name in "ab":
        pair.connect(name, both_ways())

    def strike():
        for each in pair.remotes.values():
            each.clear_faults()
            for fault in STORMS[storm]:
                each.fault(**fault)

    def struck():
        return sum(
            each["struck"] for remote in pair.remotes.values() for each in remote.control("GET", "faults")
        )

    strike()
    pair.settle()
    assert struck()
    assert_agree(pair, FEW)
    wanted = edit_both(pair, sorted(by_email(pair.rows("a"))), seed=5)
    strike()
    pair.settle()
    assert struck()
    for each in pair.remotes.values():
        each.clear_faults()
    assert_agree(pair, FEW)
    rows = by_email(pair.rows("b"))
    for email, each in wanted.items():
        values = rows[email][1]
        assert (values["jobtitle"], values["mobilephone"]) == (each["two"], "M 5")
        assert values["telephone1"] == each["two" if each["same"] else "one"]
    assert_quiet(pair)


def test_two_contacts_of_one_email_are_not_made_one_nor_copied_until_a_person_says_so(pair):
    pair.remotes["a"].add(person(1))
    pair.remotes["a"].add(person(1, firstname="Another"))
    pair.remotes["b"].add(person(1))
    link(pair)
    assert [len(pair.rows(name)) for name in "ab"] == [2, 1]
    (review,) = pair.waiting("match")
    pair.decide(review, "separate")
    pair.settle()
    assert [len(pair.rows(name)) for name in "ab"] == [2, 2]
    assert pair.values("a", "firstname") == pair.values("b", "firstname")
    assert_quiet(pair)


def test_a_delete_is_passed_on_and_an_edit_at_the_other_side_beats_it(pair):
    filled(pair, FEW)
    link(pair, deletes="propagate")
    a, b = (by_email(pair.rows(name)) for name in "ab")
    gone, kept = sorted(a)[:6], sorted(a)[6:9]
    for email in gone:
        pair.remotes["a"].delete(a[email][0])
    for email in kept:
        pair.remotes["a"].delete(a[email][0])
        pair.remotes["b"].update(b[email][0], jobtitle="Still here")
    pair.pull("b")
    pair.settle()
    assert_agree(pair, FEW - len(gone))
    rows = by_email(pair.rows("a"))
    assert all(rows[email][1]["jobtitle"] == "Still here" for email in kept)
    assert_quiet(pair)


@pytest.mark.oracle
def test_the_sandbox_and_a_dataverse_server_of_other_make_agree(oracle_pair):
    """Rows are made and edited at both. Its ETags are not made of the version, as those of Dataverse are."""
    pair, settings = oracle_pair
    for number in range(FEW):
        for side in ("a", "b", "ab", "b")[number % 4]:
            pair.remotes[side].add(person(number, donotbulkemail=False))
    # Neither knows the other's users, and a row with an owner that is not there is not made.
    theirs = {"contact": {"fields": {"owner_email": {"direction": "in"}}}}
    pair.connect("a", both_ways(), mappings=theirs)
    pair.add("b", settings, {"client_secret": ORACLE_SECRET}, both_ways(), mappings=theirs)
    pair.settle()
    assert_agree(pair, FEW)
    for number, (rid, _) in enumerate(by_email(pair.rows("b")).values()):
        pair.remotes["b"].update(rid, telephone1=f"555 {number}", jobtitle="Edited")
    for rid, _ in by_email(pair.rows("a")).values():
        pair.remotes["a"].update(rid, department="Edited here")
    pair.settle()
    assert_agree(pair, FEW)
    rows = by_email(pair.rows("a"))
    assert {values["jobtitle"] for _, values in rows.values()} == {"Edited"}
    there = by_email(pair.rows("b"))
    assert {values["department"] for _, values in there.values()} == {"Edited here"}
    assert len({values["telephone1"] for _, values in rows.values()}) == FEW
    records = pair.records()
    pair.settle()
    assert pair.records() == records
