"""The connector of Dynamics 365 against the sandbox: what becomes of writes that go wrong."""

from contextlib import suppress

import pytest

from crm_core.connector import Query, Write
from crm_core.connectors.dynamics365 import feed
from crm_core.connectors.dynamics365.reading import select_of
from crm_core.connectors.dynamics365.tables import TABLES
from crm_core.errors import BadRequest, CursorExpired, NotPermitted, Rejected
from crm_core.model.filters import parse_filter

NOBODY = "00000000-0000-4000-8000-000000000000"


class InOrder:
    """A pool that does one thing after the other."""

    def map(self, function, items, width):
        return [function(item) for item in items]


@pytest.fixture
def system(memory_bench):
    """The connector of a connection to the empty sandbox."""
    memory_bench.connect()
    return memory_bench.opened.connector


@pytest.fixture
def outcomes(system):
    """Carries out many writes of an entity."""
    return lambda entity, *writes: system.write(entity, writes, InOrder(), lambda: True)


def errors(found):
    return [each.error and each.error.code for each in found]


def update(rid, **fields):
    return Write(fields, verb="update", rid=rid)


@pytest.fixture
def values(remote):
    """What the sandbox holds of each account, by id."""
    return lambda: {row["id"]: row["values"] for row in remote.control("GET", "rows/account?limit=1000")}


def test_another_record_s_key_is_the_refusal_of_a_create_among_many(system, outcomes, values):
    system.create("account", Write({"name": "A", "number": "N1"}))
    found = outcomes("account", Write({"name": "B", "number": "N1"}), Write({"name": "C"}))
    assert errors(found) == ["VersionMismatch", None]
    assert "AccountNumber already exists" in found[0].error.message
    assert sorted(each["name"] for each in values().values()) == ["A", "C"]


def test_a_reference_to_nothing_is_refused_among_many_too_and_is_no_delete(system, outcomes, remote):
    first, second, third = (remote.create(f"A{n}") for n in range(3))
    found = outcomes(
        "account", update(first, name="B"), update(second, parent_id=NOBODY), update(NOBODY, name="B")
    )
    assert errors(found) == [None, "Rejected", "RecordGone"]
    found += outcomes("account", Write({"name": "C"}), Write({"name": "D", "parent_id": NOBODY}))
    etag = system.get("account", third).etag
    checked = Write({"parent_id": NOBODY}, verb="update", rid=third, if_match=etag)
    found += outcomes(
        "account", update(first, name="E"), checked, Write(verb="delete", rid=second, if_match="*")
    )
    assert errors(found[3:]) == [None, "Rejected", None, "Rejected", None]
    refused = [each.error for each in found if each.error and each.error.code == "Rejected"]
    assert [each.errors[0].field for each in refused] == ["parent_id"] * 3


def test_a_record_that_may_not_be_written_holds_up_no_other(outcomes, remote, values):
    rids = [remote.create(f"A{n}") for n in range(3)]
    # A user's rights can differ from row to row: the owner's, its unit's, all.
    remote.fault("privilege", code="prvWriteAccount", path="*UpdateMultiple*")
    remote.fault("privilege", code="prvWriteAccount", path=f"*({rids[1]})*")
    found = outcomes("account", *(update(rid, name="B") for rid in rids))
    assert errors(found) == [None, "NotPermitted", None]
    assert [values()[rid]["name"] for rid in rids] == ["B", "A1", "B"]


def test_what_was_written_and_can_not_be_read_says_so(system, outcomes, remote, values):
    """The owner's e-mail stands in another table: that it can't be read must not make a client create twice."""
    first, second = remote.create("A"), remote.create("A")
    remote.fault("privilege", code="prvReadUser", path="*/systemusers*")
    with pytest.raises(NotPermitted) as alone:
        system.create("account", Write({"name": "B"}))
    told = [alone.value]
    with pytest.raises(NotPermitted) as alone:
        system.update("account", first, Write({"name": "C"}))
    told.append(alone.value)
    found = outcomes("account", Write({"name": "D"}), Write({"name": "E"}))
    found += outcomes(
        "account",
        Write({"name": "F"}, verb="update", rid=first, if_match="*"),
        Write({"name": "G"}, verb="update", rid=second, if_match='W/"1"'),
        Write(verb="delete", rid=second, if_match="*"),
    )
    assert errors(found) == ["NotPermitted", "NotPermitted", "NotPermitted", "VersionMismatch", None]
    told += [each.error for each in found[:3]]
    assert all(each.outcome_unknown for each in told)
    assert all(each.message.startswith("Written, but what came of it can't be read: ") for each in told)
    assert not found[3].error.outcome_unknown
    assert sorted(each["name"] for each in values().values()) == ["B", "D", "E", "F"]


def test_what_is_no_id_is_one_activity_s_refusal(system, outcomes):
    rid = system.create("activity", Write({"kind": "task", "subject": "A"})).rid
    found = outcomes("activity", update("no-id", subject="B"), update(rid.upper(), subject="B"))
    assert errors(found) == ["BadRequest", None]
    assert found[1].change.fields["subject"] == "B"


def test_a_sign_of_patterns_is_itself_also_once_the_table_has_rows(system, remote):
    def found():
        page = system.query("account", Query(parse_filter("contains(name,'100%')")))
        return [each.fields["name"] for each in page.items]

    assert found() == []
    remote.create("100% lana")
    remote.create("1001 noches")
    assert found() == ["100% lana"]


@pytest.mark.parametrize("cursor", [{"turn": "letters", "tables": {}}, {"delta": "$deltatoken=1"}])
def test_a_place_of_activities_that_other_code_wrote_is_lost_and_no_bug(system, cursor):
    with pytest.raises(CursorExpired):
        system.changes("activity", cursor, size=10)


def test_what_the_list_of_activities_lacks_is_not_asked_for(system):
    with pytest.raises(BadRequest, match="'location' is told of a single activity only"):
        system.query("activity", Query(select=("subject", "location")))


@pytest.fixture
def quote(system, remote):
    """A quote with lines of these descriptions."""
    remote.control("POST", "fill", {"table": "quote", "count": 1, "seed": 1})
    customer = {"customer_id": remote.create("Customer"), "customer_type": "account"}

    def make(*descriptions):
        fields = {"name": "Quote", **customer, "lines": [line(each) for each in descriptions]}
        return system.create("quote", Write(fields))

    return make


def line(description):
    return {"description": description, "quantity": "1", "unit_price": "1"}


def descriptions(change):
    return "".join(each["description"] for each in change.fields["lines"])


@pytest.mark.parametrize("wanted", ["CBA", "XABC", "AXC", "CX", "BCA", "XCXAX", "ABCX"])
def test_lines_have_the_order_in_which_they_are_given(system, quote, wanted):
    made = quote("A", "B", "C")
    there = {each["description"]: each for each in made.fields["lines"]}
    given = [there.get(each) or line(each) for each in wanted]
    changed = system.update("quote", made.rid, Write({"lines": given}))
    assert descriptions(changed) == wanted
    keys = {each["description"]: each["key"] for each in changed.fields["lines"]}
    assert all(keys[each] == there[each]["key"] for each in set(wanted) & set("ABC"))


def test_lines_that_are_as_they_are_given_are_not_written(system, quote, remote):
    made = quote("A", "B")
    lines = made.fields["lines"]
    system.update("quote", made.rid, Write({"lines": [lines[0], {**lines[1], "quantity": "2"}]}))
    written = [each["path"] for each in remote.control("GET", "requests") if each["method"] == "PATCH"]
    assert [each.rpartition("/")[2] for each in written[-2:]] == [
        f"quotes({made.rid})",
        f"quotedetails({lines[1]['key']})",
    ]


def test_a_line_is_named_once_in_either_case(system, quote):
    made = quote("A", "B")
    first, second = made.fields["lines"]
    with pytest.raises(BadRequest, match="is given twice"):
        system.update("quote", made.rid, Write({"lines": [first, {**second, "key": first["key"].upper()}]}))
    shouted = [{**first, "key": first["key"].upper(), "description": "C"}, second]
    assert descriptions(system.update("quote", made.rid, Write({"lines": shouted}))) == "CB"


def test_a_line_keeps_its_unit_whose_name_other_units_bear_too(system, quote, remote):
    made = quote("A")
    (product, *_) = remote.control("GET", "rows/product?limit=1")
    item = {"product_id": product["id"], "quantity": "1", "unit_price": "1"}
    made = system.update("quote", made.rid, Write({"lines": [item, line("B")]}))
    unit = made.fields["lines"][0]["unit"]
    # Every group of units has one of its own, and people leave its name as it is.
    group = remote.control("POST", "rows/uomschedule", {"values": {"name": "Other", "baseuomname": unit}})
    bound = {"name": unit, "quantity": 1, "uomscheduleid@odata.bind": f"/uomschedules({group['id']})"}
    remote.control("POST", "rows/uom", {"values": bound})
    given = [{**made.fields["lines"][0], "quantity": "2"}, made.fields["lines"][1]]
    changed = system.update("quote", made.rid, Write({"lines": given})).fields["lines"]
    assert (float(changed[0]["quantity"]), changed[0]["unit"]) == (2, unit)
    given = [changed[1], changed[0]]
    changed = system.update("quote", made.rid, Write({"lines": given})).fields["lines"]
    assert [each["key"] for each in changed] == [each["key"] for each in given]


def test_what_many_writes_name_is_looked_up_once(system, outcomes, remote):
    remote.control("POST", "fill", {"table": "account", "count": 1, "seed": 1})
    (currency, *_) = remote.control("GET", "rows/transactioncurrency?limit=1")
    named = {"currency": currency["values"]["isocurrencycode"], "owner_email": "person@sandbox.example"}
    assert errors(outcomes("account", *(Write({"name": f"A{n}", **named}) for n in range(20)))) == [None] * 20
    asked = [each["path"].rpartition("/")[2] for each in remote.control("GET", "requests")]
    # Once by its text, once by its id for the answer.
    assert (asked.count("transactioncurrencies"), asked.count("systemusers")) == (2, 2)


def test_where_what_a_write_names_can_not_be_looked_up_nothing_is_sent(outcomes, remote, values):
    remote.fault("throttle", path="*/transactioncurrencies*", retry_after=30)
    found = outcomes(
        "account",
        Write({"name": "A"}),
        *(Write({"name": f"C{n}", "currency": "USD"}) for n in range(5)),
    )
    assert errors(found) == ["NotBegun", "RateLimited", *["NotBegun"] * 4]
    assert values() == {}
    asked = [each for each in remote.control("GET", "requests") if each["path"].endswith("currencies")]
    assert len(asked) == 1


def test_a_document_without_lines_has_no_field_of_them(system, quote):
    assert "lines" not in quote().fields


def test_a_place_from_before_a_column_was_read_empties_no_field(memory_bench, remote, monkeypatch):
    bench = memory_bench
    remote.control("POST", "fill", {"table": "contact", "count": 1, "seed": 1})
    (currency, *_) = remote.control("GET", "rows/transactioncurrency?limit=1")
    bound = {"transactioncurrencyid@odata.bind": f"/transactioncurrencies({currency['id']})"}
    rid = remote.create("A", values=bound)
    bench.connect()
    with monkeypatch.context() as before:
        older = [name for name in select_of(TABLES["account"]) if name != "_transactioncurrencyid_value"]
        before.setattr(feed, "select_of", lambda _: older)
        bench.pull()
    # Something else than the feed has brought the new field, such as a run with a filter.
    remote.update(rid, name="B")
    bench.pull(where="name eq 'B'")
    code = currency["values"]["isocurrencycode"]
    assert bench.stored()[rid].fields["currency"] == code
    remote.update(rid, name="C")
    assert bench.pull().mode == "full"
    assert (bench.stored()[rid].fields["name"], bench.stored()[rid].fields["currency"]) == ("C", code)
    assert bench.pull().mode == "incremental"


def test_the_list_of_activities_finds_a_scheduled_meeting_among_the_open_ones(system, remote):
    times = {"scheduledstart": "2026-12-01T15:00:00Z", "scheduledend": "2026-12-01T16:00:00Z"}
    scheduled = {"subject": "A", **times, "statecode": 3, "statuscode": 5}
    made = system.get("activity", remote.control("POST", "rows/appointment", {"values": scheduled})["id"])
    assert (made.fields["status"], made.raw["statecode"]) == ("open", 3)
    for text in ("status eq 'open'", "status in ('open','done')", "not (status eq 'canceled')"):
        assert [each.rid for each in system.query("activity", Query(parse_filter(text))).items] == [made.rid]
    assert system.query("activity", Query(parse_filter("status ne 'open'"))).items == []


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("eq 2026-10-15", "BC"), ("ne 2026-10-15", "ADE"), ("lt 2026-10-15", "A"), ("le 2026-10-15", "ABC"),
        ("gt 2026-10-15", "D"), ("ge 2026-10-15", "BCD"), ("in (2026-10-15,2026-10-16)", "BCD"), ("eq null", "E"),
        ("le 9999-12-31", "ABCD"), ("gt 1753-01-01", "ABCD"),
    ],
)  # fmt: skip
def test_a_date_that_is_kept_as_a_time_is_the_whole_day(system, remote, condition, found):
    times = {"A": "14T23:59:59", "B": "15T00:00:00", "C": "15T22:00:00", "D": "16T00:00:00", "E": None}
    remote.control("POST", "fill", {"table": "quote", "count": 1, "seed": 1})
    (sample, *_) = remote.control("GET", "rows/quote?limit=1")
    remote.control("DELETE", f"rows/quote/{sample['id']}")
    bound = {"customerid_account@odata.bind": f"/accounts({remote.create('Customer')})"}
    bound["pricelevelid@odata.bind"] = f"/pricelevels({sample['values']['_pricelevelid_value']})"
    for name, time in times.items():
        until = {"effectiveto": f"2026-10-{time}Z"} if time else {}
        remote.control("POST", "rows/quote", {"values": {"name": name, **until, **bound}})

    def names(text):
        page = system.query("quote", Query(parse_filter(text)))
        return "".join(sorted(each.fields["name"] for each in page.items))

    assert names(f"valid_until {condition}") == found
    assert names(f"not (valid_until {condition})") == "".join(sorted(set("ABCDE") - set(found)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("due_at ge 2026-12-01", "task"), ("ends_at ge 2026-12-01", "meeting"), ("due_at eq null", "call meeting"),
        ("ends_at ne 2026-12-01T16:00:00Z", "call task"), ("not (due_at lt 2026-12-05)", "call meeting"),
        ("due_at in (2026-12-01T16:00:00Z,null)", "call meeting task"), ("due_at ne null and kind ne 'email'", "task"),
        ("scheduledend ge 2026-12-01", "meeting task"), ("not (ends_at gt 2026-12-01 or kind eq 'call')", "task"),
    ],
)  # fmt: skip
def test_a_field_that_a_kind_of_activity_lacks_is_empty_in_it(memory_bench, system, text, found):
    end = "2026-12-01T16:00:00Z"
    for fields in (
        {"kind": "task", "due_at": end},
        {"kind": "meeting", "starts_at": "2026-12-01T15:00:00Z", "ends_at": end},
        {"kind": "call"},
    ):
        system.create("activity", Write({"subject": "A", **fields}))
    listed = system.query("activity", Query(parse_filter(text))).items
    assert " ".join(sorted(each.fields["kind"] for each in listed)) == found
    # A run with the filter reads each kind's own table.
    cursor, read = system.begin("activity", since="", where=parse_filter(text)), []
    while cursor is not None:
        page = system.changes("activity", cursor, size=100)
        read += page.changes
        cursor = page.cursor if page.more else None
    assert {each.rid for each in read} == {each.rid for each in listed}


def test_to_empty_a_contact_s_account_leaves_another_contact_that_it_belongs_to(system, remote):
    parent = system.create("contact", Write({"last_name": "Jefa"})).rid
    rid = system.create("contact", Write({"last_name": "Peña"})).rid
    remote.control(
        "PATCH",
        f"rows/contact/{rid}",
        {"values": {"parentcustomerid_contact@odata.bind": f"/contacts({parent})"}},
    )
    read = system.get("contact", rid)
    assert "account_id" not in read.fields
    assert read.raw["_parentcustomerid_value"] == parent
    same = system.update("contact", rid, Write({"account_id": None}))
    changed = system.update("contact", rid, Write({"account_id": None, "last_name": "Peña Soto"}))
    assert (same.version, changed.fields["last_name"]) == (read.version, "Peña Soto")
    assert system.get("contact", rid).raw["_parentcustomerid_value"] == parent
    account = remote.create("A")
    moved = system.update("contact", rid, Write({"account_id": account}))
    assert moved.fields["account_id"] == account
    assert "account_id" not in system.update("contact", rid, Write({"account_id": None})).fields


def test_lines_of_a_closed_order_do_not_open_it(system, remote):
    lines = [{"description": "Cable", "quantity": "1", "unit_price": "2"}]
    account = remote.create("A")
    order = {"name": "O", "customer_id": account, "customer_type": "account", "lines": lines}
    made = system.create("order", Write({**order, "status": "fulfilled"}))
    with suppress(Rejected):  # the system decides whether a closed order can be changed
        system.update("order", made.rid, Write({"lines": []}))
    assert system.get("order", made.rid).fields["status"] == "fulfilled"


def test_a_pull_of_activities_with_nothing_new_asks_each_table_once(memory_bench, remote):
    memory_bench.connect(entities={"activity": "pull"})
    memory_bench.opened.connector.create("activity", Write({"kind": "call", "subject": "A"}))
    first = memory_bench.pull()
    assert first.counts["created"] == 1
    before = remote.requests()
    still = memory_bench.pull()
    assert remote.requests() - before == 4
    assert (still.status, still.read, still.slices) == ("succeeded", 0, 0)


def test_a_full_run_takes_what_a_row_refers_to_though_its_version_is_the_same(memory_bench, remote):
    memory_bench.connect()
    connector = memory_bench.opened.connector
    rid = connector.create("account", Write({"name": "A", "currency": "USD"})).rid
    memory_bench.pull()
    (stored,) = memory_bench.stored().values()
    assert stored.fields["currency"] == "USD"
    (currency,) = remote.control("GET", "rows/transactioncurrency?limit=10")
    remote.control(
        "PATCH", f"rows/transactioncurrency/{currency['id']}", {"values": {"isocurrencycode": "PEN"}}
    )
    memory_bench.hub.clear_cache(memory_bench.opened.connection)
    assert memory_bench.pull("full").counts["updated"] == 1
    assert memory_bench.stored()[rid].fields["currency"] == "PEN"
    assert memory_bench.pull("full").counts["unchanged"] == 1
