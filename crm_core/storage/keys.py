"""What must be unique, claimed by an insert: slugs, match keys of records, addresses of webhooks, and the keys under
which a caller repeats a request.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass

from crm_core.model.connection import Tenant
from crm_core.ports import Row, RowChanged, RowExists, Table
from crm_core.storage import layout
from crm_core.storage.state import inserted, json_data, json_values, replaced


@dataclass(frozen=True)
class MatchClaim:
    """A record's claim of a match key, as it was read."""

    pk: str
    rk: str
    etag: str


class Keys:
    def __init__(self, table: Table) -> None:
        self._table = table

    def claim_slug(self, tenant: Tenant, slug: str, uid: str, time: str) -> bool:
        """False if the slug names another connection, or one that is being made."""
        row = Row(f"{tenant.name}~slug", slug, json_values({"uid": uid, "time": time}))
        try:
            self._table.insert(layout.KEYS, row)
        except RowExists:
            return self.uid_of(tenant, slug) == uid
        return True

    def take_slug(self, tenant: Tenant, slug: str, uid: str, time: str, claimed_before: str) -> bool:
        """Takes over a claim that is older than `claimed_before`, whose connection was never made."""
        present = self._table.get(layout.KEYS, f"{tenant.name}~slug", slug)
        if present is None or str(json_data(present).get("time", "")) >= claimed_before:
            return False
        row = Row(present.pk, present.rk, json_values({"uid": uid, "time": time}))
        try:
            self._table.replace(layout.KEYS, row, present.etag)
        except RowChanged:
            return False
        return True

    def uid_of(self, tenant: Tenant, slug: str) -> str | None:
        row = self._table.get(layout.KEYS, f"{tenant.name}~slug", slug)
        return str(json_data(row)["uid"]) if row else None

    def release_slug(self, tenant: Tenant, slug: str) -> None:
        self._table.delete(layout.KEYS, f"{tenant.name}~slug", slug)

    def claim_hook(self, hook: str, tenant: Tenant, uid: str) -> None:
        """Before the connection says that it has this address. RowExists: 128 random bits came twice."""
        row = Row(layout.hook_pk(hook), hook, json_values({"tenant": tenant.name, "uid": uid}))
        inserted(self._table, layout.KEYS, row)

    def owner_of(self, hook: str) -> tuple[Tenant, str] | None:
        """Whose address it is or was; the connection says until when."""
        row = self._table.get(layout.KEYS, layout.hook_pk(hook), hook)
        if row is None:
            return None
        data = json_data(row)
        return Tenant(data["tenant"]), str(data["uid"])

    def drop_hook(self, hook: str) -> None:
        self._table.delete(layout.KEYS, layout.hook_pk(hook), hook)

    def claim_match(self, tenant: Tenant, entity: str, key: str, record_id: str) -> str:
        """Claims a match key for a record; gives the record that has it, which may be another one.

        `key`: any text that names a field and its normal form. A claim that the record has already is written anew:
        whoever has seen the record give it up can't free it any more.
        """
        row = _match_row(tenant, entity, key, record_id)
        try:
            self._table.insert(layout.KEYS, row)
        except RowExists:
            present = self._table.get(layout.KEYS, row.pk, row.rk)
            if present is None:
                return self.claim_match(tenant, entity, key, record_id)
            holder = str(json_data(present)["record"])
            if holder == record_id:
                try:
                    self._table.replace(layout.KEYS, row, present.etag)
                except RowChanged:
                    return self.claim_match(tenant, entity, key, record_id)
            return holder
        return record_id

    def match_of(self, tenant: Tenant, entity: str, key: str) -> str | None:
        """The record that a match key names."""
        row = _match_row(tenant, entity, key, "")
        present = self._table.get(layout.KEYS, row.pk, row.rk)
        return str(json_data(present)["record"]) if present else None

    def move_match(self, tenant: Tenant, entity: str, key: str, holder: str, record_id: str) -> bool:
        """Gives the key of a record that has another one now to the next; False if somebody else moved it."""
        row = _match_row(tenant, entity, key, record_id)
        present = self._table.get(layout.KEYS, row.pk, row.rk)
        if present is None or json_data(present)["record"] != holder:
            return False
        try:
            self._table.replace(layout.KEYS, row, present.etag)
        except RowChanged:
            return False
        return True

    def match_claim(self, tenant: Tenant, entity: str, key: str, record_id: str) -> MatchClaim | None:
        """A record's claim of a key; None where the key is nobody's, or another record's."""
        row = _match_row(tenant, entity, key, record_id)
        present = self._table.get(layout.KEYS, row.pk, row.rk)
        if present is None or json_data(present)["record"] != record_id:
            return None
        return MatchClaim(row.pk, row.rk, present.etag)

    def free_match(self, claim: MatchClaim) -> None:
        """Frees a key, unless anybody has claimed it since it was read, the same record too."""
        with suppress(RowChanged):
            self._table.delete(layout.KEYS, claim.pk, claim.rk, claim.etag)

    def claim_repeat(
        self, tenant: Tenant, key: str, claim: dict[str, str], expired_before: str
    ) -> dict[str, str] | None:
        """Claims an Idempotency-Key's hash for `claim` (with its `time`); None if it is ours now.

        Else what is there: the claim of the request that came first, with its answer once it has one. A claim older
        than `expired_before` is replaced.
        """
        row = Row(f"{tenant.name}~idem~{key[:2]}", key, json_values(claim))
        try:
            self._table.insert(layout.KEYS, row)
        except RowExists:
            present = self._table.get(layout.KEYS, row.pk, row.rk)
            if present is None:
                return self.claim_repeat(tenant, key, claim, expired_before)
            data: dict[str, str] = json_data(present)
            if data == claim:
                return None  # our own insert, sent twice by the SDK
            if data["time"] >= expired_before:
                return data
            try:
                self._table.replace(layout.KEYS, row, present.etag)
            except RowChanged:
                return self.claim_repeat(tenant, key, claim, expired_before)
        return None

    def take_repeat(self, tenant: Tenant, key: str, present: dict[str, str], claim: dict[str, str]) -> bool:
        """Replaces what is there by another claim; False if it is not what is `present` any more."""
        row = Row(f"{tenant.name}~idem~{key[:2]}", key, json_values(claim))
        there = self._table.get(layout.KEYS, row.pk, row.rk)
        if there is None or json_data(there) != present:
            return False
        try:
            replaced(self._table, layout.KEYS, row, there.etag)
        except RowChanged:
            return False
        return True

    def save_repeat(self, tenant: Tenant, key: str, claim: dict[str, str]) -> None:
        """The claim with its answer, for whoever asks again."""
        self._table.upsert(layout.KEYS, Row(f"{tenant.name}~idem~{key[:2]}", key, json_values(claim)))

    def drop_repeat(self, tenant: Tenant, key: str) -> None:
        """After a failure that the caller may repeat under the same key."""
        self._table.delete(layout.KEYS, f"{tenant.name}~idem~{key[:2]}", key)


def _match_row(tenant: Tenant, entity: str, key: str, record_id: str) -> Row:
    """By the key's hash: whatever text it is, and nobody reads an address in the names of rows."""
    name = hashlib.sha256(key.encode()).hexdigest()
    return Row(f"{tenant.name}~match~{entity}~{name[:2]}", name, json_values({"record": record_id}))
