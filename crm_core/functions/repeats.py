"""The same request twice: a POST with an Idempotency-Key is carried out once, and repeats get its answer.

A batch may end with operations that were not done and may come again. Its answer is then kept as `unfinished`, and the
repeat carries out those and no other.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from crm_core.errors import BadRequest, Conflict, HubError, Unprocessable
from crm_core.functions.endpoint import Route, problem
from crm_core.functions.web import Call, Reply
from crm_core.model.fields import hub_time
from crm_core.ports import derived_id, wire_size

if TYPE_CHECKING:
    from crm_core.hub import Hub

REPEAT_HOURS = 24
MAX_KEY_LENGTH = 200
MAX_KEPT_BYTES = 60_000


def once(call: Call, found: Route) -> Reply:
    """A POST with an Idempotency-Key is carried out once in 24 h for each caller and route; repeats get its answer, or
    carry on where that is unfinished.

    A key with another body is 422, one whose first request is still at work (or died with its outcome unknown) 409.
    """
    hub: Hub = call.hub
    given = call.incoming.headers["idempotency-key"]
    if not 1 <= len(given) <= MAX_KEY_LENGTH or not (given.isascii() and given.isprintable()):
        raise BadRequest.field(
            "Idempotency-Key", f"Idempotency-Key: expected 1 to {MAX_KEY_LENGTH} characters of ASCII."
        )
    path = call.incoming.path + "?" + repr(sorted(call.parameters.items()))
    key = hashlib.sha256(f"{call.principal.id}\n{found.path}\n{given}".encode()).hexdigest()
    body = hashlib.sha256(path.encode("utf-8", "surrogatepass") + b"\n" + call.incoming.body).hexdigest()
    now = hub.clock.now()
    claim = {"time": hub_time(now), "body": body, "nonce": os.urandom(8).hex()}
    expired_before = hub_time(now - timedelta(hours=REPEAT_HOURS))
    present = hub.keys.claim_repeat(call.tenant, key, claim, expired_before)
    call = replace(call, key=derived_id(call.tenant.name, key))
    if present is not None:
        if present["body"] != body:
            raise Unprocessable("The Idempotency-Key was used for another request; take a new one.")
        if not _is_unfinished(present):
            return _repeated(hub, present)
        claim |= {"time": present["time"]}
        if not hub.keys.take_repeat(call.tenant, key, present, {**claim, "before": present["answer"]}):
            raise _at_work()
        call = replace(call, earlier=json.loads(_text(hub, json.loads(present["answer"]))))
    try:
        reply = found.handler(call)
    except HubError as error:
        reply = problem(error, call.incoming.trace)
        if not getattr(error, "outcome_unknown", False):
            if present is not None:
                hub.keys.save_repeat(call.tenant, key, present)  # what it says of the first time still holds
                return reply
            if reply.status >= 500:
                hub.keys.drop_repeat(call.tenant, key)  # nothing was done: the caller may try again
                return reply
    # A bug leaves the claim as it is: whether the request was carried out is unknown, so it is not repeated.
    _keep(call, key, claim, reply)
    return reply


def _keep(call: Call, key: str, claim: Mapping[str, str], reply: Reply) -> None:
    hub: Hub = call.hub
    text = reply.data().decode()
    kept = {"status": reply.status, "text": text, "headers": dict(reply.headers)}
    if reply.unfinished:
        kept["unfinished"] = True
    if wire_size(json.dumps(json.dumps(kept, ensure_ascii=False), ensure_ascii=False)) > MAX_KEPT_BYTES:
        name = f"answers/{call.tenant.name}/{key}"
        hub.engine.blob.put(name, text.encode())
        kept |= {"text": "", "blob": name}
    answer = {**claim, "answer": json.dumps(kept, ensure_ascii=False), "type": reply.content_type}
    hub.keys.save_repeat(call.tenant, key, answer)


def _is_unfinished(present: Mapping[str, str]) -> bool:
    return "answer" in present and bool(json.loads(present["answer"]).get("unfinished"))


def _repeated(hub: "Hub", present: Mapping[str, str]) -> Reply:
    if "answer" not in present:
        raise _at_work()
    answer = json.loads(present["answer"])
    headers = {**answer["headers"], "Idempotent-Replayed": "true"}
    return Reply(answer["status"], None, headers, present["type"], _text(hub, answer))


def _text(hub: "Hub", answer: Mapping[str, Any]) -> str:
    """Of an answer that was kept, in its row or in a blob."""
    long = hub.engine.blob.get(answer["blob"]) if "blob" in answer else None
    return long.decode() if long else str(answer["text"])


def _at_work() -> Conflict:
    return Conflict("The first request with this Idempotency-Key has not been answered yet; ask again later.")
