"""Whether all is well: the hub, the key, each connection by real calls, and what waits for a person."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from crm_core.cli.client import PAGE, path_of
from crm_core.cli.command import PROGRAM, Job
from crm_core.cli.failures import Exit, Failure

EXAMPLES = ("doctor", "doctor --output json")
COLUMNS = ("check", "status", "found", "remedy=what to do")
# What a key may do, found by reading alone: each needs the role before it is looked whether there is such a thing.
ROLES = (("Operator", "deadletters?top=1"), ("Integrator", "integrations/-/webhook"))


@dataclass(frozen=True)
class Finding:
    """One check. `status`: ok, warning (somebody should look), failed or skipped."""

    check: str
    status: str
    found: str = ""
    remedy: str = ""


def doctor(job: Job) -> Exit:
    """Looks whether all is well and says what to do: the hub, the key and its role, each connection, what waits for a person.

    Every connection is tried by real calls: settings, secrets, token, connectivity, permission, storage and queues.
    Exit code 1 if something failed; 3 without a hub, 4 without a key that it takes.
    """
    findings: list[Finding] = []
    problem: list[Failure] = []

    def told() -> Iterator[dict[str, Any]]:
        try:
            for each in _look(job):
                findings.append(each)
                yield {**asdict(each), "what to do": each.remedy}
        except Failure as failure:
            problem.append(failure)

    if job.out.form == "json":
        job.out.rows(
            ({name: value for name, value in each.items() if name != "what to do"} for each in told()),
            COLUMNS,
        )
    else:
        job.out.rows(list(told()), ("check", "status", "found", "what to do"))
    if problem:
        raise problem[0]
    failed = [each.check for each in findings if each.status == "failed"]
    warned = [each.check for each in findings if each.status == "warning"]
    job.say(
        f"Failed: {', '.join(failed)}."
        if failed
        else f"Works; somebody should look at: {', '.join(warned)}."
        if warned
        else "All is well."
    )
    return Exit.FAILED if failed else Exit.OK


def _look(job: Job) -> Iterator[Finding]:
    """Finding by finding; raises what makes the rest pointless."""
    hub = job.hub
    hub.get("/health")
    yield Finding("hub", "ok", f"answers at {hub.url}")
    connections = hub.get(path_of("integrations"))["value"]  # reads the storage, and needs a key
    yield Finding("key", "ok", hub.key.source)
    version = hub.get(path_of("openapi.json")).get("info", {}).get("version", "")
    yield Finding("version", "ok", version)
    role, may = _role(job)
    yield Finding(
        "role",
        "ok" if may else "warning",
        role,
        "" if may else "For all checks use a key with the role Operator.",
    )
    if not connections:
        yield Finding(
            "connections", "warning", "there is none", "POST /api/integrations makes one; README.md says how."
        )
    for each in connections:
        yield from _connection(job, each, try_it=may)
    yield from _entities(job)
    yield from _people(job, may=may)


def _role(job: Job) -> tuple[str, bool]:
    """The role, as far as it shows, and whether it is Operator at least."""
    role = "Reader"
    for name, path in ROLES:
        try:
            job.hub.get(f"/api/{path}")
        except Failure as failure:
            if failure.code is Exit.REFUSED:
                return role, role != "Reader"
            if failure.code is not Exit.NOT_FOUND:
                raise
        role = name
    return f"{role} or more", True


def _connection(job: Job, item: dict[str, Any], *, try_it: bool) -> Iterator[Finding]:
    slug, state = item["slug"], item["state"]
    name = f"connection {slug}"
    problem = (item.get("problem") or {}).get("message", "")
    if state != "ok":
        remedy = (
            f"`{PROGRAM} connections resume {slug}` lets it go on."
            if state == "paused"
            else f"Mend what is said here, then `{PROGRAM} connections test {slug}`."
        )
        status = "warning" if state == "paused" else "failed"
        yield Finding(name, status, f"{state}: {problem}" if problem else state, remedy)
    if not try_it:
        yield Finding(name, "skipped", f"{state}; not tried: the key may only read")
        return
    job.hint(f"Tries {slug} ...")
    try:
        answer = job.hub.get("/api/crm/system/diagnose", {"connection": slug})
    except Failure as failure:
        if failure.code is Exit.UNREACHABLE:
            raise
        yield Finding(name, "failed", failure.message, failure.remedy)
        return
    checks = answer["checks"]
    bad = [each for each in checks if each["status"] == "failed"]
    if not bad:
        tried = ", ".join(each["check"] for each in checks if each["status"] == "ok")
        yield Finding(name, "ok", f"{tried} work")
    for each in bad:
        yield Finding(
            f"{name}: {each['check']}", "failed", each["message"] or each["code"] or "", each["remedy"] or ""
        )


def _entities(job: Job) -> Iterator[Finding]:
    """What stands in the way of sync, by connection and entity."""
    for each in job.hub.get(path_of("integrations", "status"))["value"]:
        name = f"sync {each['connection']} {each['entity']}"
        if each.get("stopped_run"):
            run = each["stopped_run"]
            remedy = (
                f"`{PROGRAM} runs show {run}` says what; then `runs approve {run}` or `runs cancel {run}`."
            )
            yield Finding(name, "failed", "the brake stopped a run", remedy)
        elif each.get("problem"):
            yield Finding(
                name,
                "failed",
                each["problem"]["message"],
                f"Mend it, then `{PROGRAM} sync run {each['connection']}`.",
            )


def _people(job: Job, *, may: bool) -> Iterator[Finding]:
    """What waits for a person."""
    waiting = job.hub.items(path_of("conflicts"), limit=PAGE)
    count = sum(1 for _ in waiting)
    words = f"{count}{' or more' if waiting.more else ''} wait"
    yield Finding(
        "conflicts",
        "warning" if count else "ok",
        words if count else "none",
        f"`{PROGRAM} conflicts`" if count else "",
    )
    if not may:
        return
    causes = job.hub.get(path_of("deadletters"))["value"]
    letters = sum(each["count"] for each in causes)
    yield Finding(
        "dead letters", "warning" if letters else "ok", f"{letters} of {len(causes)} causes" if letters else "none",
        f"`{PROGRAM} deadletters`" if letters else "",
    )  # fmt: skip
