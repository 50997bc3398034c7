"""Who may do what: groups of a user, and which groups a model lets read, write, create and unlink."""

from typing import TYPE_CHECKING

from sandbox.odoo.errors import OPERATIONS, access_error
from sandbox.store import Row

if TYPE_CHECKING:
    from sandbox.odoo.env import Database, Env

EVERYBODY = 1  # base.group_user: whoever signs in inside the company
ADMINISTRATION = 2  # base.group_erp_manager


class Access:
    """The access rights of a database."""

    def __init__(self, db: "Database") -> None:
        self._db = db
        self._rights = db.schema.access()

    def groups(self, uid: int) -> set[int]:
        """The groups of a user and all that they imply."""
        user = self._db.store.get("res.users", str(uid))
        name = "group_ids" if self._db.version >= 19 else "groups_id"
        own = set() if user is None else set(user.values.get(name) or ())
        table = self._db.store.table("res.groups").rows
        return own.union(
            *(set(table[str(g)].values.get("all_implied_ids") or ()) for g in own if str(g) in table)
        )

    def allowed(self, env: "Env", model: str, operation: str) -> bool:
        """Whether the user of this environment may; option ``deny`` takes rights away from all who call."""
        if env.su:
            return True
        if operation in self._db.frame.options["deny"].get(model, ()):
            return False
        if model not in self._rights:  # models whose rights nobody wrote down are read by all who sign in
            return operation == "read" or ADMINISTRATION in self.groups(env.uid)
        mine = self.groups(env.uid)
        return any(
            operation[0] in rights and (not group or group in mine) for group, rights in self._rights[model]
        )

    def check(self, env: "Env", model: str, operation: str) -> None:
        if self.allowed(env, model, operation):
            return
        groups = self._db.store.table("res.groups").rows
        given = [str(g) for g, rights in self._rights.get(model, ()) if g and operation[0] in rights]
        listed = "".join(
            f"\n\t- {label}" for _, label in sorted(_label(groups[g]) for g in given if g in groups)
        )
        reason = (
            f"This operation is allowed for the following groups:{listed}"
            if listed
            else "No group currently allows this operation."
        )
        raise access_error(
            f"You are not allowed to {OPERATIONS[operation]} '{self._db.schema.models[model].string}' ({model}) records.\n\n"
            f"{reason}\n\nContact your administrator to request access if necessary."
        )


def _label(group: Row) -> tuple[bool, str]:
    """A group as a refusal names it; those of no application come last."""
    full, name = str(group.values["full_name"]), str(group.values["name"])
    alone = full == name
    return alone, full if alone else f"{full.removesuffix(f' / {name}')}/{name}"
