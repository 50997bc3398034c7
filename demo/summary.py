"""What a person reads at the end: figures, addresses, and calls to paste."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo.drive import CONNECTION, Noticed

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


def seen(noticed: Noticed, live: Mapping[str, Any], live_seconds: float) -> str:
    return (
        f"A person at the vendor gave '{noticed.name}' the phone {noticed.phone}:\n"
        f"  in the store (version {noticed.version}) {noticed.seconds:.1f} s after POST /api/runs\n"
        f"  live through the hub, GET /api/crm/accounts/{noticed.rid}: {live['phone']} in {live_seconds:.2f} s"
    )


def addresses(url: str, sandbox: Mapping[str, Any], data: Path) -> str:
    return (
        f"  hub       {url}\n"
        f"  OpenAPI   {url}/api/openapi.json (needs the key)\n"
        f"  sandbox   {sandbox['api']}\n"
        f"  control   {sandbox['control']} (change data, clock and faults)\n"
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
