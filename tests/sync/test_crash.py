"""A worker that dies before or after any of its calls loses nothing and does nothing twice.

Runs over the in-memory twins, which pass the same contract tests as Azure Storage, and real HTTP to the sandbox.
"""

import pytest

from crm_core.model.connection import DEFAULT_TENANT
from crm_core.storage import layout

SETTINGS = {"PAGE_RECORDS": "4", "BATCH_RECORDS": "6", "LEASE_SECONDS": "0.001"}
TABLE_CALLS = ("get", "query", "insert", "replace", "upsert", "delete", "transact")


class Crash(BaseException):
    """The process ends here: nothing in the code under test may catch it."""


class Points:
    """Counts calls at the seams and ends the process at one of them."""

    def __init__(self) -> None:
        self.left = None
        self.count = 0

    def arm(self, left):
        self.left, self.count = left, 0

    def disarm(self):
        self.left = None

    def pass_by(self):
        if self.left is None:
            return
        self.count += 1
        if self.count > self.left:
            raise Crash

    def around(self, target, name, monkeypatch):
        call = getattr(target, name)

        def guarded(*args, **kwargs):
            self.pass_by()  # before: the request is not sent
            result = call(*args, **kwargs)
            self.pass_by()  # after: its answer is lost
            return result

        monkeypatch.setattr(target, name, guarded)


@pytest.fixture
def points(memory_bench, monkeypatch):
    points = Points()
    hub = memory_bench.hub
    for name in TABLE_CALLS:
        points.around(hub.table, name, monkeypatch)
    for name in ("put", "get", "delete"):
        points.around(hub.engine.blob, name, monkeypatch)
    points.around(hub.queue, "send", monkeypatch)
    points.around(hub.tools.transport, "send", monkeypatch)
    return points


def crashing_work(bench, points, left):
    """Works the lanes off until the crash; True if it came. The message comes again, as the host sees to it."""
    points.arm(left)
    try:
        for _ in range(100):
            messages = [(lane, m) for lane in layout.QUEUES for m in bench.queue.receive(lane)]
            if not messages:
                return False
            for lane, message in messages:
                try:
                    bench.hub.handle(lane, message.body, message.dequeue_count)
                except Crash:
                    bench.queue.release(lane, message)
                    return True
                bench.queue.delete(lane, message)
        raise AssertionError("the lanes never become empty")
    finally:
        points.disarm()


@pytest.mark.parametrize("memory_bench", [SETTINGS], indirect=True)
@pytest.mark.parametrize(("tracked", "mode", "stride"), [(True, "incremental", 1), (False, "full", 9)])
def test_a_crash_at_any_call_changes_nothing_in_the_end(memory_bench, points, tracked, mode, stride):
    """One update, one create and one delete are pulled by a worker that dies at each call in turn (or each ninth)."""
    bench = memory_bench
    bench.remote.options(tracking={"account": tracked}, limits={"requests": 10**9, "seconds": 10**9})
    rids = [bench.remote.create(f"Row {n}") for n in range(9)]
    bench.connect()
    bench.pull()
    created = bench.remote.create("Created last")
    bench.pull()
    left = 0
    versions = dict.fromkeys(rids, 1)
    crashed = True
    while crashed:
        updated = rids[left % 5]
        bench.remote.update(updated, name=f"Name {left}")
        bench.remote.delete(created)
        created = bench.remote.create(f"Created {left}")
        versions[updated] += 1
        bench.hub.start_run(DEFAULT_TENANT, "demo", [], mode, "key:test")
        crashed = crashing_work(bench, points, left)
        bench.work()
        bench.hub.tick()  # whatever the crash left with a lease is revived
        bench.work()
        assert bench.pull(mode).status == "succeeded"
        stored = bench.stored()
        assert {rid: stored[rid].version for rid in rids} == versions, f"crash at call {left}"
        left += stride
    for rid in rids:
        steps = list(bench.hub.records.history(DEFAULT_TENANT, "account", stored[rid].id))
        assert [step.version for step in steps] == list(range(2, versions[rid] + 1))
    assert left > 25
    assert bench.pull("full").status == "succeeded"  # makes the running sum exact
    bench.assert_equal()
    assert bench.state().lease_run == ""
    assert bench.dead_letters() == []


@pytest.mark.parametrize("memory_bench", [SETTINGS], indirect=True)
def test_a_crash_in_a_first_load_changes_nothing_in_the_end(memory_bench, points):
    bench = memory_bench
    for n in range(14):
        bench.remote.create(f"Row {n}")
    left = 0
    while True:
        bench.connect(f"demo{left}")
        # A worker that dies while it asks for a token makes the others wait for one: not what is tested here.
        bench.hub.connect(DEFAULT_TENANT, f"demo{left}").connector.check()
        bench.hub.start_run(DEFAULT_TENANT, f"demo{left}", [], "incremental", "key:test")
        crashed = crashing_work(bench, points, left)
        bench.work()
        bench.hub.tick()
        bench.work()
        stored = bench.stored() if left == 0 else only(bench)
        assert len(stored) == 14, f"crash at call {left}"
        assert all(record.version == 1 for record in stored.values())
        assert bench.state().lease_run == ""
        if not crashed:
            break
        left += 1
    assert left > 20


def only(bench):
    """The records of the newest connection."""
    found = {}
    for bucket in layout.BUCKETS:
        for each in bench.hub.records.scan(DEFAULT_TENANT, "account", bucket):
            link = each.content.links.get(bench.connection.uid)
            if link:
                assert link.rid not in found
                found[link.rid] = each.content
    return found
