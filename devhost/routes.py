"""Which function answers a request: the host's router over parsed templates.

The platform's rules: functions are registered in the order of their names and the first match of route and
method wins, so a literal has no precedence over a parameter; a wrong method is no match at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from devhost.refusal import Refusal
from devhost.templates import Template

# The host keeps these for itself: it refuses to register such a route and never asks a function for one.
RESERVED = ("admin", "runtime")


@dataclass(frozen=True)
class Route:
    """One HTTP function: its name, its template below the prefix, its methods (None = any)."""

    function: str
    route: str
    methods: frozenset[str] | None


class Router:
    """The registered routes, asked in the order in which they were given."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix.strip("/")
        self._routes: list[tuple[Route, Template]] = []

    def full_route(self, route: str) -> str:
        """Give the template as it's served, with the prefix."""
        return "/".join(part for part in (self.prefix, route) if part)

    def add(self, route: Route) -> None:
        """Register a route; refuses what the host can't register or what another function already answers."""
        if route.route.lstrip("/").lower().startswith(RESERVED):
            raise Refusal(f"the route '{route.route}' conflicts with one of the host's own (admin, runtime)")
        if route.route.startswith("/"):
            # Behind a prefix the host reads two slashes here; without one it still is a mistake.
            raise Refusal(f"the route '{route.route}' may not begin with a slash")
        template = Template(self.full_route(route.route))
        for other, known in self._routes:
            if known.shape == template.shape and _overlap(other.methods, route.methods):
                raise Refusal(f"the route '{route.route}' conflicts with that of function '{other.function}'")
        self._routes.append((route, template))

    def find(self, method: str, path: str) -> tuple[str, dict[str, str]] | None:
        """Give the function's name and its route parameters for a decoded path; None is the host's 404."""
        for route, template in self._routes:
            if route.methods is not None and method.upper() not in route.methods:
                continue
            parameters = template.match(path)
            if parameters is not None:
                return route.function, parameters
        return None


def methods_of(methods: Iterable[str] | None, *, head: bool = True) -> frozenset[str] | None:
    """Give the methods that the host answers: None or an empty list is any, and HEAD comes with GET."""
    names = frozenset(method.upper() for method in methods or ())
    if not names:
        return None
    return names | {"HEAD"} if head and "GET" in names else names


def is_reserved(path: str) -> bool:
    """Say whether the path belongs to the host's own API (`/admin...`, `/runtime...`)."""
    return path.lower().startswith(tuple(f"/{name}" for name in RESERVED))


def _overlap(one: frozenset[str] | None, other: frozenset[str] | None) -> bool:
    return one is None or other is None or bool(one & other)
