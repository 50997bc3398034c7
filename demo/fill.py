"""Sample accounts for the sandbox, through its control endpoint."""

from demo.http import Client
from demo.show import progress

_PORTIONS = 10
TABLE = "account"


def fill(sandbox: Client, records: int, seed: int) -> int:
    """Fill up to so many accounts, unless there are; gives how many there are.

    Deleted ones count as there: what a person removed doesn't come back. Each portion has a seed of its own, so the
    same command makes the same accounts, and one that was interrupted goes on.
    """
    there, ever = _counts(sandbox)
    if ever >= records:
        return there
    # The sandbox saves everything after each portion: few of them, whatever the number of records.
    portion = max(1, -(-records // _PORTIONS))
    with progress("Filling the sandbox with accounts", records) as advance:
        for number in range(_PORTIONS):
            count = min(portion, records - number * portion)
            if count > 0 and ever < records:
                sandbox.call("POST", "/fill", {"table": TABLE, "count": count, "seed": seed * 1000 + number})
                there, ever = _counts(sandbox)
                advance(min(ever, records))
    return there


def _counts(sandbox: Client) -> tuple[int, int]:
    """(accounts there are, accounts there ever were)."""
    _, stats = sandbox.call("GET", "/stats")
    there: int = stats["rows"][TABLE]
    return there, there + stats["deleted"][TABLE]
