"""Exports and retention in this process: what any record becomes, slices, workers that die or meet, and what is deleted."""

import csv
import io
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_core.errors import BadRequest, NotFound
from crm_core.functions.exports import part
from crm_core.functions.web import Call, Incoming, Principal, Role
from crm_core.model import csv_text
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import Type, hub_time
from crm_core.model.record import Record, Stamp
from crm_core.ports import RowChanged, RowPage
from crm_core.storage import layout
from crm_core.storage.batch import encode_token
from crm_core.storage.memory import MemoryBlob, MemoryTable
from crm_core.storage.records import HistoryEntry, RecordWrite
from crm_core.storage.run_log import Line, collected, note
from crm_core.sync import export_sources, exports, schedule
from crm_core.sync.engine import Job
from crm_core.sync.retention import retention
from tests.sync.directed import World

TENANT = DEFAULT_TENANT
TIME = "2026-11-24T13:45:00.000000Z"
LEADS = csv_text.FORMULA + "'"

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=20)
dangerous = st.builds(lambda lead, rest: lead + rest, st.text(LEADS, min_size=1, max_size=3), texts)
any_text = st.one_of(texts, dangerous)
amounts = st.decimals(-(10**12), 10**12, places=4).map(lambda each: format(each, "f"))
values = {
    Type.TEXT: any_text,
    Type.CHOICE: any_text,
    Type.REF: st.uuids().map(str),
    Type.INTEGER: st.integers(-(2**63), 2**63 - 1),
    Type.DECIMAL: amounts,
    Type.MONEY: amounts,
    Type.BOOLEAN: st.booleans(),
    Type.DATE: st.dates().map(str),
    Type.INSTANT: st.datetimes().map(lambda each: each.isoformat() + "Z"),
    Type.CHOICES: st.lists(any_text, min_size=1, max_size=3),
    Type.LINES: st.lists(
        st.fixed_dictionaries({"key": any_text}, optional={"quantity": amounts, "description": any_text}),
        min_size=1,
        max_size=2,
    ),
}


@st.composite
def fields_of(draw, entity):
    chosen = draw(st.lists(st.sampled_from(entity.fields), unique_by=lambda each: each.name, max_size=8))
    return {each.name: draw(values[each.type]) for each in chosen}


@pytest.fixture
def world():
    return World("a")


def keep(world, entity, records):
    """Puts records into the store as they are."""
    for bucket in layout.BUCKETS:
        mine = [each for each in records if layout.bucket(each.id) == bucket]
        world.engine.records.commit(
            TENANT, entity, bucket, [RecordWrite(each.id, None, each) for each in mine]
        )


def record(entity, number, fields, **more):
    record_id = layout.derived_record_id(TENANT, "somewhere", entity, str(number))
    created = {"time": TIME, "origin": "somewhere", "run": "r"}
    return Record(record_id, entity, fields, Stamp(TIME, "somewhere"), created, **more)


def handle(world, lane=layout.FRESH):
    """Works on every message that is there; how many."""
    handled = 0
    while True:
        found = [(each, message) for each in layout.QUEUES for message in world.queue.receive(each)]
        if not found:
            return handled
        for each, message in found:
            job = Job.from_message(message.body)
            if job.kind == exports.JOB:
                exports.export(world.engine, job, each)
                handled += 1
            world.queue.delete(each, message)


def exported(world, entity, wanted, since="", where=""):
    """(the run at its end, the bytes of its parts)."""
    run = exports.start(world.engine, TENANT, wanted, entity, "me", since, where)
    handle(world)
    run = world.engine.runs.get(TENANT, run.id)
    assert run.status == "succeeded"
    return run, [exports.part(world.engine, TENANT, run, number + 1) for number in range(run.seen)]


def cells_of(parts, bom=False):
    text = b"".join(parts).decode("utf-8-sig" if bom else "utf-8")
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


# --- any record --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entity", ["account", "order", "activity", "case"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_record_reads_back_from_jsonl_exactly_and_from_csv_with_its_formulas_escaped(entity, data):
    plain = ENTITIES[entity]
    given_fields = data.draw(st.lists(fields_of(plain), min_size=1, max_size=4))
    world = World("a")
    records = {each.id: each for n, one in enumerate(given_fields) if (each := record(entity, n, one))}
    keep(world, entity, records.values())

    _, parts = exported(world, entity, export_sources.Wanted("records", "jsonl"))
    lines = [json.loads(line) for line in b"".join(parts).split(b"\n") if line]
    assert [line["id"] for line in lines] == sorted(records)
    for line in lines:
        mine = {name: value for name, value in line.items() if name in plain.by_name}
        assert mine == records[line["id"]].fields

    _, parts = exported(world, entity, export_sources.Wanted("records", "csv"))
    head, *rows = cells_of(parts)
    assert head == ["id", "version", *plain.by_name, "links", "other_fields"]
    assert [each[0] for each in rows] == sorted(records)
    for row in rows:
        shown = dict(zip(head, row, strict=True))
        for kind in plain.fields:
            cell, value = shown[kind.name], records[row[0]].fields.get(kind.name)
            check_cell(kind, cell, value)


def check_cell(kind, cell, value):
    if kind.type in export_sources.NUMBERS:
        assert cell == ("" if value is None else str(value))
        return
    assert not cell.startswith(tuple(csv_text.FORMULA))
    back = csv_text.unescaped(cell)
    if value is None:
        assert back == ""
    elif kind.type is Type.BOOLEAN:
        assert back == str(value).lower()
    elif kind.type in (Type.CHOICES, Type.LINES):
        assert json.loads(back) == value
    else:
        assert back == value


@given(text=any_text)
def test_a_cell_is_no_formula_and_gives_its_text_back(text):
    assert csv_text.unescaped(csv_text.escaped(text)) == text
    assert csv_text.escaped(text)[0] not in csv_text.FORMULA


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@SUM(A1)", "'@SUM(A1)"), ("\t=1", "'\t'=1"), ("\r=1", "'\r'=1"),
        ("\uff1d1", "'\uff1d1"), ("\ufe661", "'\ufe661"), ("\ufe621", "'\ufe621"), ("\ufe631", "'\ufe631"), ("\ufe6b1", "'\ufe6b1"),
        ("'=1", "''=1"), ("'quoted'", "'quoted'"), ("a=1", "a=1"), ("", ""),
        ("Acme;=1+1;", "Acme;'=1+1;"), ("a\t-1", "a\t'-1"), ("a\n@x", "a\n'@x"), ("a\r\n+1", "a\r\n'+1"), ("a;\uff1d", "a;'\uff1d"),
        ('a;"=1"', "a;'\"=1\""), ("a;'=1", "a;''=1"), ("a; -1", "a; -1"), ("a;b\tc\r\n\r\nd", "a;b\tc\r\n\r\nd"), (["a;=1"], '["a;\'=1"]'),
    ],
)  # fmt: skip
def test_beginnings_of_formulas_are_escaped(text, cell):
    assert csv_text.cell(text) == cell
    if isinstance(text, str):
        assert csv_text.unescaped(cell) == text


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@given(text=st.text(st.sampled_from("ab ;\t\r\n,'\"=+-@\ufe66\uff0b"), max_size=12))
def test_no_cell_begins_like_a_formula_whatever_a_program_takes_for_the_end_of_a_cell(delimiter, text):
    """Quotes hold a cell together for those alone that part cells where we do."""
    line = csv_text.row(["id", csv_text.cell(text), "x"])
    for row in csv.reader(io.StringIO(line, newline=""), delimiter=delimiter):
        for cell in row:
            assert not cell.startswith(tuple("=+-@\ufe66\uff0b")), (text, line)
    assert csv_text.unescaped(csv_text.escaped(text)) == text


def test_a_plain_number_of_a_number_s_field_stays_one():
    assert csv_text.cell("-12.50", number=True) == "-12.50"
    assert csv_text.cell("-12.50") == "'-12.50"
    assert csv_text.cell("-1+cmd|' /C calc'!A0", number=True) == "'-1+cmd|' /C calc'!A0"


# --- what is in it -----------------------------------------------------------------------------------------------


def test_dead_records_are_left_out_and_links_and_customs_are_in(world):
    live = record("account", 1, {"name": "One", "x_region": "south"})
    gone = replace(record("account", 2, {"name": "Two"}), dead=True)
    keep(world, "account", [live, gone])
    customs = ({"name": "x_region", "type": "text", "choices": []},)
    _, parts = exported(world, "account", export_sources.Wanted("records", "csv", customs=customs, bom=True))
    assert parts[0].startswith(b"\xef\xbb\xbf")
    head, *rows = cells_of(parts, bom=True)
    assert [dict(zip(head, row, strict=True))["x_region"] for row in rows] == ["south"]
    _, parts = exported(
        world, "account", export_sources.Wanted("records", "jsonl", customs=customs), where="x_region eq 'n'"
    )
    assert parts == []


def test_custom_fields_that_no_mapping_names_any_more_are_in_csv_too(world):
    given_fields = {"name": "One", "x_region": "south", "x_left": "=kept", "x_many": ["a", "b"]}
    keep(world, "account", [record("account", 1, given_fields), record("account", 2, {"name": "Two"})])
    customs = ({"name": "x_region", "type": "text", "choices": []},)
    _, parts = exported(world, "account", export_sources.Wanted("records", "csv", customs=customs))
    head, *rows = cells_of(parts)
    shown = {row["name"]: row for row in (dict(zip(head, each, strict=True)) for each in rows)}
    others = json.loads(shown["One"]["other_fields"])
    assert others == {"x_left": "=kept", "x_many": ["a", "b"]}
    assert (shown["One"]["x_region"], shown["Two"]["other_fields"]) == ("south", "")
    _, parts = exported(world, "account", export_sources.Wanted("records", "jsonl", customs=customs))
    (one,) = (line for line in map(json.loads, b"".join(parts).splitlines()) if line["name"] == "One")
    assert {name: one[name] for name in given_fields} == given_fields
    assert "other_fields" not in one


def test_the_history_of_an_entity_has_how_each_record_was_made_and_every_step(world):
    keep(world, "account", [record("account", number, {"name": str(number)}) for number in range(40)])
    for number in range(0, 40, 2):
        stored = world.engine.records.get(TENANT, "account", record("account", number, {}).id)
        later = "2026-11-25T10:00:00.000000Z"
        step = HistoryEntry(2, later, "hub", "", {"name": str(number)}, by="key:x")
        write = RecordWrite(
            stored.id, stored, replace(stored.content, fields={"name": "=x"}, version=2), step
        )
        world.engine.records.commit(TENANT, "account", layout.bucket(stored.id), [write])
    wanted = export_sources.Wanted("history", "jsonl", names={"somewhere": "crm"})
    _, parts = exported(world, "account", wanted)
    lines = [json.loads(line) for line in b"".join(parts).splitlines()]
    assert len(lines) == 60
    assert {each["origin"] for each in lines if each["change"] == "create"} == {"crm"}
    steps = [each for each in lines if each["version"] == 2]
    assert {(each["by"], each["origin"], each["change"]) for each in steps} == {("key:x", "hub", "update")}
    assert sorted(each["old"]["name"] for each in steps) == sorted(str(number) for number in range(0, 40, 2))
    _, parts = exported(world, "account", wanted, since="2026-11-25T00:00:00Z")
    assert len(b"".join(parts).splitlines()) == 20
    _, parts = exported(world, "account", replace(wanted, until="2026-11-25T00:00:00Z", format="csv"))
    assert len(cells_of(parts)) == 41


# --- slices, parts, workers --------------------------------------------------------------------------------------


def many(world, number=400, size=2000):
    records = [record("account", each, {"name": f"{each:06d}" * (size // 6)}) for each in range(number)]
    keep(world, "account", records)
    return records


def test_parts_are_of_a_bounded_size_and_put_together_are_every_record_once(world, monkeypatch):
    monkeypatch.setattr(exports, "PART_BYTES", 50_000)
    monkeypatch.setattr(export_sources, "PAGE", 7)
    records = many(world)
    run, parts = exported(world, "account", export_sources.Wanted("records", "jsonl"))
    assert max(map(len, parts)) <= 50_000
    assert run.seen == len(parts) > 15
    assert (run.read, run.slices) == (len(records), 0)
    ids = [json.loads(line)["id"] for line in b"".join(parts).splitlines()]
    assert ids == sorted(each.id for each in records)


def test_an_export_goes_on_over_slices_and_after_a_worker_that_died(world, monkeypatch):
    monkeypatch.setattr(exports, "PART_BYTES", 30_000)
    monkeypatch.setattr(export_sources, "PAGE", 7)
    records = many(world)
    engine = replace(
        world.engine, tuning=replace(world.engine.tuning, fresh_slice_seconds=0, bulk_slice_seconds=0)
    )
    run = exports.start(engine, TENANT, export_sources.Wanted("records", "csv"), "account", "me", "", "")
    job = Job(exports.JOB, TENANT, "", "account", run.id)
    for slice_number in range(1000):
        if slice_number % 3 == 1:
            die_once(engine, monkeypatch, job)
        exports.export(engine, job, layout.BULK)
        run = engine.runs.get(TENANT, run.id)
        if run.ended:
            break
    assert (run.status, run.read) == ("succeeded", len(records))
    assert run.slices > 10
    parts = [exports.part(engine, TENANT, run, number + 1) for number in range(run.seen)]
    _, *rows = cells_of(parts)
    assert [row[0] for row in rows] == sorted(each.id for each in records)
    blobs = names_of(engine.blob)
    assert len(blobs) == run.seen, "what a dead worker left is gone"


def die_once(engine, monkeypatch, job):
    """A worker that dies after it wrote a part and before the row says so."""
    save, saves = engine.runs.save, []

    def dying(tenant, run):
        saves.append(run)
        if len(saves) == 2:
            raise KeyboardInterrupt
        return save(tenant, run)

    with monkeypatch.context() as patch:
        patch.setattr(engine.runs, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            exports.export(engine, job, layout.BULK)


def names_of(blob):
    assert isinstance(blob, MemoryBlob)
    return sorted(blob._blobs)


@pytest.mark.parametrize("late", [False, True], ids=["after it wrote a part", "before"])
def test_of_two_workers_one_goes_on_and_the_other_leaves_nothing(world, monkeypatch, late):
    monkeypatch.setattr(export_sources, "PAGE", 7)
    records = many(world, 100)
    engine = world.engine
    run = exports.start(engine, TENANT, export_sources.Wanted("records", "jsonl"), "account", "me", "", "")
    job = Job(exports.JOB, TENANT, "", "account", run.id)
    put, entered = engine.blob.put, []

    def overtaken(name, data):
        first = not entered
        entered.append(name)
        if late and first:
            exports.export(engine, job, layout.FRESH)
        put(name, data)
        if first and not late:
            exports.export(engine, job, layout.FRESH)

    monkeypatch.setattr(engine.blob, "put", overtaken)
    exports.export(engine, job, layout.FRESH)
    ended = engine.runs.get(TENANT, run.id)
    assert (ended.status, ended.read, ended.seen) == ("succeeded", len(records), 1)
    assert len(b"".join([exports.part(engine, TENANT, ended, 1)]).splitlines()) == len(records)
    assert len(names_of(engine.blob)) == 1
    with pytest.raises(RowChanged):
        engine.runs.save(TENANT, run)


FILTER = " or ".join(f"name eq '{number:040}'" for number in range(75))
CHOICES = tuple(f"choice number {number:05}" for number in range(2000))
CONNECTIONS = {f"{number:036}": f"connection-{number}" for number in range(700)}


@pytest.mark.parametrize(
    ("field", "wanted", "where"),
    [
        ("entity", {"customs": ({"name": "x_kind", "type": "choice", "choices": CHOICES},)}, ""),
        ("connection", {"names": CONNECTIONS}, "name eq 'x'"),
        ("filter", {}, FILTER * 10),
    ],
)
def test_what_its_row_can_t_hold_is_refused_by_name_and_leaves_nothing(world, field, wanted, where):
    engine = world.engine
    asked = export_sources.Wanted("records", "csv", **wanted)
    waiting = world.queue.size(layout.FRESH)
    with pytest.raises(BadRequest, match=f"^{field}: ") as refused:
        exports.start(engine, TENANT, asked, "account", "me", "", where)
    assert [each.field for each in refused.value.errors] == [field]
    assert engine.runs.page(TENANT, top=10, token=None)[0] == []
    assert (list(engine.runs.watched()), world.queue.size(layout.FRESH)) == ([], waiting)
    assert engine.due.until(TENANT, "9999", 10) == []


def test_as_much_as_is_taken_fits_to_the_end_of_a_long_export(world, monkeypatch):
    monkeypatch.setattr(export_sources, "PAGE", 1)
    many(world, 150, 6)
    tuning = replace(world.engine.tuning, fresh_slice_seconds=0, bulk_slice_seconds=0)
    world.engine = replace(world.engine, tuning=tuning)
    choices = tuple(f"{number:05}" for number in range(2640))
    kind = {"name": "x_kind", "type": "choice", "choices": choices}
    run, parts = exported(world, "account", export_sources.Wanted("records", "csv", customs=(kind,)))
    assert (run.read, run.slices > 150, len(parts)) == (150, True, 150)


# --- deleted after their time ------------------------------------------------------------------------------------


def test_parts_and_old_lines_are_deleted_and_the_rest_stays(world):
    engine = world.engine
    keep(world, "account", [record("account", 1, {"name": "One"})])
    run, (data,) = exported(world, "account", export_sources.Wanted("records", "jsonl"))
    with collected(engine.run_log, engine.clock):
        note("run.begun", "kept")
    old = engine.clock.now() - timedelta(days=31)
    lines = [Line(hub_time(old), "info", "run.begun", f"old {number}") for number in range(250)]
    for start in range(0, 250, 50):
        engine.run_log.write(TENANT, lines[start : start + 50])
    job = Job("retention", TENANT)
    retention(engine, job, layout.BULK)
    assert exports.part(engine, TENANT, run, 1) == data
    assert messages(engine, 40) == ["kept"]
    world.later(7 * 24 * 3600 + 1)
    retention(engine, job, layout.BULK)
    assert exports.part(engine, TENANT, run, 1) is None
    assert engine.due.until(TENANT, hub_time(engine.clock.now()), 10) == []
    assert messages(engine, 40) == ["kept"]


def test_what_dead_workers_left_of_an_export_goes_with_its_parts(world, monkeypatch):
    many(world, 30)
    engine = world.engine
    run = exports.start(engine, TENANT, export_sources.Wanted("records", "jsonl"), "account", "me", "", "")
    job = Job(exports.JOB, TENANT, "", "account", run.id)
    for _ in range(2):
        die_once(engine, monkeypatch, job)
    overtaken = f"runs/{TENANT.name}/{run.id}/000000-overtake/000001"
    engine.blob.put(overtaken, b"by a worker that was too slow")
    exports.export(engine, job, layout.BULK)
    assert engine.runs.get(TENANT, run.id).status == "succeeded"
    other, (kept,) = exported(world, "account", export_sources.Wanted("records", "jsonl"))
    assert overtaken in names_of(engine.blob)
    world.later(7 * 24 * 3600 - 10)
    fresh, _ = exported(world, "account", export_sources.Wanted("records", "jsonl"))
    world.later(11)
    engine.runs.delete(TENANT, [engine.runs.get(TENANT, other.id)])
    retention(engine, Job("retention", TENANT), layout.BULK)
    assert kept
    assert {name.split("/")[2] for name in names_of(engine.blob)} == {fresh.id}


def messages(engine, days):
    now = engine.clock.now()
    found, place = [], {}
    while place is not None:
        page, place = engine.run_log.page(
            TENANT,
            place,
            now - timedelta(days=days),
            now + timedelta(seconds=1),
            top=100,
            test=lambda _: True,
        )
        found += page
    return [each.message for each in found]


def test_the_tick_thinks_of_it_once_a_day(world):
    sent = []
    for _ in range(24 * 60):
        schedule.tick(world.engine)
        for lane in layout.QUEUES:
            for message in world.queue.receive(lane):
                sent.append(Job.from_message(message.body).kind)
                world.queue.delete(lane, message)
        world.later(60)
    assert sent.count(schedule.RETENTION) == 1


# --- lines -------------------------------------------------------------------------------------------------------


def test_lines_beyond_the_most_are_counted_and_a_failing_store_fails_nothing(world):
    engine = world.engine
    with collected(engine.run_log, engine.clock):
        for number in range(200):
            note("record.set_aside", f"line {number}", "warning", run="r")
        note("run.ended", "over")
    found = messages(engine, 1)
    assert len(found) == 22
    assert "And 180 more of these." in found

    class Broken:
        def write(self, *_):
            raise RowChanged

    with collected(Broken(), engine.clock):  # type: ignore[arg-type]
        note("run.ended", "lost")
    with collected(engine.run_log, engine.clock):
        note("record.refused", "half a character: \ud83d", "warning")
        note("record.refused", "as a fact", "warning", fields=["\ud83d"])
    note("run.ended", "nobody collects")
    assert "lost" not in messages(engine, 1)
    with collected(engine.run_log, engine.clock):
        note("record.refused", "half a character: \ud83d", "warning")
    assert "half a character: ?" in messages(engine, 1)


def test_a_page_that_the_store_gives_empty_is_not_taken_for_the_last(world, monkeypatch):
    engine, real = world.engine, MemoryTable.query

    def hesitates(self, table, *, token=None, **range_):
        """As the service may: the first page of a range has no row, and says where to go on."""
        if token is None and range_.get("pk_to") is None:
            return RowPage((), encode_token(range_["pk"], range_.get("rk", "")))
        return real(self, table, token=token, **range_)

    records = [record("account", number, {"name": f"N{number}"}) for number in range(3)]
    keep(world, "account", records)
    world.engine.run_log.write(TENANT, [Line(hub_time(engine.clock.now()), "info", "run.ended", "told")])
    letter = engine.dead_letters.add(TENANT, kind="record", code="BadAnswer", cause="odd")
    monkeypatch.setattr(MemoryTable, "query", hesitates)
    for what, count in (("records", 3), ("history", 3)):
        _, parts = exported(world, "account", exports.Wanted(what, "jsonl"))
        assert len(b"".join(parts).splitlines()) == count
    assert "told" in messages(engine, 0.01)
    found, _ = engine.dead_letters.page(TENANT, top=10, after="")
    assert [each.id for each in found] == [letter]


def test_an_idle_pull_leaves_no_line(world):
    engine = world.engine
    with collected(engine.run_log, engine.clock):
        world.pull("r1")
    assert messages(engine, 1) == []


# --- who may read ------------------------------------------------------------------------------------------------


def test_only_who_asked_and_an_admin_read_a_part(bench):
    hub = bench.hub
    run = exports.start(hub.engine, TENANT, export_sources.Wanted("logs", "csv"), "", "key:one", "", "")
    exports.export(hub.engine, Job(exports.JOB, TENANT, "", "", run.id), layout.FRESH)

    def read(who, role):
        call = Call(
            hub,
            Principal(TENANT, who, role),
            Incoming("GET", "/", {}, {}, b""),
            {"run_id": run.id, "number": "1"},
            {},
        )
        return part(call)

    assert read("key:one", Role.READER).text.startswith("time,level,event,message")
    assert read("key:two", Role.ADMIN).status == 200
    with pytest.raises(NotFound) as refused:
        read("key:two", Role.INTEGRATOR)
    assert refused.value.message == f"There is no export '{run.id}'."


def test_a_real_table_gives_lines_back_newest_first_and_lets_old_ones_go(bench):
    engine = bench.hub.engine
    now = engine.clock.now()
    for days in (40, 31, 2):
        then = hub_time(now - timedelta(days=days))
        engine.run_log.write(TENANT, [Line(then, "info", "run.begun", f"{days}.{n}") for n in range(60)])
    assert messages(engine, 3) == [f"2.{n}" for n in reversed(range(60))]
    engine.due.add(TENANT, hub_time(now - timedelta(seconds=1)), exports.JOB, "no-such-run", {})
    retention(engine, Job("retention", TENANT), layout.BULK)
    assert engine.due.until(TENANT, hub_time(now), 10) == []
    assert engine.run_log.drop_before(TENANT, hub_time(now - timedelta(days=30))[:10], None) is None
    assert len(messages(engine, 45)) == 60  # those of the other two days are gone


@pytest.mark.parametrize("what", ["records", "history", "logs"])
def test_an_empty_page_that_is_not_the_last_ends_no_export(world, what):
    many(world, 20)
    with collected(world.engine.run_log, world.engine.clock):
        note("run.begun", "It began.")
    world.later(1)
    table = world.engine.records.table._table
    real = table.query

    def query(name, **how):
        """Each range has a page before its first one that has no rows, as the service may answer."""
        if how.get("token") is None:
            return RowPage((), "first")
        return real(name, **{**how, "token": None if how["token"] == "first" else how["token"]})

    table.query = query
    _, parts = exported(world, "" if what == "logs" else "account", exports.Wanted(what, "jsonl"))
    assert len(b"".join(parts).splitlines()) >= {"records": 20, "history": 20, "logs": 1}[what]
