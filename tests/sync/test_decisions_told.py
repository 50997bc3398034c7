"""What a hub tells a person of a decision before it is made is what becomes of it."""

from urllib.parse import parse_qsl

import pytest

from crm_core.errors import Conflict, NotFound
from crm_core.functions import resolving as over_http
from crm_core.functions.bodies import ResolveBody
from crm_core.functions.web import Call, Incoming, Principal, Role
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.sync import conflicts, explaining, resolving
from crm_core.sync.resolving import Choice
from crm_core.sync.resolving_many import LATE
from tests.sync.directed import TENANT, World, linked


def told(world, *choices):
    """What the hub says of a decision: how many records change, or the error; the keys of records stay whose they are."""
    before = world.engine.keys.match_of(TENANT, "contact", "email~new@example.com")
    try:
        return len(resolving.outcome(world._editor(), world.engine.sides(TENANT, "contact"), choices).steps)
    finally:
        assert world.engine.keys.match_of(TENANT, "contact", "email~new@example.com") == before


@pytest.fixture
def asked():
    """(a world where a person is asked about a contact's e-mail, what they are asked)."""
    world = linked("aa", match="email", policy="manual")
    world.edit(email="ours@example.com")
    world.change("r1", email="theirs@example.com")
    world.pull("r1")
    (found,) = conflicts.of(world.record())
    return world, found


def test_a_value_that_is_another_records_match_key_is_told(asked):
    world, found = asked
    other = world._editor().create({"last_name": "Q", "email": "new@example.com"})
    choice = Choice(found, "value", "new@example.com")
    with pytest.raises(Conflict) as before:
        told(world, choice)
    with pytest.raises(Conflict) as after:
        resolving.resolve_all(world._editor(), [choice])
    assert before.value.message == after.value.message
    assert other.id in before.value.message


def test_a_match_key_that_nobody_has_any_more_can_be_taken(asked):
    world, found = asked
    choice = Choice(found, "value", "new@example.com")
    assert told(world, choice) == 1  # nobody had it ever
    other = world._editor().create({"last_name": "Q", "email": "new@example.com"})
    world._editor().delete(other.id)
    assert told(world, choice) == 1
    assert resolving.resolve_all(world._editor(), [choice]).fields["email"] == "new@example.com"


def test_that_a_record_was_deleted_to_which_another_is_to_be_linked_is_told():
    world = World("aa", match="email", policy="newest")
    world.add("r1", last_name="Q", email="e@x.org")
    world.settle()
    world.add("r1", last_name="X", email="e@x.org")
    world.pull("r1")
    (found,) = (each for record in world.records() for each in conflicts.of(record))
    found = conflicts.find(world.engine, TENANT, found.id)
    choices = explaining.explain(world.engine, TENANT, world._editor(), found).choices
    assert not isinstance(choices["link"], NotFound)
    world._editor().delete(found.about["record"])
    found = conflicts.find(world.engine, TENANT, found.id)
    choices = explaining.explain(world.engine, TENANT, world._editor(), found).choices
    with pytest.raises(NotFound) as refused:
        resolving.resolve(world._editor(), found, "link")
    assert isinstance(choices["link"], NotFound)
    assert choices["link"].message == refused.value.message
    assert len(choices["separate"].steps) == 1


def test_the_etag_of_a_conflict_is_about_what_is_asked_and_nothing_else(asked):
    world, found = asked

    def now():
        return explaining.explain(
            world.engine, TENANT, world._editor(), conflicts.find(world.engine, TENANT, found.id)
        )

    before = now()
    world.settle()  # another connection gets what it is to have
    world.edit(phone="9")
    assert (now().conflict.etag, now().conflict.record.version) == (
        found.etag,
        before.conflict.record.version + 1,
    )
    assert now().held != before.held
    world.change("r1", email="theirs-again@example.com")
    world.pull("r1")
    assert now().conflict.etag != found.etag


def ask(pair, parameters=None, **body):
    """What the call that decides many answers."""
    principal = Principal(DEFAULT_TENANT, "key:test", Role.OPERATOR)
    incoming = Incoming("POST", "/api/conflicts/resolve", {}, {}, b"")
    return over_http.resolve_many(
        Call(pair.hub, principal, incoming, {}, parameters or {}, ResolveBody(**body))
    ).body


def pages(pair, top, **body):
    """Every page of a preview."""
    page = ask(pair, {"top": str(top)}, **body, preview=True)
    yield page
    while "nextLink" in page:
        given = dict(parse_qsl(page["nextLink"].partition("?")[2]))
        page = ask(pair, given, **body, preview=True)
        yield page


@pytest.mark.parametrize("value", ["https://same.example", None])
def test_one_match_key_for_many_records_is_told_as_the_run_does_it(pair, value):
    """The first of them takes it; any number of them can have none."""
    rids = [pair.remotes["a"].create(f"C{each}", values={"websiteurl": f"c{each}.example"}) for each in "01"]
    for name in "ab":
        pair.connect(name, {"account": {"direction": "both", "match": "website", "policy": "manual"}})
    pair.settle()
    there = {values["name"]: rid for rid, values in pair.rows("b").items()}
    for number, rid in enumerate(rids):
        pair.remotes["a"].update(rid, websiteurl=f"a{number}.example")
        pair.remotes["b"].update(there[f"C{number}"], websiteurl=f"b{number}.example")
    pair.pull("a")
    pair.later(LATE.total_seconds() + 1)
    body = {"where": {"entity": "accounts", "field": "website"}, "take": "value", "value": value}
    seen = ask(pair, **body, preview=True)
    problems = {each["id"]: each["problem"]["message"] for each in seen["value"] if "problem" in each}
    assert [each for page in pages(pair, 1, **body) for each in page["value"]] == seen["value"]
    run = ask(pair, **body, as_of=seen["as_of"])
    pair.work()
    done = pair.hub.runs.get(DEFAULT_TENANT, run["id"])
    assert seen["counts"]["conflicts"] == done.counts["updated"] == (1 if value else 2)
    assert {each["id"]: each["why"] for each in done.cursor.get("left", ())} == problems
