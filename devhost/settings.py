"""What surrounds the code of an app: host.json, local.settings.json and the environment.

Out: a `HostJson` with the real host's defaults, and look-ups of settings that refuse what is missing.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devhost.refusal import Refusal

_TIMESPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2})(\.\d+)?)?")
# Azurite's public account; what UseDevelopmentStorage=true stands for.
_DEVELOPMENT_STORAGE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
)


@dataclass(frozen=True)
class QueueOptions:
    """extensions.queues of host.json; the defaults are the real host's."""

    batch_size: int = 16
    new_batch_threshold: int = 8
    visibility_timeout: float = 0
    max_dequeue_count: int = 5
    max_polling_interval: float = 60
    base64: bool = True


@dataclass(frozen=True)
class HostJson:
    """What this host reads of host.json; a function_timeout of None means without end."""

    route_prefix: str = "api"
    # The default of the Flex Consumption plan.
    function_timeout: float | None = 1800
    queues: QueueOptions = QueueOptions()


def read_host_json(app: Path) -> HostJson:
    """Read host.json of the app folder; refuses a missing or wrong one."""
    content = _read_json(app / "host.json")
    if content is None:
        raise Refusal(f"there is no host.json in {app}")
    if content.get("version") != "2.0":
        raise Refusal('host.json must say "version": "2.0"')
    extensions = _section(content, "extensions")
    timeout = content.get("functionTimeout")
    return HostJson(
        route_prefix=str(_section(extensions, "http").get("routePrefix", "api")),
        function_timeout=None
        if timeout == "-1"
        else _timespan({"functionTimeout": timeout} if timeout else {}, "functionTimeout", 1800),
        queues=_queue_options(_section(extensions, "queues")),
    )


def _queue_options(section: dict[str, Any]) -> QueueOptions:
    batch_size = _whole(section, "batchSize", 16, 1, 32)
    encoding = str(section.get("messageEncoding", "base64")).lower()
    if encoding not in ("base64", "none"):
        raise Refusal(f"messageEncoding in host.json must be base64 or none, not '{encoding}'")
    return QueueOptions(
        batch_size=batch_size,
        new_batch_threshold=_whole(section, "newBatchThreshold", batch_size // 2, 0, 1_000_000),
        visibility_timeout=_timespan(section, "visibilityTimeout", 0),
        max_dequeue_count=_whole(section, "maxDequeueCount", 5, 1, 1_000_000),
        max_polling_interval=max(_timespan(section, "maxPollingInterval", 60), 0.1),
        base64=encoding == "base64",
    )


def _section(content: dict[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name) or {}
    if not isinstance(section, dict):
        raise Refusal(f"'{name}' in host.json must be an object")
    return section


def _whole(section: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = section.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise Refusal(f"{name} in host.json must be a whole number from {low} to {high}, not {value!r}")
    return value


def _timespan(section: dict[str, Any], name: str, default: float) -> float:
    """Read `hh:mm:ss` (or `d.hh:mm:ss.fff`) as seconds."""
    value = section.get(name)
    if value is None:
        return default
    match = _TIMESPAN.fullmatch(str(value))
    if match is None:
        raise Refusal(f"{name} in host.json must be a time such as 00:00:30, not {value!r}")
    days, hours, minutes, seconds, fraction = (float(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds + fraction


def load_local_settings(file: Path) -> None:
    """Put `Values` of local.settings.json into the environment; what's set there already stays."""
    content = _read_json(file)
    if content is None:
        return
    if content.get("IsEncrypted"):
        raise Refusal(f"{file.name} is encrypted: decrypt it first (func settings decrypt)")
    values = content.get("Values") or {}
    if not isinstance(values, dict):
        raise Refusal(f"'Values' in {file.name} must be an object")
    for name, value in values.items():
        if isinstance(value, dict | list):
            raise Refusal(f"the value of '{name}' in {file.name} must be a text")
        if value is not None:
            os.environ.setdefault(name, value if isinstance(value, str) else json.dumps(value))


def _read_json(file: Path) -> dict[str, Any] | None:
    """Give the object in a JSON file, None without a file."""
    try:
        text = file.read_text("utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{file} can't be read: {error}") from None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise Refusal(f"{file} is no valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise Refusal(f"{file} must hold a JSON object")
    return content


def resolve(text: str, environment: Mapping[str, str]) -> str:
    """Replace each %SETTING% by the setting's value; refuses a missing one by name."""

    def value(match: re.Match[str]) -> str:
        found = environment.get(match[1])
        if not found:
            raise Refusal(f"the setting {match[1]} (in '{text}') is missing")
        return found

    return re.sub("%([^%]+)%", value, text)


def connection_string(name: str, environment: Mapping[str, str]) -> str:
    """Give the connection string that a binding's `connection` names; refuses a missing one by name."""
    name = name or "AzureWebJobsStorage"
    # The host looks for the name with its own prefix first.
    for setting in (f"AzureWebJobs{name}", name):
        value = environment.get(setting, "").strip()
        if value:
            return (
                _DEVELOPMENT_STORAGE if value.lower().rstrip(";") == "usedevelopmentstorage=true" else value
            )
        for suffix in ("queueServiceUri", "accountName"):
            if environment.get(f"{setting}__{suffix}"):
                raise Refusal(
                    f"the identity-based connection {setting}__{suffix} isn't supported locally: "
                    f"set {setting} to a connection string"
                )
    raise Refusal(f"the connection setting {name} is missing")
