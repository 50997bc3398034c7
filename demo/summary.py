"""What a person reads at the end: figures, addresses, and calls to paste."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo import link
from demo.drive import CONNECTION, Noticed
from demo.odoo import Odoo

_COUNTS = ("created", "updated", "unchanged", "deleted", "failed")


def figures(run: Mapping[str, Any]) -> str:
    """A run in two lines."""
    counts = run["counts"]
    rows = [("records read", run["read"]), *((name, counts[name]) for name in _COUNTS)]
    work = [
        ("remote calls", run["calls"]["remote"]),
        ("storage calls", run["calls"]["storage"]),
        ("seconds", f"{run['seconds']:.1f}"),
    ]
    return f"  {_row(rows)}\n  {_row(work)}"


def _row(cells: list[tuple[str, Any]]) -> str:
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in cells
    )


def seen(noticed: Noticed, told: Noticed, live: Mapping[str, Any], live_seconds: float) -> str:
    return (
        f"A person at the vendor gave '{noticed.name}' the phone {noticed.phone}:\n"
        f"  in the store (version {noticed.version}) {noticed.seconds:.1f} s after POST /api/runs\n"
        f"and then {told.phone}, of which the vendor told the hub by a webhook:\n"
        f"  in the store (version {told.version}) {told.seconds:.1f} s after the change, without a run\n"
        f"  live through the hub, GET /api/crm/accounts/{told.rid}: {live['phone']} in {live_seconds:.2f} s"
    )


def linked(odoo: Odoo, loads: Mapping[str, Mapping[str, Any]], there: link.Passed, back: link.Passed) -> str:
    read = " and ".join(f"{run['read']:,} of '{slug}'" for slug, run in loads.items())
    kind = {"sandbox": "an Odoo of the sandbox", "real": "a real Odoo"}[odoo.kind]
    return (
        f"Contacts are linked with {kind}, both ways, by e-mail; the runs read {read}. A person gave a phone to\n"
        f"  '{there.name}' in Dynamics: {there.phone} in Odoo {there.seconds:.1f} s after POST /api/runs\n"
        f"  '{back.name}' in Odoo: {back.phone} in Dynamics {back.seconds:.1f} s after POST /api/runs"
    )


def addresses(url: str, sandbox: Mapping[str, Any], odoo: Odoo, data: Path) -> str:
    return (
        f"  hub       {url}\n"
        f"  OpenAPI   {url}/api/openapi.json (needs the key)\n"
        f"  sandbox   {sandbox['api']}\n"
        f"  control   {sandbox['control']} (change data, clock and faults)\n"
        f"  Odoo      {odoo.url} ({odoo.kind}; user {odoo.login}, database {odoo.database})\n"
        f"  logs      {data / 'logs'}"
    )


def calls(url: str, key: str, record_id: str | None) -> str:
    """Three lines that work as they are."""
    header = f"-H 'X-API-KEY: {key}'"
    third = f"/{record_id}/history" if record_id else "?top=3"
    return (
        f"  curl -sG {header} '{url}/api/crm/accounts?connection={CONNECTION}' "
        f"--data-urlencode \"filter_query=contains(name,'Peña')\" --data-urlencode 'select=name,city' "
        "--data-urlencode top=3\n"
        f'  curl -s {header} -X POST {url}/api/runs -d \'{{"connection": "{CONNECTION}"}}\'\n'
        f"  curl -s {header} '{url}/api/records/accounts{third}'"
    )


def calls_of_link(url: str, key: str, odoo: Odoo, there: link.Passed) -> str:
    """Change a contact of Dynamics at Odoo, ask for a run, look at Dynamics: they work as they are, one after the other."""
    header = f"-H 'X-API-KEY: {key}'"
    signed_in = f"-H 'Authorization: bearer {odoo.key}' -H 'X-Odoo-Database: {odoo.database}'"
    body = f'{{"ids": [{there.id}], "vals": {{"function": "Asesora"}}}}'
    return (
        f"  curl -s {signed_in} -H 'Content-Type: application/json' {odoo.url}/json/2/res.partner/write -d '{body}'\n"
        f'  curl -s {header} -X POST {url}/api/runs -d \'{{"connection": "{link.CONNECTION}"}}\'\n'
        f"  curl -sG {header} '{url}/api/crm/contacts?connection={CONNECTION}' "
        f"--data-urlencode \"filter=email eq '{there.email}'\" --data-urlencode 'select=last_name,job_title'"
    )
