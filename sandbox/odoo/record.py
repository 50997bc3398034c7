"""Writes ``data/`` anew from a real server: which models and fields there are, who may do what, and the first rows.

    ODOO_URL=http://127.0.0.1:8169 ODOO_API_KEY=... python -m sandbox.odoo.record [FOLDER]

Only what the server says of itself by its API is kept: names, types, labels, orders, ids. Run it against a fresh
database; ``data/stock`` holds what a server with the module ``stock`` has more (``--beside data``).
"""

import argparse
import json
import os
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

from sandbox.odoo.schema import usually_sortable

HERE = Path(__file__).parent / "data"
# Model -> the fields to keep; empty: all of them.
MODELS: dict[str, str] = {
    **dict.fromkeys(
        (
            "res.partner", "res.partner.category", "res.partner.industry", "res.country", "res.country.state", "res.currency", "res.lang",
            "crm.lead", "crm.stage", "crm.tag", "crm.lost.reason", "product.product", "product.template", "uom.uom",
            "sale.order", "sale.order.line", "mail.activity", "mail.activity.type", "utm.campaign", "utm.source",
            "utm.medium", "ir.model.data", "ir.model.access", "ir.config_parameter", "stock.quant", "stock.location",
        ),
        "",
    ),
    "crm.team": "active name sequence company_id user_id member_ids use_leads use_opportunities color currency_id",
    "product.category": "name complete_name parent_id child_id parent_path product_count",
    "account.tax": "name type_tax_use amount amount_type active company_id price_include country_id sequence",
    "res.users": "name login password partner_id active active_partner company_id company_ids group_ids all_group_ids share "
    "email phone lang tz signature login_date new_password action_id",
    "res.company": "name partner_id currency_id country_id state_id street street2 city zip email phone website vat active "
    "sequence parent_id child_ids user_ids company_registry",
    "res.groups": "name full_name user_ids implied_ids all_implied_ids privilege_id share comment",
    "ir.model": "name model order state field_id access_ids transient modules count info abstract",
    "ir.model.fields": "name model model_id relation relation_field field_description ttype selection selection_ids required "
    "readonly index translate store state copied on_delete domain size modules related help depends compute",
    "ir.module.module": "name shortdesc summary author state latest_version installed_version published_version application",
    "ir.actions.server": "name type model_id model_name state webhook_url webhook_field_ids code usage sequence base_automation_id",
    "base.automation": "name model_id model_name trigger action_server_ids active filter_domain filter_pre_domain "
    "trigger_field_ids webhook_uuid url record_getter log_webhook_calls last_run description",
    "res.users.apikeys": "name user_id scope expiration_date",
}  # fmt: skip
ALWAYS = "id display_name create_date create_uid write_date write_uid"
# What fields_get answers of nearly every field; only what differs is kept.
COMMON = {
    "company_dependent": False, "manual": False, "readonly": False, "required": False, "searchable": True,
    "store": True, "translate": False, "trim": True,
}  # fmt: skip
LEFT_OUT = (
    *("name", "help", "depends", "context", "domain", "groupable", "exportable", "aggregator"),
    *("allow_hierachy_operators", "default_export_compatible", "groups", "change_default"),
)
# The first rows: model -> (fields, domain).
SEEDS: dict[str, tuple[str, list[Any]]] = {
    "res.currency": ("name symbol rounding active", []),
    "res.country": ("name code phone_code", []),
    "res.country.state": (
        "name code country_id",
        [["country_id.code", "in", ["MX", "CO", "CL", "AR", "BR", "ES", "US", "DE", "FR"]]],
    ),
    "res.partner.industry": ("name full_name active", []),
    "res.lang": (
        "name code iso_code active direction",
        [["code", "in", ["en_US", "es_ES", "de_DE", "fr_FR"]]],
    ),
    "res.groups": ("name full_name all_implied_ids", []),
    "crm.stage": ("name sequence is_won fold", []),
    "crm.team": ("name sequence company_id use_leads use_opportunities member_ids", []),
    "crm.lost.reason": ("name active", []),
    "uom.uom": ("name factor relative_factor sequence active", []),
    "product.category": ("name complete_name parent_id", []),
    "account.tax": ("name type_tax_use amount amount_type company_id sequence active", []),
    "mail.activity.type": (
        "name category delay_count delay_unit delay_from icon decoration_type chaining_type summary res_model sequence active",
        [],
    ),
    "utm.source": ("name", []),
    "utm.medium": ("name active", []),
    "res.partner": ("name is_company type company_id active email country_id user_id lang tz", []),
    "res.company": ("name partner_id currency_id country_id sequence active", []),
    "res.users": ("login partner_id company_id company_ids active share group_ids", []),
    "ir.module.module": (
        "name shortdesc state latest_version application",
        ["|", ["state", "=", "installed"], ["application", "=", True]],
    ),
    "stock.location": ("name complete_name usage location_id active", []),
}


def call(model: str, method: str, **arguments: Any) -> Any:
    """A call by JSON-2; None where the server has no such model."""
    request = urllib.request.Request(  # noqa: S310 - the caller's own server
        f"{os.environ['ODOO_URL']}/json/2/{model}/{method}",
        json.dumps(arguments).encode(),
        {"Authorization": f"bearer {os.environ['ODOO_API_KEY']}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def lines(value: dict[str, Any]) -> str:
    """JSON with a line for each member."""
    inside = ",\n".join(
        f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False, sort_keys=True)}" for k, v in value.items()
    )
    return f"{{\n{inside}\n}}\n"


def fields_of(model: str) -> dict[str, Any] | None:
    told = call(model, "fields_get")
    if told is None:
        return None
    kept = set(f"{MODELS[model]} {ALWAYS}".split()) if MODELS[model] else told.keys()
    rules = call(
        "ir.model.fields",
        "search_read",
        domain=[["model", "=", model]],
        fields=["name", "on_delete", "related"],
    )
    rule = {r["name"]: r for r in rules}
    found = {}
    for name in sorted(kept & told.keys()):
        facts = {k: v for k, v in told[name].items() if k not in LEFT_OUT}
        facts = {k: v for k, v in facts.items() if k not in COMMON or v != COMMON[k]}
        if facts["sortable"] == usually_sortable(facts["type"], store=facts.get("store", True)):
            del facts["sortable"]
        if facts["type"] == "many2one" and rule.get(name, {}).get("on_delete"):
            facts["ondelete"] = rule[name]["on_delete"]
        if rule.get(name, {}).get("related"):
            facts["related"] = rule[name]["related"]
        if len(facts.get("selection", ())) > 60:  # time zones
            facts["selection"] = facts["selection"][:1]
        found[name] = facts
    return found


def model_facts(model: str) -> dict[str, Any]:
    about = call(
        "ir.model",
        "search_read",
        domain=[["model", "=", model]],
        fields=["name", "order", "transient", "modules", "is_mail_thread"],
    )[0]
    return {
        "string": about["name"], "order": about["order"], "id": about["id"], "modules": about["modules"],
        "xmlid": xmlids("ir.model").get(about["id"]), **({"thread": True} if about["is_mail_thread"] else {}),
    }  # fmt: skip


@cache
def xmlids(model: str) -> dict[int, str]:
    """Row -> its first external id."""
    named = call(
        "ir.model.data",
        "search_read",
        domain=[["model", "=", model]],
        fields=["complete_name", "res_id"],
        order="id desc",
    )
    return {n["res_id"]: n["complete_name"] for n in named}


def seeds(model: str) -> list[Any]:
    """Rows as ``{"id":, "xmlid":, values}``, references as ids."""
    fields, domain = SEEDS[model]
    rows = call(
        model,
        "search_read",
        domain=domain,
        fields=fields.split(),
        order="id",
        load=None,
        context={"active_test": False},
    )
    return [
        {"xmlid": xmlids(model).get(row["id"]), **{k: v for k, v in row.items() if v is not False}}
        for row in rows
    ]


def access(models: list[str]) -> dict[str, Any]:
    rows = call(
        "ir.model.access", "search_read", domain=[["model_id.model", "in", models]], load=None, order="id",
        fields=["model_id", "group_id", "perm_read", "perm_write", "perm_create", "perm_unlink"],
    )  # fmt: skip
    names = {
        m["id"]: m["model"]
        for m in call("ir.model", "search_read", domain=[["model", "in", models]], fields=["model"])
    }
    found: dict[str, Any] = {}
    for row in rows:
        rights = "".join(k[0] for k in ("read", "write", "create", "unlink") if row[f"perm_{k}"])
        found.setdefault(names[row["model_id"]], []).append([row["group_id"], rights])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sandbox.odoo.record")
    parser.add_argument("folder", type=Path, nargs="?", default=HERE)
    parser.add_argument("--beside", type=Path, help="a folder recorded before: keep only what is not in it")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    known = json.loads((arguments.beside / "models.json").read_text("utf-8")) if arguments.beside else {}
    models = {}
    for model in MODELS:
        fields = fields_of(model)
        if fields is None:
            continue
        if arguments.beside and (before := arguments.beside / f"{model}.json").exists():
            fields = {k: v for k, v in fields.items() if k not in json.loads(before.read_text("utf-8"))}
        if fields:
            (folder / f"{model}.json").write_text(lines(fields), "utf-8")
        if model not in known:
            models[model] = model_facts(model)
    (folder / "models.json").write_text(lines(models), "utf-8")
    (folder / "access.json").write_text(lines(access(list(models))), "utf-8")
    rows = {m: seeds(m) for m in SEEDS if m in models}
    (folder / "seeds.json").write_text(
        "{\n" + ",\n".join(
            f" {json.dumps(m)}: [\n" + ",\n".join(f"  {json.dumps(r, ensure_ascii=False)}" for r in each) + "\n ]"
            for m, each in rows.items()
        ) + "\n}\n", "utf-8",
    )  # fmt: skip


if __name__ == "__main__":
    main()
