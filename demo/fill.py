"""Sample rows for the sandbox, through its control endpoint: accounts by number, of each other table a few."""

from demo.http import Client
from demo.show import progress

_PORTIONS = 10
TABLE = "account"
OTHERS = (
    *("contact", "product", "campaign", "lead", "opportunity", "incident"),
    *("quote", "salesorder", "invoice", "task", "phonecall", "email", "appointment"),
)
FEW = 20


def fill(sandbox: Client, records: int, seed: int) -> int:
    """Fill up to so many accounts, unless there are; gives how many there are.

    Deleted ones count as there: what a person removed doesn't come back. Each portion has a seed of its own, so the
    same command makes the same accounts, and one that was interrupted goes on.
    """
    there, ever = _counts(sandbox)
    if ever >= records:
        _fill_others(sandbox, seed)
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
    _fill_others(sandbox, seed)
    return there


def _fill_others(sandbox: Client, seed: int) -> None:
    """A few rows of each table that never had one."""
    _, stats = sandbox.call("GET", "/stats")
    empty = [each for each in OTHERS if not stats["rows"].get(each) and not stats["deleted"].get(each)]
    if empty:
        sandbox.call("POST", "/fill", {"tables": empty, "count": FEW, "seed": seed})


def _counts(sandbox: Client) -> tuple[int, int]:
    """(accounts there are, accounts there ever were)."""
    _, stats = sandbox.call("GET", "/stats")
    there: int = stats["rows"][TABLE]
    return there, there + stats["deleted"][TABLE]
