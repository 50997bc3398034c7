"""Leads, opportunities, products, quotes, orders and invoices of the Dataverse sandbox, by raw HTTP."""

import json
import re
import uuid
from decimal import Decimal

import pytest

from sandbox.dynamics365 import Dataverse
from sandbox.testing import options, running, signed_in

API = "/api/data/v9.2"
TRACK = {"Prefer": "odata.track-changes"}


@pytest.fixture(scope="module")
def client():
    with running(Dataverse()) as sandbox, signed_in(sandbox) as client:
        yield client


def create(client, set_name, **values):
    answer = client.call("POST", f"{API}/{set_name}", values)
    assert answer.status == 204, answer.body
    return answer.headers["OData-EntityId"][-37:-1]


def read(client, path, select="", expand=""):
    wanted = {k: v for k, v in (("select", select), ("expand", expand)) if v}
    answer = client.call("GET", f"{API}/{path}" + options(**wanted))
    assert answer.status == 200, answer.body
    return json.loads(answer.body, parse_float=Decimal)


def patch(client, path, **values):
    return client.call("PATCH", f"{API}/{path}", values, {"If-Match": "*"})


def refused(answer, status, code):
    assert (answer.status, answer.code) == (status, code), answer.body
    return answer.json()["error"]["message"]


@pytest.fixture
def account(client):
    return create(client, "accounts", name="Buyer")


@pytest.fixture
def quote(client, account):
    return create(client, "quotes", name="Q", **{"customerid_account@odata.bind": f"/accounts({account})"})


def line(client, parent, key, set_name="quotedetails", **values):
    """A write-in line of a document."""
    about = {
        "isproductoverridden": True,
        "productdescription": "Thing",
        f"{parent}id@odata.bind": f"/{parent}s({key})",
    }
    return create(client, set_name, **{**about, **values})


def act(client, name, part, key, status, **values):
    table = {"OpportunityClose": "opportunity", "QuoteClose": "quote", "OrderClose": "salesorder"}[part]
    plural = "opportunities" if table == "opportunity" else f"{table}s"
    told = {"subject": "Closed", f"{table}id@odata.bind": f"/{plural}({key})", **values}
    return client.call("POST", f"{API}/{name}", {"Status": status, part: told})


# --- leads and opportunities --------------------------------------------------------------------------------


def test_a_lead_has_its_columns_names_and_lookups(client, account):
    contact = create(client, "contacts", lastname="Person")
    campaign = create(
        client, "campaigns", name="Spring", typecode=2, budgetedcost=100, proposedstart="2026-03-01"
    )
    lead = create(
        client, "leads", subject="Hot one", firstname="Ana", lastname="Sol", companyname="Sol SA", leadsourcecode=8,
        estimatedamount=10.5, websiteurl="https://sol.example", address1_city="Lima",
        **{
            "parentaccountid@odata.bind": f"/accounts({account})",
            "parentcontactid@odata.bind": f"/contacts({contact})",
            "campaignid@odata.bind": f"/campaigns({campaign})",
        },
    )  # fmt: skip
    row = read(
        client,
        f"leads({lead})",
        "fullname,leadqualitycode,statecode,statuscode,estimatedamount,address1_composite,_campaignid_value,_parentaccountid_value",
    )
    assert row["fullname"] == "Ana Sol"
    assert (row["statecode"], row["statuscode"], row["leadqualitycode"]) == (0, 1, 2)
    assert str(row["estimatedamount"]) == "10.5000"
    assert row["address1_composite"] == "Lima"
    assert (row["_campaignid_value"], row["_parentaccountid_value"]) == (campaign, account)
    assert patch(client, f"leads({lead})", statecode=2, statuscode=5).status == 204
    refused(patch(client, f"leads({lead})", statecode=1, statuscode=4), 400, "0x80048408")
    assert patch(client, f"leads({lead})", jobtitle="Still writable", statecode=0).status == 204
    assert read(client, f"leads({lead})", "statuscode")["statuscode"] == 1


def test_navigation_names_are_case_sensitive_and_name_their_target(client, account):
    bind = {"customerid_Account@odata.bind": f"/accounts({account})"}
    assert "undeclared property 'customerid_Account'" in refused(
        client.call("POST", f"{API}/opportunities", {"name": "x", **bind}), 400, "0x80048d19"
    )
    for nav, to in (("customerid", f"/accounts({account})"), ("customerid_contact", f"/accounts({account})")):
        wrong = client.call("POST", f"{API}/quotes", {"name": "x", f"{nav}@odata.bind": to})
        refused(wrong, 400, "0x80048d19")


def test_qualifying_a_lead_makes_rows_and_says_which(client):
    lead = create(
        client,
        "leads",
        subject="Deal",
        firstname="Ana",
        lastname="Sol",
        companyname="Sol SA",
        emailaddress1="a@sol.example",
    )
    url = f"{API}/leads({lead})/Microsoft.Dynamics.CRM.QualifyLead"
    flags = {"CreateAccount": True, "CreateContact": True, "CreateOpportunity": True}
    refused(client.call("POST", url, flags), 400, "0x80048d19")  # no Status
    refused(client.call("POST", url, {**flags, "Status": 4}), 400, "0x80048408")
    assert (
        client.call("POST", url.replace("Microsoft.Dynamics.CRM.", ""), {**flags, "Status": 3}).status == 400
    )
    made = client.call("POST", url, {**flags, "Status": 3})
    assert made.status == 200
    ids = {v["@odata.type"].rpartition(".")[2]: v for v in made.json()["value"]}
    assert ids.keys() == {"account", "contact", "opportunity"}
    opportunity = read(
        client,
        f"opportunities({ids['opportunity']['opportunityid']})",
        "name,_parentaccountid_value,_originatingleadid_value,_customerid_value",
    )
    assert opportunity["name"] == "Deal"
    assert opportunity["_originatingleadid_value"] == lead
    assert (
        opportunity["_parentaccountid_value"]
        == opportunity["_customerid_value"]
        == ids["account"]["accountid"]
    )
    row = read(client, f"leads({lead})", "statecode,statuscode,_qualifyingopportunityid_value")
    assert (row["statecode"], row["statuscode"]) == (1, 3)
    assert row["_qualifyingopportunityid_value"] == ids["opportunity"]["opportunityid"]
    refused(client.call("POST", url, {**flags, "Status": 3}), 400, "0x80040211")


@pytest.mark.parametrize(
    ("name", "state", "status", "wrong"), [("WinOpportunity", 1, 3, 4), ("LoseOpportunity", 2, 5, 3)]
)
def test_opportunities_are_closed_by_their_actions_and_then_read_only(client, name, state, status, wrong):
    key = create(client, "opportunities", name="Deal", estimatedvalue=5)
    path = f"opportunities({key})"
    assert f"use the {name}Request message" in refused(
        patch(client, path, statecode=state, statuscode=status), 400, "0x80048408"
    )
    refused(act(client, name, "OpportunityClose", key, wrong), 400, "0x80048408")
    refused(act(client, name, "OpportunityClose", str(uuid.uuid4()), status), 404, "0x80040217")
    refused(client.call("POST", f"{API}/{name}", {"Status": status}), 400, "0x80040203")
    refused(
        client.call("POST", f"{API}/{name}", {"Status": status, "OpportunityClose": {"subject": "x"}}),
        400,
        "0x80040203",
    )
    refused(act(client, name, "OpportunityClose", key, None), 400, "0x80048d19")
    done = act(
        client,
        name,
        "OpportunityClose",
        key,
        status,
        actualrevenue=4.5,
        actualend="2026-02-03T10:00:00Z",
        description="why",
    )
    assert (done.status, done.body) == (204, b"")
    row = read(
        client,
        path,
        "statecode,statuscode,actualvalue,actualclosedate",
        "Opportunity_OpportunityClose($select=subject,description)",
    )
    assert (row["statecode"], row["statuscode"], row["actualclosedate"]) == (state, status, "2026-02-03")
    assert row["actualvalue"] == Decimal("4.5")
    assert [c["description"] for c in row["Opportunity_OpportunityClose"]] == ["why"]
    refused(act(client, name, "OpportunityClose", key, status), 400, "0x80040211")
    refused(patch(client, path, name="Late"), 400, "0x80040220")
    refused(client.call("DELETE", f"{API}/{path}/estimatedvalue"), 400, "0x80040220")
    assert patch(client, path, name="Again", statecode=0, statuscode=1).status == 204
    assert patch(client, path, name="Open").status == 204


def test_an_opportunity_checks_its_range_and_computed_columns(client):
    key = create(client, "opportunities", name="Deal")
    refused(patch(client, f"opportunities({key})", closeprobability=101), 400, "0x80044331")
    refused(patch(client, f"opportunities({key})", totalamount=1), 400, "0x80048d19")
    assert read(client, f"opportunities({key})", "_transactioncurrencyid_value")[
        "_transactioncurrencyid_value"
    ]


# --- documents ----------------------------------------------------------------------------------------------


def test_totals_follow_the_lines_and_nobody_else(client, quote):
    first = line(client, "quote", quote, quantity=2.5, priceperunit=10, manualdiscountamount=1, tax=2)
    line(client, "quote", quote, quantity=1, priceperunit=5)
    row = read(client, f"quotedetails({first})", "baseamount,extendedamount,quantity,quotedetailname")
    assert (row["baseamount"], row["extendedamount"]) == (Decimal(25), Decimal(26))
    assert row["quantity"] == Decimal("2.5")
    wanted = (
        "totallineitemamount,totaltax,totalamount,totaldiscountamount,totalamountlessfreight,totalamount_base"
    )

    def totals():
        row = read(client, f"quotes({quote})", wanted)
        return [row[n] for n in wanted.split(",")]

    assert totals() == [29, 2, 31, 0, 29, 31]
    assert (
        patch(client, f"quotes({quote})", freightamount=3, discountpercentage=10, discountamount=1).status
        == 204
    )
    assert totals() == [29, 2, Decimal("30.1"), Decimal("3.9"), Decimal("25.1"), Decimal("30.1")]
    assert patch(client, f"quotedetails({first})", quantity=1).status == 204
    assert totals()[0] == 14
    assert client.call("DELETE", f"{API}/quotedetails({first})").status == 204
    assert totals()[:2] == [5, 0]
    for name in ("totallineitemamount", "totaltax", "totalamount"):
        refused(patch(client, f"quotes({quote})", **{name: 1}), 400, "0x80048d19")
    for name in ("baseamount", "extendedamount"):
        refused(client.call("POST", f"{API}/quotedetails", {name: 1}), 400, "0x80048d19")


def test_lines_that_were_rolled_back_are_in_no_total(client, quote):
    line(client, "quote", quote, quantity=1, priceperunit=2)
    about = {
        "quoteid@odata.bind": f"/quotes({quote})",
        "isproductoverridden": True,
        "quantity": 1,
        "priceperunit": 3,
    }
    kind = {"@odata.type": "Microsoft.Dynamics.CRM.quotedetail"}
    targets = [{**kind, **about, "productdescription": "fine"}, {**kind, **about}]
    many = client.call(
        "POST", f"{API}/quotedetails/Microsoft.Dynamics.CRM.CreateMultiple", {"Targets": targets}
    )
    refused(many, 400, "0x80040203")
    assert read(client, f"quotes({quote})", "totalamount")["totalamount"] == 2
    line(client, "quote", quote, quantity=1, priceperunit=4)
    assert read(client, f"quotes({quote})", "totalamount")["totalamount"] == 6


def test_a_line_is_of_a_product_in_a_unit_or_written_in(client, quote):
    about = {"quoteid@odata.bind": f"/quotes({quote})", "quantity": 1}
    refused(
        client.call(
            "POST",
            f"{API}/quotedetails",
            {"quantity": 1, "isproductoverridden": True, "productdescription": "x"},
        ),
        400,
        "0x80040203",
    )
    refused(client.call("POST", f"{API}/quotedetails", about), 400, "0x80040203")
    refused(
        client.call("POST", f"{API}/quotedetails", {**about, "isproductoverridden": True}), 400, "0x80040203"
    )
    unit = client.call("GET", f"{API}/uoms?$select=name").json()["value"][0]["uomid"]
    product = create(
        client,
        "products",
        name="Bolt",
        productnumber=f"B-{uuid.uuid4()}",
        price=7,
        **{"defaultuomid@odata.bind": f"/uoms({unit})"},
    )
    of = {**about, "productid@odata.bind": f"/products({product})"}
    refused(client.call("POST", f"{API}/quotedetails", of), 400, "0x80040203")
    of["uomid@odata.bind"] = f"/uoms({unit})"
    # Without ispriceoverridden the price is the product's, whatever is sent.
    key = create(client, "quotedetails", priceperunit=1, **of)
    assert read(client, f"quotedetails({key})", "priceperunit,productname")["priceperunit"] == 7
    key = create(client, "quotedetails", priceperunit=1, ispriceoverridden=True, **of)
    assert read(client, f"quotedetails({key})", "priceperunit,productname")["productname"] == "Bolt"
    assert read(client, f"quotedetails({key})", "priceperunit")["priceperunit"] == 1


@pytest.mark.parametrize(
    ("set_name", "number", "lines"),
    [
        ("quotes", "quotenumber", "quote_details"),
        ("salesorders", "ordernumber", "order_details"),
        ("invoices", "invoicenumber", "invoice_details"),
    ],
)
def test_documents_number_themselves_and_take_their_lines_along(client, account, set_name, number, lines):
    write_in = {"isproductoverridden": True, "quantity": 1, "priceperunit": 4}
    key = create(
        client, set_name, name="Whole", billto_city="Quito", shipto_line1="Calle 1",
        **{"customerid_account@odata.bind": f"/accounts({account})", lines: [{**write_in, "productdescription": "a"}, {**write_in, "productdescription": "b"}]},
    )  # fmt: skip
    row = read(
        client,
        f"{set_name}({key})",
        f"{number},totalamount,billto_composite",
        f"{lines}($select=productdescription)",
    )
    assert re.fullmatch(r"[A-Z]{3}-\d{5}-\w{6}", row[number])
    assert row["totalamount"] == 8
    assert row["billto_composite"] == "Quito"
    assert sorted(x["productdescription"] for x in row[lines]) == ["a", "b"]
    own = create(client, set_name, name="Own", **{number: "MINE-1"})
    assert read(client, f"{set_name}({own})", number)[number] == "MINE-1"
    # One bad line refuses the whole document.
    before = client.call("GET", f"{API}/{set_name}/$count").body
    wrong = client.call(
        "POST",
        f"{API}/{set_name}",
        {"name": "Bad", lines: [{**write_in, "productdescription": "a"}, {"quantity": 1}]},
    )
    refused(wrong, 400, "0x80040203")
    assert client.call("GET", f"{API}/{set_name}/$count").body == before
    assert client.call("PATCH", f"{API}/{set_name}({key})", {lines: []}).status == 400
    # Lines go with their document.
    child = {"quotes": "quotedetails", "salesorders": "salesorderdetails", "invoices": "invoicedetails"}[
        set_name
    ]
    count = int(client.call("GET", f"{API}/{child}/$count").body)
    assert client.call("DELETE", f"{API}/{set_name}({key})").status == 204
    assert int(client.call("GET", f"{API}/{child}/$count").body) == count - 2


def test_a_quote_is_activated_by_an_update_and_closed_by_an_action(client, quote):
    detail = line(client, "quote", quote, quantity=1, priceperunit=1)
    path = f"quotes({quote})"
    refused(act(client, "WinQuote", "QuoteClose", quote, 4), 400, "0x80040211")  # still a draft
    refused(patch(client, path, statecode=2, statuscode=4), 400, "0x80048408")
    assert patch(client, path, statecode=1, statuscode=2).status == 204
    assert "CloseQuoteRequest" in refused(patch(client, path, statecode=3, statuscode=5), 400, "0x80048408")
    refused(act(client, "WinQuote", "QuoteClose", quote, 5), 400, "0x80048408")
    assert act(client, "CloseQuote", "QuoteClose", quote, 6).status == 204
    assert read(client, path, "statecode,statuscode,closedon")["statuscode"] == 6
    refused(patch(client, path, statecode=0, statuscode=1), 400, "0x80040220")
    refused(patch(client, path, name="x"), 400, "0x80040220")
    refused(patch(client, f"quotedetails({detail})", quantity=2), 400, "0x80040220")


def test_an_order_is_fulfilled_or_canceled_by_an_action_and_otherwise_updated(client, account):
    bind = {"customerid_account@odata.bind": f"/accounts({account})"}
    one, two = (
        create(client, "salesorders", name="O", requestdeliveryby="2026-05-01", **bind) for _ in range(2)
    )
    assert patch(client, f"salesorders({one})", statecode=1).status == 204
    assert read(client, f"salesorders({one})", "statuscode")["statuscode"] == 3
    assert "FulfillSalesOrderRequest" in refused(
        patch(client, f"salesorders({one})", statecode=3), 400, "0x80048408"
    )
    assert act(client, "FulfillSalesOrder", "OrderClose", one, 100001).status == 204
    assert act(client, "CancelSalesOrder", "OrderClose", two, -1).status == 204
    assert [read(client, f"salesorders({k})", "statuscode")["statuscode"] for k in (one, two)] == [100001, 4]
    assert patch(client, f"salesorders({one})", statecode=4, statuscode=100003).status == 204
    invoice = create(
        client,
        "invoices",
        name="I",
        duedate="2026-06-01",
        **{"salesorderid@odata.bind": f"/salesorders({one})"},
    )
    assert patch(client, f"invoices({invoice})", statecode=2, statuscode=100001).status == 204
    refused(patch(client, f"invoices({invoice})", statuscode=1), 400, "0x80048408")


# --- many, changes, samples ---------------------------------------------------------------------------------


def test_bulk_messages_take_own_ids_roll_back_and_can_be_missing(client):
    kind = {"@odata.type": "Microsoft.Dynamics.CRM.lead"}
    url = f"{API}/leads/Microsoft.Dynamics.CRM."
    given = [str(uuid.uuid4()) for _ in range(2)]
    targets = [{**kind, "leadid": i, "lastname": i[:4]} for i in given]
    made = client.call("POST", url + "CreateMultiple", {"Targets": targets})
    assert made.json()["Ids"] == given
    bad = [
        {**kind, "leadid": given[0], "lastname": "New"},
        {**kind, "leadid": given[1], "leadsourcecode": 99},
    ]
    refused(client.call("POST", url + "UpdateMultiple", {"Targets": bad}), 400, "0x8004431a")
    assert read(client, f"leads({given[0]})", "lastname")["lastname"] == given[0][:4]
    missing = [{**kind, "leadid": str(uuid.uuid4()), "lastname": "x"}]
    assert missing[0]["leadid"] in refused(
        client.call("POST", url + "UpdateMultiple", {"Targets": missing}), 404, "0x80040217"
    )
    assert client.call("POST", url + "DeleteMultiple", {"Targets": targets}).status == 404
    client.call("POST", "/_sandbox/options", {"multiple": {"lead": False}})
    try:
        assert client.call("POST", url + "CreateMultiple", {"Targets": targets}).status == 404
        assert (
            client.call("POST", url.replace("leads", "quotes") + "CreateMultiple", {"Targets": []}).status
            == 400
        )
    finally:
        client.call("POST", "/_sandbox/options", {"multiple": {"lead": True}})


@pytest.mark.parametrize(
    "set_name", ["leads", "opportunities", "products", "quotes", "salesorders", "invoices", "campaigns"]
)
def test_every_table_tells_of_its_changes(client, set_name):
    table = {"opportunities": "opportunity"}.get(set_name, set_name[:-1])
    facts = read(
        client,
        f"EntityDefinitions(LogicalName='{table}')",
        "EntitySetName,PrimaryIdAttribute,ChangeTrackingEnabled",
    )
    assert (facts["EntitySetName"], facts["ChangeTrackingEnabled"]) == (set_name, True)
    key, name = facts["PrimaryIdAttribute"], {"leads": "lastname"}.get(set_name, "name")
    first = client.call("GET", f"{API}/{set_name}?$select={name},versionnumber", headers=TRACK).json()
    made = create(client, set_name, **{name: "Changed"})
    (change,) = client.call("GET", first["@odata.deltaLink"]).json()["value"]
    assert (change[key], change[name]) == (made, "Changed")
    assert change["versionnumber"] > max((r["versionnumber"] for r in first["value"]), default=0)


def test_samples_of_every_table_can_be_asked_for():
    with running(Dataverse()) as sandbox, signed_in(sandbox) as client:
        system = sandbox.app.system
        for table in (*system.main_tables, *system.side_tables):
            filled = client.call("POST", "/_sandbox/fill", {"table": table, "count": 15, "seed": 3})
            assert filled.status == 200, filled.body
        stats = client.call("GET", "/_sandbox/stats").json()["rows"]
        assert {stats[t] for t in (*system.main_tables, *system.side_tables)} == {15}
        for row in read(
            client,
            "quotes",
            "totalamount,totaltax,freightamount,discountamount",
            "quote_details($select=extendedamount)",
        )["value"]:
            lines = sum(x["extendedamount"] for x in row["quote_details"])
            assert row["totalamount"] == lines + (row["freightamount"] or 0) - (row["discountamount"] or 0)
            assert row["quote_details"]
        # What was made with samples can be changed like any other row.
        for set_name in ("leads", "invoices", "campaigns", "products"):
            (row,) = client.call("GET", f"{API}/{set_name}?$top=1").json()["value"]
            key = next(v for k, v in row.items() if k == f"{set_name[:-1]}id")
            assert patch(client, f"{set_name}({key})", description="x").status == 204
        assert client.call("POST", "/_sandbox/fill", {"table": "systemuser"}).status == 400
