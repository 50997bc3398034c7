"""Calls about activities (mail.activity): what they are of, who may see them, what is done, and how they are found."""

from typing import Any

from tests.contract.odoo_player import ACTIVITY, LEAD, PARTNER, Call, find, get, j2, new, put, rpc

KIND = "mail.activity.type"
DONE = ("active", "date_done", "state", "feedback")
ABOUT = ("res_model", "res_id", "res_name", "user_id")
HOST = {"res_model_id": "$model", "res_id": "$ahost"}
READER = ["$db", "$areader", "oa-reader"]


def made(name: str, *, keep: str = "", context: Any = None, **values: Any) -> Call:
    more = {} if context is None else {"context": context}
    return j2(name, ACTIVITY, "create", keep=keep, vals_list=[values], **more)


def todo(keep: str, **values: Any) -> Call:
    """An activity of the company of this list."""
    return new(keep, ACTIVITY, **HOST, **values)


def load(name: str, columns: str, *rows: Any) -> Call:
    return j2(name, ACTIVITY, "load", fields=columns.split(), data=[list(row) for row in rows])


def reader(name: str, model: str, method: str, *args: Any) -> Call:
    """By a user who may see partners and change none."""
    return Call(
        f"activity reader: {name}", "jsonrpc", ("object", "execute_kw"), [*READER, model, method, list(args)]
    )


def group(name: str, method: str, *by: str, domain: Any, **more: Any) -> Call:
    return j2(name, ACTIVITY, method, domain=domain, groupby=list(by), **more)


TYPES = [
    j2("activity types", KIND, "search_read", domain=[], context={"active_test": False},
       fields=["name", "display_name", "category", "sequence", "delay_count", "delay_unit", "delay_from", "delay_label", "icon", "summary",
               "decoration_type", "chaining_type", "res_model", "default_note", "default_user_id", "suggested_next_type_ids", "active"]),
    j2("activity types that are shown", KIND, "search_read", domain=[], fields=["name"]),
    j2("external ids of activity types", KIND, "get_external_id", ids=[1, 2, 3, 4, 5, 6]),
    j2("external ids of models", "ir.model", "search_read", domain=[["model", "in", [PARTNER, LEAD, "sale.order", "res.users"]]],
       fields=["model", "name"], order="model"),
    j2("reference of a model", "ir.model.data", "check_object_reference", module="base", xml_id="model_res_partner"),
    j2("new activity type", KIND, "create", keep="visit", vals_list=[{"name": "OA Visit"}]),
    get("new activity type as made", KIND, "$visit", "category", "sequence", "delay_count", "delay_label", "delay_from", "chaining_type", "icon"),
    j2("delete of an activity type", KIND, "unlink", ids=["$visit"]),
    *(j2(f"delete of the activity type {n}", KIND, "unlink", ids=[n]) for n in (2, 3, 4)),
    j2("activity type by name", KIND, "name_search", name="cal"),
    j2("fields of activities", ACTIVITY, "fields_get", attributes=["type", "required", "readonly", "store", "searchable", "sortable", "relation"]),
    j2("selections of activities", ACTIVITY, "fields_get", attributes=["selection", "string"],
       allfields=["state", "activity_category", "activity_decoration", "chaining_type"]),
    j2("defaults of an activity", ACTIVITY, "default_get",
       fields=["active", "res_model", "res_model_id", "res_id", "activity_type_id", "user_id", "date_deadline", "summary", "note", "state"]),
    j2("defaults of an activity of a row", ACTIVITY, "default_get", context={"default_res_model": PARTNER, "default_res_id": 1},
       fields=["res_model", "res_model_id", "res_id", "activity_type_id", "user_id", "date_deadline"]),
]  # fmt: skip
MADE = [
    new("ahost", PARTNER, name="OA Host", is_company=True),
    new("aother", PARTNER, name="OA Other"),
    new("adeal", LEAD, name="OA Deal"),
    j2("model of leads", "ir.model", "search", domain=[["model", "=", LEAD]], keep="leads"),
    todo("bare"),
    j2("all of a bare activity", ACTIVITY, "read", ids=["$bare"]),
    made("activity of nobody about a row", keep="unowned", **HOST, user_id=False),
    made("activity by two models", keep="both", res_model=LEAD, **HOST),
    get("is of the row of the model", ACTIVITY, "$both", *ABOUT),
    made("activity by the name of a model and a user", res_model=PARTNER, res_id="$ahost", user_id=2),
    made("activity with its model from the context", keep="fromcontext", context={"default_res_model": PARTNER}, res_id="$ahost"),
    get("has that model", ACTIVITY, "$fromcontext", *ABOUT),
    made("activity with a name for a model", res_model_id=PARTNER, res_id="$ahost"),
    made("activity with a model as it is read", res_model_id=[90, "Contact"], res_id="$ahost"),
    made("activity with a model in digits", res_model_id="90", res_id="$ahost"),
    made("activity without a row", keep="alone", user_id=2, summary="OA alone"),
    get("is of nothing", ACTIVITY, "$alone", *ABOUT, "state", "date_deadline"),
    made("activity without a row for somebody else", user_id=1),
    made("activity with nothing"),
    made("activity with a row of no model", res_id="$ahost"),
    made("activity with a row of no model for somebody", res_id="$ahost", user_id=2),
    made("activity of a model without a row", res_model_id="$model", user_id=2),
    made("activity of no model", res_model_id=999999, res_id=1),
    made("activity of no row", res_model_id="$model", res_id=999999),
    made("activity of a row by text", res_model_id="$model", res_id="abc"),
    made("activity of no type", **HOST, activity_type_id=999999),
    made("activity without a type", keep="untyped", **HOST, activity_type_id=False),
    get("has nothing of one", ACTIVITY, "$untyped", "activity_type_id", "activity_category", "display_name", "icon", "chaining_type"),
    made("activity for no user", **HOST, user_id=999999),
    made("activity for a user by text", **HOST, user_id="Administrator"),
    made("activity for a user as it is read", **HOST, user_id=[2, "Administrator"]),
    made("activity without a day", **HOST, date_deadline=False),
    made("activity of a day that is not", **HOST, date_deadline="2099-02-30"),
    made("activity of a time", keep="timed", **HOST, date_deadline="2099-02-03 10:00:00"),
    get("has its day", ACTIVITY, "$timed", "date_deadline", "state"),
    made("activity with an unknown field", **HOST, foo=1),
    made("activity with what is worked out", keep="worked", **HOST, state="done", res_name="X", date_done="2020-01-01", display_name="X", icon="X"),
    get("is worked out all the same", ACTIVITY, "$worked", "state", "res_name", "date_done", "display_name", "icon"),
    made("activity that is done", keep="olddone", **HOST, active=False, feedback="f", date_done="2020-01-01"),
    get("was done then", ACTIVITY, "$olddone", *DONE),
    made("activity that is done today", keep="newdone", **HOST, active=False),
    get("was done today", ACTIVITY, "$newdone", *DONE),
    *(step for n in (1, 2, 3, 5, 6) for step in (
        todo(f"kind{n}", activity_type_id=n),
        get(f"activity of type {n}", ACTIVITY, f"$kind{n}", "activity_type_id", "activity_category", "activity_decoration", "date_deadline",
            "summary", "note", "user_id", "icon", "display_name"))),
    made("late activity", keep="late", **HOST, date_deadline="2001-02-03", summary="OA late"),
    get("is late", ACTIVITY, "$late", "state", "date_deadline", "display_name"),
    j2("activity by a name", ACTIVITY, "name_search", name="OA late"),
]  # fmt: skip
TEXTS = [
    "a & b < c", "two\nlines", "no\u00a0break", "a <b>bold</b> tail", "<b>bold</b> tail", "text <p>x</p>", "<p>x</p> tail", "a<br/>b", "<p>a<p>b",
    "<P class='c' style=\"color:red\">x</P>", "<p onclick='x()'>x</p>", "<a href='https://x.example/?a=1&b=2'>u</a>", "<a href='javascript:x()'>u</a>",
    "<ul><li>a<li>b</ul>", "<unknown>z</unknown>", "<p><unknown>z</unknown></p>", "<iframe src='x'></iframe>", "<p>x</p><script>x()</script>",
    "<!-- c --><p>x</p>", "  <p>x</p>  ", "   ", "<img src='https://x.example/a.png'/>", "<i>open", "<p>closed</p></div>", "&nbsp;", "<p>&amp;lt;</p>",
]  # fmt: skip
NOTES = [
    step for n, text in enumerate(TEXTS)
    for step in (put(f"write note {n}", ACTIVITY, "$bare", note=text), get(f"note {n}", ACTIVITY, "$bare", "note"))
]  # fmt: skip
WRITTEN = [
    todo("moved", summary="OA moved"), todo("owned", user_id=2, activity_type_id=2, date_deadline="2001-01-01"),
    put("activity of another row", ACTIVITY, "$moved", res_id="$aother"),
    get("has the name of that row", ACTIVITY, "$moved", *ABOUT),
    put("activity of a row that is not", ACTIVITY, "$moved", res_id=999999),
    put("activity of a row that is false", ACTIVITY, "$moved", res_id=False),
    put("activity of a row of another model", ACTIVITY, "$moved", res_model_id="$leads", res_id="$adeal"),
    get("has that model's row", ACTIVITY, "$moved", *ABOUT),
    put("activity of a model that is not", ACTIVITY, "$moved", res_model_id=999999),
    put("activity of a model by text", ACTIVITY, "$moved", res_model_id=PARTNER),
    put("activity of no row any more", ACTIVITY, "$moved", res_model_id=False, res_id=False),
    put("activity of no row for somebody", ACTIVITY, "$moved", res_model_id=False, res_id=False, user_id=2),
    get("is of nothing any more", ACTIVITY, "$moved", *ABOUT),
    put("back to its row", ACTIVITY, "$moved", res_model_id="$model", res_id="$ahost", user_id=False),
    put("day of nobody's taken away", ACTIVITY, "$moved", date_deadline=False),
    put("day of somebody's taken away", ACTIVITY, "$owned", date_deadline=False),
    put("type that is not", ACTIVITY, "$moved", activity_type_id=999999),
    put("user that is not", ACTIVITY, "$moved", user_id=999999),
    put("user by text", ACTIVITY, "$moved", user_id="Administrator"),
    put("user as it is read", ACTIVITY, "$moved", user_id=[2, "Administrator"]),
    put("user in digits", ACTIVITY, "$moved", user_id="2"),
    put("user true", ACTIVITY, "$moved", user_id=True),
    put("type as it is read", ACTIVITY, "$moved", activity_type_id=[4, "To-Do"]),
    get("takes the type away", ACTIVITY, "$moved", "activity_type_id"),
    put("state as it may be", ACTIVITY, "$moved", state="done"),
    put("state as it may not be", ACTIVITY, "$moved", state="nope"),
    put("unknown field of an activity", ACTIVITY, "$moved", foo=1),
    put("no activity", ACTIVITY, 999999, summary="x"),
    put("day when it was done", ACTIVITY, "$moved", date_done="2020-02-02"),
    get("is kept though it is open", ACTIVITY, "$moved", *DONE),
    put("archived with a day", ACTIVITY, "$moved", active=False, date_done="2020-02-03", feedback="w"),
    get("is done on that day", ACTIVITY, "$moved", *DONE),
    put("open again", ACTIVITY, "$moved", active=True),
    get("has no such day", ACTIVITY, "$moved", *DONE),
    j2("archive of an activity of somebody", ACTIVITY, "action_archive", ids=["$owned"]),
    get("is done today", ACTIVITY, "$owned", *DONE, "date_deadline", "user_id"),
    j2("activity out of the archive", ACTIVITY, "action_unarchive", ids=["$owned"]),
    get("is late again", ACTIVITY, "$owned", *DONE),
    put("new name of the row", PARTNER, "$ahost", name="OA Host 2"),
    get("is not taken over", ACTIVITY, "$moved", "res_name"),
]  # fmt: skip
FINISHED = [
    j2("activity done", ACTIVITY, "action_done", ids=["$owned"]),
    get("done is archived", ACTIVITY, "$owned", *DONE, *ABOUT, "date_deadline"),
    j2("activity done again", ACTIVITY, "action_done", ids=["$owned"]),
    j2("activity done again with a feedback", ACTIVITY, "action_feedback", ids=["$owned"], feedback="late"),
    get("has the feedback", ACTIVITY, "$owned", *DONE),
    j2("activity done with a feedback", ACTIVITY, "action_feedback", ids=["$bare"], feedback="went <b>well</b>"),
    get("has it as text", ACTIVITY, "$bare", *DONE),
    j2("activity done with no feedback", ACTIVITY, "action_feedback", ids=["$untyped"], feedback=False),
    j2("two activities done", ACTIVITY, "action_done", ids=["$kind1", "$kind2"]),
    find("both are done", [["id", "in", ["$kind1", "$kind2"]], ["active", "=", False]], ACTIVITY),
    j2("activity of nothing done", ACTIVITY, "action_done", ids=["$alone"]),
    get("is done without a word", ACTIVITY, "$alone", *DONE),
    j2("no activity done", ACTIVITY, "action_done", ids=[]),
    j2("activity that is not done", ACTIVITY, "action_done", ids=[999999]),
    j2("one of two that is not, done", ACTIVITY, "action_feedback", ids=["$kind3", 999999], feedback="x"),
    get("is open still", ACTIVITY, "$kind3", *DONE),
    j2("feedback by another name", ACTIVITY, "action_feedback", ids=["$kind3"], text="x"),
    rpc("rpc: activity done", ACTIVITY, "action_feedback", ["$kind3"], feedback="x"),
    rpc("rpc: activity done again", ACTIVITY, "action_done", ["$kind3"]),
    j2("model of countries", "ir.model", "search", domain=[["model", "=", "res.country"]], keep="countries"),
    new("abroad", ACTIVITY, res_model_id="$countries", res_id=57),
    get("activity of what has no messages", ACTIVITY, "$abroad", *ABOUT, "can_write"),
    j2("activity of what has no messages done", ACTIVITY, "action_done", ids=["$abroad"]),
    get("is open all the same", ACTIVITY, "$abroad", *DONE),
    put("archived it is done", ACTIVITY, "$abroad", active=False),
    j2("activity cancelled", ACTIVITY, "action_cancel", ids=["$kind5"]),
    get("cancelled is gone", ACTIVITY, "$kind5", "active"),
    j2("delete of an activity", ACTIVITY, "unlink", ids=["$kind6"]),
    find("deleted is gone", [["id", "=", "$kind6"]], ACTIVITY, context={"active_test": False}),
    j2("delete of no activity", ACTIVITY, "unlink", ids=[999999]),
]  # fmt: skip
SOUGHT = ["summary", "=like", "OS %"]
BY_FIELD: list[tuple[str, Any]] = [
    ("res_model", ["res_model", "=", PARTNER]), ("no res_model", ["res_model", "=", False]), ("res_model_id", ["res_model_id", "=", "$leads"]),
    ("model by name", ["res_model_id", "ilike", "Contact"]), ("model of the model", ["res_model_id.model", "=", LEAD]), ("res_id", ["res_id", "=", "$ahost"]),
    ("no res_id", ["res_id", "=", False]), ("res_id 0", ["res_id", "=", 0]), ("res_ids", ["res_id", "in", ["$ahost", "$adeal"]]),
    ("field of res_id", ["res_id.name", "=", "x"]), ("any of res_id", ["res_id", "any", [["name", "=", "x"]]]), ("res_name", ["res_name", "ilike", "oa host"]),
    ("type", ["activity_type_id", "=", 3]), ("type by name", ["activity_type_id", "=", "Meeting"]), ("category", ["activity_category", "=", "meeting"]),
    ("chaining type", ["chaining_type", "=", "suggest"]), ("day", ["date_deadline", "<", "2002-01-01"]), ("no day", ["date_deadline", "=", False]),
    ("day that is not", ["date_deadline", ">", "zz"]), ("state", ["state", "=", "overdue"]), ("user", ["user_id", "=", 2]), ("no user", ["user_id", "=", False]),
    ("user by name", ["user_id", "=", "Administrator"]), ("summary", ["summary", "ilike", "os t"]), ("note", ["note", "ilike", "find"]),
    ("display name", ["display_name", "ilike", "OS o"]), ("can write", ["can_write", "=", True]), ("time", ["write_date", ">", "2020-01-01 00:00:00"]),
    ("done", ["active", "=", False]), ("done or not", ["active", "in", [True, False]]), ("feedback", ["feedback", "=", "fine"]), ("day done", ["date_done", "!=", False]),
]  # fmt: skip
FOUND = [
    todo("sone", summary="OS one", date_deadline="2001-01-01"), todo("stwo", summary="OS two", user_id=2, date_deadline="2099-01-01", activity_type_id=2),
    todo("sthree", summary="OS three", note="<p>find me</p>", date_deadline="2050-01-01"),
    new("sfour", ACTIVITY, res_model_id="$leads", res_id="$adeal", summary="OS four", activity_type_id=3, date_deadline="2050-01-01"),
    new("sfive", ACTIVITY, user_id=2, summary="OS five", date_deadline="2000-01-01"),
    j2("the second is done", ACTIVITY, "action_feedback", ids=["$stwo"], feedback="fine"),
    find("activities", [SOUGHT], ACTIVITY), find("activities with those done", [SOUGHT], ACTIVITY, context={"active_test": False}),
    *(find(f"activities by {name}", [SOUGHT, condition], ACTIVITY) for name, condition in BY_FIELD),
    *(find(f"activities by {name} with those done", [SOUGHT, condition], ACTIVITY, context={"active_test": False})
      for name, condition in BY_FIELD if name in ("feedback", "day done", "user", "type", "res_id")),
    *(find(f"activities in order of {order}", [SOUGHT], ACTIVITY, order=order)
      for order in ("id", "date_deadline desc, id desc", "res_name, id", "user_id, id", "activity_type_id, id desc", "summary", "res_model, id",
                    "activity_category, id", "write_date, id", "state", "display_name", "can_write")),
    j2("activities read", ACTIVITY, "search_read", domain=[SOUGHT], fields=["summary", "state", "res_name", "user_id"], offset=1, limit=2),
    j2("activities counted", ACTIVITY, "search_count", domain=[SOUGHT]),
    group("activities grouped by type", "formatted_read_group", "activity_type_id", domain=[SOUGHT], aggregates=["__count"]),
    group("activities grouped by user", "formatted_read_group", "user_id", domain=[SOUGHT], aggregates=["__count"]),
    group("activities grouped by model", "formatted_read_group", "res_model", domain=[SOUGHT], aggregates=["__count"]),
    group("activities grouped by state", "formatted_read_group", "state", domain=[SOUGHT], aggregates=["__count"]),
    group("read_group of activities", "read_group", "activity_type_id", domain=[SOUGHT], fields=[]),
]  # fmt: skip
ROW = "id res_model_id/id res_id activity_type_id/id summary"
LOADED = [
    load("load of an activity", ROW, ["oa.one", "base.model_res_partner", "1", "mail.mail_activity_data_call", "OL one"]),
    load("load of it again", ROW, ["oa.one", "base.model_res_partner", "1", "mail.mail_activity_data_call", "OL uno"]),
    load("load of more of it", "id note user_id/id date_deadline", ["oa.one", "plain", "base.user_admin", "2099-03-03 10:00:00"]),
    load("load by the name of the model", "id res_model_id res_id activity_type_id summary", ["oa.two", "Contact", "1", "Meeting", "OL two"]),
    load("load by the database id of the model", "id res_model_id/.id res_id summary", ["oa.three", "90", 1, "OL three"]),
    load("load of two of one id", ROW.replace("activity_type_id/id ", ""), ["oa.four", "base.model_res_partner", "1", "OL 4"],
         ["oa.four", "base.model_res_partner", "1", "OL four"]),
    load("load without an external id", "res_model_id/id res_id summary", ["base.model_res_partner", "1", "OL five"]),
    load("load of an activity of nothing", "id user_id/id summary", ["oa.six", "base.user_admin", "OL six"]),
    j2("loaded activities", ACTIVITY, "search_read", domain=[["summary", "=like", "OL %"]], order="summary",
       fields=["summary", "note", "date_deadline", "user_id", "activity_type_id", "res_model", "res_name", "state"]),
    load("load by res_model", "id res_model res_id summary", ["oa.seven", PARTNER, "1", "OL seven"]),
    load("load of no row", ROW.replace("activity_type_id/id ", ""), ["oa.seven", "base.model_res_partner", "999999", "OL seven"]),
    load("load of a row and of no row", ROW.replace("activity_type_id/id ", ""), ["oa.eight", "base.model_res_partner", "1", "OL eight"],
         ["oa.seven", "base.model_res_partner", "999999", "OL seven"]),
    load("load of a new row that is not", "id res_id", ["oa.one", "999999"]),
    load("load without a row", "id res_model_id/id summary", ["oa.seven", "base.model_res_partner", "OL seven"]),
    load("load of a row by text", "id res_model_id/id res_id summary", ["oa.seven", "base.model_res_partner", "abc", "OL seven"]),
    load("load of no type", ROW, ["oa.seven", "base.model_res_partner", "1", "mail.nope", "OL seven"]),
    load("load of no model", ROW, ["oa.seven", "base.model_nope", "1", "mail.mail_activity_data_call", "OL seven"]),
    load("load of a day that is not", "id date_deadline", ["oa.one", "2099-13-01"]),
    load("load of a user that is not", "id user_id/.id", ["oa.one", "999999"]),
    load("load without its user", "id user_id/id", ["oa.one", ""]),
    load("load without a day", "id date_deadline", ["oa.one", ""]),
    load("load of a change and of one that lacks", "id summary", ["oa.one", "OL one"], ["oa.seven", "OL seven"]),
    load("load of what is done", "id active feedback", ["oa.one", "0", "fb"]),
    load("load of a change of what is done", "id summary", ["oa.one", "OL done"]),
    j2("loaded and done", ACTIVITY, "search_read", domain=[["summary", "=", "OL done"], ["active", "=", False]], fields=["summary", *DONE]),
    load("load of what is open again", "id active", ["oa.one", "1"]),
    load("load of another row", "id res_model_id/id res_id", ["oa.one", "crm.model_crm_lead", "$adeal"]),
    j2("loaded and open", ACTIVITY, "search_read", domain=[["summary", "=", "OL done"]], fields=["summary", *DONE, "res_model", "res_name"]),
    j2("external ids of loaded activities", "ir.model.data", "search_read", domain=[["module", "=", "oa"]], fields=["complete_name", "model"], order="name"),
]  # fmt: skip
FELLOWS = [
    new("areader", "res.users", name="OA Reader", login="oa-reader", password="oa-reader", group_ids=[[6, 0, [1]]]),
    todo("rmine", user_id="$areader"), todo("rother", user_id=2), new("rlead", ACTIVITY, res_model_id="$leads", res_id="$adeal", user_id="$areader"),
    new("ralone", ACTIVITY, user_id=2, summary="OA of the administrator"),
    reader("finds", ACTIVITY, "search", [["id", "in", ["$rmine", "$rother", "$rlead", "$ralone"]]]),
    reader("counts", ACTIVITY, "search_count", [["id", "in", ["$rmine", "$rother", "$rlead", "$ralone"]]]),
    reader("reads another's", ACTIVITY, "read", ["$rother"], ["summary"]),
    reader("reads its own of a lead", ACTIVITY, "read", ["$rlead"], ["res_name", "can_write"]),
    reader("changes another's", ACTIVITY, "write", ["$rother"], {"summary": "x"}),
    reader("changes its own", ACTIVITY, "write", ["$rmine"], {"summary": "x"}),
    reader("does another's", ACTIVITY, "action_done", ["$rother"]),
    reader("does its own", ACTIVITY, "action_done", ["$rmine"]),
    reader("deletes another's", ACTIVITY, "unlink", ["$rother"]),
    reader("makes one", ACTIVITY, "create", {"res_model_id": "$model", "res_id": "$ahost", "user_id": "$areader"}),
    reader("makes one of nothing", ACTIVITY, "create", {"user_id": "$areader"}),
    reader("makes one of nothing for another", ACTIVITY, "create", {"user_id": 2}),
    reader("counts types", KIND, "search_count", []), reader("changes a type", KIND, "write", [4], {"name": "x"}),
]  # fmt: skip
OUTLIVED = [
    todo("wone"), j2("create wtwo", ACTIVITY, "create", keep="wtwo", vals_list=[HOST], wait=1.1),
    *(step for name, call in (
        ("two activities", None), ("a change of both", j2("change of both", ACTIVITY, "write", ids=["$wone", "$wtwo"], vals={"summary": "x"}, wait=1.1)),
        ("no change of one", j2("no change of an activity", ACTIVITY, "write", ids=["$wone"], vals={}, wait=1.1)),
        ("again both", j2("change of both again", ACTIVITY, "write", ids=["$wone", "$wtwo"], vals={"summary": "y"}, wait=1.1)),
        ("a done one", j2("one of them done", ACTIVITY, "action_done", ids=["$wone"], wait=1.1)))
      for step in (*([call] if call else []), j2(f"times after {name}", ACTIVITY, "formatted_read_group", domain=[["id", "in", ["$wone", "$wtwo"]]],
                                                aggregates=["write_date:count_distinct"], context={"active_test": False}))),
    j2("archive of the company", PARTNER, "action_archive", ids=["$ahost"]),
    get("activities of the archived stay", ACTIVITY, "$wtwo", "active", "res_name"),
    todo("archived"), get("archived ones have activities", ACTIVITY, "$archived", "active", "res_name", "state"),
    j2("activity of the archived done", ACTIVITY, "action_done", ids=["$archived"]),
    new("leadtodo", ACTIVITY, res_model_id="$leads", res_id="$adeal"),
    j2("lead with activities lost", LEAD, "action_set_lost", ids=["$adeal"]),
    get("activities of the lost stay", ACTIVITY, "$leadtodo", "active"),
    j2("delete of the company with activities", PARTNER, "unlink", ids=["$ahost"]),
    find("takes all its activities along", [["id", "in", ["$wone", "$wtwo", "$archived", "$rother"]]], ACTIVITY, context={"active_test": False}),
    j2("delete of the lead with activities", LEAD, "unlink", ids=["$adeal"]),
    find("takes its activities along", [["id", "in", ["$leadtodo", "$rlead"]]], ACTIVITY, context={"active_test": False}),
    find("external ids go along too", [["module", "=", "oa"], ["name", "=", "one"]], "ir.model.data"),
]  # fmt: skip
ACTIVITIES = [*TYPES, *MADE, *NOTES, *WRITTEN, *FINISHED, *FOUND, *LOADED, *FELLOWS, *OUTLIVED]
