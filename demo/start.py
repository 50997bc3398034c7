"""The parts by name and command: Azurite, the sandboxes, then the hub that needs all of them."""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo.folder import Folder, environment
from demo.parts import Part, Parts
from demo.ports import Ports, answers
from demo.trouble import Trouble

ROOT = Path(__file__).resolve().parent.parent
AZURITE = ROOT / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
TENANT_ID = "6f1d7a52-3c1e-4f5b-9a0e-2f6f4f1c0d11"
CLIENT_ID = "c0ffee00-5e1f-4b0a-8d3e-7a9b1c2d3e4f"
_HOST_READY = "Host started on "


def check_tools() -> str:
    """Gives the path of node; raises Trouble that names a missing tool and what to do."""
    node = shutil.which("node")
    if node is None:
        raise Trouble(
            "Node.js is missing, which runs the storage emulator: install version 20 or newer (nodejs.org)."
        )
    if not AZURITE.exists():
        raise Trouble("Azurite, the storage emulator, isn't installed: run `make install` first.")
    return node


def start_azurite(parts: Parts, folder: Folder, ports: Ports, node: str, *, in_memory: bool = False) -> Part:
    """`in_memory`: nothing is kept, and no large save stops it for a while."""
    kept = ["--inMemoryPersistence"] if in_memory else ["--location", folder.path / "azurite"]
    command = [
        node, AZURITE, "--silent", "--disableTelemetry", "--skipApiVersionCheck", *kept,
        "--blobPort", ports.blob, "--queuePort", ports.queue, "--tablePort", ports.table,
    ]  # fmt: skip
    env = {**environment(), "NODE_OPTIONS": "--no-warnings"}
    return parts.start(
        "Azurite", [str(each) for each in command], folder.log("azurite"), env, cwd=ROOT, grace=20
    )


def start_sandbox(
    parts: Parts, folder: Folder, ports: Ports, *, seed: int, name: str = "sandbox"
) -> tuple[Part, Path]:
    """Gives the part, and the CA of its certificate. `name`: of its log and its file, where there are several."""
    ca, chain, key = folder.certificate()
    command = [
        sys.executable, "-m", "sandbox", "dynamics365", "--port", ports.sandbox, "--tls-port", ports.sandbox_tls,
        "--cert", chain, "--key", key, "--data", folder.path / f"{name}-dynamics365.json", "--seed", seed,
        "--tenant", TENANT_ID, "--client-id", CLIENT_ID,
        f"--client-secret={folder.client_secret}",  # in one word: it may begin with a dash
    ]  # fmt: skip
    part = parts.start(
        "The sandbox",
        [str(each) for each in command],
        folder.log(name),
        environment(),
        cwd=ROOT,
        grace=20,
    )
    return part, ca


def start_odoo(parts: Parts, folder: Folder, ports: Ports, *, seed: int) -> Part:
    """A fake Odoo. By http alone, as the hub may reach loopback."""
    command = [
        sys.executable, "-m", "sandbox", "odoo", "--port", ports.odoo, "--data", folder.path / "sandbox-odoo.json",
        "--seed", seed, "--api-key", folder.odoo_key,
    ]  # fmt: skip
    return parts.start(
        "The Odoo sandbox",
        [str(each) for each in command],
        folder.log("odoo"),
        environment(),
        cwd=ROOT,
        grace=20,
    )


def start_hub(
    parts: Parts,
    folder: Folder,
    ports: Ports,
    ca: Path,
    *arguments: str,
    log: str = "hub",
    settings: Mapping[str, str] | None = None,
) -> tuple[Part, str]:
    """Gives the part and the hub's address once it serves. `arguments` are the host's, `settings` more of the hub's."""
    file, env = folder.settings(ports, ca, settings or {})
    command = [
        sys.executable,
        "-m",
        "devhost",
        "--app",
        str(ROOT),
        "--port",
        str(ports.hub),
        "--settings",
        str(file),
        *arguments,
    ]
    # The host gives running functions 30 seconds to finish.
    part = parts.start("The hub", command, folder.log(log), env, cwd=ROOT, grace=40)

    def ready() -> str | None:
        return next(
            (line.removeprefix(_HOST_READY) for line in part.lines() if line.startswith(_HOST_READY)), None
        )

    return part, parts.wait(part, ready)


def azurite_ready(parts: Parts, part: Part, ports: Ports) -> None:
    def ready() -> bool | None:
        return all(answers(port) for port in (ports.blob, ports.queue, ports.table)) or None

    parts.wait(part, ready)


def sandbox_ready(parts: Parts, part: Part) -> Mapping[str, Any]:
    """What the sandbox says of itself: its addresses, and how to sign in."""

    def ready() -> Mapping[str, Any] | None:
        line = next((line for line in part.lines() if line.startswith("{") and line.endswith("}")), None)
        return json.loads(line) if line else None

    return parts.wait(part, ready)
