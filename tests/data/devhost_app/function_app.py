"""What the tests of the local host run: every form of trigger, and a memory of what was run."""

import json
import logging
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
SEEN = defaultdict(list)
LOCK = threading.Lock()
RUNNING = {"now": 0, "most": 0}


def seen(what, **facts):
    with LOCK:
        SEEN[what].append({"at": datetime.now(UTC).timestamp(), **facts})


def answer(value, status=200, **headers):
    return func.HttpResponse(
        json.dumps(value), status_code=status, mimetype="application/json", headers=headers
    )


@app.route("seen/{what}", methods=["GET"])
def read_seen(req: func.HttpRequest) -> func.HttpResponse:
    with LOCK:
        return answer(SEEN[req.route_params["what"]])


@app.route("echo/{one:alpha}/{two?}", methods=["GET", "POST"])
def echo(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    return answer(
        {
            "method": req.method,
            "url": req.url,
            "query": dict(req.params),
            "route": dict(req.route_params),
            "headers": dict(req.headers),
            "body": req.get_body().decode("latin-1"),
            "traceparent": context.trace_context.trace_parent,
            "function": context.function_name,
        },
        **{"X-Echo": "yes", "Set-Cookie": "a=1; Path=/"},
    )


@app.route("files/{*rest}", methods=["GET", "PUT"])
def files(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(req.get_body() or b"\x00\xff", status_code=201, headers=dict(req.route_params))


@app.route("any")
async def any_method(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(req.method)


@app.route("boom", methods=["GET"])
def boom(req: func.HttpRequest) -> func.HttpResponse:
    raise ValueError("kaboom")


@app.route("broken", methods=["GET"])
def broken(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("x", headers={"X-Line": "a\r\nb"})


@app.route("nothing", methods=["GET"])
def nothing(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(status_code=204)


@app.route("locked", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
def locked(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("open")


@app.route("slow", methods=["GET"])
def slow(req: func.HttpRequest) -> func.HttpResponse:
    seen("slow")
    time.sleep(float(req.params["seconds"]))
    return func.HttpResponse("done")


@app.queue_trigger("msg", "%JOBS_QUEUE%", "AzureWebJobsStorage")
def job(msg: func.QueueMessage) -> None:
    work = json.loads(msg.get_body())
    with LOCK:
        RUNNING["now"] += 1
        RUNNING["most"] = max(RUNNING["most"], RUNNING["now"])
        most = RUNNING["most"]
    try:
        seen(
            work["tag"],
            id=msg.id,
            count=msg.dequeue_count,
            receipt=msg.pop_receipt,
            inserted=msg.insertion_time.timestamp(),
            expires=msg.expiration_time.year,
            hidden=(msg.time_next_visible - datetime.now(UTC)).total_seconds(),
            most=most,
        )
        time.sleep(work.get("seconds", 0))
        if work.get("fail"):
            raise RuntimeError(work["tag"])
        seen(work["tag"] + "-done")
    finally:
        with LOCK:
            RUNNING["now"] -= 1


@app.queue_trigger("msg", "devhost-own-poison", "AzureWebJobsStorage")
def job_poison(msg: func.QueueMessage) -> None:
    seen("own-poison")
    raise RuntimeError("also this one fails")


@app.timer_trigger("timer", "%EVERY_SECOND%")
def every_second(timer: func.TimerRequest) -> None:
    logging.getLogger("app").info("tick")
    seen("every-second", past_due=timer.past_due)


@app.timer_trigger("timer", "* * * * * *")
def overrunning(timer: func.TimerRequest) -> None:
    first = not SEEN["overrunning"]
    seen("overrunning", past_due=timer.past_due)
    # The first run misses several occurrences, the later ones take a bit more than one.
    time.sleep(4.5 if first else 1.2)
    seen("overrunning-done")


@app.timer_trigger("timer", "0 0 0 1 1 *", run_on_startup=True)
def yearly(timer: func.TimerRequest) -> None:
    seen("yearly", past_due=timer.past_due)
