"""Companies and people (res.partner): names built from the parent, addresses that follow it, and what is read of others."""

import re
from email.utils import formataddr, parseaddr
from typing import Any

from sandbox.odoo.errors import broken, validation
from sandbox.odoo.orm import BaseModel
from sandbox.odoo.reading import api_model
from sandbox.store import Row, Values

ADDRESS = ("street", "street2", "zip", "city", "state_id", "country_id")
LOADING = "_partners_skip_fields_sync"  # as the server's own context has it
COMMERCIAL = ("vat", "company_registry", "industry_id")
EMAIL = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+\.[^@\s<>,;]+")


SCHEME = re.compile(r"[A-Za-z0-9+-.]+:(?![0-9]+$)")


def cleaned(vals: Values) -> None:
    """An address of the web has a scheme."""
    text = vals.get("website")
    if isinstance(text, str) and text and not SCHEME.match(text):
        vals["website"] = f"http:{text}" if text.startswith("//") else f"http://{text}"


def normalized(email: Any) -> str | None:
    """The one address in a text, in lower case."""
    found = EMAIL.findall(str(email or ""))
    return found[0].lower() if len(found) == 1 else None


class ResPartner(BaseModel):
    _names = ("complete_name", "email", "ref", "vat", "company_registry")
    _followed = ("parent_id",)

    def _defaults(self) -> Values:
        return {
            **super()._defaults(),
            "type": "contact",
            "is_company": False,
            "lang": "en_US",
            "autopost_bills": "ask",
            "trust": "normal",
        }

    def _parent(self, row: Row) -> Row | None:
        return self._env.row(self._name, row.values.get("parent_id"))

    # --- values that are not kept ---------------------------------------------------------------------------

    def _compute_commercial_partner_id(self, row: Row) -> int:
        while not row.values.get("is_company") and (parent := self._parent(row)) is not None:
            row = parent
        return int(row.id)

    def _compute_complete_name(self, row: Row) -> str:
        name = row.values.get("name") or ""
        parent = self._parent(row)
        if parent is None and not row.values.get("company_name"):
            return name.strip()
        if not name and row.values.get("type") in ("invoice", "delivery", "other"):
            name = dict(self._fields["type"].selection)[row.values["type"]]
        if row.values.get("is_company"):
            return name.strip()
        above = self._compute_commercial_company_name(row) or (parent.values.get("name") if parent else "")
        return f"{above}, {name}".strip()

    _compute_display_name = _compute_complete_name

    def _compute_commercial_company_name(self, row: Row) -> str | None:
        top = self._rows()[str(self._compute_commercial_partner_id(row))]
        name = top.values.get("name") if top.values.get("is_company") else row.values.get("company_name")
        return name or None

    def _compute_company_type(self, row: Row) -> str:
        return "company" if row.values.get("is_company") else "person"

    def _inverse_company_type(self) -> None: ...

    def _compute_email_normalized(self, row: Row) -> str | None:
        return normalized(row.values.get("email"))

    def _compute_email_formatted(self, row: Row) -> str | None:
        email = row.values.get("email")
        return formataddr((row.values.get("name") or "", parseaddr(email)[1])) if email else None

    def _compute_contact_address(self, row: Row) -> str:
        v = row.values
        country, state = (
            self._env.row("res.country", v.get("country_id")),
            self._env.row("res.country.state", v.get("state_id")),
        )
        town = " ".join(x for x in (v.get("zip") or "", v.get("city") or "") if x)
        if state is not None:
            town = f"{v.get('city') or ''} {state.values['code']} {v.get('zip') or ''}"
        lines = [
            v.get("street") or "",
            v.get("street2") or "",
            town,
            country.values["name"] if country else "",
        ]
        above = self._compute_commercial_company_name(row)
        return "\n".join([*([above] if above else []), *lines])

    # --- writing --------------------------------------------------------------------------------------------

    def _named_kind(self, vals: Values) -> None:
        kind = vals.pop("company_type", None)
        if kind:
            vals["is_company"] = kind == "company"

    def _prepare(self, vals: Values) -> None:
        self._named_kind(vals)
        cleaned(vals)
        if not vals.get("name") and vals.get("type") == "contact":
            raise broken("Contacts require a name")

    def _after_create(self, row: Row, vals: Values) -> None:
        parent = self._parent(row)
        if parent is None or self._env.context.get(LOADING):
            return
        own = row.values
        taken = {
            f: parent.values.get(f) for f in COMMERCIAL if not own.get("is_company") and parent.values.get(f)
        }
        if own.get("type") == "contact":
            if any(parent.values.get(f) for f in ADDRESS):
                taken |= {f: parent.values.get(f) for f in ADDRESS}
            elif any(own.get(f) for f in ADDRESS):
                self._touch(parent.id, {f: own.get(f) for f in ADDRESS})
        if taken:
            self._touch(row.id, taken)

    def _load_create(self, values: Values) -> int:
        quiet = self._env.with_context({**self._env.context, LOADING: True})
        return int(quiet[self._name].create([values])[0])

    def _after_load(self, keys: list[int]) -> None:
        """What new rows of an import have of their parents; a parent without an address has that of its only contact."""
        for row in (self._rows()[str(key)] for key in keys):
            parent = self._parent(row)
            if parent is None:
                continue
            taken = {} if row.values.get("is_company") else {f: parent.values.get(f) for f in COMMERCIAL}
            if row.values.get("type") == "contact":
                taken |= {f: parent.values[f] for f in ADDRESS if parent.values.get(f)}
            if taken:
                self._browse([int(row.id)]).write({f: v or False for f, v in taken.items()})
            self._first_contact(parent, self._rows()[row.id])

    def _first_contact(self, parent: Row, row: Row) -> None:
        mine = self._env.db.store.table(self._name).where("parent_id", int(parent.id))
        top = parent.values.get("is_company") or not parent.values.get("parent_id")
        alone = sum(1 for each in mine if each.values.get("active")) == 1
        if top and alone and not any(parent.values.get(f) for f in ADDRESS):
            self._touch(parent.id, {f: row.values.get(f) for f in ADDRESS})

    def _before_write(self, rows: list[Row], vals: Values) -> None:
        self._named_kind(vals)
        cleaned(vals)
        for row in rows:
            kind = vals.get("type", row.values.get("type"))
            if kind == "contact" and not vals.get("name", row.values.get("name")):
                raise broken("Contacts require a name")
            above = vals.get("parent_id")
            if isinstance(above, int) and above and int(row.id) in self._tree({above}, down=False):
                raise validation("You cannot create recursive Partner hierarchies.")

    def _after_write(self, old: Row, row: Row, vals: Values) -> None:
        """An address goes up to the parent and down to its contacts; a real change of a company moves all below it."""
        if not any(old.values.get(k) != row.values.get(k) for k in vals):
            return
        parent = self._parent(row)
        if parent is not None and row.values.get("type") == "contact":
            if row.values.get("parent_id") != old.values.get("parent_id"):
                if any(parent.values.get(f) for f in ADDRESS):
                    self._touch(row.id, {f: parent.values.get(f) for f in ADDRESS})
            elif vals.keys() & set(ADDRESS) and any(
                row.values.get(f) != parent.values.get(f) for f in ADDRESS
            ):
                self._browse([int(parent.id)]).write({f: row.values.get(f) or False for f in ADDRESS})
        self._down(self._rows()[row.id], vals)

    def _down(self, row: Row, vals: Values) -> None:
        children = [
            r
            for r in self._env.db.store.table(self._name).where("parent_id", int(row.id))
            if r.values.get("active")
        ]
        if vals.keys() & set(ADDRESS):
            for child in children:
                if child.values.get("type") == "contact" and any(
                    child.values.get(f) != row.values.get(f) for f in ADDRESS
                ):
                    self._touch(child.id, {f: row.values.get(f) for f in ADDRESS})
                    self._down(self._rows()[child.id], dict.fromkeys(ADDRESS))
        if self._compute_commercial_partner_id(row) == int(row.id):
            self._sync(row, {f: row.values.get(f) for f in COMMERCIAL if f in vals})

    def _sync(self, row: Row, patch: Values) -> None:
        """The server writes to every contact below, be it nothing: so their times move."""
        for child in list(self._env.db.store.table(self._name).where("parent_id", int(row.id))):
            if not child.values.get("is_company") and child.values.get("active"):
                self._touch(child.id, patch)
                self._sync(child, patch)

    @api_model
    def name_create(self, name: str) -> list[Any]:
        shown, email = parseaddr(name)
        vals = {"name": shown or email, "email": email} if "@" in email else {"name": name}
        key = self.create([vals])[0]
        return [key, self._getter("display_name")(self._rows()[str(key)])]


class ResCountry(BaseModel):
    _names = ("name", "code")

    @api_model
    def name_search(
        self, name: str = "", domain: Any = None, operator: str = "ilike", limit: int = 100
    ) -> list[Any]:
        found: list[Any] = []
        if len(name) == 2:
            found = [
                [int(r.id), r.values["name"]]
                for r in self._search(domain or [])
                if r.values.get("code") == name.upper()
            ]
        more = super().name_search(name, domain, operator, limit)
        return [*found, *(m for m in more if m not in found)][: limit or None]


class ResCountryState(BaseModel):
    def _compute_display_name(self, row: Row) -> str:
        country = self._env.row("res.country", row.values.get("country_id"))
        return (
            f"{row.values.get('name')} ({country.values.get('code')})"
            if country
            else str(row.values.get("name"))
        )


class ResPartnerCategory(BaseModel):
    def _compute_display_name(self, row: Row) -> str:
        names = [row.values.get("name") or ""]
        while (above := self._env.row(self._name, row.values.get("parent_id"))) is not None:
            row = above
            names.insert(0, row.values.get("name") or "")
        return " / ".join(names)


ResCountry.name_search.__qualname__ = "ResCountry.name_search"
CLASSES: dict[str, type[BaseModel]] = {
    "res.partner": ResPartner,
    "res.country": ResCountry,
    "res.country.state": ResCountryState,
    "res.partner.category": ResPartnerCategory,
}
