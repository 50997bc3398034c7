"""`make run` as a person meets it: it starts, shows, stops, keeps the data and leaves no process."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from demo.ports import OPTIONS, Ports, free_ports, is_free

ROOT = Path(__file__).resolve().parent.parent.parent
RECORDS = 300
SERVES = "Ctrl-C stops everything"


class Demo:
    """A demo at work on a data folder; `text()`: what it has said."""

    def __init__(
        self, data: Path, *arguments: str, ports: Ports | None = None, env: dict[str, str] | None = None
    ):
        self.data = data
        self.ports = ports or free_ports()
        self._said = data.parent / f"said-{self.ports.hub}.txt"
        given = [
            text
            for each in fields(Ports)
            for text in (OPTIONS[each.name][0], str(getattr(self.ports, each.name)))
        ]
        command = [
            sys.executable,
            "-m",
            "demo",
            "--data",
            str(data),
            "--records",
            str(RECORDS),
            *given,
            *arguments,
        ]
        with self._said.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env=env
            )

    def text(self) -> str:
        return self._said.read_text("utf-8")

    def until(self, words: str, seconds: float = 40) -> None:
        wait(lambda: words in self.text() or self.process.poll() is not None, seconds, self.text)
        assert words in self.text(), self.text()

    def end(self, number: int | None = None, seconds: float = 40) -> int:
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def left(self) -> list[str]:
        """The processes that work on the data folder, the demo and its parts."""
        found = []
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = each.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has just ended
            if str(self.data) in command:
                found.append(f"{each.parent.name} {command}")
        return found

    def assert_gone(self) -> None:
        assert self.left() == []
        assert all(is_free(getattr(self.ports, each.name)) for each in fields(Ports))


def wait(condition: Callable[[], bool], seconds: float, what: Callable[[], object]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Demo]]:
    """Starts demos on a folder whose name has a space; ends what a failed test leaves."""
    demos: list[Demo] = []

    def begin(*arguments: str, **more) -> Demo:
        demos.append(Demo(tmp_path / "the data", *arguments, **more))
        return demos[-1]

    yield begin
    for demo in demos:
        if demo.process.poll() is None:
            demo.process.terminate()
            try:
                demo.process.wait(60)
            except subprocess.TimeoutExpired:
                demo.process.kill()
                demo.process.wait()


def test_once_ends_after_the_summary_and_a_second_run_keeps_the_data(start):
    first = start("--once")
    assert first.end() == 0, first.text()
    said = first.text()
    assert f"records read {RECORDS}, created {RECORDS}, updated 0, unchanged 0, deleted 0, failed 0" in said
    assert re.search(r"remote calls [1-9]\d*, storage calls [1-9]\d*, seconds \d+\.\d", said)
    assert re.search(r"in the store \(version 2\) \d+\.\d s after POST /api/runs", said)
    assert re.search(r"in the store \(version 3\) \d+\.\d s after the change, without a run", said)
    assert_linked(said, "an Odoo of the sandbox")
    key = (first.data / "api-key").read_text().strip()
    assert len(key) >= 32
    assert key in said
    first.assert_gone()
    assert first.data.stat().st_mode & 0o777 == 0o700
    assert all(not each.stat().st_mode & 0o077 for each in first.data.glob("*-key"))

    second = start("--once")  # on other ports: the connection follows the sandbox
    assert second.end() == 0, second.text()
    said = second.text()
    assert f"The sandbox has {RECORDS} accounts" in said
    assert "Filling" not in said
    # What came by the webhook is read again, and was known.
    assert "records read 1, created 0, updated 0, unchanged 1" in said
    assert "in the store (version 4)" in said
    assert re.search(r"in the store \(version 5\) \d+\.\d s after the change, without a run", said)
    assert key in said
    assert_linked(said, "an Odoo of the sandbox")
    second.assert_gone()


def assert_linked(said: str, kind: str) -> None:
    """A phone went from Dynamics to Odoo, and one the other way."""
    assert f"Contacts are linked with {kind}, both ways" in said
    for way in (r"in Dynamics: \+57 [\d ]+ in Odoo", r"in Odoo: \+57 [\d ]+ in Dynamics"):
        assert re.search(rf"'\S+ .+' {way} \d+\.\d s after POST /api/runs", said), said


def test_a_real_odoo_can_stand_there_too(start):
    if not os.environ.get("CRMHUB_REAL_ODOO"):
        pytest.skip("CRMHUB_REAL_ODOO does not name the real Odoo")
    demo = start("--once", "--odoo", "real")
    code = demo.end(seconds=400)
    if code == 2:
        pytest.skip("real-odoo: cannot be had")
    assert code == 0, demo.text()
    assert_linked(demo.text(), "a real Odoo")
    demo.assert_gone()


def test_without_a_real_odoo_it_says_so(start):
    demo = start("--odoo", "real", env={k: v for k, v in os.environ.items() if k != "CRMHUB_REAL_ODOO"})
    assert demo.end() == 2
    assert_one_sentence(demo.text(), "CRMHUB_REAL_ODOO", "ODOO=real")
    assert demo.left() == []


def test_a_machine_that_cannot_have_a_real_odoo_says_why(start, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho 'real-odoo: cannot be had: no PostgreSQL' >&2\nexit 75\n")
    program.chmod(0o700)
    demo = start("--odoo", "real", env={**os.environ, "CRMHUB_REAL_ODOO": str(program)})
    assert demo.end() == 2, demo.text()
    assert "make run: There is no real Odoo here (real-odoo: cannot be had: no PostgreSQL)" in demo.text()
    demo.assert_gone()


def test_the_calls_it_prints_work_as_they_are_and_ctrl_c_stops_everything(start):
    demo = start()
    demo.until(SERVES)
    calls = [line.strip() for line in demo.text().splitlines() if line.strip().startswith("curl ")]
    assert len(calls) == 6
    if shutil.which("curl"):
        found, run, history = (json.loads(run_shell(call)) for call in calls[:3])
        assert all("Peña" in each["name"] for each in found["value"])
        assert run["status"] == "queued"
        assert [each["change"] for each in history["value"]][:2] == ["create", "update"]
        for entities in ("leads", "cases", "quotes", "activities"):
            url = re.sub(r"/accounts\?connection=demo' .*", f"/{entities}?connection=demo'", calls[0])
            assert json.loads(run_shell(url))["value"], entities
        run_shell(calls[3])
        run_shell(calls[4])
        wait(lambda: json.loads(run_shell(calls[5]))["value"][0].get("job_title") == "Asesora", 30, demo.text)

    rival = start()
    assert rival.end() == 1
    assert_one_sentence(rival.text(), f"Another demo uses the data folder {demo.data}", "--data")

    assert len(demo.left()) == 5
    assert demo.end(signal.SIGINT) == 0, demo.text()
    demo.assert_gone()


def run_shell(command: str) -> str:
    return subprocess.run(
        ["sh", "-c", command], check=True, capture_output=True, text=True, timeout=30
    ).stdout


def assert_one_sentence(text: str, *parts: str) -> None:
    assert text.startswith("make run: ")
    assert len(text.splitlines()) == 1
    for part in parts:
        assert part in text


def test_sigterm_while_it_starts_stops_everything(start):
    demo = start()
    demo.until("Starting")
    assert demo.end(signal.SIGTERM) == 0, demo.text()
    demo.assert_gone()


def test_a_secret_may_begin_with_a_dash(start, tmp_path):
    folder = tmp_path / "the data"
    folder.mkdir(mode=0o700)
    (folder / "client-secret").write_text("-a-secret-that-looks-like-an-option")
    demo = start("--once")
    assert demo.end() == 0, demo.text()


def test_a_part_that_dies_ends_the_rest_and_is_named(start):
    demo = start()
    demo.until(SERVES)
    sandbox = next(int(line.split()[0]) for line in demo.left() if " -m sandbox dynamics365 " in line)
    os.kill(sandbox, signal.SIGKILL)
    assert demo.end() == 1
    assert "make run: The sandbox ended by itself (signal 9); its log is " in demo.text()
    demo.assert_gone()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
def test_parts_end_even_if_the_demo_is_killed(start):
    demo = start()
    demo.until("All parts run")
    assert demo.end(signal.SIGKILL) == -signal.SIGKILL
    wait(lambda: not demo.left(), 30, demo.left)
    demo.assert_gone()


def test_a_taken_port_is_one_sentence(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        demo = start("--table-port", str(port))
        assert demo.end() == 1
    assert_one_sentence(demo.text(), f"Port {port} for Azurite's tables is taken", "--table-port")
    assert demo.left() == []


def test_a_missing_tool_is_one_sentence(start):
    demo = start(env={**os.environ, "PATH": ""})
    assert demo.end() == 1
    assert_one_sentence(demo.text(), "Node.js is missing", "install version 20")
