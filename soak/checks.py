"""What must hold at the end of a soak. The columns are written down here once more, so that a slip of the hub shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from soak.load import Load, People
from soak.plan import Plan
from soak.system import System

Values = Mapping[str, Any]
SHOWN = 5
"""Of a kind of violation: the first so many."""
TEXTS = {
    "name": "name",
    "number": "accountnumber",
    "email": "emailaddress1",
    "phone": "telephone1",
    "website": "websiteurl",
    "street": "address1_line1",
    "city": "address1_city",
    "state": "address1_stateorprovince",
    "postal_code": "address1_postalcode",
    "country": "address1_country",
    "description": "description",
    "created_at": "createdon",
    "updated_at": "modifiedon",
}
STATUSES = {0: "active", 1: "inactive"}


@dataclass(frozen=True)
class Stored:
    """The stored accounts of a connection by remote id: those that live there, and those that are gone."""

    live: Mapping[str, Values]
    gone: Mapping[str, Values]


def stored_of(records: Sequence[Values], slug: str) -> Stored:
    """Raises AssertionError if two records have the same remote id."""
    live: dict[str, Values] = {}
    gone: dict[str, Values] = {}
    for record in records:
        for link in record["links"]:
            if link["connection"] == slug:
                assert link["id"] not in live.keys() | gone.keys(), f"two records of {link['id']}"
                (live if link["state"] == "live" else gone)[link["id"]] = {**record, "link": link}
    return Stored(live, gone)


def violations(
    system: System, plan: Plan, people: People, killed: Load, calm: Load, slugs: tuple[str, str]
) -> list[str]:
    """Everything that is wrong, in sentences."""
    rows, records = system.rows(), system.stored()
    mine, other = (stored_of(records, slug) for slug in slugs)
    checks = (
        _runs(killed, calm),
        _kills(plan, killed),
        _sets(people, rows, mine, other),
        _values(rows, mine),
        _same(mine, other),
        _versions(system, people, mine),
        _calls(plan, people, killed),
        (f"a function failed: {line}" for line in system.log_lines(") failed (invocation")),
    )
    return [text for check in checks for text in _some(check)]


def _some(texts: Iterator[str]) -> list[str]:
    found = list(texts)
    return [*found[:SHOWN], *([f"... and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])]


def _runs(killed: Load, calm: Load) -> Iterator[str]:
    for name, load in (("the load with kills", killed), ("the undisturbed load", calm)):
        if load.run["status"] != "succeeded":
            yield f"{name} {load.run['status']}: {load.run['problem']}"
        if load.run["counts"]["failed"]:
            yield f"{load.run['counts']['failed']} records were set aside in {name}"


def _kills(plan: Plan, killed: Load) -> Iterator[str]:
    """Every kill came while the run was at work."""
    begun, ended = (
        datetime.fromisoformat(killed.run[name]).timestamp() for name in ("created_at", "ended_at")
    )
    inside = [each for each in killed.struck if begun < each.moment < ended and each.pages]
    if len(inside) != len(plan.kills):
        yield f"{len(inside)} of {len(plan.kills)} kills came while the run was at work"


def _sets(people: People, rows: Mapping[str, Values], mine: Stored, other: Stored) -> Iterator[str]:
    """What lives at the vendor lives in the store, and nothing else; what is gone is marked so, once it was known."""
    for name, found in (("after the kills", mine), ("after the undisturbed load", other)):
        for rid in sorted(rows.keys() - found.live.keys()):
            yield f"{name} the store has no {rid}"
        for rid in sorted(found.live.keys() - rows.keys()):
            yield f"{name} {rid} lives in the store and not at the vendor"
    for rid, record in mine.gone.items():
        if rid not in people.deleted or not record["deleted_at"]:
            yield f"{rid} is marked as gone: {record.get('deleted_at')}"


def _values(rows: Mapping[str, Values], mine: Stored) -> Iterator[str]:
    ids = {rid: record["id"] for part in (mine.live, mine.gone) for rid, record in part.items()}
    for rid in sorted(rows.keys() & mine.live.keys()):
        row, record = rows[rid], mine.live[rid]
        parent = row.get("_parentaccountid_value")
        pairs = [(name, record.get(name), row.get(column) or None) for name, column in TEXTS.items()]
        pairs += [
            ("employees", record.get("employees"), row.get("numberofemployees")),
            ("annual_revenue", _number(record.get("annual_revenue")), _number(row.get("revenue"))),
            ("status", record.get("status"), STATUSES[row["statecode"]]),
            ("parent_id", record.get("parent_id"), ids.get(parent, "missing") if parent else None),
            ("version of the link", record["link"]["version"], str(row["versionnumber"])),
        ]
        for name, ours, theirs in pairs:
            if ours != theirs:
                yield f"{rid}: {name} is {ours!r}, and {theirs!r} at the vendor"


def _number(value: object) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def _same(mine: Stored, other: Stored) -> Iterator[str]:
    """Field by field what an undisturbed load has: also those fields that the list above leaves out."""
    own = {"id", "etag", "version", "link", "links"}
    rids = {
        record["id"]: rid for found in (mine, other) for rid, record in {**found.live, **found.gone}.items()
    }

    def comparable(record: Values) -> Values:
        fields = {name: value for name, value in record.items() if name not in own}
        if "parent_id" in fields:
            fields["parent_id"] = rids.get(fields["parent_id"])
        return {**fields, "version": record["link"]["version"]}

    for rid in sorted(mine.live.keys() & other.live.keys()):
        ours, theirs = comparable(mine.live[rid]), comparable(other.live[rid])
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                there = f"{theirs.get(name)!r} after an undisturbed load"
                yield f"{rid}: {name} is {ours.get(name)!r}, and {there}"


def _versions(system: System, people: People, mine: Stored) -> Iterator[str]:
    """Nothing was applied twice: a version for each change that a person made at most, and a history row for each."""
    for rid, record in {**mine.live, **mine.gone}.items():
        most = 1 + people.touched.get(rid, 0)
        if not 1 <= record["version"] <= most:
            yield f"{rid} has version {record['version']}, though it was changed {most - 1} times"
        if rid in people.touched or record["version"] > 1:
            steps = [step["version"] for step in system.history(record["id"])]
            if steps != list(range(1, record["version"] + 1)):
                yield f"{rid} has version {record['version']} and the history {steps}"


def _calls(plan: Plan, people: People, killed: Load) -> Iterator[str]:
    most = plan.most_calls(len(people.created), len(people.deleted))
    if killed.asked.records > most:
        yield f"the vendor was asked {killed.asked.records} times for records, though {most} are enough"
    if killed.asked.tokens > 1:
        yield f"the vendor was asked for {killed.asked.tokens} tokens, though one is enough"
