"""Mappings in the life of a connection: what a save leaves behind, who loses a race, and what the next pull does."""

import pytest

from crm_core.connection_admin import Wanted
from crm_core.errors import BadRequest, Conflict
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.ports import every_row
from crm_core.storage import layout


def to(native):
    return {"account": {"fields": {"tax_id": {"to": native}}}}


def rows(bench, table):
    return [row.rk for row in every_row(bench.hub.table, table, pk=DEFAULT_TENANT.name)]


def versions(bench):
    found = bench.hub.connections.mapping_versions(bench.opened.connection, "account")
    return [(each["version"], each["document"]["fields"]["tax_id"]["to"]) for each in found]


def update(bench, connection, **wanted):
    saved = bench.hub.admin.update(connection, Wanted(**wanted))
    bench.hub.forget(saved)
    return saved


def test_a_connection_whose_mapping_is_refused_leaves_nothing_behind(bench):
    bench.hub.prepare()
    with pytest.raises(BadRequest, match="the system has no property 'nope' here"):
        bench.connect(mappings=to("nope"))
    assert rows(bench, layout.SECRETS) == []
    assert rows(bench, layout.CONFIG) == []
    assert bench.connect(mappings=to("new_taxid")).slug == "demo"
    with pytest.raises(Conflict):
        bench.connect(mappings=to("new_taxid"))
    (uid,) = {each.partition("~")[2] for each in rows(bench, layout.SECRETS)}
    assert uid == bench.connection.uid


def test_a_field_that_only_the_mapping_has_takes_a_policy_and_can_match(bench):
    sync = {"direction": "both", "policies": {"tax_id": "local"}, "match": "tax_id"}
    with pytest.raises(BadRequest, match=r"entities.account.policies.tax_id: is no field here"):
        bench.connect(entities={"account": sync})
    bench.connect(entities={"account": sync}, mappings=to("new_taxid"))
    side = bench.hub.sides(DEFAULT_TENANT, "account")[bench.connection.uid]
    assert (side.policy("tax_id"), side.sync.match) == ("local", "tax_id")


def test_who_loses_a_race_of_saves_leaves_no_version(bench):
    connection = bench.connect(mappings=to("new_taxid"))
    won = update(bench, connection, mappings=to("new_label"))
    with pytest.raises(Conflict):
        update(bench, connection, mappings=to("new_source"))
    assert versions(bench) == [(2, "new_label"), (1, "new_taxid")]
    update(bench, won, mappings=to("new_source"))
    assert versions(bench) == [(3, "new_source"), (2, "new_label"), (1, "new_taxid")]


def test_the_versions_go_with_the_connection_and_no_other_s(bench):
    first = bench.connect("first", mappings=to("new_taxid"))
    other = bench.connect("other", mappings=to("new_taxid"))
    for connection in (first, other):
        update(bench, connection, mappings=to("new_label"))
    assert sum(each.startswith("mapping~") for each in rows(bench, layout.CONFIG)) == 2
    bench.hub.admin.delete(bench.hub.find(DEFAULT_TENANT, "first"))
    kept = sorted(rows(bench, layout.CONFIG))
    assert kept == [f"connection~{other.uid}", layout.mapping_rk(other.uid, "account", 1)]


def test_a_new_mapping_is_due_at_once_and_reads_everything_again(bench, remote):
    remote.create("Acme", values={"new_taxid": "20-1"})
    connection = bench.connect()
    assert bench.pull().mode == "incremental"
    assert [each.fields.get("tax_id") for each in bench.stored().values()] == [None]
    before = bench.state().due
    update(bench, connection, mappings=to("new_taxid"))
    assert bench.state().due < before
    assert bench.pull().mode == "full"
    assert bench.pull().mode == "incremental"


def test_a_value_that_the_mapping_rejects_sets_its_record_aside(bench, remote):
    remote.create("Known", values={"new_segment": "Retail"})
    remote.create("Unknown", values={"new_segment": "Bank"})
    rule = {"to": "new_segment", "values": {"retail": "Retail"}, "unmapped": "reject"}
    bench.connect(mappings={"account": {"fields": {"industry": rule}}})
    run = bench.pull()
    assert (run.status, run.counts["created"], run.counts["failed"]) == ("succeeded", 1, 1)
    assert [each.fields["industry"] for each in bench.stored().values()] == ["retail"]
    (letter,) = bench.dead_letters()
    assert "new_segment: no rule of the mapping names this value" in str(letter)
