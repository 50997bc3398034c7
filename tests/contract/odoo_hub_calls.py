"""Calls about users, and those by which a hub loads what it has: addresses, websites, amounts, and what can be sorted."""

from typing import Any

from tests.contract.odoo_player import LEAD, PARTNER, PRODUCT, Call, find, get, j2, new, put

KNOWN = ["login", "in", ["admin", "oc-reader"]]
USERS = [
    find("users", [KNOWN], "res.users"),
    find("users with those archived", [["login", "in", ["admin", "__system__", "public"]]], "res.users", context={"active_test": False}),
    j2("users read", "res.users", "search_read", domain=[KNOWN], fields=["name", "login", "active", "share"]),
    j2("users counted", "res.users", "search_count", domain=[KNOWN]),
    j2("user by name", "res.users", "name_search", name="administrator"),
    *(find(f"users in order of {order}", [KNOWN], "res.users", order=order)
      for order in ("name", "name desc", "login desc", "email, id", "partner_id, id", "display_name")),
    find("rows in order of their users", [["id", "in", ["$comp"]]], order="user_id, id"),
]  # fmt: skip


def imported(name: str, *rows: Any, columns: str = "id name ref parent_id/id street") -> Call:
    return j2(name, PARTNER, "load", fields=columns.split(), data=[list(row) for row in rows])


def streets(name: str, *refs: str) -> Call:
    return j2(
        name, PARTNER, "search_read", domain=[["ref", "in", refs]], fields=["name", "street"], order="ref"
    )


COMPANY = "id name is_company ref website"
HUB = [
    imported("load two companies", ["oc.shop", "Shop", "1", "OC-30", "shop.example"],
             ["oc.stall", "Stall", "1", "OC-40", "mailto:x"], columns=COMPANY),
    j2("websites have a scheme", PARTNER, "search_read", domain=[["ref", "in", ["OC-30", "OC-40"]]],
       fields=["website"], order="ref"),
    imported("load two contacts", ["oc.one", "One", "OC-31", "oc.shop", "A 1"], ["oc.two", "Two", "OC-32", "oc.shop", "B 2"]),
    streets("several contacts of a load keep their addresses", "OC-30", "OC-31", "OC-32"),
    imported("load an only contact", ["oc.only", "Only", "OC-41", "oc.stall", "C 3"]),
    streets("a company has the address of its only contact", "OC-40", "OC-41"),
    imported("load another contact", ["oc.next", "Next", "OC-42", "oc.stall", "D 4"]),
    streets("a contact of a load has the address of its company", "OC-40", "OC-41", "OC-42"),
    j2("external id", PARTNER, "get_external_id", ids=[1]),
    new("rich", LEAD, name="Rich", expected_revenue=1.005, website="//rich.example"),
    get("a new amount stays as it is", LEAD, "$rich", "expected_revenue", "website"),
    put("write an amount", LEAD, "$rich", expected_revenue=2.675),
    get("an amount that is written is rounded", LEAD, "$rich", "expected_revenue"),
    find("products by the name of their template", [["id", "=", 0]], PRODUCT, order="name"),
    find("products by what is worked out", [["id", "=", 0]], PRODUCT, order="currency_id"),
    j2("what can be sorted", PRODUCT, "fields_get", allfields=["name", "type", "currency_id", "default_code"],
       attributes=["sortable"]),
    j2("industries", "res.partner.industry", "search_read", domain=[], fields=["name", "full_name"]),
]  # fmt: skip
