"""`expand`: its text becomes a tree, or is refused by name. Pure, so tested by values and properties."""

from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_core.connector import Account, Tools
from crm_core.connectors.dynamics365 import Dynamics365
from crm_core.errors import BadRequest, NotSupported
from crm_core.model.entities import RESERVED
from crm_core.model.expand import DEFAULT_TOP, MAX_ITEMS, MAX_TOP, OPTIONS, Expansion, parse_expand
from crm_core.model.filters import (
    MAX_BYTES,
    AnyOf,
    Both,
    Compare,
    Either,
    Function,
    Kind,
    Literal,
    Match,
    Not,
    Operator,
    parse_filter,
)
from crm_core.model.options import Order
from crm_core.system import SystemClock, SystemIds

# --- a printer of trees, written from the grammar, not from the parser --------------------------------------------


def literal_text(literal):
    return "'" + literal.text.replace("'", "''") + "'" if literal.kind is Kind.TEXT else literal.text


def filter_text(node):
    match node:
        case Both():
            return f"({filter_text(node.left)} and {filter_text(node.right)})"
        case Either():
            return f"({filter_text(node.left)} or {filter_text(node.right)})"
        case Not():
            return f"not ({filter_text(node.node)})"
        case AnyOf():
            return f"{node.field} in ({','.join(map(literal_text, node.values))})"
        case Match():
            return f"{node.function}({node.field},{literal_text(node.value)})"
        case Compare():
            return f"{node.field} {node.operator} {literal_text(node.value)}"


def item_text(item, space, dollar):
    options = []
    if item.select:
        options.append(("select", f",{space}".join(item.select)))
    if item.filter is not None:
        options.append(("filter", filter_text(item.filter)))
    if item.orderby:
        terms = (each.field + (" desc" if each.descending else "") for each in item.orderby)
        options.append(("orderby", f"{space},".join(terms)))
    if item.top is not None:
        options.append(("top", str(item.top)))
    if not options:
        return item.name
    inside = f"{space};".join(f"{space}{dollar}{name}{space}={space}{value}" for name, value in options)
    return f"{item.name}{space}({inside}{space})"


WITHOUT_HURRY = settings(deadline=None)
"""The first filter loads the library that parses it."""

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,11}", fullmatch=True)
FIELDS = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True).map("f_{}".format)
# What could end a text literal, an option or an item too early.
TEXTS = st.text(st.sampled_from("ab';,()=$ ñ"), max_size=8).map(lambda text: Literal(Kind.TEXT, text))
LITERALS = st.one_of(TEXTS, st.integers(0, 10**9).map(lambda number: Literal(Kind.INTEGER, str(number))))
NODES = st.recursive(
    st.one_of(
        st.builds(Compare, FIELDS, st.sampled_from(Operator), LITERALS),
        st.builds(Match, st.sampled_from(Function), FIELDS, TEXTS),
        st.builds(AnyOf, FIELDS, st.lists(LITERALS, min_size=1, max_size=3).map(tuple)),
    ),
    lambda nodes: st.one_of(
        st.builds(Both, nodes, nodes), st.builds(Either, nodes, nodes), st.builds(Not, nodes)
    ),
    max_leaves=4,
)
ITEMS = st.builds(
    Expansion,
    NAMES,
    select=st.lists(FIELDS, max_size=3).map(tuple),
    filter=st.none() | NODES,
    orderby=st.lists(st.builds(Order, FIELDS, st.booleans()), max_size=2).map(tuple),
    top=st.none() | st.integers(1, MAX_TOP),
)


@WITHOUT_HURRY
@given(
    st.lists(ITEMS, min_size=1, max_size=4, unique_by=lambda item: item.name),
    st.sampled_from(["", " "]),
    st.sampled_from(["", "$"]),
)
def test_a_tree_that_is_written_out_is_read_back_the_same(items, space, dollar):
    assert parse_expand(f"{space},{space}".join(item_text(each, space, dollar) for each in items)) == tuple(
        items
    )


@WITHOUT_HURRY
@given(st.one_of(st.text(max_size=80), st.text(st.sampled_from("a1_,;()=' $"), max_size=60)))
def test_any_text_is_parsed_or_refused_and_nothing_else_happens(text):
    with suppress(BadRequest):
        parse_expand(text)


WORDS = st.sampled_from(
    [*OPTIONS, "$select", "$top", "$expand", "name", "'x;'", "(", ")", ",", ";", "=", "5", " eq "]
)


@WITHOUT_HURRY
@given(st.lists(WORDS, max_size=25).map("".join))
def test_words_in_any_order_are_parsed_or_refused_under_expand(text):
    refused = None
    try:
        parse_expand(f"name({text})")
    except BadRequest as error:
        refused = error
    assert refused is None or [each.field for each in refused.errors] == ["expand"]
    assert refused is None or refused.message.startswith("expand: ")


# --- by values ----------------------------------------------------------------------------------------------------


def test_what_callers_write_becomes_the_tree():
    text = "primarycontactid($select=fullname), contact_customer_accounts(select=fullname,email;$top=5)"
    assert parse_expand(text) == (
        Expansion("primarycontactid", ("fullname",)),
        Expansion("contact_customer_accounts", ("fullname", "email"), top=5),
    )
    node = parse_filter("(name eq 'a;b)''(,' or email ne null) and not contains(name,'(')")
    text = "a($filter=(name eq 'a;b)''(,' or email ne null) and not contains(name,'(');$orderby=name desc,email),b"
    orders = (Order("name", descending=True), Order("email"))
    assert parse_expand(text) == (Expansion("a", filter=node, orderby=orders), Expansion("b"))


FORM = (
    "expected names with commas between them, each perhaps with options, such as name($select=email;$top=5)."
)
KNOWN = "known are $select, $filter, $orderby, $top, with ';' between them."
EMPTY = "has an empty part; take the '{}' or the parentheses out."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; leave it out."),
        ("  ", "is empty; leave it out."),
        ("a,,b", EMPTY.format(",")),
        ("a,", EMPTY.format(",")),
        ("a()", "in a: " + EMPTY.format(";")),
        ("a($top=1;)", "in a: " + EMPTY.format(";")),
        ("a($top=1", "a parenthesis is not closed; close it."),
        ("a($filter=(b eq 1)", "a parenthesis is not closed; close it."),
        ("a)", "a parenthesis is closed that was not opened; take it out."),
        ("a($top=1))", "a parenthesis is closed that was not opened; take it out."),
        ("a($filter=b eq 'x)", "a quote is not closed; close it (a quote inside a text is written twice)."),
        ("a($top=1)b", f"'a($top=1)b' can't be read; {FORM}"),
        ("a($top=1)($top=1)", "in a: a parenthesis is closed that was not opened; take it out."),
        ("a b", f"'a b' can't be read; {FORM}"),
        ("*", f"'*' can't be read; {FORM}"),
        ("a/$ref", f"'a/$ref' can't be read; {FORM}"),
        ("ñ", f"'ñ' can't be read; {FORM}"),
        ("a,b,a($top=1)", "'a' is there twice; name it once, with all its options."),
        ("a($skip=1)", f"in a: '$skip' is no option here; {KNOWN}"),
        ("a($Top=1)", f"in a: '$Top' is no option here; {KNOWN}"),
        ("a(name)", f"in a: 'name' is no option here; {KNOWN}"),
        ("a($top=1;top=2)", "in a: top is given twice; give it once."),
        ("a($select)", "in a: select has no value; give it one, as in $select=..., or leave it out."),
        ("a($filter= )", "in a: filter has no value; give it one, as in $filter=..., or leave it out."),
        (
            "a($expand=b)",
            "in a: another expand inside is not supported, only one level; ask for it by a second call.",
        ),
        (
            "a($select=x;expand=b($select=c))",
            "in a: another expand inside is not supported, only one level; ask for it by a second call.",
        ),
        ("a($top=0)", f"in a: top: expected a whole number from 1 to {MAX_TOP}."),
        (f"a($top={MAX_TOP + 1})", f"in a: top: expected a whole number from 1 to {MAX_TOP}."),
        ("a($top=٣)", f"in a: top: expected a whole number from 1 to {MAX_TOP}."),
        ("a($select=x,,y)", "in a: select: expected field names with commas between them."),
        ("a($orderby=x up)", "in a: orderby: expected 'field' or 'field desc', with commas between them."),
        ("a($filter=x like 1)", "in a: The filter can't be read: unexpected ' like 1' at position 2."),
        (",".join(f"a{n}" for n in range(MAX_ITEMS + 1)), f"has more than {MAX_ITEMS} items; ask for less at once."),
        ("a" * (MAX_BYTES + 1), f"is longer than {MAX_BYTES} bytes; ask for less at once."),
    ],
)  # fmt: skip
def test_what_can_not_be_said_is_refused_with_the_remedy(text, message):
    with pytest.raises(BadRequest) as caught:
        parse_expand(text)
    assert caught.value.message == f"expand: {message}"
    assert [each.field for each in caught.value.errors] == ["expand"]


# --- what a connector declares ------------------------------------------------------------------------------------


def opened(kind):
    """A connector that calls nobody."""
    settings = {"base_url": "https://acme.crm.dynamics.com", "tenant_id": "acme", "client_id": "hub"}
    account = Account("default", "uid-1", settings, {"client_secret": "secret"})
    return kind(account, Tools(None, None, SystemClock(), SystemIds()))


def steps(entity, text):
    return opened(Dynamics365).steps(entity, parse_expand(text))


def test_a_way_is_found_by_its_native_name_and_by_the_reference_that_it_follows():
    for name in ("parentcustomerid_account", "account_id"):
        (step,) = steps("contact", f"{name}($select=name)")
        assert (step.asked.name, step.navigation.native) == (name, "parentcustomerid_account")
        assert (step.target.entity.name, step.navigation.many) == ("account", False)
    (step,) = steps("account", "contact_customer_accounts")
    assert (step.target.entity.name, step.navigation.many, step.asked.size) == ("contact", True, DEFAULT_TOP)


WAYS = (
    "parentaccountid (parent_id), primarycontactid (primary_contact_id), "
    "contact_customer_accounts, account_parent_account, opportunity_customer_accounts, incident_customer_accounts."
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", f"'nope' leads nowhere from account; known are {WAYS}"),
        ("primary_contact_id,primarycontactid",
         "'primary_contact_id' and 'primarycontactid' are the same; name one of them."),
        ("primarycontactid($top=1)", "'primarycontactid' leads to one contact; leave top out."),
        ("parent_id($filter=name eq 'x';$orderby=name)",
         "'parent_id' leads to one account; leave filter, orderby out."),
    ],
)  # fmt: skip
def test_what_is_not_declared_is_refused_with_what_is(text, message):
    with pytest.raises(BadRequest) as caught:
        steps("account", text)
    assert caught.value.message == f"expand: {message}"


def test_a_system_without_ways_says_so():
    class Plain(Dynamics365):
        label = "Plain"
        entities: ClassVar = {"account": replace(Dynamics365.entities["account"], navigations=())}

    assert opened(Plain).steps("account", ()) == ()
    with pytest.raises(NotSupported, match="Plain can't expand 'account'"):
        opened(Plain).steps("account", parse_expand("primarycontactid"))


@pytest.mark.parametrize("entity", Dynamics365.entities)
def test_every_way_leads_to_a_mapped_entity_under_names_that_hide_nothing(entity):
    emap = Dynamics365.entities[entity]
    for way in emap.navigations:
        assert way.target in Dynamics365.entities
        assert way.native not in emap.entity.by_name.keys() | RESERVED
        if way.field:
            assert emap.entity.by_name[way.field].targets == (way.target,)
            assert [each.clear for each in emap.by_field[way.field].targets] == [way.native]
    names = [name for way in emap.navigations for name in (way.native, way.field) if name]
    assert len(names) == len(set(names))
    # Every reference of ours leads somewhere.
    leads = {way.native for way in emap.navigations}
    assert leads >= {target.clear for each in emap.fields for target in each.targets} or emap.kinds
