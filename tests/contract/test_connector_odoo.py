"""What the Odoo connector does of its own: activities, whose rules are unlike those of other models, and old versions.

Against our sandbox, and the real server.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import pytest

from crm_core.connector import Answer, Query, Request, Transport, Write
from crm_core.errors import BadRequest, NotPermitted, RecordGone, Rejected
from crm_core.model.filters import parse_filter
from crm_core.model.options import Order
from tests.contract.connectors.odoo import Real, Sandbox, SandboxRpc
from tests.contract.connectors.remote import Access
from tests.contract.connectors.world import World, unique

ACTIVITY = "mail.activity"


@pytest.fixture(scope="module", params=["sandbox", pytest.param("real", marks=pytest.mark.oracle)])
def world(request, tmp_path_factory):
    with ExitStack() as stack:
        yield opened(Sandbox() if request.param == "sandbox" else Real(), request, tmp_path_factory, stack)


@pytest.fixture
def old(request, tmp_path_factory):
    """An Odoo 17."""
    with ExitStack() as stack:
        yield opened(SandboxRpc(), request, tmp_path_factory, stack)


def opened(remote, request, tmp_path_factory, stack):
    remote.request = request
    remote.start(tmp_path_factory.mktemp("odoo"), stack)
    return World(remote, remote.access(remote.origin), "", stack)


@pytest.fixture(scope="module")
def colleague(world):
    """(uid, a connection as a user who may read and write partners and leads, and no more)."""
    groups = [
        world.remote._do("ir.model.data", "check_object_reference", *name)[1]
        for name in (
            ("base", "group_user"),
            ("base", "group_partner_manager"),
            ("sales_team", "group_sale_salesman_all_leads"),
        )
    ]
    login = unique("colleague").replace(" ", "")
    values = {"name": login, "login": login, "password": "a-colleague", "email": f"{login}@odoo.example"}
    uid = world.remote._do("res.users", "create", {**values, "group_ids": [[6, 0, groups]]})
    access = world.remote.access(world.remote.origin)
    settings = {**access.settings, "username": login, "protocol": "jsonrpc"}
    return uid, world.open(Access(settings, {"password": "a-colleague"}))


def by_person(world, **values):
    """The id of an activity that the administrator makes."""
    return str(world.remote._do(ACTIVITY, "create", {"summary": unique("person"), **values}))


def person_reads(world, rid, *fields):
    return world.remote._do(
        ACTIVITY, "search_read", [["id", "=", int(rid)], ["active", "in", [True, False]]], list(fields)
    )[0]


def make(world, **fields):
    return world.connector.create(
        "activity", Write({"kind": "task", "subject": unique("activity"), **fields})
    )


def at(world, entity="account"):
    return {"regarding_id": world.shared(entity), "regarding_type": entity}


def refused(call, field, kind=BadRequest):
    with pytest.raises(kind) as caught:
        call()
    assert [each.field for each in caught.value.errors] == [field]


def found(world, text, **more):
    return [each.rid for each in world.connector.query("activity", Query(parse_filter(text), **more)).items]


# --- what kind it is ------------------------------------------------------------------------------------------------


def test_a_type_of_a_persons_own_keeps_its_name_unless_its_category_says_what_it_is(world):
    name = unique("Visit")
    plain = world.remote._do("mail.activity.type", "create", {"name": name})
    calling = world.remote._do("mail.activity.type", "create", {"name": "Ring", "category": "phonecall"})
    connector = world.open()  # types are known for a while
    place = {"res_id": int(world.shared("account")), "res_model_id": model_id(world, "res.partner")}
    visit, ring = (
        by_person(world, activity_type_id=plain, **place),
        by_person(world, activity_type_id=calling, **place),
    )
    read = connector.get_many("activity", [visit, ring])
    assert {rid: each.fields["kind"] for rid, each in read.items()} == {visit: f"native:{name}", ring: "call"}
    query = Query(parse_filter(f"kind eq 'native:{name}'"))
    assert [each.rid for each in connector.query("activity", query).items] == [visit]
    query = Query(parse_filter(f"kind eq 'call' and id in ({visit},{ring})"))
    assert [each.rid for each in connector.query("activity", query).items] == [ring]
    query = Query(parse_filter(f"kind ne 'call' and id in ({visit},{ring})"))
    assert [each.rid for each in connector.query("activity", query).items] == [visit]
    bare = by_person(world, activity_type_id=False, **place)
    assert "kind" not in connector.get("activity", bare).fields
    for text in ("kind eq null", "kind ne 'call'"):
        query = Query(parse_filter(f"{text} and id in ({bare},{ring})"))
        assert [each.rid for each in connector.query("activity", query).items] == [bare], text
    written = connector.update("activity", ring, Write({"kind": f"native:{name}"}))
    assert written.fields["kind"] == f"native:{name}"
    assert person_reads(world, ring, "activity_type_id")["activity_type_id"][0] == plain
    connector.update("activity", ring, Write({"kind": "call"}))
    told = person_reads(world, ring, "activity_type_id")["activity_type_id"][0]
    assert (
        told
        == world.remote._do("ir.model.data", "check_object_reference", "mail", "mail_activity_data_call")[1]
    )
    refused(lambda: connector.update("activity", ring, Write({"kind": "native:No such type"})), "kind")
    refused(lambda: connector.update("activity", ring, Write({"kind": "note"})), "kind")


def model_id(world, name):
    return world.remote._do("ir.model", "search", [["model", "=", name]])[0]


# --- what it is at --------------------------------------------------------------------------------------------------


def test_a_record_of_another_kind_is_none_that_an_activity_can_be_said_to_be_at(world):
    made = make(world, **at(world))
    contact = world.shared("contact")
    for rid in (contact, world.remote.missing):
        wrong = {"regarding_id": rid, "regarding_type": "account"}
        refused(
            lambda wrong=wrong: world.connector.update("activity", made.rid, Write(wrong)),
            "regarding_id",
            Rejected,
        )
        refused(lambda wrong=wrong: make(world, **wrong), "regarding_id", Rejected)
    refused(
        lambda: make(world, regarding_id="1", regarding_type="campaign"), "regarding_id"
    )  # nothing can be at a campaign there
    assert world.connector.get("activity", made.rid).fields == made.fields


def test_one_at_a_record_of_another_model_is_read_without_it_and_stays_there(world):
    product = world.remote._do("product.product", "create", {"name": unique("Product")})
    rid = by_person(world, res_id=product, res_model_id=model_id(world, "product.product"))
    read = world.connector.get("activity", rid)
    assert not {"regarding_id", "regarding_type"} & read.fields.keys()
    world.connector.update("activity", rid, Write({"regarding_id": None, "subject": "Otro"}))
    told = person_reads(world, rid, "res_model", "res_id", "summary")
    assert (told["res_model"], told["res_id"], told["summary"]) == ("product.product", product, "Otro")
    assert found(world, f"regarding_id eq {product} and id eq {rid}") == []
    assert found(world, f"regarding_id eq null and id eq {rid}") == [rid]
    assert found(world, f"regarding_id ne {product} and id eq {rid}") == [rid]


def test_a_canceled_order_is_taken_as_an_order_and_told_as_a_quote(world):
    order = world.connector.create("order", Write(world.least(world.variant("order")))).rid
    world.connector.update("order", order, Write({"status": "canceled"}))
    made = make(world, regarding_id=order, regarding_type="order")
    assert (made.fields["regarding_id"], made.fields["regarding_type"]) == (order, "quote")


def test_one_at_no_record_is_our_users_own_and_nobody_elses(world, colleague):
    uid, _ = colleague
    email = world.remote._do("res.users", "read", [uid], ["email"])[0]["email"]
    own = make(world)
    assert own.fields["owner_email"] == world.remote.texts["owner_email"]
    refused(lambda: make(world, owner_email=email), "owner_email")
    for wrong in ({"owner_email": email}, {"owner_email": None}):
        refused(lambda wrong=wrong: world.connector.update("activity", own.rid, Write(wrong)), "owner_email")
    theirs = make(world, owner_email=email, **at(world))
    assert theirs.fields["owner_email"] == email
    away = Write({"regarding_id": None, "regarding_type": None})
    refused(lambda: world.connector.update("activity", theirs.rid, away), "owner_email")
    assert world.connector.get("activity", theirs.rid).fields == theirs.fields
    nobodys = make(world, **at(world))
    world.connector.update("activity", nobodys.rid, Write({"owner_email": None}))
    after = world.connector.update("activity", nobodys.rid, away)
    assert after.fields["owner_email"] == world.remote.texts["owner_email"]


def test_many_creates_with_good_and_bad_records_have_each_their_own_outcome(world, colleague):
    uid, _ = colleague
    email = world.remote._do("res.users", "read", [uid], ["email"])[0]["email"]
    least = {"kind": "task", "subject": unique("many")}
    writes = [
        Write({**least, **at(world)}),
        Write({**least, "regarding_id": world.remote.missing, "regarding_type": "lead"}),
        Write({**least, "owner_email": email}),
        Write({**least, **at(world, "lead")}),
        Write(least),
    ]
    outcomes = world.connector.write("activity", writes, world.pool, lambda: True)
    assert [each.error is None for each in outcomes] == [True, False, False, True, True]
    wrong = [[each.field for each in outcome.error.errors] for outcome in outcomes if outcome.error]
    assert wrong == [["regarding_id"], ["owner_email"]]


# --- who sees it ----------------------------------------------------------------------------------------------------


def test_what_our_user_may_not_see_hides_nothing_that_he_may(world, colleague):
    """The server cuts a page before it leaves out what our user may not see: an empty page is not the last."""
    _, connector = colleague
    page = world.connector.changes("activity", None, size=50)
    while page.more:
        page = world.connector.changes("activity", page.cursor, size=50)
    text = unique("sieve")
    least = {"kind": "task", "subject": text}
    theirs = [connector.create("activity", Write(least)).rid for _ in range(6)]
    ours = [make(world, subject=text).rid for _ in range(5)]
    with pytest.raises(RecordGone):
        world.connector.get("activity", theirs[0])
    where = parse_filter(f"subject eq '{text}'")
    for order in ((), (Order("due_at", descending=False),)):
        read, cursor = [], None
        while True:
            listed = world.connector.query("activity", Query(where, orderby=order, top=2, cursor=cursor))
            read += [each.rid for each in listed.items]
            if listed.cursor is None:
                break
            cursor = listed.cursor
        assert read == ours, order
    read, cursor = [], page.cursor
    while True:
        page = world.connector.changes("activity", cursor, size=2)
        read += [each.rid for each in page.changes]
        cursor = page.cursor
        if not page.more:
            break
    assert read == ours


def test_an_ordinary_user_writes_and_marks_one(world, colleague):
    """Who may not look up the numbers of models."""
    _, connector = colleague
    lead = connector.create("lead", Write({"last_name": "Lead", "subject": "Lead"})).rid
    made = connector.create(
        "activity",
        Write({"kind": "call", "subject": "A", "regarding_id": lead, "regarding_type": "lead"}),
    )
    after = connector.update("activity", made.rid, Write({"status": "done", **at(world)}))
    assert (after.fields["status"], after.fields["regarding_type"]) == ("done", "account")
    connector.delete("activity", made.rid)


# --- when it is due and done ----------------------------------------------------------------------------------------


def test_done_is_odoos_own_action_and_leaves_the_day(world):
    account = world.connector.create("account", Write(world.least(world.variant("account")))).rid
    made = make(world, regarding_id=account, regarding_type="account", due_at="2026-02-28T17:45:00Z")
    assert made.fields["due_at"] == "2026-02-28T00:00:00Z"
    done = world.connector.update("activity", made.rid, Write({"status": "done"}))
    assert done.fields["completed_at"] == f"{done.modified[:10]}T00:00:00Z"
    if (
        world.remote.oracle
    ):  # what tells it from a mere archiving is a message at the record; the sandbox has none
        domain = [["model", "=", "res.partner"], ["res_id", "=", int(account)]]
        told = [["mail_activity_type_id", "!=", False]]
        assert world.remote._do("mail.message", "search_count", domain + told) == 1
    opened = world.connector.update("activity", made.rid, Write({"status": "open"}))
    assert "completed_at" not in opened.fields


def test_a_day_is_asked_for_as_its_first_moment(world):
    rid = make(world, due_at="2026-02-28T17:45:00Z").rid

    def holds(condition):
        return found(world, f"{condition} and id eq {rid}") == [rid]

    for told in (
        *("due_at eq 2026-02-28", "due_at eq 2026-02-28T00:00:00Z", "due_at ge 2026-02-28T00:00:00Z"),
        *(
            "due_at gt 2026-02-27T00:00:01Z",
            "due_at lt 2026-02-28T00:00:01Z",
            "due_at le 2026-02-28T17:45:00Z",
        ),
        *("due_at ne 2026-02-28T17:45:00Z", "date_deadline eq 2026-02-28", "completed_at eq null"),
    ):
        assert holds(told), told
    for told in (
        *("due_at eq 2026-02-28T17:45:00Z", "due_at gt 2026-02-28", "due_at lt 2026-02-28"),
        *("due_at ge 2026-02-28T00:00:01Z", "due_at ne 2026-02-28", "completed_at ne null"),
    ):
        assert not holds(told), told


def test_it_is_never_without_a_day(world):
    made = make(world)
    assert made.fields["due_at"] == f"{made.modified[:10]}T00:00:00Z"
    refused(lambda: world.connector.update("activity", made.rid, Write({"due_at": None})), "due_at")


def test_a_status_that_odoo_has_not_is_refused(world):
    made = make(world)
    refused(lambda: world.connector.update("activity", made.rid, Write({"status": "canceled"})), "status")
    assert world.connector.get("activity", made.rid).fields == made.fields


def test_it_goes_with_its_record(world):
    account = world.connector.create("account", Write(world.least(world.variant("account")))).rid
    made = make(world, regarding_id=account, regarding_type="account")
    world.connector.delete("account", account)
    with pytest.raises(RecordGone):
        world.connector.get("activity", made.rid)


# --- old versions ---------------------------------------------------------------------------------------------------


def test_the_protocol_of_an_old_version_is_found_out(old):
    access = old.remote.access(old.remote.origin)
    settings = {**access.settings, "protocol": "auto"}
    assert old.open(replace(access, settings=settings)).check()["protocol"] == "jsonrpc"


@dataclass
class AsBefore19:
    """The server's own answers, with the fields of activities and their types as an older version has them."""

    transport: Transport
    keeps: bool
    """Of every type, `keep_done`."""
    lacks: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    called: list[str] = field(default_factory=list)

    def send(self, request: Request, *, connection: str) -> Answer:
        path = request.url.partition("/json/2/")[2]
        self.called.append(path)
        if path == "mail.activity.type/search_read" and b"keep_done" in (request.body or b""):
            body = json.dumps([{"id": 1, "keep_done": self.keeps}]).encode()
            return Answer(200, {"content-type": "application/json"}, body)
        answer = self.transport.send(request, connection=connection)
        if path == "mail.activity.type/fields_get":
            told = {**json.loads(answer.body), "keep_done": {"type": "boolean"}}
        elif path == f"{ACTIVITY}/fields_get":
            told = {
                name: {**each, "required": each["required"] or name in self.needs}
                for name, each in json.loads(answer.body).items()
                if name not in self.lacks
            }
        else:
            return answer
        return replace(answer, body=json.dumps(told).encode())


def before_19(world, **more):
    """(a connection, what it called)."""
    stands = []
    connector = world.open(
        through=lambda transport: stands.append(AsBefore19(transport, **more)) or stands[0]
    )
    return connector, stands[0].called


def test_in_17_and_18_what_is_done_stays_if_its_type_says_so(world):
    made = make(world, **at(world))
    connector, _ = before_19(world, keeps=True)
    done = connector.update("activity", made.rid, Write({"status": "done"}))
    assert done.fields["status"] == "done"


def test_what_would_be_deleted_when_it_is_done_is_refused_before_anything_is_written(world):
    made = make(world, **at(world))
    connector, called = before_19(world, keeps=False)
    write = Write({"status": "done", "subject": "new"})
    refused(lambda: connector.update("activity", made.rid, write), "status")
    refused(
        lambda: connector.create(
            "activity", Write({"kind": "task", "subject": "A", "status": "done", **at(world)})
        ),
        "status",
    )
    assert not {f"{ACTIVITY}/{method}" for method in ("write", "load", "action_done", "unlink")} & set(called)
    assert connector.get("activity", made.rid).fields == made.fields


def test_before_17_every_activity_is_open(world):
    made = make(world, **at(world))
    connector, called = before_19(world, keeps=False, lacks=("active", "date_done"))
    assert connector.get("activity", made.rid).fields["status"] == "open"
    refused(lambda: connector.update("activity", made.rid, Write({"status": "done"})), "status")
    refused(lambda: connector.query("activity", Query(parse_filter("status eq 'open'"))), "filter")
    assert f"{ACTIVITY}/action_done" not in called


def test_before_19_one_is_at_a_record_or_is_none(world):
    connector, called = before_19(world, keeps=True, needs=("res_model_id",))
    refused(lambda: connector.create("activity", Write({"kind": "task", "subject": "A"})), "regarding_id")
    assert f"{ACTIVITY}/load" not in called
    made = connector.create("activity", Write({"kind": "task", "subject": "A", **at(world)}))
    assert made.fields["regarding_id"] == world.shared("account")


def test_a_check_names_the_right_that_is_missing_and_who_has_it(old):
    old.remote._control("POST", "options", {"deny": {"res.partner": ["read"]}})
    with pytest.raises(NotPermitted, match=r"\(res\.partner\).*allowed for the following groups"):
        old.open().check()
