"""Writes of the Odoo connector that are repeated, that share a call, or that take long. Against our sandbox."""

from contextlib import ExitStack

import pytest

from crm_core.connector import Write
from crm_core.errors import HubError
from crm_core.system import SystemIds
from tests.contract.connectors.odoo import Sandbox
from tests.contract.connectors.remote import Access
from tests.contract.connectors.world import SkippingClock, World, unique


@pytest.fixture(scope="module")
def world(request, tmp_path_factory):
    with ExitStack() as stack:
        remote = Sandbox()
        remote.request = request
        remote.start(tmp_path_factory.mktemp("odoo"), stack)
        yield World(remote, remote.access(remote.origin), "", stack)


class Slow:
    """A transport whose every call takes so many seconds. `calls`: the method of each, and when it began."""

    def __init__(self, transport, clock, seconds, calls):
        self.transport, self.clock, self.seconds, self.calls = transport, clock, seconds, calls

    def send(self, request, **more):
        self.calls.append((request.url.rpartition("/")[2], self.clock.slept))
        self.clock.slept += self.seconds
        return self.transport.send(request, **more)

    def close(self):
        self.transport.close()


def slow(world, seconds):
    clock, calls = SkippingClock(), []
    return world.open(clock=clock, through=lambda each: Slow(each, clock, seconds, calls)), clock, calls


def activity(world, **fields):
    at = {"regarding_id": world.shared("account"), "regarding_type": "account"}
    return {"kind": "task", "subject": unique("activity"), **at, **fields}


# --- creates that are repeated -------------------------------------------------------------------------------------


@pytest.mark.parametrize("entity", ["quote", "order"])
def test_a_repeated_create_has_its_lines_once(world, entity):
    line = {"product_id": world.shared("product"), "quantity": "2", "unit_price": "10"}
    write = Write({**world.least(world.variant(entity)), "lines": [line]}, key=SystemIds().uuid())
    first = world.connector.create(entity, write)
    again = world.connector.create(entity, write)
    assert again.rid == first.rid
    assert len(again.fields["lines"]) == 1


def test_a_repeated_create_takes_its_steps_once(world):
    connector, _, calls = slow(world, 0)
    write = Write(activity(world, status="done"), key=SystemIds().uuid())
    first = connector.create("activity", write)
    assert connector.create("activity", write).rid == first.rid
    assert [name for name, _ in calls].count("action_done") == 1
    write = Write({**world.least(world.variant("quote")), "status": "won"}, key=SystemIds().uuid())
    first = world.connector.create("quote", write)
    assert world.connector.create("quote", write).rid == first.rid


def test_a_repeated_create_keeps_what_a_person_has_edited_since(world):
    write = Write({"name": unique("Account"), "phone": "1"}, key=SystemIds().uuid())
    first = world.connector.create("account", write)
    world.remote._do("res.partner", "write", [int(first.rid)], {"phone": "2"})
    assert world.connector.create("account", write).fields["phone"] == "2"


# --- writes that share a call --------------------------------------------------------------------------------------


def test_a_row_is_not_blamed_for_another(world):
    """What several rows of a load meet Odoo tells as if it were the first one's, and then of the row that it is."""
    groups = [
        world.remote._do("ir.model.data", "check_object_reference", *name)[1]
        for name in (("base", "group_user"), ("sales_team", "group_sale_salesman_all_leads"))
    ]
    login = unique("colleague").replace(" ", "")
    user = {"name": login, "login": login, "password": "a-colleague", "email": f"{login}@odoo.example"}
    world.remote._do("res.users", "create", {**user, "group_ids": [[6, 0, groups]]})
    access = world.remote.access(world.remote.origin)
    settings = {**access.settings, "username": login, "protocol": "jsonrpc"}
    connector = world.open(Access(settings, {"password": "a-colleague"}))
    lead = connector.create("lead", Write({"last_name": "Lead", "subject": "Lead"})).rid
    good = activity(
        world, owner_email=world.remote.texts["owner_email"], regarding_id=lead, regarding_type="lead"
    )
    bad = {**good, "regarding_id": world.shared("account"), "regarding_type": "account"}
    assert connector.write_one("activity", Write(good)).error is None
    world.remote._control("POST", "options", {"deny": {"res.partner": ["write"]}})
    try:
        writes = [Write(each) for each in (good, bad, good)]
        outcomes = connector.write("activity", writes, world.pool, lambda: True)
    finally:
        world.remote._control("POST", "options", {"deny": {"res.partner": []}})
    assert [each.error is None for each in outcomes] == [True, False, True]


def test_a_day_that_is_emptied_spoils_no_other_write(world):
    rids = [world.connector.create("activity", Write(activity(world))).rid for _ in range(3)]
    writes = [
        Write({"subject": "t"}, verb="update", rid=rids[0]),
        Write({"due_at": None}, verb="update", rid=rids[1]),
        Write(verb="delete", rid=rids[2]),
        Write(activity(world)),
    ]
    outcomes = world.connector.write("activity", writes, world.pool, lambda: True)
    assert [each.error is None for each in outcomes] == [True, False, True, True]


@pytest.mark.parametrize(
    ("entity", "native"),
    [
        ("account", {"parent_id": "12345678901"}),
        ("account", {"parent_id": "²"}),
        ("account", {"parent_id": 5}),
        ("quote", {"date_order": "foo"}),
        ("quote", {"date_order": 5}),
    ],
)
def test_a_bad_native_value_is_refused_by_name_and_spoils_no_other_write(world, entity, native):
    rids = [world.connector.create(entity, Write(world.least(world.variant(entity)))).rid for _ in range(2)]
    name = "name" if entity == "account" else "description"
    writes = [
        Write(native=native, verb="update", rid=rids[0]),
        Write({name: "z"}, verb="update", rid=rids[1]),
    ]
    bad, good = world.connector.write(entity, writes, world.pool, lambda: True)
    assert good.error is None
    assert bad.error is not None
    assert (
        next(iter(native)) in bad.error.message
        or bad.error.errors[0].field in world.connector.map(entity).by_field
    )


@pytest.mark.parametrize(
    "text", [" a b ", "a\nb", "0", "false", "no", "<b>x</b>", "a\tb", "ünï ✓", "1.0", "x" * 300]
)
@pytest.mark.parametrize(
    ("entity", "name"),
    [("account", "name"), ("account", "description"), ("activity", "subject"), ("activity", "description")],
)
def test_a_row_of_many_becomes_what_a_single_write_makes_of_it(world, text, entity, name):
    fields = activity(world) if entity == "activity" else world.least(world.variant(entity))
    alone, shared, other = [world.connector.create(entity, Write(fields)).rid for _ in range(3)]

    def written(value):
        def update(rid, given):
            return Write({name: given}, verb="update", rid=rid)

        (one,) = world.connector.write(entity, [update(alone, value)], world.pool, lambda: True)
        two, _ = world.connector.write(
            entity, [update(shared, value), update(other, "y")], world.pool, lambda: True
        )
        return [each.change.fields.get(name) if each.change else repr(each.error) for each in (one, two)]

    for value in (text, None):
        one, two = written(value)
        assert one == two


def test_an_id_that_is_none_is_refused_by_name(world):
    emap = world.connector.map("lead")
    rid = world.connector.create("lead", Write(world.least(world.variant("lead")))).rid
    for value in (1, "12345678901"):
        write = Write(*emap.accept({"team_id": value}, world.connector.describe("lead"), create=False))
        with pytest.raises(HubError, match="team_id"):
            world.connector.update("lead", rid, write)


# --- time ----------------------------------------------------------------------------------------------------------


def test_no_write_of_a_portion_begins_after_its_time(world):
    """Others take an attempt for dead after a while: what is refused of a hundred must not be sent one by one for long."""
    rids = [world.connector.create("account", Write({"name": unique("Account")})).rid for _ in range(40)]
    connector, clock, calls = slow(world, 10)
    writes = [
        Write({"name": unique("Loop")}, native={"parent_id": rid}, verb="update", rid=rid) for rid in rids
    ]
    connector.write("account", writes, world.pool, lambda: clock.slept < 30)
    assert max(began for name, began in calls if name in ("load", "write")) < 130


# --- the feed ------------------------------------------------------------------------------------------------------


def test_a_line_that_is_edited_by_itself_is_a_change_of_its_document(world):
    """Odoo moves the time of the line alone."""
    line = {"product_id": world.shared("product"), "quantity": "2", "unit_price": "10"}
    variant = world.variant("quote")
    made = world.connector.create("quote", Write({**world.least(variant), "lines": [line]}))
    cursor = None
    for _ in range(2):
        world.remote.advance(600)
        _, cursor = world.feed(variant, cursor)
    world.remote.advance(600)
    key = int(made.fields["lines"][0]["key"])
    world.remote._do("sale.order.line", "write", [key], {"name": "other text"})
    changes, _ = world.feed(variant, cursor)
    assert [(each.rid, each.fields["lines"][0]["description"]) for each in changes] == [
        (made.rid, "other text")
    ]
