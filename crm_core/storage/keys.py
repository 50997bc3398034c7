"""What must be unique, claimed by an insert: slugs, and the keys under which a caller repeats a request."""

from crm_core.model.connection import Tenant
from crm_core.ports import Row, RowChanged, RowExists, Table
from crm_core.storage import layout
from crm_core.storage.state import json_data, json_values


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

    def save_repeat(self, tenant: Tenant, key: str, claim: dict[str, str]) -> None:
        """The claim with its answer, for whoever asks again."""
        self._table.upsert(layout.KEYS, Row(f"{tenant.name}~idem~{key[:2]}", key, json_values(claim)))

    def drop_repeat(self, tenant: Tenant, key: str) -> None:
        """After a failure that the caller may repeat under the same key."""
        self._table.delete(layout.KEYS, f"{tenant.name}~idem~{key[:2]}", key)
