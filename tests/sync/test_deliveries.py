"""From a write of a record to its receiver: what is told, in which order, and what is left when anything fails."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from crm_core.connection_admin import Wanted
from crm_core.connectors.webhook import Webhook, deliver
from crm_core.errors import BadRequest
from crm_core.model.connection import DEFAULT_TENANT, EntitySync
from crm_core.ports import measured
from crm_core.storage import layout
from crm_core.storage.run_log import collected
from crm_core.sync import redeliver
from tests.sync.receivers import SECRET, TOKEN, data, proven, told


@pytest.fixture
def hub():
    with told() as found:
        yield found


def test_a_write_is_told_with_its_signature_and_the_values_before(hub):
    hub.connect()
    made = hub.create(last_name="Torres", city="Lima")
    hub.editor().update(made.id, {"city": "Cusco"})
    hub.editor().delete(made.id)
    hub.work()
    assert hub.items() == []
    first, second, third = hub.posts()
    for each in (first, second, third):
        assert proven(each)["subject"] == made.id
    assert data(first) == {
        "record": {"id": made.id, "entity": "contact", "version": 1, "last_name": "Torres", "city": "Lima"},
        "old": {},
    }
    assert data(second)["old"] == {"city": "Lima"}
    assert data(second)["record"]["city"] == "Cusco"
    assert proven(third)["type"] == "crmhub.contact.deleted"
    assert [each.state for each in hub.deliveries()] == ["done"] * 3


def test_several_connections_are_told_each_by_its_own_wish(hub):
    hub.connect({"contact": {"direction": "push", "events": ["created"]}}, slug="first")
    first = hub.uid
    hub.connect({"contact": {"direction": "push", "filter": "city eq 'Lima'"}}, slug="second")
    made = hub.create(last_name="Torres", city="Cusco")
    hub.editor().update(made.id, {"city": "Lima"})
    hub.work()
    assert [(each.version, each.kind) for each in hub.deliveries()] == [(2, "updated")]
    found, _ = hub.hub.engine.deliveries.page(DEFAULT_TENANT, first, top=10, token=None)
    assert [(each.version, each.kind) for each in found] == [(1, "created")]
    assert found[0].id.partition("-")[2] not in {each.id.partition("-")[2] for each in hub.deliveries()}


@pytest.mark.parametrize("kind", ["status", "reset", "reset_after", "garbage", "html"])
def test_a_failure_is_kept_and_comes_again_after_five_seconds_with_the_same_id_and_body(hub, kind):
    hub.connect()
    hub.fault(kind, status=500 if kind != "garbage" else 0, count=1)
    hub.create(last_name="Torres")
    hub.work()
    if kind == "garbage":  # words that say nothing are a success all the same
        assert hub.one().state == "done"
        return
    found = hub.one()
    assert (found.state, found.tries, len(found.attempts)) == ("open", 1, 1)
    assert found.attempts[0].status == (0 if kind.startswith("reset") else 500)
    assert found.attempts[0].words
    hub.later(4)
    assert hub.one().tries == 1
    hub.later(2)
    assert (hub.one().state, hub.one().tries) == ("done", 2)
    first, second = hub.posts()
    assert first["body"] == second["body"]
    assert first["headers"]["webhook-id"] == second["headers"]["webhook-id"] == found.id
    assert list(hub.received()) == [found.id]


def test_the_whole_schedule_then_it_waits_for_a_person_and_nothing_is_retried_for_ever(hub):
    hub.connect()
    hub.fault("status", status=500, message="the words of the receiver")
    hub.create(last_name="Torres")
    hub.work()
    began = hub.clock.now()
    for delay in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400):
        tries = hub.one().tries
        hub.later(delay - 2)
        assert hub.one().tries == tries, delay
        hub.later(3)
        assert hub.one().tries == tries + 1, delay
    found = hub.one()
    assert (found.state, found.tries, len(found.attempts), found.due) == ("failed", 10, 10, "")
    assert "500" in found.outcome
    assert "the words of the receiver" in found.attempts[-1].words
    assert 75 < (hub.clock.now() - began).total_seconds() / 3600 < 76
    posts = len(hub.posts())
    for _ in range(5):
        hub.later(7 * 86_400)
        hub.tick()
    assert len(hub.posts()) == posts == 10
    ids, _ = hub.hub.engine.deliveries.failed(DEFAULT_TENANT, hub.uid, top=10, token=None)
    assert ids == [found.id]


def lines(hub):
    """(event, message) of the log of runs, the oldest first."""
    now = hub.clock.now()
    found, _ = hub.hub.engine.run_log.page(
        DEFAULT_TENANT, {}, now - timedelta(days=5), now + timedelta(seconds=1), top=100, test=lambda _: True
    )
    return [(each.event, each.message) for each in reversed(found)]


def test_the_log_of_runs_tells_what_is_given_up_and_that_a_receiver_is_gone(hub):
    hub.connect()
    hub.fault("status", status=500, message="the words of the receiver", count=10)
    made = hub.create(last_name="Torres")
    with collected(hub.hub.engine.run_log, hub.clock):
        hub.work()
        for _ in range(9):
            hub.later(86_401)
    assert hub.one().state == "failed"
    ((event, message),) = lines(hub)
    assert event == "delivery.failed"
    assert message.startswith(f"A delivery of {made.id} was refused (500); given up after 10 attempts. ")
    assert "the words of the receiver" in message
    hub.fault("status", status=410)
    hub.create(last_name="Rojas")
    with collected(hub.hub.engine.run_log, hub.clock):
        hub.work()
    assert [event for event, _ in lines(hub)][-1] == "connection.needs_attention"


def test_a_redirect_is_not_followed_and_says_so(hub):
    hub.connect()
    hub.fault("status", status=302, headers={"Location": f"{hub.sandbox.url}/elsewhere"})
    hub.create(last_name="Torres")
    hub.work()
    found = hub.one()
    assert found.attempts[0].status == 302
    assert "redirect" in found.outcome
    assert [each["path"] for each in hub.posts()] == ["/webhooks"]


def test_a_receiver_that_takes_too_long_is_given_up(hub, monkeypatch):
    assert deliver.TIMEOUT_SECONDS == 15
    monkeypatch.setattr(deliver, "TIMEOUT_SECONDS", 0.3)
    hub.connect()
    hub.fault("delay", seconds=1.5, count=1)
    hub.create(last_name="Torres")
    hub.work()
    found = hub.one()
    assert (found.state, found.attempts[0].status) == ("open", 0)
    assert "in time" in found.attempts[0].words
    assert found.attempts[0].ms < 1500
    hub.later(6)
    assert hub.one().state == "done"


def test_an_address_that_may_not_be_called_is_a_failure_with_words(hub):
    """The guard judges each time anew: what a name leads to may have changed since it was saved."""
    hub.connect()
    hub.create(last_name="Torres")
    hub.connection = replace(
        hub.connection, settings={**hub.connection.settings, "url": "https://10.0.0.7/hooks"}
    )
    hub.hub.connections.save(hub.connection)
    hub.hub.forget(hub.connection)
    hub.work()
    found = hub.one()
    assert (found.state, found.attempts[0].status) == ("open", 0)
    assert "private" in found.attempts[0].words
    assert hub.posts() == []


def test_410_stops_the_connection_by_name_until_a_person_resumes_it(hub):
    hub.connect()
    hub.fault("status", status=410)
    hub.create(last_name="Torres")
    hub.work()
    assert hub.health().health == "needs_attention"
    assert hub.health().problem.code == "ReceiverGone"
    hub.create(last_name="Rojas")
    for _ in range(3):
        hub.later(3600)
        hub.tick()
    assert len(hub.posts()) == 1
    assert len(hub.items()) == 1
    hub.well()
    hub.hub.resume(hub.connection)
    hub.work()
    hub.tick()
    assert hub.health().health == "ok"
    assert [each.state for each in hub.deliveries()] == ["done", "done"]
    assert hub.items() == []


def test_429_leaves_the_receiver_alone_as_long_as_it_asks(hub):
    hub.connect()
    hub.fault("throttle", retry_after=600, count=1)
    hub.create(last_name="Torres")
    hub.work()
    assert hub.one().attempts[0].status == 429
    hub.create(last_name="Rojas")  # others wait as well
    for _ in range(9):
        hub.later(60)
        hub.tick()
    assert len(hub.posts()) == 1
    assert hub.items() == []
    hub.later(70)
    hub.tick()
    assert [each.state for each in hub.deliveries()] == ["done", "done"]


def test_after_410_or_429_nothing_more_is_sent_of_what_there_is(hub):
    for status in (410, 429):
        hub.control("DELETE", "requests")
        hub.connect(slug=f"sales-{status}")
        made = hub.create(last_name="Torres")
        for number in range(90):  # more than go together
            hub.editor().update(made.id, {"city": f"City {number}"})
        hub.fault("status", status=status, retry_after=60, count=1)
        hub.work()
        own = [
            each
            for each in hub.posts()
            if each["headers"]["webhook-id"] in {one.id for one in hub.deliveries()}
        ]
        assert len(own) == 1


def test_a_retry_after_of_an_unavailable_receiver_is_honoured_for_that_delivery(hub):
    hub.connect()
    hub.fault("status", status=503, retry_after=120, count=1)
    hub.create(last_name="Torres")
    hub.work()
    hub.create(last_name="Rojas")
    hub.work()
    assert len(hub.posts()) == 2
    hub.later(110)
    hub.tick()
    assert len(hub.posts()) == 2
    hub.later(15)
    assert [each.state for each in hub.deliveries()] == ["done", "done"]


def test_secrets_are_sent_in_the_token_header_and_while_rotated_both_sign(hub):
    import base64

    other = "whsec_" + base64.b64encode(b"another secret of thirty-two byt").decode()
    hub.sandbox.app.frame.log.secrets.clear()  # so that the token can be looked at
    hub.connect(
        secrets={"signing_secret": f"{other} {SECRET}", "token": TOKEN},
        settings={"headers": "X-Team: ventas"},
    )
    hub.create(last_name="Torres")
    hub.work()
    (post,) = hub.posts()
    assert post["headers"]["x-crm-webhook-token"] == TOKEN
    assert post["headers"]["x-team"] == "ventas"
    assert proven(post, SECRET) == proven(post, other)
    assert hub.one().state == "done"


def test_an_echo_of_our_secrets_is_not_kept(hub):
    hub.connect()
    hub.fault("status", status=400, message=f"no {SECRET} and {TOKEN} here", count=1)
    hub.create(last_name="Torres")
    hub.work()
    words = hub.one().attempts[0].words
    assert "no " in words
    assert SECRET not in words
    assert TOKEN not in words
    assert len(words) <= 500


def test_an_address_with_a_query_is_called_with_it_and_it_is_kept_a_secret(hub, lines):
    signature = "0a1b2c3d4e5f6a7b"
    query = f"?api-version=2016-10-01&sig={signature}"
    hub.connect(secrets={"url_query": query, "signing_secret": SECRET, "token": TOKEN})
    hub.fault("status", status=400, message=f"no {signature} here", count=1)
    hub.create(last_name="Torres")
    hub.work()
    (post,) = hub.posts()
    assert f"?{post['query']}" == query
    assert signature not in hub.one().attempts[0].words
    assert signature not in str(lines())
    assert hub.connection is not None
    assert signature not in repr(hub.connection)


@pytest.mark.parametrize("query", ["code=aB%2f/cD%3d9876", "bare-Secret-01234", "a=1&sig=x/y%2Bz+0123"])
def test_no_form_of_the_address_s_query_comes_back_in_the_receiver_s_words(hub, query):
    hub.connect(secrets={"url_query": query, "token": TOKEN})
    hub.fault("status", status=400, message=f"no such address: {query}", count=1)
    hub.create(last_name="Torres")
    hub.work()
    words = hub.one().attempts[0].words
    assert "***" in words
    assert not any(
        part.partition("=")[2] in words for part in query.split("&") if len(part) > 8 and "=" in part
    )
    assert query not in words


@pytest.mark.parametrize("query", ["a=b#c", "a=b c", "a=\nb"])
def test_a_query_that_no_address_can_have_is_refused_by_name(hub, query):
    with pytest.raises(BadRequest, match=r"secrets\.url_query: expected what follows"):
        hub.connect(secrets={"url_query": query, "token": TOKEN})


def test_an_address_with_its_query_says_where_that_goes(hub):
    with pytest.raises(BadRequest, match=r"settings\.url: .*secrets\.url_query"):
        hub.connect(settings={"url": "https://example.com/hook?sig=secret"})


def test_a_record_that_becomes_another_one_is_told_to_be_gone(hub):
    hub.connect({"contact": {"direction": "push"}})
    kept, duplicate = hub.create(last_name="Torres"), hub.create(last_name="Torres", city="Lima")
    hub.work()
    hub.editor().unite(duplicate.id, kept.id)
    hub.work()
    told = [
        (each["type"], each["subject"]) for each in (json.loads(post["body"]) for post in hub.posts()[2:])
    ]
    assert sorted(told) == sorted(
        [("crmhub.contact.updated", kept.id), ("crmhub.contact.deleted", duplicate.id)]
    )


def test_a_long_answer_is_kept_as_an_excerpt(hub):
    hub.connect()
    hub.fault("html", status=502, text="x" * 100_000, count=1)
    hub.create(last_name="Torres")
    hub.work()
    assert len(hub.one().attempts[0].words) == 500


def test_what_is_too_long_for_a_row_is_in_a_blob_and_sent_whole(hub):
    hub.connect()
    hub.create(last_name="Torres", description="ñ" * 60_000)
    hub.fault("status", status=500, count=1)
    hub.work()
    assert hub.one().blob
    hub.later(6)
    assert hub.one().state == "done"
    (kept,) = hub.received().values()
    assert kept["body"]["data"]["record"]["description"] == "ñ" * 60_000


def test_what_the_mapping_cannot_put_waits_for_a_person_and_is_told_once_it_can(hub):
    hub.connect(
        mappings={
            "contact": {
                "fields": {
                    "last_state": {
                        "to": "medio",
                        "direction": "out",
                        "values": [{"ours": "WEB", "theirs": 1}],
                        "unmapped": "reject",
                    }
                }
            }
        }
    )
    hub.create(last_name="Torres", last_state="OTHER")
    hub.work()
    found = hub.one()
    assert (found.state, found.tries) == ("failed", 0)
    assert "last_state" in found.outcome
    assert hub.posts() == []
    hub.connection = hub.hub.admin.update(
        hub.connection, Wanted(mappings={"contact": {"fields": {"last_state": {"to": "medio"}}}})
    )
    hub.hub.forget(hub.connection)
    redeliver.replay(hub.hub.engine, DEFAULT_TENANT, hub.uid, found)
    hub.work()
    assert hub.one().state == "done"
    (kept,) = hub.received().values()
    assert kept["body"]["medio"] == "OTHER"


# --- what is left when a worker dies, or a message is lost --------------------------------------------------------


def test_a_lost_message_costs_time_only(hub):
    hub.connect()
    hub.create(last_name="Torres")
    for lane in ("fresh", "bulk"):
        for message in hub.queue.receive(lane, limit=30):
            hub.queue.delete(lane, message)
    hub.tick()
    assert hub.one().state == "done"
    hub.fault("status", status=500, count=1)
    hub.create(last_name="Rojas")
    hub.work()
    hub.wait(6)
    (message,) = hub.queue.receive("bulk")
    hub.queue.delete("bulk", message)
    hub.tick()
    assert [each.state for each in hub.deliveries()] == ["done", "done"]


def test_a_message_that_comes_twice_sends_once(hub):
    hub.connect()
    hub.fault("status", status=500, count=1)
    hub.create(last_name="Torres")
    (message,) = hub.queue.receive("fresh")
    hub.hub.handle("fresh", message.body, 1)
    hub.hub.handle("fresh", message.body, 2)
    assert len(hub.posts()) == 1
    hub.wait(6)
    (retry,) = hub.queue.receive("bulk", limit=5)
    hub.hub.handle("bulk", retry.body, 1)
    hub.hub.handle("bulk", retry.body, 2)
    assert len(hub.posts()) == 2
    assert hub.one().state == "done"


def test_every_version_is_told_exactly_once_whatever_happens_to_posts(hub):
    """Fifty versions of ten records, a receiver that fails often: each has one delivery, and the receiver has each once."""
    hub.connect()
    ids = [hub.create(last_name=f"Torres {n}").id for n in range(10)]
    hub.fault("status", status=500, count=7)
    hub.fault("reset_after", count=5)
    for number in range(4):
        for each in ids:
            hub.editor().update(each, {"city": f"City {number}"})
        hub.work()
    for _ in range(6):
        hub.later(400)
        hub.tick()
    found = hub.deliveries()
    assert sorted((each.record, each.version) for each in found) == sorted(
        (i, v) for i in ids for v in range(1, 6)
    )
    assert {each.state for each in found} == {"done"}
    assert hub.received().keys() == {each.id for each in found}


def test_deliveries_of_a_record_are_sent_in_the_order_of_its_versions(hub):
    hub.connect()
    ids = [hub.create(last_name=f"Torres {n}").id for n in range(8)]
    for number in range(5):
        for each in ids:
            hub.editor().update(each, {"city": f"City {number}"})
    hub.work()
    seen: dict[str, list[int]] = {}
    for each in hub.posts():
        seen.setdefault(data(each)["record"]["id"], []).append(data(each)["record"]["version"])
    assert seen == {each: [1, 2, 3, 4, 5, 6] for each in ids}


# --- beside the rest ---------------------------------------------------------------------------------------------


def test_it_has_no_part_in_a_record(hub):
    """No link, no push, no conflict: the record is as if nobody was told of it, its open items too."""
    hub.connect()
    made = hub.create(last_name="Torres")
    assert made.links == {}
    hub.work()
    stored = hub.hub.records.find(DEFAULT_TENANT, "contact", made.id)
    assert (stored.links, stored.version) == ({}, 1)
    for bucket in layout.BUCKETS:
        assert list(hub.hub.records.open_items(DEFAULT_TENANT, "contact", bucket)) == []


def test_what_a_connection_that_is_gone_had_to_tell_goes_with_it(hub):
    hub.connect()
    hub.create(last_name="Torres")
    hub.hub.admin.delete(hub.connection)
    hub.hub.forget(hub.connection)
    hub.work()
    assert hub.items() == []
    assert hub.posts() == []


def test_of_an_entity_that_is_told_no_more_nothing_is(hub):
    hub.connect({"contact": {"direction": "push"}, "lead": {"direction": "push"}})
    hub.create(last_name="Torres")
    lead = {"lead": EntitySync("push")}
    hub.connection = hub.hub.admin.update(hub.connection, Wanted(entities=lead))
    hub.hub.forget(hub.connection)
    hub.work()
    assert (hub.items(), hub.deliveries()) == ([], [])


def test_an_event_that_raises_does_not_stop_the_others(hub, monkeypatch):
    """From its message's third delivery on."""
    hub.connect()
    message = Webhook.message

    def planted(self, delivery, event):
        if event.fields["last_name"] == "Bad":
            raise RuntimeError("a bug")
        return message(self, delivery, event)

    monkeypatch.setattr(Webhook, "message", planted)
    made = hub.create(last_name="Bad")
    hub.editor().update(made.id, {"last_name": "Good"})
    (job, _) = hub.queue.receive("fresh", limit=2)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            hub.hub.handle("fresh", job.body, 1)
    hub.hub.handle("fresh", job.body, 3)
    assert [(each.version, each.state) for each in hub.deliveries()] == [(1, "failed"), (2, "done")]
    assert "RuntimeError" in hub.deliveries()[0].outcome
    monkeypatch.undo()
    redeliver.replay(hub.hub.engine, DEFAULT_TENANT, hub.uid, hub.deliveries()[0])
    hub.work()
    assert [each.state for each in hub.deliveries()] == ["done", "done"]


def test_what_was_overdue_for_long_is_sent_by_one_message(hub):
    hub.connect()
    hub.fault("status", status=503, count=30)
    for number in range(30):
        hub.create(last_name=f"Torres {number}")
    hub.work()
    hub.clock.ahead += timedelta(seconds=6)
    for message in hub.queue.receive("bulk", limit=32):
        hub.queue.delete("bulk", message)
    hub.hub.tick()
    assert len(hub.queue.receive("bulk", limit=32, invisible=0.0)) == 1
    hub.work()
    assert {each.state for each in hub.deliveries()} == {"done"}
    assert len(hub.posts()) == 60


def test_while_it_is_paused_everything_waits(hub):
    hub.connect()
    hub.connection = hub.hub.admin.pause(hub.connection, paused=True)
    hub.hub.forget(hub.connection)
    hub.create(last_name="Torres")
    hub.work()
    hub.tick()
    assert (hub.posts(), len(hub.items())) == ([], 1)
    hub.connection = hub.hub.admin.pause(hub.connection, paused=False)
    hub.hub.forget(hub.connection)
    hub.hub.resume(hub.connection)
    hub.work()
    assert hub.one().state == "done"


def test_a_push_run_is_refused_by_name(hub):
    hub.connect()
    with pytest.raises(BadRequest, match="mode"):
        hub.hub.start_run(DEFAULT_TENANT, hub.uid, [], "push", "key:test")
    hub.later(600)
    hub.tick()
    assert hub.queue.receive("fresh") == []


def test_what_it_costs(hub):
    """By the hub's worker: the state, the items, the delivery's row, the items' end and the attempt's end; and a message."""
    hub.connect()
    hub.create(last_name="First")
    hub.work()
    with measured() as meter:
        hub.create(last_name="Second")
    assert meter.total("storage_calls") == 3  # as without deliveries, and the message
    with measured() as meter:
        hub.work()
    assert (meter.total("storage_calls"), meter.total("remote_calls")) == (5, 1)
    made = hub.create(last_name="Many")
    for number in range(19):
        hub.editor().update(made.id, {"city": f"City {number}"})
    (first, *others) = hub.queue.receive("fresh", limit=32)
    with measured() as meter:
        hub.hub.handle("fresh", first.body, 1)
    assert (meter.total("storage_calls"), meter.total("remote_calls")) == (4 + 20, 20)
    with measured() as meter:  # a message that finds nothing
        hub.hub.handle("fresh", others[0].body, 1)
    assert (meter.total("storage_calls"), meter.total("remote_calls")) == (2, 0)


def test_a_range_or_all_that_failed_is_sent_again(hub):
    hub.connect()
    hub.fault("status", status=500)
    for number in range(3):
        hub.create(last_name=f"Torres {number}")
    hub.work()
    for delay in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400):
        hub.later(delay + 1)
    assert {each.state for each in hub.deliveries()} == {"failed"}
    hub.well()
    hub.create(last_name="Later")
    hub.work()
    posts = len(hub.posts())
    engine, tenant = hub.hub.engine, DEFAULT_TENANT
    more = {"after": "", "most": 100}
    later = hub.clock.now() - timedelta(minutes=1)
    assert redeliver.replay_range(engine, tenant, hub.uid, later, None, failed_only=True, **more) == (0, None)
    assert redeliver.replay_range(engine, tenant, hub.uid, None, None, failed_only=True, **more) == (3, None)
    hub.work()
    assert {each.state for each in hub.deliveries()} == {"done"}
    assert len(hub.posts()) == posts + 3
    assert redeliver.replay_range(engine, tenant, hub.uid, later, None, failed_only=False, **more) == (
        1,
        None,
    )
    hub.work()
    assert len(hub.posts()) == posts + 4
