"""What the app is made of: its functions, its routes, who may call them, and what indexing costs.

The golden lists change on purpose only: REGENERATE_GOLDEN=1 writes them anew, and the diff shows what changed.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

import crm_core.functions.app
from crm_core.functions.endpoint import ROUTES, Route
from tests.app.conftest import many_at_once, too_many, wait_until

pytestmark = pytest.mark.xdist_group("app-api")

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "tests" / "data"
assert crm_core.functions.app  # it fills the table of routes

INDEX = """
import asyncio, json, sys
from pathlib import Path
from devhost.worker import Worker

worker = Worker(Path(sys.argv[1]), None)
asyncio.run(worker.load())
functions = [{"function": each.name, "trigger": dict(each.trigger)} for each in worker.functions]
print(json.dumps({"functions": functions, "modules": sorted(sys.modules)}))
worker.close()
"""
HEAVY = re.compile(
    r"(msal|azure\.identity|azure\.storage|azure\.keyvault|azure\.data|requests|pydantic"
    r"|crm_core\.(hub|sync|connectors|protocols|connection_admin|diagnosis|storage\.azure))(\..*)?"
)


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def compare_with_golden(file: str, found: list[Any]) -> None:
    path = GOLDEN / file
    text = "[\n" + ",\n".join(json.dumps(each) for each in found) + "\n]\n"
    if os.environ.get("REGENERATE_GOLDEN"):
        path.write_text(text)
    assert json.loads(path.read_text()) == found, (
        f"{file} is out of date. If the change is meant, run REGENERATE_GOLDEN=1 python -m pytest {__file__} "
        "and commit the file with it."
    )


@pytest.fixture(scope="module")
def indexed() -> dict[str, Any]:
    """The app as the worker library indexes it, in a process that did nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", INDEX, str(ROOT)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_functions_and_their_triggers_are_the_golden_ones(indexed):
    compare_with_golden("golden_functions.json", indexed["functions"])


def test_indexing_imports_nothing_heavy(indexed):
    heavy = [name for name in indexed["modules"] if HEAVY.fullmatch(name)]
    assert heavy == []
    assert "azure.functions" in indexed["modules"]


def test_the_routes_and_their_roles_are_the_golden_ones():
    routes = sorted(
        [each.path, each.method, each.role.name.title() if each.role is not None else "open"]
        for each in ROUTES
    )
    compare_with_golden("golden_routes.json", routes)


def test_every_http_function_answers_in_the_hub_s_own_words(api, indexed):
    """Never the host's bare 404: each function hands every method and path below it to the route table."""
    http = [each for each in indexed["functions"] if each["trigger"]["type"] == "httpTrigger"]
    assert http
    for function in http:
        root = "/" + function["trigger"]["route"].removesuffix("/{*path}")
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = api(method, f"{root}/no/such/path/at/all")
            assert (answer.status_code, answer.json()["code"]) == (404, "NotFound"), function["function"]


def test_openapi_describes_exactly_the_routes(api):
    document = api.ok("GET", "/api/openapi.json")
    described = {(method.upper(), path) for path, one in document["paths"].items() for method in one}
    declared = {(each.method, re.sub(r"<(\w+)>", r"{\1}", each.path)) for each in ROUTES}
    assert described == declared
    operations = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(operations) == len(set(operations))
    for each in ROUTES:
        operation = document["paths"][re.sub(r"<(\w+)>", r"{\1}", each.path)][each.method.lower()]
        assert operation["summary"], name_of(each)
        assert operation["security"] == ([] if each.role is None else [{"key": []}])


# --- every route, once -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Invoke:
    """How a route is called; {braces} are filled with the ids of what `there` has made."""

    path: str
    status: int = 200
    body: Any = None
    holds: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    """Of an answer that is no JSON."""


NEW = {"slug": "made-by-post", "connector": "dynamics365", "entities": {"account": "pull"}, "schedule": {}}
CALLS: Mapping[str, Invoke] = {
    "GET /health": Invoke("/health", holds={"status": "ok"}),
    "GET /api/crm/system/health": Invoke(
        "/api/crm/system/health?connection=walk",
        holds={"status": "ok", "connection": "walk", "d365": "{url}", "api_version": "v9.2"},
    ),
    "GET /api/crm/system/diagnose": Invoke(
        "/api/crm/system/diagnose?connection=walk", holds={"status": "ok", "connection": "walk"}
    ),
    "GET /api/crm/system/token": Invoke(
        "/api/crm/system/token?connection=walk", holds={"connection": "walk", "audience": "{url}"}
    ),
    "POST /api/crm/system/clear-cache": Invoke(
        "/api/crm/system/clear-cache?connection=walk",
        holds={"status": "ok", "connection": "walk", "generation": 1},
    ),
    "GET /api/crm/system/stats": Invoke(
        "/api/crm/system/stats?connection=walk&minutes=5", holds={"connection": "walk", "minutes": 5}
    ),
    "GET /api/crm/system/cache-stats": Invoke(
        "/api/crm/system/cache-stats?connection=walk&hours=1", holds={"connection": "walk", "minutes": 60}
    ),
    "GET /api/openapi.json": Invoke("/api/openapi.json", holds={"openapi": "3.1.0"}),
    "GET /api/connectors": Invoke("/api/connectors"),
    "GET /api/integrations": Invoke("/api/integrations"),
    "POST /api/integrations": Invoke(
        "/api/integrations", 201, "{new}", {"slug": "made-by-post", "state": "ok"}
    ),
    "GET /api/integrations/<connection>": Invoke("/api/integrations/walk", holds={"slug": "walk"}),
    "GET /api/integrations/status": Invoke("/api/integrations/status?connection=walk"),
    "PATCH /api/integrations/<connection>": Invoke(
        "/api/integrations/walk", body={"schedule": {}}, holds={"slug": "walk"}
    ),
    "DELETE /api/integrations/<connection>": Invoke("/api/integrations/unloved?confirm=true", 204),
    "POST /api/integrations/<connection>/test": Invoke("/api/integrations/walk/test", holds={"status": "ok"}),
    "POST /api/integrations/<connection>/pause": Invoke(
        "/api/integrations/quiet/pause", holds={"state": "paused"}
    ),
    "POST /api/integrations/<connection>/resume": Invoke(
        "/api/integrations/walk/resume", holds={"state": "ok"}
    ),
    "GET /api/integrations/<connection>/webhook": Invoke(
        "/api/integrations/walk/webhook", holds={"connection": "walk"}
    ),
    "POST /api/integrations/<connection>/webhook": Invoke(
        "/api/integrations/quiet/webhook?at_once=true", 201, holds={"connection": "quiet"}
    ),
    "DELETE /api/integrations/<connection>/webhook": Invoke("/api/integrations/quiet/webhook", 204),
    "POST /api/webhooks/<hook>": Invoke("/api/webhooks/{hook}?code=the-walk", 202, {"no": "hint"}),
    "GET /api/webhooks/<hook>": Invoke("/api/webhooks/{hook}?validationToken=a%20b%3C", text="a b<"),
    "OPTIONS /api/webhooks/<hook>": Invoke(
        "/api/webhooks/{hook}", headers={"WebHook-Request-Origin": "eventgrid.azure.net"}, text=""
    ),
    "GET /api/events": Invoke("/api/events?connection=walk&top=1"),
    "GET /api/events/<event>": Invoke(
        "/api/events/{event}?connection=walk", holds={"id": "{event}", "body": "null"}
    ),
    "POST /api/events/<event>/replay": Invoke(
        "/api/events/{event}/replay?connection=walk", 202, holds={"id": "{event}", "state": "open"}
    ),
    "GET /api/deliveries": Invoke("/api/deliveries?connection=told&top=1"),
    "GET /api/deliveries/<delivery>": Invoke(
        "/api/deliveries/{delivery}?connection=told", holds={"id": "{delivery}", "entity": "appointment"}
    ),
    "POST /api/deliveries/<delivery>/replay": Invoke(
        "/api/deliveries/{delivered}/replay?connection=told",
        202,
        holds={"id": "{delivered}", "state": "open"},
    ),
    "POST /api/deliveries/replay": Invoke(
        "/api/deliveries/replay", 202, {"connection": "told"}, {"connection": "told", "replayed": 0}
    ),
    "GET /api/integrations/<connection>/mappings/<entity>": Invoke(
        "/api/integrations/walk/mappings/account", holds={"entity": "account", "version": 0}
    ),
    "GET /api/integrations/<connection>/mappings/<entity>/versions": Invoke(
        "/api/integrations/walk/mappings/accounts/versions", holds={"value": []}
    ),
    "GET /api/integrations/<connection>/mappings/<entity>/versions/<version>": Invoke(
        "/api/integrations/walk/mappings/account/versions/0", holds={"version": 0, "document": {}}
    ),
    "GET /api/integrations/<connection>/mappings/<entity>/diff": Invoke(
        "/api/integrations/walk/mappings/account/diff", holds={"from": 0, "to": 0, "value": []}
    ),
    "POST /api/integrations/<connection>/mappings/<entity>/rollback": Invoke(
        "/api/integrations/walk/mappings/account/rollback", body={"version": 0}, holds={"version": 0}
    ),
    "POST /api/integrations/<connection>/mappings/<entity>/preview": Invoke(
        "/api/integrations/walk/mappings/account/preview",
        body="{sample}",
        holds={"remote_id": "{kept}"},
    ),
    "GET /api/integrations/logs": Invoke(
        "/api/integrations/logs?run={run}&text=nothing%20such", holds={"value": []}
    ),
    "POST /api/exports": Invoke("/api/exports", 202, {"what": "logs"}, {"mode": "export", "what": "logs"}),
    "GET /api/crm/<entities>": Invoke("/api/crm/accounts?connection=walk&top=1"),
    "POST /api/crm/<entities>": Invoke(
        "/api/crm/accounts?connection=walk", 201, {"name": "Made by the walk"}, {"name": "Made by the walk"}
    ),
    "POST /api/crm/<entities>/batch": Invoke(
        "/api/crm/accounts/batch?connection=walk",
        body={"operations": [{"method": "create", "fields": {"name": "Made by the walk"}}]},
        holds={"counts": {"created": 1, "updated": 0, "deleted": 0, "failed": 0}},
    ),
    "GET /api/crm/<entities>/<rid>": Invoke(
        "/api/crm/accounts/{kept}?connection=walk", holds={"id": "{kept}", "name": "Kept"}
    ),
    "PATCH /api/crm/<entities>/<rid>": Invoke(
        "/api/crm/accounts/{kept}?connection=walk", body={"phone": "1"}, holds={"id": "{kept}", "phone": "1"}
    ),
    "DELETE /api/crm/<entities>/<rid>": Invoke(
        "/api/crm/accounts/{dropped}?connection=walk&confirm=true", 204
    ),
    "GET /api/records/<entities>": Invoke("/api/records/accounts?top=1"),
    "GET /api/records/<entities>/<record_id>": Invoke(
        "/api/records/accounts/{record}", holds={"id": "{record}", "entity": "account"}
    ),
    "GET /api/records/<entities>/<record_id>/history": Invoke("/api/records/accounts/{record}/history"),
    "GET /api/records/<entities>/<record_id>/why/<field>": Invoke(
        "/api/records/accounts/{record}/why/name", holds={"field": "name", "value": "Kept"}
    ),
    "POST /api/records/<entities>/<record_id>/undo": Invoke(
        "/api/records/accounts/{record}/undo", body={"version": 1}, holds={"id": "{record}"}
    ),
    "POST /api/records/<entities>/batch": Invoke(
        "/api/records/channels/batch",
        body={"operations": [{"method": "create", "fields": {"name": "Made by the walk"}}]},
        holds={"counts": {"created": 1, "updated": 0, "deleted": 0, "failed": 0}},
    ),
    "POST /api/records/<entities>": Invoke(
        "/api/records/channels", 201, {"name": "Made by the walk"}, {"name": "Made by the walk"}
    ),
    "PATCH /api/records/<entities>/<record_id>": Invoke(
        "/api/records/channels/{channel}", body={"description": "x"}, holds={"id": "{channel}", "version": 2}
    ),
    "DELETE /api/records/<entities>/<record_id>": Invoke(
        "/api/records/channels/{old_channel}?confirm=true", 204
    ),
    "GET /api/conflicts": Invoke("/api/conflicts?top=1"),
    "GET /api/conflicts/<conflict_id>": Invoke(
        "/api/conflicts/{conflict}", holds={"id": "{conflict}", "kind": "match"}
    ),
    "POST /api/conflicts/<conflict_id>": Invoke(
        "/api/conflicts/{decided}", body={"take": "separate"}, holds={"entity": "campaign", "name": "Twins"}
    ),
    "POST /api/conflicts/resolve": Invoke(
        "/api/conflicts/resolve",
        202,
        {"where": {"entity": "channels"}, "take": "ours"},
        {"mode": "resolve", "entity": "channel"},
    ),
    "GET /api/deadletters": Invoke("/api/deadletters?top=1"),
    "GET /api/deadletters/causes/<cause>": Invoke("/api/deadletters/causes/hub~NotAJob~?top=1"),
    "GET /api/deadletters/<letter>": Invoke("/api/deadletters/{letter}", holds={"id": "{letter}"}),
    "PATCH /api/deadletters/<letter>": Invoke(
        "/api/deadletters/{letter}", body="{edited}", holds={"payload": "{push}"}
    ),
    "POST /api/deadletters/<letter>/replay": Invoke(
        "/api/deadletters/{replayed}/replay", 202, holds={"id": "{replayed}", "done": True}
    ),
    "POST /api/deadletters/<letter>/discard": Invoke(
        "/api/deadletters/{dropped_letter}/discard", 204, {"reason": "the walk"}
    ),
    "POST /api/deadletters/replay": Invoke(
        "/api/deadletters/replay", 202, {"cause": "hub~Walk~"}, {"way": "replay", "done": True}
    ),
    "POST /api/deadletters/discard": Invoke(
        "/api/deadletters/discard", 202, {"cause": "hub~Walk~", "reason": "the walk"}, {"way": "discard"}
    ),
    "POST /api/runs/<run_id>/undo": Invoke(
        "/api/runs/{run}/undo", 202, holds={"mode": "plan", "of": "undo", "undoes": "{run}"}
    ),
    "GET /api/runs": Invoke("/api/runs?top=1"),
    "POST /api/runs": Invoke("/api/runs", 202, {"connection": "walk"}, {"connection": "walk"}),
    "POST /api/runs/<run_id>/approve": Invoke(
        "/api/runs/{stopped}/approve", 202, holds={"id": "{stopped}", "status": "running"}
    ),
    "POST /api/runs/<run_id>/cancel": Invoke(
        "/api/runs/{refused}/cancel", holds={"id": "{refused}", "status": "failed"}
    ),
    "POST /api/runs/<run_id>/apply": Invoke(
        "/api/runs/{plan}/apply", 202, holds={"mode": "apply", "of": "{plan}"}
    ),
    "POST /api/integrations/sync": Invoke(
        "/api/integrations/sync",
        202,
        {"connection": "walk", "dry_run": True, "of": None, "limit": 1},
        {"connection": "walk", "mode": "plan", "limit": 1},
    ),
    "GET /api/runs/<run_id>/outcomes": Invoke("/api/runs/{batch}/outcomes"),
    "GET /api/runs/<run_id>": Invoke("/api/runs/{run}", holds={"id": "{run}", "status": "succeeded"}),
}


@pytest.fixture(scope="module")
def there(api, azurite, sandbox, demo, start_sandbox):
    """One of everything that a path can name."""
    new = {
        **NEW,
        "settings": demo["settings"],
        "secrets": {"client_secret": sandbox.facts["client_secret"], "webhook_key": "the-walk"},
    }
    for slug in ("walk", "quiet", "unloved"):
        api.ok("POST", "/api/integrations", {**new, "slug": slug})
    rows = {name: sandbox.create(name=name.title()) for name in ("kept", "dropped")}
    run = api.run("walk")
    answer = api("POST", "/api/runs", {"connection": "walk", "mode": "plan", "limit": 1})
    plan = api.ended(answer.headers["Operation-Location"])["id"]
    one = {"operations": [{"method": "create", "fields": {"name": "Made by the walk"}}]}
    batch = api.ok(
        "POST", "/api/crm/accounts/batch?connection=walk", one, headers={"Prefer": "respond-async"}
    )
    api.ended(f"/api/runs/{batch['id']}")
    record = api.stored("walk")[rows["kept"]]["id"]
    rows |= stopped_runs(api, sandbox, new)
    rows |= twins(api, sandbox, new)
    for name in ("channel", "old_channel"):
        rows[name] = api.ok("POST", "/api/records/channels", {"name": name})["id"]
    (address,) = api.ok("POST", "/api/integrations/walk/webhook")["value"]
    rows |= dead_letters(api, azurite)
    rows["hook"] = address["url"].rpartition("/")[2]
    rows["event"] = api.ok("POST", f"{address['url']}?code=the-walk", data="null")["id"]
    event = f"/api/events/{rows['event']}?connection=walk"
    wait_until(lambda: api("GET", event).json().get("state") == "done")
    rows |= told(api, start_sandbox(system="sales").url)
    rows["sample"] = {"remote_id": rows["kept"]}
    yield {
        **rows,
        "url": sandbox.url,
        "run": run["id"],
        "plan": plan,
        "batch": batch["id"],
        "record": record,
        "new": new,
    }
    for slug in ("walk", "quiet", "unloved", "made-by-post", "stopped", "refused", "twins", "told"):
        api("DELETE", f"/api/integrations/{slug}?confirm=true")
    for name in ("Kept", "Made by the walk"):
        for rid in sandbox.named(name):
            sandbox.delete(rid)


def told(api, url):
    """Two deliveries that were taken."""
    body = {
        "slug": "told", "connector": "webhook", "settings": {"url": url}, "schedule": {},
        "entities": {"appointment": {"direction": "push"}},
    }  # fmt: skip
    api.ok("POST", "/api/integrations", body)
    for _ in range(2):
        api.ok("POST", "/api/records/appointments", {"at": "2026-11-24T13:45:00Z"})

    def taken():
        found = api.ok("GET", "/api/deliveries?connection=told&status=done")["value"]
        return len(found) == 2 and found

    one, other = wait_until(taken)
    return {"delivery": one["id"], "delivered": other["id"]}


def stopped_runs(api, sandbox, new):
    """Two runs that the brake has stopped, by the names of their connections."""
    slugs = ("stopped", "refused")
    for slug in slugs:
        api.ok("POST", "/api/integrations", {**new, "slug": slug})
    many = too_many(api, sandbox, slugs[0])
    for slug in slugs:
        api.run(slug)
    many_at_once(api, slugs[0], [{"method": "delete", "id": rid} for rid in many])
    return {slug: api.run(slug)["id"] for slug in slugs}


def dead_letters(api, azurite):
    """Three messages that were none; the last one is a good one by now."""
    text = f"the walk {uuid.uuid4()}"
    with QueueClient.from_connection_string(
        azurite, "fresh", message_encode_policy=TextBase64EncodePolicy()
    ) as queue:
        for _ in range(3):
            queue.send_message(text, time_to_live=-1)

    def mine():
        pages = api.pages("/api/deadletters/causes/hub~NotAJob~")
        found = [each["id"] for page in pages for each in page]
        kept = [each for each in found if api.ok("GET", f"/api/deadletters/{each}")["payload"] == text]
        return len(kept) == 3 and kept

    one, other, last = wait_until(mine)
    uid = api.ok("GET", "/api/integrations/walk")["uid"]
    push = {"v": 1, "job": "push", "tenant": "default", "connection": uid, "entity": "account"}
    edited = {"payload": json.dumps(push)}
    api.ok("PATCH", f"/api/deadletters/{last}", edited)
    return {
        "letter": one,
        "dropped_letter": other,
        "replayed": last,
        "edited": edited,
        "push": edited["payload"],
    }


def twins(api, sandbox, new):
    """Two open conflicts: campaigns of one name, which may be one."""
    for _ in range(3):
        sandbox.control("POST", "rows/campaign", {"values": {"name": "Twins"}})
    entities = {"campaign": {"direction": "pull", "match": "name"}}
    api.ok("POST", "/api/integrations", {**new, "slug": "twins", "entities": entities})
    api.run("twins")
    one, other = api.ok("GET", "/api/conflicts?entity=campaigns&kind=match")["value"]
    return {"conflict": one["id"], "decided": other["id"]}


def filled(value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, str) and value[:1] == "{" and value[1:-1] in names:
        return names[value[1:-1]]
    return value


ELSEWHERE = frozenset(
    {
        "POST /api/test-webhook",
        "POST /api/webhook-presencia-crm",
        "GET /api/exports/<run_id>/parts/<number>",
    }
)
"""Called in test_app_presencias.py, by a hub with the settings that they need, and in test_app_exports.py."""


@pytest.mark.parametrize("route", [each for each in ROUTES if name_of(each) not in ELSEWHERE], ids=name_of)
def test_every_route_answers_a_good_call(api, there, route):
    invoke = CALLS.get(name_of(route))
    assert invoke, f"{name_of(route)} is new: say in CALLS how it is called"
    path, body = invoke.path.format(**there), filled(invoke.body, there)
    answer = api(route.method, path, body, headers=invoke.headers)
    assert answer.status_code == invoke.status == route.answer, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", answer.headers["traceparent"])
    if invoke.status == 204:
        assert answer.content == b""
        return
    if invoke.text is not None:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.text == invoke.text
        return
    assert answer.headers["Content-Type"] == "application/json"
    assert {name: answer.json()[name] for name in invoke.holds} == {
        name: filled(value, there) for name, value in invoke.holds.items()
    }


def test_no_call_is_kept_for_a_route_that_is_gone():
    assert CALLS.keys() <= {name_of(each) for each in ROUTES}


# --- who may call ------------------------------------------------------------------------------------------------

NEEDED = "An API key is needed; send it in the header X-API-KEY."
WRONG = "The API key is wrong; send it in the header X-API-KEY."
REFUSED: Mapping[str, tuple[Callable[[str], dict[str, str]], str]] = {
    "no key": (lambda _: {}, NEEDED),
    "a wrong key": (lambda _: {"X-API-KEY": "0" * 40}, WRONG),
    "a part of the key": (lambda key: {"X-API-KEY": key[:-1]}, WRONG),
    "a wrong Bearer": (lambda _: {"Authorization": "Bearer " + "0" * 40}, WRONG),
    "the key as Basic": (lambda key: {"Authorization": f"Basic {key}"}, NEEDED),
    "the key in the query": (lambda _: {}, NEEDED),
}


@pytest.mark.parametrize("how", REFUSED)
@pytest.mark.parametrize("route", [each for each in ROUTES if each.role is not None], ids=name_of)
def test_every_route_but_the_open_ones_is_closed_without_the_key(api, problem, route, how):
    headers, detail = REFUSED[how]
    path = re.sub(r"<\w+>", "x", route.path)
    if how == "the key in the query":
        path += f"?code={api.key}&key={api.key}"
    answer = api(route.method, path, key=None, headers=headers(api.key))
    problem(answer, 401, "Unauthenticated", detail)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="crm-hub"'


def test_the_open_routes_are_few_and_tell_a_stranger_nothing(api):
    # Webhooks are proven by the route itself.
    known = ["/api/crm/system/health", "/health"]
    assert sorted(each.path for each in ROUTES if each.role is None and not each.raw) == known
    assert {each.path for each in ROUTES if each.raw} == {
        "/api/webhooks/<hook>",
        "/api/webhook-presencia-crm",
    }
    for path in ("/health", "/api/crm/system/health"):
        answer = api("GET", path, key=None)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_key_is_taken_as_bearer_too(api, scheme):
    answer = api("GET", "/api/connectors", key=None, headers={"Authorization": f"{scheme} {api.key}"})
    assert answer.status_code == 200
