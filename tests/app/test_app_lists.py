"""Lists over HTTP: what is counted, what is refused by name, and stored records page by page."""

import uuid
from dataclasses import dataclass
from urllib.parse import quote, unquote

import pytest

from crm_core.connectors.dynamics365 import Dynamics365
from crm_core.errors import NotSupported
from crm_core.functions.crm import wants_count
from tests.app.conftest import SECRET, host, settings_of
from tests.conftest import ACCOUNT, ACCOUNT_KEY, running_azurite

pytestmark = [pytest.mark.xdist_group("app-filters"), pytest.mark.usefixtures("demo")]

LIVE, STORED = "/api/crm/accounts", "/api/records/accounts"
NO_SKIP = "skip: is not supported here; pages have no numbers; follow nextLink until there is none."


@dataclass
class Pulled:
    """Three accounts of one city, stored. `rids`: name -> remote id."""

    city: str
    slug: str
    rids: dict[str, str]


@pytest.fixture
def pulled(api, connect, account):
    city = f"City {uuid.uuid4()}"
    rids = {name: account(name=name, address1_city=city, telephone1="1") for name in ("Uno", "Dos", "Tres")}
    slug = f"lists-{city[-8:]}"
    connect(slug)
    assert api.run(slug)["status"] == "succeeded"
    return Pulled(city, slug, rids)


def where(city, more=""):
    return "filter=" + quote(f"city eq '{city}'{more}")


# --- counting ----------------------------------------------------------------------------------------------------


def test_a_system_that_can_t_count_says_so():
    class Silent(Dynamics365):
        counts = False

    with pytest.raises(NotSupported, match="can't count; leave count out and follow nextLink"):
        wants_count(Silent, {"count": "true"})
    assert not wants_count(Silent, {})


@pytest.mark.parametrize("parameter", ["count", "$count", "%24count"])
def test_a_live_list_is_counted_in_all_on_every_page(api, account, parameter):
    city = f"City {uuid.uuid4()}"
    for name in ("Uno", "Dos", "Tres"):
        account(name=name, address1_city=city)
    page = api.ok("GET", f"{LIVE}?connection=demo&{where(city)}&top=2&{parameter}=true")
    assert (page["count"], page["countIsLowerBound"], len(page["value"])) == (3, False, 2)
    after = api.ok("GET", page["nextLink"])
    assert (after["count"], after["countIsLowerBound"], len(after["value"])) == (3, False, 1)
    assert api.ok("GET", f"{LIVE}?connection=demo&{where('no such city')}&count=true") == {
        "count": 0, "countIsLowerBound": False, "value": [],
    }  # fmt: skip


def test_without_a_word_nothing_is_counted(api, sandbox):
    seen = sandbox.last_request()
    assert api.ok("GET", f"{LIVE}?connection=demo&top=1&count=false").keys() == {"value", "nextLink"}
    (request,) = (each for each in sandbox.requests_since(seen) if each["path"].endswith("/accounts"))
    assert "$count" not in unquote(request["query"])


@pytest.fixture(scope="module")
def crowd(start_sandbox):
    """A sandbox with one account more than Dataverse counts."""
    return start_sandbox("--records", "5001")


def test_a_count_says_where_the_remote_stopped_counting(api, connect, crowd):
    connect("crowd", settings=settings_of(crowd.facts), secrets={"client_secret": SECRET})
    page = api.ok("GET", f"{LIVE}?connection=crowd&top=1&count=true")
    assert (page["count"], page["countIsLowerBound"]) == (5000, True)
    others = quote(f"id ne {page['value'][0]['id']}")
    page = api.ok("GET", f"{LIVE}?connection=crowd&top=1&count=true&filter={others}")
    assert (page["count"], page["countIsLowerBound"]) == (5000, False)


# --- texts that are patterns at the remote ----------------------------------------------------------------------


def test_whether_the_remote_knows_wildcards_is_asked_once_and_only_where_it_matters(
    api, connect, sandbox, account
):
    city = f"City {uuid.uuid4()}"
    account(name="100% sure", address1_city=city)
    account(name="100 and sure", address1_city=city)
    connect("wild")

    def ask(condition):
        seen = sandbox.last_request()
        found = api.ok("GET", f"{LIVE}?connection=wild&{where(city, f' and {condition}')}")["value"]
        sent = [each for each in sandbox.requests_since(seen) if each["path"].endswith("/accounts")]
        return [each["name"] for each in found], len(sent)

    assert ask("startswith(name,'100 ')") == (["100 and sure"], 1)
    assert ask("name eq '100% sure'") == (["100% sure"], 1)
    assert ask("contains(name,'0% s')") == (["100% sure"], 2)
    assert ask("startswith(name,'100%')") == (["100% sure"], 1)


# --- refused by name ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "field", "detail"),
    [
        (f"{LIVE}?skip=5", "skip", NO_SKIP),
        (f"{LIVE}?$skip=5", "skip", NO_SKIP),
        (f"{STORED}?$skip=5", "skip", NO_SKIP),
        (f"{LIVE}?count=maybe", "count", "count: expected true or false."),
        (f"{LIVE}?count=true&$count=true", "count", "count: is given twice; send it once, with or without '$'."),
        (f"{LIVE}?connection=demo&stale=ok&count=true", "stale",
         "stale: the store can't answer 'count'; leave one of them out."),
        (f"{STORED}?$count=true", "count",
         "count: is not supported here; it would read every record; follow nextLink and count the items."),
        (f"{STORED}?expand=parent_id", "expand",
         "expand: is not supported here; ask for the records that one leads to by their ids."),
        (f"{STORED}?apply=x", "apply",
         "apply: is no parameter of this route; known are filter, select, orderby, top, skiptoken, deleted."),
        (f"{STORED}?orderby=name", "orderby", "orderby: stored records come in the order of id only; leave it out."),
        (f"{STORED}?orderby=id%20desc", "orderby",
         "orderby: stored records come in the order of id only; leave it out."),
        (f"{STORED}?orderby=id,name", "orderby",
         "orderby: stored records come in the order of id only; leave it out."),
        (f"{STORED}?filter=name%20eq%20'a'&$filter=name%20eq%20'b'", "filter",
         "filter: is given twice; send it once, with or without '$'."),
        (f"{STORED}?filter=name%20eq%20'a'&filter_query=name%20eq%20'b'", "filter_query",
         "filter_query: is given twice, under two names; send one of them."),
        (f"{STORED}?filter=%20", "filter", "The filter is empty; leave it out."),
        (f"{STORED}?select=a%20b", "select", "select: expected field names with commas between them."),
    ],
)  # fmt: skip
def test_what_a_list_does_not_do_is_refused_by_name_with_what_to_do(api, problem, path, field, detail):
    problem(api("GET", path), 400, "BadRequest", detail, field)


def test_a_select_of_what_is_not_stored_is_refused_by_name(api, problem):
    answer = api("GET", f"{STORED}?select=name,telephone1")
    detail = answer.json()["detail"]
    assert detail.startswith("select: 'telephone1' is no field of account; known are name, number, tax_id, ")
    problem(answer, 400, "BadRequest", detail, "select")


# --- stored records ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", ["filter", "$filter", "filter_query", "%24filter"])
def test_stored_records_are_filtered_under_every_name_of_the_parameter(api, pulled, parameter):
    pages = api.pages(f"{STORED}?{where(pulled.city).replace('filter', parameter, 1)}")
    found = [each for page in pages for each in page]  # what other tests have stored fills pages, too
    assert sorted(each["name"] for each in found) == ["Dos", "Tres", "Uno"]


def test_stored_records_come_page_by_page_in_the_order_of_their_ids(api, pulled):
    path = f"{STORED}?$orderby=id%20asc&$select=name,city&$top=2&${where(pulled.city)}"
    pages = list(api.pages(path))
    items = [each for page in pages for each in page]
    assert [each["id"] for each in items] == sorted(each["id"] for each in items)
    assert sorted(each["name"] for each in items) == ["Dos", "Tres", "Uno"]
    assert {name for each in items for name in each} == {
        "id", "entity", "etag", "version", "links", "name", "city",
    }  # fmt: skip
    assert max(len(page) for page in pages) == 2


def test_a_stored_token_belongs_to_its_query(api, problem, pulled):
    link = api.ok("GET", f"{STORED}?top=1&{where(pulled.city)}")["nextLink"]
    token = link.split("skiptoken=")[1].split("&")[0]
    for path in (
        f"{STORED}?top=1&",
        f"{STORED}?top=2&{where(pulled.city)}&",
        f"{STORED}?top=1&{where('x')}&",
    ):
        answer = api("GET", f"{path}skiptoken={token}")
        problem(answer, 400, "BadRequest", answer.json()["detail"], "skiptoken")


def test_a_stored_record_is_found_by_what_it_is_now(api, sandbox, pulled):
    rid = pulled.rids["Uno"]
    sandbox.update(rid, telephone1="2")
    assert api.run(pulled.slug)["status"] == "succeeded"
    changed = api.pages(STORED + "?" + where(pulled.city, " and phone eq '2'"))
    assert [each["links"][0]["id"] for page in changed for each in page] == [rid]


@pytest.fixture(scope="module")
def apart(authority, tmp_path_factory, crowd):
    """A hub with a storage of its own, which holds what the crowded sandbox has."""
    with (
        running_azurite(ACCOUNT, ACCOUNT_KEY) as storage,
        host(storage, authority, tmp_path_factory, {"PAGE_RECORDS": "1000"}) as hub,
    ):
        body = {
            "slug": "crowd",
            "connector": "dynamics365",
            "settings": settings_of(crowd.facts),
            "secrets": {"client_secret": SECRET},
            "entities": {"account": "pull"},
            "schedule": {},
        }
        assert hub("POST", "/api/integrations", body).status_code == 201
        assert hub.run("crowd", seconds=120)["status"] == "succeeded"
        yield hub


def test_a_page_that_found_nothing_among_its_records_leads_on(apart):
    """It looks at 5,000 of the 5,001, so it is empty and not the last."""
    nobody = STORED + "?filter=" + quote("name eq 'nobody'")
    assert list(apart.pages(nobody)) == [[], []]
    last = max(
        (each for page in apart.pages(f"{STORED}?top=1000") for each in page), key=lambda each: each["id"]
    )
    found = [[each["id"] for each in page] for page in apart.pages(f"{STORED}?filter=id%20eq%20{last['id']}")]
    assert found == [[], [last["id"]]]
