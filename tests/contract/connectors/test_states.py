"""Changes of state are ordinary updates of `status`, whatever the system itself needs for them."""

import itertools

import pytest

from crm_core.connector import Write
from crm_core.errors import BadRequest, Rejected, VersionMismatch
from crm_core.model.fields import NATIVE_PREFIX
from tests.contract.connectors.world import unique


def statuses(variant):
    each = variant.map.by_field.get("status")
    return list(dict.fromkeys(each.names.values())) if each is not None and each.writable else []


def reachable(world, variant):
    """The statuses that this server leads a record to."""
    unreached = world.remote.unreached.get(variant.entity, frozenset())
    return [status for status in statuses(variant) if status not in unreached]


def has_states(variant):
    return len(statuses(variant)) > 1


def has_final_states(variant):
    return bool(variant.map.final)


def reached(world, variant, status):
    made = world.make(variant)
    if made.fields["status"] == status:
        return made
    after = world.connector.update(variant.entity, made.rid, Write({"status": status}))
    assert after.fields["status"] == status
    return after


def test_a_new_record_tells_its_status(world, variant):
    status = world.make(variant).fields["status"]
    assert status in statuses(variant) or status.startswith(NATIVE_PREFIX)


def test_every_status_is_set_by_an_update(world, variant):
    for status in reachable(world, variant):
        after = reached(world, variant, status)
        read = world.connector.get(variant.entity, after.rid)
        assert read.fields == after.fields
        assert (read.version, read.etag) == (after.version, after.etag)
        assert read.fields["status_reason"]


def test_every_status_can_be_created(world, variant, able):
    able("undo")  # or what a first try made, before it was known that there is no such action, stays as it is
    for status in reachable(world, variant):
        made = world.make(variant, status=status)
        assert made.fields["status"] == status
        assert world.connector.get(variant.entity, made.rid).fields == made.fields


def test_every_status_leads_to_every_other_unless_it_is_final(world, variant):
    for before, after in itertools.permutations(reachable(world, variant), 2):
        if before in variant.map.final:
            continue
        made = reached(world, variant, before)
        changed = world.connector.update(variant.entity, made.rid, Write({"status": after}))
        assert changed.fields["status"] == after, (before, after)
        assert world.connector.get(variant.entity, made.rid).fields == changed.fields


def test_a_status_that_a_server_leads_to_no_record_is_refused_by_name(world, variant):
    made = world.make(variant)
    for status in world.remote.unreached.get(variant.entity, ()):
        for call in (
            lambda status=status: world.make(variant, status=status),
            lambda status=status: world.connector.update(
                variant.entity, made.rid, Write({"status": status, world.text(variant): "new"})
            ),
        ):
            with pytest.raises(BadRequest) as caught:
                call()
            assert [each.field for each in caught.value.errors] == ["status"]
    assert world.connector.get(variant.entity, made.rid).fields == made.fields


def test_a_final_status_stays(world, variant, able):
    able("final")
    for before, after in itertools.product(variant.map.final, reachable(world, variant)):
        if before == after:
            continue
        made = reached(world, variant, before)
        with pytest.raises(Rejected):
            world.connector.update(variant.entity, made.rid, Write({"status": after}))
        assert world.connector.get(variant.entity, made.rid).fields == made.fields


def test_a_status_and_other_fields_are_written_together(world, variant):
    name = world.text(variant)
    for before, after in itertools.permutations(reachable(world, variant), 2):
        if before in variant.map.final:
            continue
        made = reached(world, variant, before)
        text = unique("with")
        changed = world.connector.update(variant.entity, made.rid, Write({"status": after, name: text}))
        assert (changed.fields["status"], changed.fields[name]) == (after, text), (before, after)


def test_a_closed_record_is_written_when_the_write_opens_it_and_stays_as_it_is_otherwise(world, variant):
    """A system that closes records refuses other fields then; one that does not just takes them."""
    name = world.text(variant)
    first, *others = reachable(world, variant)
    for status in others:
        made = reached(world, variant, status)
        try:
            after = world.connector.update(variant.entity, made.rid, Write({name: "while closed"}))
        except Rejected:
            assert world.connector.get(variant.entity, made.rid).fields == made.fields
        else:
            assert (after.fields["status"], after.fields[name]) == (status, "while closed")
        if status not in variant.map.final:
            opened = world.connector.update(variant.entity, made.rid, Write({"status": first, name: "open"}))
            assert (opened.fields["status"], opened.fields[name]) == (first, "open")


def test_the_status_that_a_record_has_is_set_again_without_harm(world, variant):
    for status in reachable(world, variant):
        made = reached(world, variant, status)
        again = world.connector.update(variant.entity, made.rid, Write({"status": status}))
        assert again.fields["status"] == status


def test_a_stale_version_sets_no_status(world, variant):
    if not world.connector.if_match:
        return
    name = world.text(variant)
    for status in reachable(world, variant):
        old = world.make(variant)
        new = world.connector.update(variant.entity, old.rid, Write({name: "newer"}))
        with pytest.raises(VersionMismatch):
            world.connector.update(variant.entity, old.rid, Write({"status": status}), if_match=old.etag)
        assert world.connector.get(variant.entity, old.rid).fields == new.fields
        after = world.connector.update(variant.entity, old.rid, Write({"status": status}), if_match=new.etag)
        assert after.fields["status"] == status


def test_what_a_system_takes_only_with_a_status_goes_with_it(world, variant, relay):
    """Fields that the remote takes and never tells, such as how a case was resolved."""
    connector = world.open(world.remote.access(relay.url))
    for name in [each.field for each in variant.map.fields if each.writable and not each.readable]:
        taken = []
        for status in reachable(world, variant):
            made, text = world.make(variant), unique("So")
            write = Write({"status": status, name: text}, verb="update", rid=made.rid)
            outcome = connector.write_one(variant.entity, write)
            if outcome.error is None:
                taken.append(status)
                assert outcome.change.fields["status"] == status
                assert [each for each in relay.seen if text.encode() in each.body]
            else:
                assert [each.field for each in outcome.error.errors] == [name]
        assert taken


for _test in [each for name, each in list(globals().items()) if name.startswith("test_")]:
    _test.where = has_states

test_a_final_status_stays.where = has_final_states
