"""What the host will serve: the indexed functions checked against the rules that only the host knows.

The worker library doesn't look at schedules, routes, queue names or settings; the real host does and so do we,
before anything is started. Every refusal names its function.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from devhost.refusal import Refusal
from devhost.routes import Route, Router, methods_of
from devhost.schedule import Schedule
from devhost.settings import HostJson, connection_string, resolve
from devhost.worker import Function

_FUNCTION_NAME = re.compile("[a-z][a-z0-9_-]{0,127}", re.IGNORECASE)
# 3 to 63 characters, lower case letters, digits and single dashes inside.
_QUEUE_NAME = re.compile("(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class HttpPlan:
    """An HTTP function, its route as served and the key level it asks for (anonymous, function, admin)."""

    function: Function
    route: str
    methods: tuple[str, ...]
    level: str


@dataclass(frozen=True)
class TimerPlan:
    """A timer function and its schedule."""

    function: Function
    schedule: Schedule
    text: str
    run_on_startup: bool


@dataclass(frozen=True)
class QueuePlan:
    """A queue function, its queue and the connection string of the queue's account."""

    function: Function
    queue: str
    connection: str


@dataclass
class Plan:
    """Everything to serve, in order of function name."""

    router: Router
    http: dict[str, HttpPlan] = field(default_factory=dict)
    timers: list[TimerPlan] = field(default_factory=list)
    queues: list[QueuePlan] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)

    @property
    def needs_key(self) -> bool:
        """Say whether any function asks for a key."""
        return any(http.level != "anonymous" for http in self.http.values())


def make_plan(functions: Iterable[Function], host: HostJson, environment: Mapping[str, str]) -> Plan:
    """Check every function and give what to serve; refuses with one line per function at fault."""
    plan = Plan(Router(host.route_prefix))
    reasons = []
    for function in functions:
        # The platform's own switch for a single function.
        if environment.get(f"AzureWebJobs.{function.name}.Disabled", "").lower() in ("true", "1"):
            plan.disabled.append(function.name)
            continue
        try:
            _add(plan, function, environment)
        except Refusal as refusal:
            reasons.append(f"function {function.name}: {refusal}")
    if reasons:
        raise Refusal(*reasons)
    return plan


def _add(plan: Plan, function: Function, environment: Mapping[str, str]) -> None:
    if not _FUNCTION_NAME.fullmatch(function.name) or function.name.lower() == "host":
        raise Refusal("the platform takes no function of this name")
    for other in function.others:
        # Dropping what a function hands to an output binding would look like success.
        if other["type"].lower() != "http":
            raise Refusal(f"the binding {other['type']} ('{other['name']}') isn't supported by this host")
    adders = {"httptrigger": _add_http, "timertrigger": _add_timer, "queuetrigger": _add_queue}
    adder = adders.get(function.kind.lower())
    if adder is None:
        raise Refusal(f"the trigger {function.kind} isn't supported by this host")
    adder(plan, function, environment)


def _add_http(plan: Plan, function: Function, _environment: Mapping[str, str]) -> None:
    trigger = function.trigger
    # A function without a route is served under its name.
    route = trigger.get("route") or function.name
    methods = methods_of(trigger.get("methods"))
    plan.router.add(Route(function.name, route, methods))
    plan.http[function.name] = HttpPlan(
        function,
        plan.router.full_route(route),
        tuple(sorted(methods_of(trigger.get("methods"), head=False) or ())),
        str(trigger.get("authLevel") or "function").lower(),
    )


def _add_timer(plan: Plan, function: Function, environment: Mapping[str, str]) -> None:
    text = resolve(str(function.trigger.get("schedule") or ""), environment)
    run_on_startup = bool(function.trigger.get("runOnStartup"))
    plan.timers.append(TimerPlan(function, Schedule(text), text, run_on_startup))


def _add_queue(plan: Plan, function: Function, environment: Mapping[str, str]) -> None:
    # The host lowers the name before it looks.
    queue = resolve(str(function.trigger.get("queueName") or ""), environment).lower()
    if not _QUEUE_NAME.fullmatch(queue):
        raise Refusal(f"'{queue}' is no valid queue name (3-63 letters, digits and single dashes)")
    connection = connection_string(str(function.trigger.get("connection") or ""), environment)
    plan.queues.append(QueuePlan(function, queue, connection))
