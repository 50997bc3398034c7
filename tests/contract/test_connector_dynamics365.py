"""The Dynamics connector and a whole pull against two servers: our sandbox, and one on Microsoft's own OData code."""

import json
from contextlib import closing
from dataclasses import replace

import pytest
import trustme
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crm_core.connection_admin import Wanted
from crm_core.connector import Count, Query, Related, Write
from crm_core.errors import BadRequest, RecordGone, Rejected
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT, Schedule
from crm_core.model.expand import parse_expand
from crm_core.model.filters import parse_filter
from crm_core.model.record import Record
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from crm_core.system import SystemClock
from sandbox.dynamics365 import Dataverse
from sandbox.testing import Client, running
from tests.conftest import ORACLE_SECRET, running_oracle

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module", params=["sandbox", pytest.param("oracle", marks=pytest.mark.oracle)])
def server(request, tmp_path_factory):
    """(settings, secrets, CA file) of a Dataverse that listens on loopback by HTTPS."""
    folder = tmp_path_factory.mktemp("tls")
    if request.param == "sandbox":
        with running(Dataverse(), tls_ca=folder / "ca.pem") as sandbox:
            facts = sandbox.describe()
            settings = {"base_url": sandbox.https, "authority": sandbox.https, "tenant_id": facts["tenant"]}
            yield {**settings, "client_id": facts["client_id"]}, facts["client_secret"], folder / "ca.pem"
        return
    ca = trustme.CA()
    leaf = ca.issue_cert("127.0.0.1", "localhost")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    leaf.private_key_and_cert_chain_pem.write_to_path(folder / "leaf.pem")
    with running_oracle(folder / "leaf.pem", folder / "leaf.pem", records=25) as settings:
        yield settings, ORACLE_SECRET, folder / "ca.pem"


def hub_for(ca):
    environment = {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "HUB_API_KEY": KEY,
        "INTEGRATION_ENCRYPTION_KEY": KEY,
        "ALLOW_LOOPBACK": "true",
        "CA_BUNDLE": str(ca),
        "PAGE_RECORDS": "10",
    }
    return Hub(load(environment), table=MemoryTable(), queue=MemoryQueue(SystemClock()), blob=MemoryBlob())


@pytest.fixture(scope="module")
def hub(server):
    settings, secret, ca = server
    with closing(hub_for(ca)) as hub:
        wanted = Wanted(settings, {"client_secret": secret}, schedule=Schedule(minutes=1))
        hub.admin.create(DEFAULT_TENANT, "demo", "dynamics365", wanted)
        yield hub


@pytest.fixture(scope="module")
def connector(hub):
    return hub.connect(DEFAULT_TENANT, "demo").connector


@pytest.fixture
def account(connector):
    """A record that the test may change; gone afterwards."""
    made = connector.create("account", Write({"name": "Muñoz & Hijos 'S.A.'", "phone": "+56 2 1"}))
    yield made
    try:
        connector.delete("account", made.rid)
    except RecordGone:
        return


def names(connector, text, **more):
    page = connector.query("account", Query(filter=parse_filter(text), top=500, **more))
    return {item.fields["name"] for item in page.items}


@pytest.mark.parametrize(
    "text",
    [
        "name eq 'Muñoz & Hijos ''S.A.'''",
        "contains(name,'Hijos ''S')",
        "startswith(name,'Muñoz') and phone eq '+56 2 1'",
        "endswith(name,'''S.A.''') and status eq 'active' and statuscode eq 1",
        "name in ('x','Muñoz & Hijos ''S.A.''')",
        "not (name ne 'Muñoz & Hijos ''S.A.''')",
        "(name eq 'x' or name eq 'Muñoz & Hijos ''S.A.''') and email eq null",
        "createdon gt 2020-01-01T00:00:00Z and startswith(name,'Muñoz')",
        "created_at ge 2020-01-01 and startswith(name,'Muñoz')",
    ],
)
def test_a_filter_finds_it(connector, account, text):
    assert account.fields["name"] in names(connector, text)


def test_filters_by_choice_number_money_and_reference(connector, account):
    more = {"kind": "customer", "industry": "Legal Services", "employees": 41, "annual_revenue": "99.5"}
    child = connector.create("account", Write({"name": "Child", "parent_id": account.rid, **more}))
    for text in (
        "kind eq 'customer' and industry eq 'Legal Services' and employees ge 41 and employees lt 42",
        f"parent_id eq {account.rid}",
        f"_parentaccountid_value eq {account.rid} and customertypecode eq 3",
        f"id eq {child.rid}",
        "annual_revenue gt 99.4 and revenue le 99.5 and name eq 'Child'",
        "kind in ('customer','partner') and name eq 'Child'",
    ):
        assert names(connector, text) == {"Child"}, text
    connector.delete("account", child.rid)


ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20
)


@settings(max_examples=40, deadline=None)
@example(["O'Brien", "o'brien", "obrien"], 0)
@example(["a_b", "axb", "%", "a%"], 2)
@example(["a_b", "axb", "[a]", "a"], 0)
@example(["a_b", "axb", "[a]", "a"], 2)
@example(["+ +&#?=/", "\\", "'", "''", "\r\n\t"], 0)
@given(st.lists(ANY_TEXT, min_size=1, max_size=4), st.integers(0, 3))
def test_any_text_finds_exactly_the_rows_equal_to_it_or_that_hold_it(request, connector, texts, which):
    literal = texts[which % len(texts)]
    # Dataverse does not look at letter case; the oracle does.
    form = str if "oracle" in request.node.callspec.id else str.casefold
    made = {
        connector.create("account", Write({"name": text, "city": "any text"})).rid: text for text in texts
    }
    try:
        quoted = literal.replace("'", "''")
        for condition, test in (
            (f"name eq '{quoted}'", lambda name: form(name) == form(literal)),
            (f"not (name ne '{quoted}')", lambda name: form(name) == form(literal)),
            (f"contains(name,'{quoted}')", lambda name: form(literal) in form(name)),
            (f"not startswith(name,'{quoted}')", lambda name: not form(name).startswith(form(literal))),
        ):
            text = f"city eq 'any text' and {condition}"
            found = connector.query("account", Query(parse_filter(text), top=500)).items
            assert {item.rid for item in found} == {rid for rid, name in made.items() if test(name)}
    finally:
        for rid in made:
            connector.delete("account", rid)


def test_a_query_counts_what_it_finds_in_all_on_every_page(connector):
    made = [connector.create("account", Write({"name": f"Count {n}"})).rid for n in range(5)]
    query = Query(parse_filter("startswith(name,'Count ')"), ("name",), top=2, count=True)
    first = connector.query("account", query)
    assert (len(first.items), first.count) == (2, Count(5, at_least=False))
    second = connector.query("account", replace(query, cursor=json.loads(json.dumps(first.cursor))))
    assert (len(second.items), second.count) == (2, Count(5, at_least=False))
    assert connector.query("account", replace(query, count=False)).count is None
    for rid in made:
        connector.delete("account", rid)


def test_a_count_does_not_hide_what_a_contact_belongs_to(connector, account):
    """Both are annotations, asked for by one header."""
    made = connector.create("contact", Write({"last_name": "Counted", "account_id": account.rid}))
    query = Query(parse_filter("last_name eq 'Counted'"), count=True)
    page = connector.query("contact", query)
    assert (page.count, page.items[0].fields["account_id"]) == (Count(1, at_least=False), account.rid)
    connector.delete("contact", made.rid)


@pytest.mark.parametrize(
    "text",
    [
        "kind eq 'nonsense'",
        "name eq 5",
        "employees eq 'many'",
        "contains(employees,'1')",
        "kind gt 'customer'",
        "employees gt null",
        "nofield eq 1",
        "created_at gt 2020-13-45T00:00:00Z",
    ],
)
def test_a_wrong_filter_is_refused_before_it_is_sent(connector, text):
    with pytest.raises(BadRequest):
        names(connector, text)


def test_a_column_without_a_canonical_name_can_be_selected_and_written(connector):
    made = connector.create("account", Write({"name": "Native"}, {"fax": "+1 555"}))
    assert "fax" in connector.describe("account")
    page = connector.query("account", Query(parse_filter("fax eq '+1 555'"), ("name", "fax")))
    assert [item.raw["fax"] for item in page.items] == ["+1 555"]
    connector.delete("account", made.rid)


def test_a_value_that_the_server_refuses_keeps_its_words(connector, account):
    with pytest.raises(Rejected) as caught:
        connector.update("account", account.rid, Write({}, {"fax": "9" * 5000}))
    assert caught.value.message


def test_a_pull_stores_what_the_server_has(hub, connector):
    def pull(mode):
        run = hub.start_run(DEFAULT_TENANT, "demo", ["account"], mode, "key:test")
        while True:
            worked = False
            for lane in layout.QUEUES:
                for message in hub.queue.receive(lane):
                    hub.handle(lane, message.body, message.dequeue_count)
                    hub.queue.delete(lane, message)
                    worked = True
            if not worked:
                return hub.runs.get(DEFAULT_TENANT, run.id)

    def stored():
        uid = hub.connect(DEFAULT_TENANT, "demo").connection.uid
        return {
            each.content.links[uid].rid: each.content
            for bucket in layout.BUCKETS
            for each in hub.records.scan(DEFAULT_TENANT, "account", bucket)
            if isinstance(each.content, Record) and each.content.links[uid].state == "live"
        }

    made = [connector.create("account", Write({"name": f"Pull {n}"})) for n in range(23)]
    run = pull("incremental")
    assert (run.status, run.counts["failed"]) == ("succeeded", 0)
    first = stored()
    everything, cursor = {}, None
    while True:
        page = connector.query("account", Query(top=1000, cursor=cursor))
        everything |= {item.rid: item.fields for item in page.items}
        cursor = page.cursor
        if cursor is None:
            break
    uid = hub.connect(DEFAULT_TENANT, "demo").connection.uid
    for fields in everything.values():  # over the store a reference is a record's id
        if "parent_id" in fields:
            fields["parent_id"] = layout.derived_record_id(
                DEFAULT_TENANT, uid, "account", fields["parent_id"]
            )
        fields.pop("primary_contact_id", None)
    stored_fields = {rid: dict(record.fields) for rid, record in first.items()}
    for fields in stored_fields.values():
        fields.pop("primary_contact_id", None)
    assert stored_fields == everything
    connector.update("account", made[0].rid, Write({"name": "Pull again"}))
    connector.delete("account", made[1].rid)
    assert pull("incremental").counts["updated"] == 1
    assert pull("full").status == "succeeded"
    after = stored()
    assert after[made[0].rid].fields["name"] == "Pull again"
    assert made[1].rid not in after
    assert len(after) == len(first) - 1


@pytest.fixture
def family(connector, account):
    """An account, four people who work there, and the first of them as its primary contact."""
    people = [
        connector.create(
            "contact",
            Write({"last_name": f"L{n};)'", "email": f"{n}@x.example", "account_id": account.rid}),
        )
        for n in range(4)
    ]
    connector.update("account", account.rid, Write({"primary_contact_id": people[0].rid}))
    yield {"account": account.rid, "people": [each.rid for each in people]}
    for each in people:
        connector.delete("contact", each.rid)


def expanded(connector, entity, rid, text):
    """What a point read and a query give for one record; they have to agree."""
    expand = parse_expand(text)
    one = connector.get(entity, rid, expand=expand)
    (other,) = connector.query(entity, Query(parse_filter(f"id eq {rid}"), expand=expand)).items
    assert one.expanded == other.expanded
    assert one.fields == other.fields
    return one


def test_one_record_and_a_list_come_along_under_the_names_asked_for(connector, family):
    text = "primary_contact_id($select=last_name),contact_customer_accounts($select=email,lastname),parentaccountid"
    got = expanded(connector, "account", family["account"], text)
    assert got.expanded.keys() == {"primary_contact_id", "contact_customer_accounts", "parentaccountid"}
    first = got.expanded["primary_contact_id"]
    assert (first.rid, first.fields) == (family["people"][0], {"last_name": "L0;)'"})
    people = got.expanded["contact_customer_accounts"]
    found = {each.rid: (each.fields["last_name"], each.fields["email"]) for each in people.changes}
    assert found == {rid: (f"L{n};)'", f"{n}@x.example") for n, rid in enumerate(family["people"])}
    assert not people.more
    assert got.expanded["parentaccountid"] is None
    ways = ("primarycontactid", "parentaccountid", "contact_customer_accounts")
    assert not [name for name in got.raw if name.startswith(ways)]


def test_without_a_select_every_canonical_field_comes_along(connector, family):
    wanted = connector.get("contact", family["people"][0])
    got = expanded(connector, "account", family["account"], "primarycontactid,contact_customer_accounts")
    people = {each.rid: each for each in got.expanded["contact_customer_accounts"].changes}
    for found in (got.expanded["primarycontactid"], people[wanted.rid]):
        assert (found.fields, found.version) == (wanted.fields, wanted.version)


@pytest.mark.parametrize(("top", "more"), [(1, True), (3, True), (4, False), (5, False)])
def test_a_list_that_is_cut_short_says_so_and_a_whole_one_does_not(connector, family, top, more):
    text = f"contact_customer_accounts($select=email;$orderby=last_name desc;$top={top})"
    people = expanded(connector, "account", family["account"], text).expanded["contact_customer_accounts"]
    assert [each.fields["email"] for each in people.changes] == [f"{n}@x.example" for n in (3, 2, 1, 0)][:top]
    assert people.more is more


def test_a_list_is_filtered_by_canonical_and_native_names_and_any_text(connector, family):
    either = "(last_name eq 'L1;)''' or emailaddress1 eq '2@x.example')"
    text = f"contact_customer_accounts($filter={either} and status eq 'active';$orderby=email)"
    people = expanded(connector, "account", family["account"], text).expanded["contact_customer_accounts"]
    assert [each.fields["last_name"] for each in people.changes] == ["L1;)'", "L2;)'"]


def test_a_contact_leads_to_its_account_or_to_the_contact_that_it_belongs_to(connector, family):
    text = "account_id($select=name),parentcustomerid_contact"
    got = expanded(connector, "contact", family["people"][1], text).expanded
    assert got["account_id"].rid == family["account"]
    assert got["parentcustomerid_contact"] is None


def test_following_pages_are_expanded_as_the_first_one(connector, family):
    expand = parse_expand("contact_customer_accounts($filter=lastname ne 'a&b;c+d';$top=2),primarycontactid")
    others = [connector.create("account", Write({"name": f"Page {n}"})).rid for n in range(3)]
    read, cursor, pages = {}, None, 0
    while True:
        page = connector.query("account", Query(select=("name",), top=2, cursor=cursor, expand=expand))
        read |= {each.rid: each.expanded for each in page.items}
        pages += 1
        if page.cursor is None:
            break
        cursor = json.loads(json.dumps(page.cursor))
    assert pages >= 2
    assert {*others, family["account"]} <= read.keys()
    assert all(found.keys() == {"contact_customer_accounts", "primarycontactid"} for found in read.values())
    assert read[others[0]]["contact_customer_accounts"] == Related([], more=False)
    people = read[family["account"]]["contact_customer_accounts"]
    assert (len(people.changes), people.more) == (2, True)
    assert read[family["account"]]["primarycontactid"].rid == family["people"][0]
    for rid in others:
        connector.delete("account", rid)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contact_customer_accounts($select=nope)", "select: 'nope' is no field of contact; known are first_name"),
        ("contact_customer_accounts($orderby=nope)", "orderby: 'nope' is no field of contact; known are first_name"),
        ("contact_customer_accounts($filter=nope eq 1)", "filter: 'nope' is no field of contact; known are"),
        ("contact_customer_accounts($filter=email eq 1)", "The filter compares email with '1'; expected a text"),
        ("parent_id($select=last_name)", "select: 'last_name' is no field of account; known are name"),
    ],
)  # fmt: skip
def test_a_wrong_name_inside_is_refused_under_expand(connector, account, text, message):
    for ask in (
        lambda expand: connector.get("account", account.rid, expand=expand),
        lambda expand: connector.query("account", Query(expand=expand)),
    ):
        with pytest.raises(BadRequest) as caught:
            ask(parse_expand(text))
        assert caught.value.message.startswith(f"expand: in {text.partition('(')[0]}: {message}")
        assert [each.field for each in caught.value.errors] == ["expand"]


def test_a_row_whose_time_has_not_come_yet_is_not_read_twice(tmp_path):
    """A clock that is ahead, or a Date header that lags: no row has carried the cursor on yet."""
    with running(Dataverse(), tls_ca=tmp_path / "ca.pem") as sandbox, Client(sandbox.url) as person:
        tracking = {"tracking": {"account": False}}
        assert person.call("POST", "/_sandbox/options", tracking).status == 200
        row = {"values": {"name": "Ahead"}, "at": "2099-01-01T00:00:00Z"}
        assert person.call("POST", "/_sandbox/rows/account", row).status == 200
        facts = sandbox.describe()
        settings = {"base_url": sandbox.https, "authority": sandbox.https, "tenant_id": facts["tenant"]}
        with closing(hub_for(tmp_path / "ca.pem")) as hub:
            settings |= {"client_id": facts["client_id"]}
            wanted = Wanted(settings, {"client_secret": facts["client_secret"]})
            hub.admin.create(DEFAULT_TENANT, "demo", "dynamics365", wanted)
            connector = hub.connect(DEFAULT_TENANT, "demo").connector
            first = connector.changes("account", None, size=10)
            assert [each.fields["name"] for each in first.changes] == ["Ahead"]
            assert connector.changes("account", first.cursor, size=10).changes == []
