"""Microsoft's own client for Dataverse drives the sandbox over https, as it would drive an environment."""

import sys
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from types import ModuleType
from uuid import UUID

import pytest
from azure.core.credentials import AccessToken
from azure.identity import ClientSecretCredential

from sandbox.dynamics365 import Dataverse
from sandbox.testing import Client, running

FORMATTED = "OData.Community.Display.V1.FormattedValue"
NOBODY = "11111111-1111-4111-8111-111111111111"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A sandbox over https, whose certificate this process trusts."""
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    with running(Dataverse(), tls_ca=ca) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(ca))
        yield server


@pytest.fixture(scope="module")
def sdk(sandbox):
    """Makes the SDK's client with a credential.

    The SDK imports pandas and numpy for its data frames, which are 157 MB and not called here: where they are not
    installed, empty modules let it be imported. What came to need them would fail at once.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("numpy", "pandas"):
            if find_spec(name) is None:
                patch.setitem(sys.modules, name, ModuleType(name))
        from PowerPlatform.Dataverse.client import DataverseClient
    return lambda credential: DataverseClient(sandbox.https, credential)


@pytest.fixture(scope="module")
def client(sandbox, sdk):
    """Signed in by Azure's own library: a token from the sandbox's sign-in service, by client secret."""
    facts = sandbox.describe()
    credential = ClientSecretCredential(
        facts["tenant"],
        facts["client_id"],
        facts["client_secret"],
        authority=sandbox.https,
        disable_instance_discovery=True,
    )
    with credential, sdk(credential) as client:
        yield client


@pytest.fixture
def control(sandbox):
    with Client(sandbox.url) as client:
        yield client
        client.call("DELETE", "/_sandbox/faults")


@pytest.fixture
def refused(client):
    """What the SDK raises: (status, Dataverse's code)."""
    from PowerPlatform.Dataverse.core.errors import HttpError

    def caught(call):
        with pytest.raises(HttpError) as raised:
            call()
        return raised.value.status_code, raised.value.details["service_error_code"]

    return caught


@pytest.fixture(scope="module")
def account(client):
    return client.records.create("account", {"name": "Muñoz & Cía", "industrycode": "Consulting"})


@pytest.fixture(scope="module")
def people(client, account):
    """The ids of 25 contacts of the account, made by one CreateMultiple."""
    company = {"parentcustomerid_account@odata.bind": f"/accounts({account})"}
    return client.records.create(
        "contact", [{"lastname": f"Person {number:02}", **company} for number in range(25)]
    )


# A row of each table: what is written, with labels of choices, and what then is read of it.
ROWS = {
    "account": (
        {"Name": "Café Ñandú", "IndustryCode": "Consulting", "customertypecode": "Customer", "revenue": 12.5},
        {"name": "Café Ñandú", "industrycode": 7, "customertypecode": 3, "revenue": 12.5, "statecode": 0},
    ),
    "contact": (
        {"firstname": "Ana", "lastname": "Núñez", "birthdate": "1990-02-28", "donotbulkemail": True},
        {"fullname": "Ana Núñez", "birthdate": "1990-02-28", "donotbulkemail": True, "statecode": 0},
    ),
    "lead": (
        {"subject": "Asks", "lastname": "Lee", "leadqualitycode": "Hot", "leadsourcecode": "Trade Show"},
        {"subject": "Asks", "leadqualitycode": 1, "leadsourcecode": 7, "statecode": 0, "statuscode": 1},
    ),
    "opportunity": (
        {"name": "Deal", "estimatedclosedate": "2026-12-31", "closeprobability": 40, "opportunityratingcode": "Warm"},
        {"estimatedclosedate": "2026-12-31", "closeprobability": 40, "opportunityratingcode": 2, "statecode": 0},
    ),
    "campaign": (
        {"name": "Spring", "typecode": "Event", "budgetedcost": 100},
        {"name": "Spring", "typecode": 3, "budgetedcost": 100, "statecode": 0},
    ),
    "task": (
        {"subject": "Call back", "prioritycode": "High", "scheduledend": "2026-12-01T10:00:00Z"},
        {"subject": "Call back", "prioritycode": 2, "scheduledend": "2026-12-01T10:00:00Z", "statecode": 0},
    ),
    "appointment": (
        {"subject": "Visit", "scheduledstart": "2026-12-01T10:00:00Z", "scheduledend": "2026-12-01T11:00:00Z"},
        {"subject": "Visit", "scheduledstart": "2026-12-01T10:00:00Z", "scheduledend": "2026-12-01T11:00:00Z"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("table", ROWS)
def test_a_row_is_created_read_updated_and_deleted(client, table):
    written, expected = ROWS[table]
    rid = client.records.create(table, written)
    row = client.records.retrieve(table, rid, select=[*expected, "modifiedon"])
    assert {name: row[name] for name in expected} == expected
    assert (row.id, row.table) == (rid, table)
    client.records.update(table, rid, {"description": "ÁÉ 漢字"})
    after = client.records.retrieve(table, rid, select=["description", *expected])
    assert after["description"] == "ÁÉ 漢字"
    assert {name: after[name] for name in expected} == expected
    assert after.etag != row.etag
    client.records.delete(table, rid)
    assert client.records.retrieve(table, rid) is None


def test_a_case_belongs_to_its_customer_and_tells_labels(client, account):
    customer = {"customerid_account@odata.bind": f"/accounts({account})"}
    rid = client.records.create(
        "incident", {"title": "No signal", "caseorigincode": "Phone", "prioritycode": "high", **customer}
    )
    row = client.records.retrieve(
        "incident",
        rid,
        select=["title", "ticketnumber", "caseorigincode", "prioritycode", "statuscode", "_customerid_value"],
        expand=["customerid_account($select=name)"],
        include_annotations="*",
    )
    assert (row["caseorigincode"], row[f"caseorigincode@{FORMATTED}"]) == (1, "Phone")
    assert (row["prioritycode"], row[f"statuscode@{FORMATTED}"]) == (1, "In Progress")
    assert row["ticketnumber"].startswith("CAS-")
    assert row["_customerid_value"] == account
    assert row["_customerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] == "account"
    assert row["customerid_account"]["name"] == row[f"_customerid_value@{FORMATTED}"] == "Muñoz & Cía"


def test_documents_with_lines(client, account):
    unit = client.records.list("uom", select=["uomid", "_uomscheduleid_value"], top=1).first()
    product = client.records.create(
        "product",
        {
            "name": "Router", "productnumber": "R-SDK-1", "quantitydecimal": 2,
            "defaultuomid@odata.bind": f"/uoms({unit['uomid']})",
            "defaultuomscheduleid@odata.bind": f"/uomschedules({unit['_uomscheduleid_value']})",
        },
    )  # fmt: skip
    for table, line in (
        ("quote", "quotedetail"),
        ("salesorder", "salesorderdetail"),
        ("invoice", "invoicedetail"),
    ):
        prices = client.records.list("pricelevel", select=["pricelevelid"], top=1).first()["pricelevelid"]
        document = client.records.create(
            table,
            {
                "name": f"A {table}",
                "customerid_account@odata.bind": f"/accounts({account})",
                "pricelevelid@odata.bind": f"/pricelevels({prices})",
            },
        )
        client.records.create(
            line,
            {
                f"{table}id@odata.bind": f"/{client.tables.get(table)['entity_set_name']}({document})",
                "productid@odata.bind": f"/products({product})",
                "uomid@odata.bind": f"/uoms({unit['uomid']})",
                "quantity": 3, "ispriceoverridden": True, "priceperunit": 10.25,
            },
        )  # fmt: skip
        lines = client.records.list(line, filter=f"_{table}id_value eq {document}", select=["extendedamount"])
        assert [row["extendedamount"] for row in lines] == [30.75]
        assert client.records.retrieve(table, document, select=["totalamount"])["totalamount"] == 30.75


def test_lists_come_in_pages(client, account, people):
    where = f"_parentcustomerid_value eq {account}"
    pages = list(
        client.records.list_pages(
            "contact", filter=where, select=["LastName"], orderby=["LastName desc"], page_size=10, count=True
        )
    )
    assert [len(page) for page in pages] == [10, 10, 5]
    names = [row["lastname"] for page in pages for row in page]
    assert names == [f"Person {number:02}" for number in reversed(range(25))]
    assert sorted(row["contactid"] for page in pages for row in page) == sorted(people)
    top = client.records.list("contact", filter=where, orderby=["lastname"], top=3)
    assert [row["lastname"] for row in top] == ["Person 00", "Person 01", "Person 02"]


def filters():
    from PowerPlatform.Dataverse.models.filters import col, raw

    name, code = col("name"), col("industrycode")
    return {
        "eq": (name == "o'Brien", {"O'Brien"}),
        "ne": (name != "O'Brien", {"Ahorro", "Zeta"}),
        "like": (name.like("%horr%"), {"Ahorro"}),
        "starts": (name.startswith("zE"), {"Zeta"}),
        "not like": (name.not_like("%a"), {"O'Brien", "Ahorro"}),
        "in": (code.in_([1, 2]), {"O'Brien", "Ahorro"}),
        "not in": (code.not_in([1]) & code.is_not_null(), {"Ahorro"}),
        "null": (code.is_null(), {"Zeta"}),
        "between": (col("revenue").between(10.5, 20), {"Ahorro"}),
        "or": ((code == 1) | (col("revenue") > 20), {"O'Brien", "Zeta"}),
        "not": (~(code == 1), {"Ahorro", "Zeta"}),
        "time": (col("createdon") > datetime(2000, 1, 1, tzinfo=UTC), {"O'Brien", "Ahorro", "Zeta"}),
        "text": (raw("contains(name,'e') and statecode eq 0"), {"O'Brien", "Zeta"}),
    }


@pytest.fixture(scope="module")
def filtered(client):
    """The number that marks three accounts to be asked for."""
    client.records.create(
        "account",
        [
            {"name": "O'Brien", "sic": "F-1", "industrycode": 1, "revenue": 10},
            {"name": "Ahorro", "sic": "F-1", "industrycode": 2, "revenue": 20},
            {"name": "Zeta", "sic": "F-1", "revenue": 30},
        ],
    )
    return "F-1"


@pytest.mark.parametrize(
    "kind",
    ["eq", "ne", "like", "starts", "not like", "in", "not in", "null", "between", "or", "not", "time", "text"],
)  # fmt: skip
def test_filters(client, filtered, kind):
    from PowerPlatform.Dataverse.models.filters import col

    asked, expected = filters()[kind]
    found = client.records.list("account", filter=(col("sic") == filtered) & asked, select=["name"])
    assert {row["name"] for row in found} == expected


def test_the_query_builder_with_options_of_an_expand(client, account, people):
    from PowerPlatform.Dataverse.models.filters import col
    from PowerPlatform.Dataverse.models.query_builder import ExpandOption

    contacts = ExpandOption("contact_customer_accounts").select("lastname").order_by("lastname").top(2)
    query = (
        client.query.builder("account")
        .select("name", "industrycode")
        .where(col("accountid") == UUID(account))
    )
    found = query.include_formatted_values().expand(contacts).execute()
    row = found.first()
    assert row[f"industrycode@{FORMATTED}"] == "Consulting"
    assert [each["lastname"] for each in row["contact_customer_accounts"]] == ["Person 00", "Person 01"]


def test_many_rows_are_updated_at_once(client, people):
    client.records.update("contact", people[:3], {"jobtitle": "Buyer"})
    client.records.update("contact", people[3:5], [{"jobtitle": "Head"}, {"jobtitle": "Chair"}])
    titles = [client.records.retrieve("contact", rid, select=["jobtitle"])["jobtitle"] for rid in people[:6]]
    assert titles == ["Buyer", "Buyer", "Buyer", "Head", "Chair", None]


def test_one_bad_row_of_many_undoes_all(client, refused, people):
    before = len(client.records.list("contact"))
    bad = [{"lastname": "Good"}, {"lastname": "x" * 51}]
    assert refused(lambda: client.records.create("contact", bad)) == (400, "0x80044331")
    assert len(client.records.list("contact")) == before
    changes = [{"department": "Sales"}, {"department": "x" * 101}]
    assert refused(lambda: client.records.update("contact", people[:2], changes)) == (400, "0x80044331")
    assert client.records.retrieve("contact", people[0], select=["department"])["department"] is None


def test_many_rows_are_deleted(client):
    made = client.records.create("lead", [{"subject": f"S{n}", "lastname": "Gone"} for n in range(5)])
    job = client.records.delete("lead", made[:3])
    assert len(job) == 36
    client.records.delete("lead", made[3:], use_bulk_delete=False)
    assert len(client.records.list("lead", filter="lastname eq 'Gone'")) == 0


def test_rows_by_an_alternate_key_are_made_or_changed(client):
    def item(number, name):
        return {"alternate_key": {"accountnumber": number}, "record": {"name": name}}

    client.records.upsert("account", [item("SDK-1", "First")])
    client.records.upsert("account", [item("SDK-1", "First again"), item("SDK-2", "Second")])
    found = client.records.list(
        "account", filter="startswith(accountnumber,'SDK-')", orderby=["accountnumber"]
    )
    assert [row["name"] for row in found] == ["First again", "Second"]


def test_a_batch_has_an_answer_for_each_part(client, account):
    batch = client.batch.new()
    batch.records.create("account", {"name": "In a batch"})
    batch.records.list("account", filter="name eq 'In a batch'", select=["name"])
    batch.records.update("account", account, {"telephone1": "+57 1"})
    batch.records.delete("account", NOBODY)
    batch.records.create("account", {"nosuch": 1})
    result = batch.execute(continue_on_error=True)
    assert [each.status_code for each in result.responses] == [204, 200, 204, 404, 400]
    assert [row["name"] for row in result.responses[1].data["value"]] == ["In a batch"]
    assert result.responses[3].error_code == "0x80040217"


def test_a_change_set_happens_as_a_whole(client):
    def carried_out(last_name):
        batch = client.batch.new()
        with batch.changeset() as changes:
            company = changes.records.create("account", {"name": f"With {last_name[:9]}"})
            changes.records.create(
                "contact", {"lastname": last_name, "parentcustomerid_account@odata.bind": company}
            )
            changes.records.update("account", company, {"telephone1": "9"})
        return batch.execute(continue_on_error=True)

    done = carried_out("Whole")
    assert [each.status_code for each in done.responses] == [204, 204, 204]
    row = client.records.list(
        "contact", filter="lastname eq 'Whole'", expand=["parentcustomerid_account"]
    ).first()
    assert row["parentcustomerid_account"]["telephone1"] == "9"
    assert [each.status_code for each in carried_out("x" * 51).responses] == [400]
    assert len(client.records.list("account", filter="startswith(name,'With xxx')")) == 0


def test_tables_columns_and_relationships(client, account):
    info = client.tables.get("Incident")
    assert (info.logical_name, info.entity_set_name, info.primary_id_attribute) == (
        "incident",
        "incidents",
        "incidentid",
    )
    assert client.tables.get("nosuch") is None
    assert [t["LogicalName"] for t in client.tables.list(filter="SchemaName eq 'Lead'", select=["LogicalName"])] == ["lead"]  # fmt: skip
    money = client.tables.list_columns(
        "invoice",
        select=["LogicalName"],
        filter="AttributeType eq Microsoft.Dynamics.CRM.AttributeTypeCode'Money'",
    )
    assert {"totalamount", "totaltax"} <= {column["LogicalName"] for column in money}
    assert client.tables.get_column("lead", "Subject")["MaxLength"] == 300
    assert client.tables.get_column("lead", "nosuch") is None
    assert [key.key_attributes for key in client.tables.get_alternate_keys("account")] == [["accountnumber"]]
    found = client.tables.get_relationship("incident_customer_accounts")
    assert (found.referenced_entity, found.referencing_entity) == ("account", "incident")
    assert client.tables.get_relationship("nosuch") is None
    ways = {
        each["nav_property"]: each["target_entity_set"] for each in client.query.odata_expands("opportunity")
    }
    assert ways["customerid_contact"] == "contacts"
    assert ways["originatingleadid"] == "leads"


def test_what_is_missing(client, refused):
    from PowerPlatform.Dataverse.core.errors import MetadataError

    assert client.records.retrieve("account", NOBODY) is None
    assert refused(lambda: client.records.update("account", NOBODY, {"name": "x"})) == (404, "0x80040217")
    assert refused(lambda: client.records.delete("account", NOBODY)) == (404, "0x80040217")
    with pytest.raises(MetadataError):
        client.records.list("nosuch")


WRONG = {
    "column written": (lambda c: c.records.create("account", {"nosuch": 1}), 400, "0x80048d19"),
    "column selected": (lambda c: c.records.list("account", select=["nosuch"]), 400, "0x80060888"),
    "column in a filter": (lambda c: c.records.list("account", filter="nosuch eq 1"), 400, "0x80060888"),
    "too long": (lambda c: c.records.create("lead", {"lastname": "x" * 51}), 400, "0x80044331"),
    "no such label": (lambda c: c.records.create("lead", {"lastname": "x", "leadsourcecode": "Nosuch"}), 400, "0x80048d19"),
    "customer missing": (lambda c: c.records.create("incident", {"title": "x"}), 400, "0x80040203"),
    "case of a navigation": (lambda c: c.records.create("incident", {"title": "x", "CustomerId_account@odata.bind": f"/accounts({NOBODY})"}), 400, "0x80048d19"),
    "SQL": (lambda c: c.query.sql("SELECT TOP 1 name FROM account"), 501, ""),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused(client, refused, what):
    call, status, code = WRONG[what]
    assert refused(lambda: call(client)) == (status, code)


def test_states_that_take_an_action_are_not_set_by_an_update(client, refused, account):
    customer = {"customerid_account@odata.bind": f"/accounts({account})"}
    case = client.records.create("incident", {"title": "Closes", **customer})
    assert (
        refused(lambda: client.records.update("incident", case, {"statecode": 1, "statuscode": 5}))[0] == 400
    )
    client.records.update("account", account, {"statecode": 1, "statuscode": 2})
    row = client.records.retrieve("account", account, select=["statuscode"], include_annotations=FORMATTED)
    assert row[f"statuscode@{FORMATTED}"] == "Inactive"
    client.records.update("account", account, {"statecode": 0, "statuscode": 1})


def test_a_busy_vendor_is_told_with_its_time(client, control):
    from PowerPlatform.Dataverse.core.errors import HttpError

    client.records.list("account", top=1)  # what it knows of the table is known
    control.call("POST", "/_sandbox/faults", {"kind": "throttle", "count": 1, "retry_after": 7})
    with pytest.raises(HttpError) as raised:
        client.records.list("account", top=1)
    assert (raised.value.status_code, raised.value.is_transient) == (429, True)
    assert raised.value.details["retry_after"] == 7
    assert raised.value.details["service_error_code"] == "0x80072322"
    assert raised.value.details["service_request_id"]


def test_who_is_nobody_is_refused(sdk):
    from PowerPlatform.Dataverse.core.errors import HttpError

    class Stranger:
        def get_token(self, *scopes, **_options):
            return AccessToken("not.a.token", int(time.time()) + 600)

    with sdk(Stranger()) as client, pytest.raises(HttpError) as raised:
        client.records.list("account")
    assert raised.value.status_code == 401
