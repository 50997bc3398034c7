"""The local host starts whole or not at all, and ends without losing what runs."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import requests
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

from devhost.child import Child

DATA_APP = Path(__file__).resolve().parent.parent / "data" / "devhost_app"
HEAD = "import azure.functions as func\napp = func.FunctionApp()\n"
HELLO = HEAD + (
    "import json, os, time\n"
    '@app.route("hello", methods=["GET"], auth_level="anonymous")\n'
    "def hello(req: func.HttpRequest) -> func.HttpResponse:\n"
    '    time.sleep(float(req.params.get("seconds", 0)))\n'
    '    return func.HttpResponse(json.dumps({n: os.environ.get(n) for n in req.params.get("names", "").split(",")}))\n'
)
# One app with a fault in each function: what the message has to say, by function.
FAULTY = (
    HEAD
    + """
@app.timer_trigger("t", "0 0 25 * * *")
def bad_hour(t: func.TimerRequest) -> None: ...

@app.timer_trigger("t", "%NO_SUCH_SCHEDULE%")
def bad_setting(t: func.TimerRequest) -> None: ...

@app.route("things/{id}", methods=["GET", "POST"])
def first(req: func.HttpRequest) -> str: ...

@app.route("Things/{other}", methods=["POST"])
def second(req: func.HttpRequest) -> str: ...

@app.route("admin/users", methods=["GET"])
def reserved(req: func.HttpRequest) -> str: ...

@app.route("{x:regex(^a{2}$)}", methods=["GET"])
def single_braces(req: func.HttpRequest) -> str: ...

@app.route("{x:integer}", methods=["GET"])
def unknown_constraint(req: func.HttpRequest) -> str: ...

@app.queue_trigger("m", "Under_score", "AzureWebJobsStorage")
def queue_name(m: func.QueueMessage) -> None: ...

@app.queue_trigger("m", "%NO_SUCH_QUEUE%", "AzureWebJobsStorage")
def queue_setting(m: func.QueueMessage) -> None: ...

@app.queue_trigger("m", "work", "NoSuchConnection")
def queue_connection(m: func.QueueMessage) -> None: ...

@app.queue_trigger("m", "work", "Identity")
def queue_identity(m: func.QueueMessage) -> None: ...

@app.queue_trigger("m", "work", "AzureWebJobsStorage")
@app.queue_output("out", "next", "AzureWebJobsStorage")
def output(m: func.QueueMessage, out: func.Out[str]) -> None: ...

@app.blob_trigger("b", "files/{name}", "AzureWebJobsStorage")
def blob(b: func.InputStream) -> None: ...
"""
)
REASONS = {
    "bad_hour": "the schedule '0 0 25 * * *' isn't valid: 25 isn't between 0 and 23, as the hour has to be",
    "bad_setting": "the setting NO_SUCH_SCHEDULE (in '%NO_SUCH_SCHEDULE%') is missing",
    "second": "the route 'Things/{other}' conflicts with that of function 'first'",
    "reserved": "the route 'admin/users' conflicts with one of the host's own",
    "single_braces": "a brace inside a parameter must be doubled",
    "unknown_constraint": "the constraint 'integer' is unknown",
    "queue_name": "'under_score' is no valid queue name",
    "queue_setting": "the setting NO_SUCH_QUEUE (in '%NO_SUCH_QUEUE%') is missing",
    "queue_connection": "the connection setting NoSuchConnection is missing",
    "queue_identity": "the identity-based connection Identity__queueServiceUri isn't supported locally",
    "output": "the binding queue ('out') isn't supported by this host",
    "blob": "the trigger blobTrigger isn't supported by this host",
}
TRIGGER = '@app.route("{0}", methods=["GET"])\ndef {0}({1}: func.HttpRequest) -> str: ...\n'


@pytest.fixture
def make_app(tmp_path):
    """An app folder of the given files; host.json is there unless it's given as None."""

    def make(code, **files):
        folder = tmp_path / "app"
        folder.mkdir()
        contents = {"function_app.py": code, "host.json": '{"version": "2.0"}'} | files
        for name, content in contents.items():
            if content is not None:
                (folder / name).write_text(content, "utf-8")
        return folder

    return make


def refused(app, *arguments, env=None):
    """What a host says on stderr that must not start."""
    child = Child(app, "--port", "0", *arguments, env=env)
    assert child.wait() == 1, child.err
    assert not any(line.startswith("Host started") for line in child.out)
    return child.err


def get(url, **params):
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, params=params, timeout=30)


def test_each_fault_is_named_with_its_function(make_app, azurite):
    env = {"AzureWebJobsStorage": azurite, "Identity__queueServiceUri": "https://x.queue.core.windows.net"}
    found = dict(
        line.removeprefix("devhost: function ").split(": ", 1) for line in refused(make_app(FAULTY), env=env)
    )
    assert found.keys() == REASONS.keys()
    for function, reason in REASONS.items():
        assert reason in found[function]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(
            HEAD + TRIGGER.format("wrong", "request"), "cannot load the wrong function", id="binding"
        ),
        pytest.param(
            HEAD + "import nowhere_to_be_found\n", "No module named 'nowhere_to_be_found'", id="import"
        ),
        pytest.param(
            HEAD + TRIGGER.format("twin", "req") * 2, "Function twin does not have a unique", id="twice"
        ),
        pytest.param(HEAD, "there is no function in", id="empty"),
        pytest.param("x = (\n", "SyntaxError", id="syntax"),
        pytest.param("raise SystemExit(3)\n", "the app ended the process", id="exit"),
        pytest.param(None, "there is no function in", id="no file"),
    ],
)
def test_an_app_that_cant_be_loaded_is_refused_in_one_line(make_app, code, reason):
    lines = refused(make_app(code))
    # The SDK itself warns about an app without HTTP functions.
    (line,) = (line for line in lines if "Auth level is not applied" not in line)
    assert line.startswith("devhost: ")
    assert reason in line


def test_the_place_of_an_import_error_is_named(make_app):
    app = make_app(HEAD + "import mine\n", **{"mine.py": "\nimport nowhere_to_be_found\n"})
    (line,) = refused(app)
    assert line.endswith(f"({app / 'mine.py'}, line 2)")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"local.settings.json": '{"IsEncrypted": true, "Values": {"A": "x"}}'}, "is encrypted"),
        ({"local.settings.json": "{"}, "is no valid JSON"),
        ({"host.json": None}, "there is no host.json"),
        ({"host.json": '{"version": "2.0", "extensions": {"queues": {"batchSize": 33}}}'}, "batchSize"),
        ({"host.json": '{"version": "2.0", "extensions": {"queues": {"visibilityTimeout": 5}}}'}, "00:00:30"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(make_app, files, reason):
    (line,) = refused(make_app(HELLO, **files))
    assert reason in line


def test_storage_that_isnt_there_is_refused_with_the_function(make_app):
    code = HEAD + '@app.queue_trigger("m", "work", "")\ndef work(m: func.QueueMessage) -> None: ...\n'
    gone = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;QueueEndpoint=http://127.0.0.1:9/a;"
    line = refused(make_app(code), env={"AzureWebJobsStorage": gone})[-1]
    assert line.startswith("devhost: function work: queue work can't be reached: ")


def test_a_taken_port_is_one_sentence(make_app):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        lines = refused(make_app(HELLO), "--port", port)
    assert lines == [f"devhost: port {port} on 127.0.0.1 is taken by another process"]


def test_local_settings_become_environment_and_dont_override_it(make_app, tmp_path):
    values = {"DEVHOST_A": "file", "DEVHOST_B": "file", "DEVHOST_C": 3, "DEVHOST_D": True}
    app = make_app(HELLO, **{"local.settings.json": "\ufeff" + json.dumps({"Values": values})})
    names = ",".join(values)
    with Child(app, "--port", "0", env={"DEVHOST_B": "real"}) as host:
        found = get(f"{host.url}/api/hello", names=names).json()
    assert found == {"DEVHOST_A": "file", "DEVHOST_B": "real", "DEVHOST_C": "3", "DEVHOST_D": "true"}
    other = tmp_path / "other.json"
    other.write_text('{"Values": {"DEVHOST_A": "other"}}')
    with Child(app, "--port", "0", "--settings", str(other)) as host:
        assert get(f"{host.url}/api/hello", names="DEVHOST_A").json() == {"DEVHOST_A": "other"}


def test_a_random_key_is_printed_only_where_one_is_asked_for(make_app):
    code = (
        HELLO
        + '@app.route("locked", methods=["GET"])\ndef locked(req: func.HttpRequest) -> str:\n    return "in"\n'
    )
    env = {"AzureWebJobs.hello.Disabled": "true"}
    with Child(make_app(code), "--port", "0", env=env) as host:
        (key,) = (
            line.removeprefix("Functions key: ") for line in host.out if line.startswith("Functions key")
        )
        assert get(f"{host.url}/api/locked").status_code == 401
        assert get(f"{host.url}/api/locked", code=key).text == "in"
        # The platform's switch for one function.
        assert get(f"{host.url}/api/hello").status_code == 404
        assert ["hello", "disabled"] in [line.split() for line in host.out]


def test_functions_share_the_workers_threads_and_are_told_of_when_too_long(make_app):
    app = make_app(HELLO, **{"host.json": '{"version": "2.0", "functionTimeout": "00:00:01"}'})
    with Child(app, "--port", "0", env={"PYTHON_THREADPOOL_THREAD_COUNT": "1"}) as host:
        callers = [
            threading.Thread(target=get, args=(f"{host.url}/api/hello",), kwargs={"seconds": 0.7})
            for _ in range(2)
        ]
        began = time.monotonic()
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert time.monotonic() - began > 1.4
    assert any("hello runs longer than functionTimeout (1 s)" in line for line in host.err)


def test_a_message_delivered_too_often_is_poison_without_being_run(azurite):
    def client(name):
        policy = TextBase64EncodePolicy()
        return QueueClient.from_connection_string(azurite, name, message_encode_policy=policy)

    with client("devhost-worn") as queue, client("devhost-worn-poison") as poison:
        queue.create_queue()
        queue.send_message('{"tag": "worn"}')
        for _ in range(3):  # maxDequeueCount: each is a delivery to a worker that died
            (message,) = queue.receive_messages()
            queue.update_message(message.id, message.pop_receipt, visibility_timeout=0)
        poison.create_queue()
        arguments = ["--port", "0", "--settings", str(DATA_APP / "settings.json")]
        with Child(
            DATA_APP, *arguments, env={"AzureWebJobsStorage": azurite, "JOBS_QUEUE": "devhost-worn"}
        ) as host:
            deadline = time.monotonic() + 20
            while not poison.get_queue_properties().approximate_message_count:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert get(f"{host.url}/api/seen/worn").json() == []
            assert not any("job failed" in line for line in host.err)
        assert queue.get_queue_properties().approximate_message_count == 0


def test_shutdown_finishes_what_runs_and_takes_no_more(azurite):
    arguments = ["--port", "0", "--settings", str(DATA_APP / "settings.json")]
    env = {"AzureWebJobsStorage": azurite, "JOBS_QUEUE": "devhost-shutdown"}
    answers = []
    with Child(DATA_APP, *arguments, env=env) as host:
        caller = threading.Thread(target=lambda: answers.append(get(f"{host.url}/api/slow", seconds=3).text))
        caller.start()
        policy = TextBase64EncodePolicy()
        with QueueClient.from_connection_string(
            azurite, "devhost-shutdown", message_encode_policy=policy
        ) as queue:
            queue.send_message('{"tag": "last", "seconds": 3}')
            while not (get(f"{host.url}/api/seen/slow").json() and get(f"{host.url}/api/seen/last").json()):
                time.sleep(0.05)
            host.signal()
            # The listening socket goes first, long before what runs is done.
            began = time.monotonic()
            while not isinstance(refused_connection(host.url), ConnectionRefusedError):
                time.sleep(0.02)
            assert time.monotonic() - began < 1
            assert host.process.poll() is None
            queue.send_message('{"tag": "too late"}')
            assert host.wait(20) == 0
            caller.join()
            assert answers == ["done"]
            # The running message was deleted, the other not touched.
            (left,) = queue.receive_messages()
            assert left.dequeue_count == 1
    with pytest.raises(ProcessLookupError):
        os.kill(host.process.pid, 0)


def refused_connection(url):
    name, port = url.removeprefix("http://").split(":")
    try:
        with socket.create_connection((name, int(port)), timeout=5):
            return None
    except OSError as error:
        return error


@pytest.mark.parametrize(
    ("arguments", "signals", "code"),
    [
        pytest.param(["--grace", "0.5"], [signal.SIGTERM], 1, id="grace is over"),
        pytest.param([], [signal.SIGINT, signal.SIGTERM], 128 + signal.SIGTERM, id="second signal"),
    ],
)
def test_a_shutdown_can_be_cut_short(make_app, arguments, signals, code):
    with Child(make_app(HELLO), "--port", "0", *arguments) as host:
        host_name, port = host.url.removeprefix("http://").split(":")
        with socket.create_connection((host_name, int(port))) as s:
            s.sendall(b"GET /api/hello?seconds=30 HTTP/1.1\r\nHost: h\r\n\r\n")
            time.sleep(0.5)
            began = time.monotonic()
            for number in signals:
                host.signal(number)
                time.sleep(0.3)
            assert host.wait(10) == code
            assert time.monotonic() - began < 5
