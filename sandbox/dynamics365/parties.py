"""Who takes part in an activity: rows of ``activityparty`` inside the activity (Web API: activity parties).

The server adds the owner and what the activity is about by itself. A list in an update replaces the list before.
"""

from typing import TYPE_CHECKING

from sandbox.dynamics365 import errors
from sandbox.dynamics365.errors import Refused
from sandbox.dynamics365.schema import TABLES, Entity
from sandbox.store import Row, Values

if TYPE_CHECKING:
    from sandbox.dynamics365.org import Org

PARTY = "activityparty"
SENDER, TO = 1, 2
OWN = {
    8: "regardingobjectid",
    9: "ownerid",
}  # participation types that the server keeps -> the activity's lookup
ADDRESS = ("emailaddress1", "internalemailaddress")


def check(org: "Org", patch: Values) -> None:
    """A party is a row or an address, in some part."""
    if patch.get("participationtypemask") is None:
        raise Refused(400, errors.INVALID, "The participationtypemask of an activity party is missing.")
    key = patch.get("_partyid_value")
    if key is None:
        if not patch.get("addressused"):
            raise Refused(400, errors.INVALID, "The party id of an activity party is missing.")
        patch["unresolvedpartyname"] = patch["partyidname"] = patch["addressused"]
        return
    patch |= _shown(org, patch["_partyid_type"], key, patch.get("addressused"))


def _shown(org: "Org", table: str, key: str, address: str | None = None) -> Values:
    """Name and address of the row that takes part."""
    row = org.store.get(table, key)
    values = {} if row is None else row.values
    found = next((values[name] for name in ADDRESS if values.get(name)), None)
    return {"partyidname": values.get(TABLES[table].primary_name), "addressused": address or found}


def of(org: "Org", activity: str) -> list[Row]:
    """The parties of one activity."""
    return org.store.table(PARTY).where("_activityid_value", activity)


def clear(org: "Org", activity: str) -> None:
    """Take out the parties that people gave; the server's own stay."""
    for row in of(org, activity):
        if row.values.get("participationtypemask") not in OWN:
            org.store.delete(PARTY, row.id)


def keep(org: "Org", entity: Entity, values: Values, key: str, lag: float) -> None:
    """Add, change or take out the parties that follow from the activity's owner and subject matter."""
    known = {r.values["participationtypemask"]: r for r in of(org, key)}
    for mask, name in OWN.items():
        party, table = values.get(f"_{name}_value"), values.get(f"_{name}_type")
        old = known.get(mask)
        if (old.values.get("_partyid_value") if old else None) == party:
            continue
        if old is not None:
            org.store.delete(PARTY, old.id)
        if party is not None and table in TABLES[PARTY].columns["partyid"].targets:
            org.store.write(
                PARTY,
                org.fixed(f"party {key} {mask} {party}"),
                {
                    "_activityid_value": key, "_activityid_type": entity.name, "participationtypemask": mask,
                    "_partyid_value": party, "_partyid_type": table, "ispartydeleted": False, **_shown(org, table, party),
                },
                lag=lag,
            )  # fmt: skip


def addresses(org: "Org", key: str) -> Values:
    """An e-mail's texts of sender and recipients, as its parties say."""
    found = of(org, key)

    def used(mask: int) -> list[str]:
        rows = [r.values for r in found if r.values.get("participationtypemask") == mask]
        return [v["addressused"] for v in rows if v.get("addressused")]

    to, sender = used(TO), used(SENDER)
    return {
        **({"torecipients": f"{';'.join(to)};"[:500]} if to else {}),
        **({"sender": sender[0][:250]} if sender else {}),
    }
