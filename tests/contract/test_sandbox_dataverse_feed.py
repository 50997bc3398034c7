"""Change tracking of the Dataverse sandbox by raw HTTP, checked against a model of what happened."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.dynamics365 import Dataverse
from sandbox.testing import running, signed_in

API = "/api/data/v9.2"
TRACK = {"Prefer": "odata.track-changes"}


@pytest.fixture(scope="module")
def sandbox():
    with running(Dataverse()) as sandbox:
        yield sandbox


@pytest.fixture
def client(sandbox):
    with signed_in(sandbox) as client:
        assert client.call("POST", "/_sandbox/reset").status == 204
        yield client


def write(client, name, row=None):
    if row is None:
        answer = client.call("POST", f"{API}/accounts", {"name": name})
        return answer.headers["OData-EntityId"][-37:-1]
    assert client.call("PATCH", f"{API}/accounts({row})", {"name": name}).status == 204
    return row


def delete(client, row):
    assert client.call("DELETE", f"{API}/accounts({row})").status == 204


def follow(client, link, size=None, headers=None):
    """All entries of a feed and the delta link at its end."""
    prefer = [(headers or {}).get("Prefer", "")] if headers else []
    prefer += [f"odata.maxpagesize={size}"] if size else []
    entries = []
    while True:
        answer = client.call("GET", link, headers={"Prefer": ",".join(prefer)})
        assert answer.status == 200, answer.body
        body = answer.json()
        entries += body["value"]
        if "@odata.deltaLink" in body:
            assert "@odata.nextLink" not in body
            return entries, body["@odata.deltaLink"]
        assert len(body["value"]) == size
        link = body["@odata.nextLink"]


def start(client, size=None):
    return follow(client, f"{API}/accounts?$select=name", size, TRACK)


@pytest.mark.parametrize("size", [None, 1, 2])
def test_first_read_then_changes_inserts_and_updates_before_deletes(client, size):
    kept, changed, gone = (write(client, n) for n in ("kept", "changed", "gone"))
    first, link = start(client, size)
    assert {e["accountid"] for e in first} == {kept, changed, gone}
    assert follow(client, link, size)[0] == []
    delete(client, gone)
    write(client, "changed 2", changed)
    new = write(client, "new")
    unseen = write(client, "unseen")
    delete(client, unseen)
    entries, second = follow(client, link, size)
    rows, deletes = entries[:2], entries[2:]
    assert [(r["accountid"], r["name"]) for r in rows] == [(changed, "changed 2"), (new, "new")]
    assert set(rows[0]) == {"@odata.etag", "name", "accountid"}  # only what was selected
    assert deletes == [
        {
            "@odata.context": f"{client.origin}{API}/$metadata#accounts/$deletedEntity",
            "id": i,
            "reason": "deleted",
        }
        for i in (gone, unseen)  # also one that was never seen
    ]
    assert client.call("GET", link.replace("/accounts?", "/accounts/$count?")).body == b"4"
    assert follow(client, second, size)[0] == []


def test_the_context_of_a_delta_says_so(client):
    write(client, "a")
    _, link = start(client)
    assert client.call("GET", link).json()["@odata.context"].endswith("$metadata#accounts(name)/$delta")


def test_what_changes_while_pages_are_read_comes_with_the_next_delta(client):
    rows = [write(client, f"r{n}") for n in range(4)]
    page = client.call(
        "GET", f"{API}/accounts?$select=name", headers={"Prefer": "odata.track-changes,odata.maxpagesize=2"}
    ).json()
    write(client, "while reading", rows[0])
    late = write(client, "late")
    _, link = follow(client, page["@odata.nextLink"], 2)
    entries, _ = follow(client, link)
    assert [e["accountid"] for e in entries] == [rows[0], late]


@pytest.mark.parametrize(
    "query", ["$filter=name%20eq%20'x'", "$orderby=name", "$expand=primarycontactid", "$top=1"]
)
def test_what_cannot_be_tracked_is_refused(client, query):
    answer = client.call("GET", f"{API}/accounts?$select=name&{query}", headers=TRACK)
    assert answer.status == 400
    assert query.partition("=")[0] in answer.json()["error"]["message"]


def test_an_expired_token_asks_for_a_full_sync(client):
    _, link = start(client)
    client.call("POST", "/_sandbox/clock", {"advance": 6.9 * 86400})
    with_fresh_token(client)
    assert client.call("GET", link).status == 200
    client.call("POST", "/_sandbox/clock", {"advance": 0.2 * 86400})
    with_fresh_token(client)
    answer = client.call("GET", link)
    assert (answer.status, answer.code) == (400, "0x80044352")
    assert client.call("POST", "/_sandbox/options", {"tracking_days": 30}).status == 200
    assert client.call("GET", link).status == 200


def with_fresh_token(client):
    client.call("POST", "/_sandbox/options", {"token_seconds": 10**9})
    facts = Dataverse().describe(client.origin)
    form = f"grant_type=client_credentials&client_id={facts['client_id']}&client_secret={facts['client_secret']}&scope={facts['scope']}"
    got = client.call(
        "POST", facts["token_url"], form.encode(), {"Content-Type": "application/x-www-form-urlencoded"}
    )
    client.headers["Authorization"] = f"Bearer {got.json()['access_token']}"


def test_a_token_of_before_a_reset_or_of_the_future_is_expired_and_nonsense_is_wrong(client):
    _, link = start(client)
    assert client.call("POST", "/_sandbox/reset").status == 204
    assert client.call("GET", link).code == "0x80044352"
    ahead = link.partition("$deltatoken=")[0] + "$deltatoken=99999999%2101%2f01%2f2026%2000%3a00%3a00"
    assert client.call("GET", ahead).code == "0x80044352"
    assert client.call("GET", f"{API}/accounts?$deltatoken=x").code == "0x80060888"


def test_tracking_can_be_off_for_a_table(client):
    _, link = start(client)
    client.call("POST", "/_sandbox/options", {"tracking": {"account": False}})
    definition = client.call(
        "GET", f"{API}/EntityDefinitions(LogicalName='account')?$select=ChangeTrackingEnabled"
    ).json()
    assert definition["ChangeTrackingEnabled"] is False
    assert client.call("GET", f"{API}/accounts?$select=name", headers=TRACK).status == 400
    assert client.call("GET", link).status == 400
    assert client.call("GET", f"{API}/contacts?$select=fullname", headers=TRACK).status == 200
    assert client.call("GET", f"{API}/systemusers?$select=fullname", headers=TRACK).status == 400


def test_a_late_commit_is_older_than_rows_seen_before_but_never_missing_from_the_feed(client):
    client.call("POST", "/_sandbox/clock", {"set": "2026-05-01T10:00:00Z", "frozen": True})
    with_fresh_token(client)
    late = client.call("POST", "/_sandbox/rows/account", {"values": {"name": "late"}, "lag": 60}).json()
    assert late["pending"] is True
    client.call("POST", "/_sandbox/clock", {"advance": 30})
    early = write(client, "early")
    first, link = start(client)
    assert [e["accountid"] for e in first] == [early]
    client.call("POST", "/_sandbox/clock", {"advance": 30})
    entries, _ = follow(client, link)
    assert [e["accountid"] for e in entries] == [late["id"]]
    rows = client.call("GET", f"{API}/accounts?$select=name,modifiedon&$orderby=modifiedon").json()["value"]
    assert [(r["name"], r["modifiedon"]) for r in rows] == [
        ("late", "2026-05-01T10:00:00Z"),
        ("early", "2026-05-01T10:00:30Z"),
    ]


def test_many_rows_can_share_one_second(client):
    for n in range(3):
        client.call(
            "POST", "/_sandbox/rows/account", {"values": {"name": f"t{n}"}, "at": "2026-01-01T00:00:00.400Z"}
        )
    rows = client.call(
        "GET", f"{API}/accounts?$filter=modifiedon%20eq%202026-01-01T00:00:00Z&$select=versionnumber"
    ).json()["value"]
    assert len({r["versionnumber"] for r in rows}) == 3


STEPS = st.lists(st.tuples(st.sampled_from(["write", "delete", "sync"]), st.integers(0, 3)), max_size=25)


@settings(max_examples=25, deadline=None)
@given(STEPS, st.integers(1, 3))
def test_a_copy_that_follows_the_feed_equals_the_table(sandbox, steps, size):
    with signed_in(sandbox) as client:
        client.call("POST", "/_sandbox/reset")
        entries, link = start(client, size)
        copy = {}
        keys = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(4)]
        alive = {}
        for number, (kind, which) in enumerate([*steps, ("sync", 0)]):
            row = keys[which]
            if kind == "write":
                write(client, f"v{number}", row)
                alive[row] = f"v{number}"
            elif kind == "delete" and row in alive:
                delete(client, row)
                del alive[row]
            elif kind == "sync":
                entries, link = follow(client, link, size)
                for entry in entries:
                    if entry.get("reason") == "deleted":
                        copy.pop(entry["id"], None)
                    else:
                        copy[entry["accountid"]] = entry["name"]
                assert copy == alive
