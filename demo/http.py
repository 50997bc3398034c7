"""HTTP as the demo needs it: one session, short timeouts, and one sentence if something is wrong."""

from pathlib import Path
from typing import Any

import requests

from demo.parts import Parts
from demo.trouble import Trouble

_SECONDS = 30


class Client:
    """Calls of one server; `who` names it in sentences, `log` is where it says more."""

    def __init__(
        self, parts: Parts, who: str, base: str, log: Path, headers: dict[str, str] | None = None
    ) -> None:
        self._parts = parts
        self._who = who
        self._base = base.rstrip("/")
        self._log = log
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment doesn't know this machine's loopback
        self._session.headers.update(headers or {})

    def call(
        self, method: str, path: str, body: Any = None, *, also: tuple[int, ...] = ()
    ) -> tuple[int, Any]:
        """(status, JSON) of the answer. Raises Trouble for an error's status, unless it is in `also`."""
        self._parts.check()
        try:
            answer = self._session.request(method, self._base + path, json=body, timeout=_SECONDS)
        except requests.RequestException as error:
            self._parts.check()  # a part that has ended is the better explanation
            raise Trouble(f"{self._who} doesn't answer {method} {path}: {type(error).__name__}.") from None
        if answer.status_code >= 400 and answer.status_code not in also:
            raise Trouble(
                f"{self._who} answered {method} {path} with {answer.status_code}: {_detail(answer)}"
            )
        return answer.status_code, answer.json() if answer.content else None

    def close(self) -> None:
        self._session.close()


def _detail(answer: requests.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return answer.text[:300]
    return str(body.get("detail") or body.get("error") or body) if isinstance(body, dict) else str(body)
