"""The Odoo beside Dynamics, and what a person there does: a fake one, or a real one where this machine can have it."""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from faker import Faker

from demo import start
from demo.folder import Folder, environment
from demo.http import Client
from demo.parts import Part, Parts
from demo.trouble import Missing, Trouble

PROGRAM = "CRMHUB_REAL_ODOO"
"""Variable that names the program which runs a real one: `start` sets it up and tells of it, `stop` ends it."""
CANNOT = 75
"""Its exit code where the machine can't have one."""
PEOPLE = 12
DOMAIN = "people.odoo.example"
_PARTNER = "/json/2/res.partner"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Odoo:
    """A server, and the user that the hub is there."""

    kind: str
    url: str
    database: str
    login: str
    key: str = field(repr=False)


def sandbox_ready(parts: Parts, part: Part) -> Odoo:
    told = start.sandbox_ready(parts, part)
    return Odoo("sandbox", told["url"], told["database"], told["login"], told["api_key"])


class Real:
    """A real Odoo, whose data its program keeps: not in the demo's folder, which nobody else may enter."""

    def __init__(self, parts: Parts, folder: Folder) -> None:
        """Raises Missing where no program is named."""
        self._program = os.environ.get(PROGRAM, "")
        if not self._program:
            raise Missing(
                f"There is no real Odoo here: {PROGRAM} has to name the program that starts one. "
                "`make run` without ODOO=real shows the Odoo of the sandbox."
            )
        self._parts, self._folder = parts, folder

    def start(self) -> Odoo:
        """Raises Missing where this machine can't have one."""
        told, log = self._folder.path / "odoo-real", self._folder.log("odoo")
        code = self._run(told, log, "start")
        said = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        if code == CANNOT:
            raise Missing(
                f"There is no real Odoo here ({''.join(said)}). `make run` without ODOO=real shows the Odoo of the sandbox."
            )
        if code:
            raise Trouble(
                f"The real Odoo doesn't start ({''.join(said) or f'exit code {code}'}); its log is {log}."
            )
        facts = dict(line.split("=", 1) for line in told.read_text().splitlines() if "=" in line)
        told.unlink()  # it has the key
        return Odoo("real", facts["ODOO_URL"], facts["ODOO_DB"], facts["ODOO_USER"], facts["ODOO_API_KEY"])

    def stop(self) -> None:
        command = [self._program, "stop"]
        subprocess.run(command, env=environment(), capture_output=True, check=False)  # noqa: S603

    def _run(self, told: Any, log: Any, *arguments: str) -> int:
        """Its exit code. It is waited for, not watched: what it starts goes on without it."""
        self._parts.check()
        with told.open("wb") as out, log.open("wb") as err:
            process = subprocess.Popen(  # noqa: S603 - the person's own program
                [self._program, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=environment(), start_new_session=True,
            )  # fmt: skip
        try:
            while (code := process.poll()) is None:
                self._parts.check()
                time.sleep(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        return code


class Person:
    """Somebody at Odoo, by its own API: the same calls of a fake one and a real one."""

    def __init__(self, parts: Parts, folder: Folder, odoo: Odoo) -> None:
        headers = {"Authorization": f"bearer {odoo.key}", "X-Odoo-Database": odoo.database}
        self._client = Client(parts, "Odoo", odoo.url, folder.log("odoo"), headers)

    def fill(self, seed: int) -> None:
        """A few people, unless there are. Each name is two words, which Dynamics keeps apart."""
        everybody = {"active_test": False}
        domain = [["email", "=like", f"%@{DOMAIN}"]]
        if self._call("search_count", domain=domain, context=everybody):
            return
        fake = Faker("es_MX")
        fake.seed_instance(f"people of odoo {seed}")
        people = [(fake.first_name().split()[0], fake.last_name().split()[-1]) for _ in range(PEOPLE)]
        self._call(
            "create",
            vals_list=[
                {
                    "name": f"{first} {last}",
                    "email": f"person{number}@{DOMAIN}",
                    "phone": f"+52 55 5555 {number:04d}",
                }
                for number, (first, last) in enumerate(people, 1)
            ],
        )

    def own(self) -> Mapping[str, Any]:
        """One of the people who were first here."""
        domain = [["email", "=like", f"%@{DOMAIN}"]]
        found = self._call("search_read", domain=domain, fields=["name", "email"], limit=1, order="id")
        if not found:
            raise Trouble("Odoo has none of the people of the demo any more.")
        return dict(found[0])

    def by_email(self, email: str) -> Mapping[str, Any] | None:
        domain = [["email", "=", email]]
        found = self._call("search_read", domain=domain, fields=["name", "email", "phone"], limit=1)
        return dict(found[0]) if found else None

    def change(self, key: int, values: Mapping[str, Any]) -> None:
        self._call("write", ids=[key], vals=dict(values))

    def close(self) -> None:
        self._client.close()

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._client.call("POST", f"{_PARTNER}/{method}", arguments)[1]
