"""Deliveries at the one moment where it hurts; each of these tests is failed by a planted fault (test_mutants.py)."""

import pytest

from tests.sync.receivers import data, told
from tests.sync.test_crash import TABLE_CALLS, Crash, Points


def crashing(hub, points, at, work):
    """Whether the process ended at this call."""
    points.arm(at)
    try:
        work()
    except Crash:
        return True
    else:
        return False
    finally:
        points.disarm()


def guarded(hub, patch):
    """Every call of the hub to the world outside of it is one where it can end."""
    points = Points()
    for name in TABLE_CALLS:
        points.around(hub.hub.table, name, patch)
    points.around(hub.hub.queue, "send", patch)
    points.around(hub.hub.tools.transport, "send", patch)
    return points


def in_the_end(hub):
    """Whatever was lost, the tick finds."""
    for _ in range(6):
        hub.later(130)
        hub.tick()


def test_a_version_and_its_event_are_written_together_or_not_at_all():
    """An app's write is ended at any of its calls: what there is of the record is told, and nothing else."""
    with told() as hub, pytest.MonkeyPatch.context() as patch:
        hub.connect()
        points = guarded(hub, patch)
        made = hub.create(last_name="Torres")
        hub.work()
        at, crashed = 0, True
        while crashed:
            crashed = crashing(
                hub, points, at, lambda: hub.editor().update(made.id, {"city": f"City {at}"})  # noqa: B023  # called at once
            )  # fmt: skip
            record = hub.editor()._found(made.id).content
            in_the_end(hub)
            told_of = [each.version for each in hub.deliveries()]
            assert sorted(told_of) == list(range(1, record.version + 1)), f"crash at call {at}"
            at += 1
        assert at > 4
        assert {each.state for each in hub.deliveries()} == {"done"}


def test_two_changes_before_anybody_looks_are_told_one_by_one():
    with told() as hub:
        hub.connect({"appointment": {"direction": "push", "becomes": "status eq 'done'"}})
        made = hub.create("appointment", at="2026-11-24T13:45:00Z", status="planned")
        for status in ("done", "planned", "done", "canceled"):
            hub.editor("appointment").update(made.id, {"status": status})
        assert len(hub.items("appointment")) == 5
        hub.work()
        assert [data(each)["record"]["version"] for each in hub.posts()] == [2, 4]
        assert {data(each)["record"]["status"] for each in hub.posts()} == {"done"}
        assert hub.items("appointment") == []


def test_a_crash_at_any_call_leaves_exactly_one_delivery_and_posts_with_one_id():
    """A worker ends at any of its calls, and its message is lost too."""
    with told() as hub, pytest.MonkeyPatch.context() as patch:
        hub.connect()
        points = guarded(hub, patch)
        at, crashed = 0, True
        while crashed:
            hub.control("DELETE", "requests")
            made = hub.create(last_name=f"Torres {at}")
            crashed = crashing(hub, points, at, hub.work)
            in_the_end(hub)
            mine = [each for each in hub.deliveries() if each.record == made.id]
            assert [each.state for each in mine] == ["done"], f"crash at call {at}"
            assert {each["headers"]["webhook-id"] for each in hub.posts()} == {mine[0].id}
            assert hub.items() == []
            at += 1
        assert at > 8
        assert len(hub.received()) == len(hub.deliveries()) == at


def test_a_crash_while_it_is_sent_again_loses_nothing():
    with told() as hub, pytest.MonkeyPatch.context() as patch:
        hub.connect()
        points = guarded(hub, patch)
        at, crashed = 0, True
        while crashed:
            hub.fault("status", status=503, count=2)
            made = hub.create(last_name=f"Torres {at}")
            hub.work()
            hub.wait(6)
            crashed = crashing(hub, points, at, hub.work)
            for _ in range(4):
                in_the_end(hub)
            mine = [each for each in hub.deliveries() if each.record == made.id]
            assert [each.state for each in mine] == ["done"], f"crash at call {at}"
            hub.well()
            at += 1
        assert at > 5
        assert len(hub.received()) == len(hub.deliveries()) == at


def test_while_one_worker_sends_a_delivery_another_one_leaves_it_alone():
    """The tick's message comes while the first attempt of it is on its way."""
    with told() as hub:
        hub.connect()
        hub.fault("status", status=503, count=1)
        hub.create(last_name="Torres")
        hub.work()
        hub.wait(6)
        transport = hub.hub.tools.transport
        send, seen = transport.send, []

        def slow(request, *, connection):
            seen.append(1)
            if len(seen) == 1:
                hub.hub.tick()
                for lane in ("fresh", "bulk"):
                    for message in hub.queue.receive(lane, limit=10):
                        hub.hub.handle(lane, message.body, 1)
            return send(request, connection=connection)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transport, "send", slow)
            hub.work()
        assert len(seen) == 1
        assert hub.one().state == "done"


def test_a_newer_version_waits_for_the_worker_that_sends_an_older_one():
    """The second change is made, and worked on, while the first one is on its way."""
    with told() as hub:
        hub.connect()
        made = hub.create(last_name="Torres")
        transport = hub.hub.tools.transport
        send, seen = transport.send, []

        def slow(request, *, connection):
            seen.append(1)
            if len(seen) == 1:
                hub.editor().update(made.id, {"city": "Lima"})
                hub.work()
                assert len(hub.items()) == 1  # its delivery is there; the older one's worker is not done
            return send(request, connection=connection)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transport, "send", slow)
            hub.work()
            assert [data(each)["record"]["version"] for each in hub.posts()] == [1]
            assert hub.items() == []
            hub.later(3)
        assert [data(each)["record"]["version"] for each in hub.posts()] == [1, 2]
        assert [each.state for each in hub.deliveries()] == ["done", "done"]
