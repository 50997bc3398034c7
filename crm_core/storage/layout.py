"""Where state lives: every table, its keys, how long rows stay and who deletes them.

| table       | partition key               | row key                                  | deleted by            |
|-------------|-----------------------------|------------------------------------------|-----------------------|
| records     | {tenant}~{entity}~{bucket}  | {record id}                              | never                 |
|             |                             | ~{kind}~{connection uid}~{record id}     | the record's write    |
|             |                             | ~event~{connection uid}~{record id}~{version:010} | who has made its delivery |
|             |                             | h~{record id}~{version:010}              | the tick, after HISTORY_DAYS |
| keys        | {tenant}~slug               | {slug}                                   | with the connection   |
|             | {tenant}~match~{entity}~{2 hex} | {hash of field and value}            | the record's next key |
|             | {tenant}~idem~{2 hex}       | {hash of principal, route and key}       | replaced after 24 h   |
|             | {tenant}~diagnose           | {random}                                 | who wrote it, at once |
|             | ~hook~{2 characters}        | {address of webhooks}                    | a later address, or with the connection |
| config      | {tenant}                    | connection~{uid}                         | DELETE of it          |
|             |                             | mapping~{uid}~{entity}~{version:010}     | with the connection   |
| state       | {tenant}~{connection uid}   | connection                               | with the connection   |
|             |                             | entity~{entity}                          | with the connection   |
| runs        | {tenant}                    | {run id}, newest first                   | the tick, after RUN_DAYS |
|             | ~watched~{tenant}           | {run id}: it has not ended               | the tick, after its end |
| events      | {tenant}~held~{connection uid} | {entity}~{remote id}                  | who has read it again |
|             |                             | {entity}~!{record id}: a create that is open | who has settled it |
|             | {tenant}~hint~{connection uid} | {entity}~{remote id}                  | who has read it again |
|             |                             | ~{entity}: a worker was called           | who finds nothing left |
|             |                             | ~{entity}~heard: what webhooks told of it | with the connection  |
|             | {tenant}~in~{connection uid} | e~{event id}, newest first              | once done: the tick, after EVENT_DAYS |
|             |                             | open~{event id}: its work is not done    | the work's end        |
|             |                             | seen~{hash}: a change that is done       | with its event        |
|             | {tenant}~out~{connection uid} | e~{delivery id}, newest first          | once over: the tick, after DELIVERY_DAYS |
|             |                             | open~{due}~{delivery id}: is to be sent  | the next attempt's end |
|             |                             | failed~{delivery id}: waits for a person | who sends it again    |
| deadletters | {tenant}                    | {id}, newest first: it waits             | a replay or discard   |
|             |                             | closed~{id}: what became of it           | kept                  |
| journal     | {tenant}~{day}              | {time}-{random}~{number}: a line of the log of runs, newest first | the tick, after LOG_DAYS |
|             | {tenant}~due                | {time}~{kind}~{id}: what is deleted then | the tick, with what it names |
| stats       | {tenant}~{day}              | {HHMM}~{connection uid}~{instance}       | kept                  |
|             | {tenant}~budget             | {connection uid}~{window}                | with the connection   |
| secrets     | {tenant}                    | bundle~{uid}, token~{uid}                | with the connection   |

Queues: `fresh` and `bulk`, their poison queues are the host's `{name}-poison`.
Blobs: container `crmhub`.

| blob                                             | holds                                    | deleted by            |
|--------------------------------------------------|------------------------------------------|-----------------------|
| runs/{tenant}/{run id}/{worker's mark}/{number}  | ids that a full run read; the mark begins with a number | the run's end |
| runs/{tenant}/{run id}/items                     | the operations of a batch                | the run's end         |
| runs/{tenant}/{run id}/outcomes/{number}-{mark}  | what became of them                      | with the run          |
| runs/{tenant}/{run id}/plan/{mark}/{number}      | what a run decided, a line each          | with the run          |
| runs/{tenant}/{run id}/plan/{mark}/{number}-digests | what it is known again by             | with the run          |
| runs/{tenant}/{run id}/{worker's mark}/{number}  | a part of an export                      | the tick, after EXPORT_DAYS |
| events/{tenant}/{connection uid}/{event id}      | the body of a webhook over a message, of a delivery over 40 KiB | with its row |
| answers/{tenant}/{key}                           | an answer too long for its row in `keys` | replaced with its row |
"""

import re

from crm_core.model.connection import Tenant
from crm_core.ports import derived_id

RECORDS = "records"
KEYS = "keys"
CONFIG = "config"
STATE = "state"
RUNS = "runs"
EVENTS = "events"
DEADLETTERS = "deadletters"
JOURNAL = "journal"
STATS = "stats"
SECRETS = "secrets"
TABLES = (RECORDS, KEYS, CONFIG, STATE, RUNS, EVENTS, DEADLETTERS, JOURNAL, STATS, SECRETS)

FRESH = "fresh"
BULK = "bulk"
QUEUES = (FRESH, BULK)

CONTAINER = "crmhub"

BUCKETS = "0123456789abcdef"
RECORD_ROWS_END = "g"
"""Row keys of records begin with a hex digit; history begins with h, open items with ~."""
AFTER = "\x7f"
"""Sorts after every character of our keys; ends the range of a prefix."""
_REVERSE = 10**14
"""A run's id begins with this less its milliseconds, so that the newest comes first."""


def quote(part: str) -> str:
    """A key part of any text: all but ASCII letters, digits, '-', '_' and '.' as %XX of its UTF-8."""
    return "".join(
        character
        if character.isascii() and (character.isalnum() or character in "-_.")
        else "".join(f"%{byte:02X}" for byte in character.encode())
        for character in part
    )


def bucket(record_id: str) -> str:
    return record_id[0]


_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_record_id(text: str) -> bool:
    return bool(_ID.fullmatch(text))


def after_id(record_id: str) -> str:
    """The first row key after a record's own: no id has another character behind it."""
    return f"{record_id}!"


def records_pk(tenant: Tenant, entity: str, record_bucket: str) -> str:
    return f"{tenant.name}~{entity}~{record_bucket}"


def derived_record_id(tenant: Tenant, connection: str, entity: str, rid: str) -> str:
    """The id of a record first seen at a connection: addressable without a look-up."""
    return derived_id(tenant.name, connection, entity, rid)


def open_item_rk(kind: str, connection: str, record_id: str) -> str:
    return f"~{kind}~{connection}~{record_id}"


EVENT_ITEM = "event"
"""The kind of open items that a record has by version: what deliveries are to be made of."""


def event_item_rk(connection: str, record_id: str, version: int) -> str:
    return f"~{EVENT_ITEM}~{connection}~{record_id}~{version:010}"


def open_items_range(kind: str, connection: str = "", after: str = "") -> tuple[str, str]:
    """The row keys of the open items of a kind, and of a connection, beyond the row key `after`."""
    prefix = f"~{kind}~{connection}~" if connection else f"~{kind}~"
    return f"{after}!" if after else prefix, f"{prefix}{AFTER}"  # nothing follows an id in a key


def history_rk(record_id: str, version: int) -> str:
    return f"h~{record_id}~{version:010}"


def history_range(record_id: str) -> tuple[str, str]:
    return f"h~{record_id}~", f"h~{record_id}~{AFTER}"


def histories_range(after: str, last: str) -> tuple[str, str]:
    """The history of the records of a partition after an id ("" for all), up to the last one."""
    return (f"h~{after}~{AFTER}" if after else "h~"), f"h~{last}~{AFTER}"


def every_history_range(after: str = "") -> tuple[str, str]:
    """The history of all records of a bucket, beyond the row key `after`."""
    return f"{after}!" if after else "h~", f"h~{AFTER}"


def separate_record_id(record_id: str) -> str:
    """Where a record goes whose derived id leads to another one that lives beside it."""
    return derived_id(record_id, "separate")


def held_pk(tenant: Tenant, connection: str) -> str:
    return f"{tenant.name}~held~{connection}"


def held_range(tenant: Tenant) -> tuple[str, str]:
    return f"{tenant.name}~held~", f"{tenant.name}~held~{AFTER}"


def held_rk(entity: str, rid: str) -> str:
    return f"{entity}~{quote(rid)}"


def claim_rk(entity: str, record_id: str) -> str:
    """Of a create that is open; before every remote id, which is quoted."""
    return f"{entity}~!{record_id}"


def claim_range(entity: str) -> tuple[str, str]:
    return f"{entity}~!", f"{entity}~!{AFTER}"


def hint_pk(tenant: Tenant, connection: str) -> str:
    return f"{tenant.name}~hint~{connection}"


def hint_worker_rk(entity: str) -> str:
    """Of the row that says that a worker was called; after the hints themselves."""
    return f"~{entity}"


HEARD = "~heard"
"""How the row key ends of the row that says what webhooks told of an entity; it begins as that of its worker."""


def event_pk(tenant: Tenant, connection: str) -> str:
    return f"{tenant.name}~in~{connection}"


def delivery_pk(tenant: Tenant, connection: str) -> str:
    return f"{tenant.name}~out~{connection}"


EVENT, OPEN, SEEN, FAILED = "e~", "open~", "seen~", "failed~"
"""How row keys of events begin, those that came in and those that go out."""


def event_blob(tenant: Tenant, connection: str, event_id: str) -> str:
    return f"events/{tenant.name}/{connection}/{event_id}"


CLOSED_LETTER = "closed~"
OPEN_LETTERS_END = ":"
"""Row keys of letters that wait begin with a digit."""


def closed_letter_rk(letter_id: str) -> str:
    return f"{CLOSED_LETTER}{letter_id}"


def journal_pk(tenant: Tenant, day: str) -> str:
    """`day`: as 2026-11-24."""
    return f"{tenant.name}~{day}"


def journal_range(tenant: Tenant, before_day: str) -> tuple[str, str]:
    """The partitions of the days before one."""
    return f"{tenant.name}~0", f"{tenant.name}~{before_day}"


def journal_time(milliseconds: int) -> str:
    """How the row keys of lines begin that were written then; those of newer ones come before."""
    return newest_first_from(milliseconds)


def due_pk(tenant: Tenant) -> str:
    """Beside the days: of what is to be deleted at a time."""
    return f"{tenant.name}~due"


_HOOK = re.compile(r"[A-Za-z0-9_-]{22}")


def is_hook(text: str) -> bool:
    """Whether it can be an address of webhooks: 128 bits in base64."""
    return bool(_HOOK.fullmatch(text))


def hook_pk(hook: str) -> str:
    """Of no tenant: an address names none."""
    return f"~hook~{hook[:2]}"


def mapping_rk(connection: str, entity: str, version: int) -> str:
    return f"mapping~{quote(connection)}~{entity}~{version:010}"


def mapping_range(connection: str, entity: str = "") -> tuple[str, str]:
    """The versions of one mapping of a connection, or of all."""
    prefix = f"mapping~{quote(connection)}~" + (f"{entity}~" if entity else "")
    return prefix, prefix + AFTER


def budget_pk(tenant: str) -> str:
    """No day of figures is called so."""
    return f"{tenant}~budget"


def budget_rk(connection: str, window: str) -> str:
    return f"{connection}~{window}"


def state_pk(tenant: Tenant, connection: str) -> str:
    return f"{tenant.name}~{connection}"


def entity_rk(entity: str) -> str:
    return f"entity~{entity}"


CONNECTION_RK = "connection"


def delivery_id(connection: str, record_id: str, version: int, milliseconds: int) -> str:
    """Always the same for one version of a record at one connection. `milliseconds`: when that version was made, so that
    the newest comes first.
    """
    return f"{_REVERSE - milliseconds:014d}-{derived_id(connection, record_id, str(version))}"


_DELIVERY_ID = re.compile(r"[0-9]{14}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_delivery_id(text: str) -> bool:
    return bool(_DELIVERY_ID.fullmatch(text))


def delivery_time(milliseconds: int) -> str:
    """How ids of deliveries begin whose version was made then."""
    return newest_first_from(milliseconds)


def newest_first_from(milliseconds: int) -> str:
    """How ids begin that were made then; those of older ones come after."""
    return f"{_REVERSE - milliseconds:014d}"


def plan_blob(tenant: Tenant, run_id: str, number: int, mark: str) -> str:
    """A part of what a run decided."""
    return f"runs/{tenant.name}/{run_id}/plan/{mark}/{number:06}"


def plan_digests(part: str) -> str:
    """Beside a part, what its decisions are known again by."""
    return f"{part}-digests"


def watched_pk(tenant: Tenant) -> str:
    """Of the runs that have not ended; after every tenant's own partition."""
    return f"~watched~{tenant.name}"


def watched_range() -> tuple[str, str]:
    return "~watched~", f"~watched~{AFTER}"


def watched_tenant(pk: str) -> Tenant:
    return Tenant(pk.rpartition("~")[2])


def run_blobs(tenant: Tenant, run_id: str) -> str:
    """How the names of all blobs begin that a run has written."""
    return f"runs/{tenant.name}/{run_id}/"


def numbered_blobs(tenant: Tenant, run_id: str) -> str:
    """How those begin that are numbered from its worker's mark on, whatever the mark: ids of a full run, parts of an export.
    No run has 100,000 of them.
    """
    return f"{run_blobs(tenant, run_id)}0"


def made_at(unique: str) -> int | None:
    """When an id of `newest_first` was made, in milliseconds; None for what is no such id."""
    time, dash, _ = unique.partition("-")
    return _REVERSE - int(time) if dash and re.fullmatch(r"[0-9]{14}", time) else None


def newest_first(milliseconds: int, unique: str) -> str:
    """An id whose order is newest first; `unique` is random text."""
    return f"{_REVERSE - milliseconds:014d}-{unique[:12]}"
