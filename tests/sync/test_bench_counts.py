"""The calls of a first load and of a run without changes are the golden ones: by the benchmark's own parts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import counts, systems
from benchmarks.parts import Bench
from crm_core.hub import connector_class, connector_names
from demo.parts import Parts

RECORDS = 10_000
PUSHED = 2_000
BATCH = 100
"""Rows in a call to the Dataverse server."""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    parts = Parts()
    try:
        bench = Bench(parts, tmp_path_factory.mktemp("benchmark"))
        bench.fill(RECORDS)
        yield bench
    finally:
        parts.stop()


@pytest.mark.parametrize("page", [5000, 100])
def test_calls_are_the_golden_ones(bench, page):
    bench.empty_sink()
    result = bench.run("pull", bench.sink["connection_string"], page, still=True)
    assert result.counts["created"] == result.load.records == RECORDS
    assert result.load.slices == 1
    golden = counts.golden()[counts.name_of(RECORDS, page)]
    assert counts.calls_of(result) == golden, (
        "If the change is meant, run `python -m benchmarks --no-azurite --save-counts` and commit the file with it."
    )
    # What was counted is what was asked, and every record arrived.
    figures = bench.figures()
    assert figures["rows"]["records"] == RECORDS
    assert figures["requests"] > result.load.storage
    assert result.load.remote == RECORDS // page + 1
    assert result.load.storage <= (16 if page == 5000 else 17) * RECORDS / 1000


def test_the_golden_calls_keep_what_is_promised():
    """The limits of docs/benchmarks.md, at the size that only the benchmark runs too."""
    golden = {name: calls for name, calls in counts.golden().items() if "accounts" in name}
    assert len(golden) == 4
    for name, calls in golden.items():
        records, page = (int(each) for each in re.findall(r"\d+", name))
        most = 17 if page == 100 else 13 if records == 100_000 else 16
        assert calls["first load"]["remote"] == records / page + 1
        assert calls["first load"]["storage"] <= most * records / 1000
        assert calls["nothing new"] == {"remote": 1, "storage": 2}


def test_calls_of_a_push_are_the_golden_ones(bench):
    create, update = bench.push(PUSHED)
    assert (create.slices, update.slices) == (2, 1)  # what was held back meanwhile is looked at after creates
    assert counts.push_calls_of(create, update) == counts.golden()[counts.push_name_of(PUSHED)], (
        "If the change is meant, run `python -m benchmarks --no-azurite --save-counts` and commit the file with it."
    )


def test_the_golden_calls_of_a_push_keep_what_is_promised():
    """Calls for updates are full ones; a create is a write and a look at what came of it; the token is another."""
    golden = {name: calls for name, calls in counts.golden().items() if "pushed" in name}
    assert golden.keys() == {counts.push_name_of(PUSHED), counts.push_name_of(10_000)}
    for name, calls in golden.items():
        records = int(name.split()[0])
        most = records / BATCH + 2
        assert calls["update"]["remote"] <= most
        assert calls["create"]["remote"] <= 2 * most
        assert calls["update"]["storage"] <= (45 if records == 10_000 else 75) * records / 1000
        assert calls["create"]["storage"] <= 1_100 * records / 1000


@pytest.mark.parametrize("system", sorted(systems.REMOTES))
def test_calls_of_a_system_are_the_golden_ones(bench, system):
    result = bench.sync(system, systems.CHANGED)
    assert counts.sync_calls_of(result) == counts.golden()[counts.sync_name_of(system)], (
        "If the change is meant, run `python -m benchmarks --no-azurite --save-counts` and commit the file with it."
    )
    # A call carries a hundred rows, and a system without If-Match is looked at before it is written to.
    least = systems.REMOTES[system].least(systems.CHANGED)
    assert all(calls <= 10 * least[what] + 3 for what, calls in result.calls.items())


def test_every_connector_has_its_golden_calls():
    assert systems.REMOTES.keys() == {
        each for each in connector_names() if not connector_class(each).delivers_to
    }


def test_the_command_measures_and_finds_no_difference():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--records", "400", "--pages", "100", "--no-azurite", "--pushes", "200", "--latency", "1",
         "--webhooks", "80"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^sink +400 +100 .* 1 \+ 2$", done.stdout, re.MULTILINE)
    assert re.search(r"^push: 200 contacts made: \d+ remote calls, ", done.stdout, re.MULTILINE)
    assert re.search(
        r"^An edit at one system is at the other after \d+ ms \(median of 1", done.stdout, re.MULTILINE
    )
    assert re.search(
        r"^Webhooks: [\d,]+ a second .* accepted by one host, .* of it \(aim 0\.7\)\. Idle .* of the speed of an idle request and a put\.$",
        done.stdout,
        re.MULTILINE,
    )
    assert "Calls are those of benchmarks/counts.json." in done.stdout
