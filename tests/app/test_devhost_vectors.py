"""The local host's router and schedules give the answers that Microsoft's own packages gave (recorded)."""

import json
from datetime import datetime
from itertools import islice
from pathlib import Path

import pytest

from devhost.refusal import Refusal
from devhost.routes import Route, Router, methods_of
from devhost.schedule import Schedule
from devhost.target import parse

DATA = Path(__file__).resolve().parent.parent / "data"
ROUTES = json.loads((DATA / "devhost_routes.json").read_text("utf-8"))["cases"]
SCHEDULES = json.loads((DATA / "devhost_ncrontab.json").read_text("utf-8"))["cases"]


@pytest.mark.parametrize("case", ROUTES, ids=lambda case: case["suite"])
def test_router_answers_as_recorded(case):
    router, refused = Router(case["routePrefix"]), []
    for function in case["functions"]:
        # The recorded package didn't add HEAD to GET, as newer hosts do.
        methods = methods_of(function.get("methods"), head=False)
        try:
            router.add(Route(function["name"], function["route"], methods))
        except Refusal:
            refused.append(function["name"])
    assert refused == case["refused_at_registration"]
    for request in case["requests"]:
        method, raw = request["request"].split(" ", 1)
        found = router.find(method, parse(raw).path)
        assert found == (request["function"] and (request["function"], request["params"])), request["request"]


@pytest.mark.parametrize("case", SCHEDULES, ids=lambda case: f"{case['expr']!r} from {case['from'][:10]}")
def test_schedule_answers_as_recorded(case):
    moment = datetime.fromisoformat(case["from"])
    if "error" in case:
        with pytest.raises(Refusal, match="schedule"):
            Schedule(case["expr"])
        return
    found = islice(Schedule(case["expr"]).occurrences(moment), 5)
    assert [when.strftime("%Y-%m-%dT%H:%M:%SZ") for when in found] == case["next"]
