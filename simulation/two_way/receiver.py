"""A receiver in memory that a connection tells of every version, and what must hold of what it was told."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crm_core.connector import Account, Delivered, Message
from crm_core.connectors.webhook import Webhook
from simulation.two_way.remotes import Wire

UID = "t1"

Version = tuple[str, str, int]
"""Entity, record and version."""


@dataclass
class Receiver:
    """`told`: of each version the ids that it came by, and what it said of the record."""

    told: dict[Version, dict[str, Mapping[str, Any]]] = field(default_factory=dict)

    def take(self, message: Message) -> Delivered:
        data = json.loads(message.body)["data"]
        record = data["record"]
        about = record.pop("entity"), record.pop("id"), record.pop("version")
        self.told.setdefault(about, {})[message.id] = record
        return Delivered(200)

    def wrong(self, versions: Mapping[Version, Mapping[str, Any]]) -> list[str]:
        """Where it differs from the versions that there were: each is told, by one id, as it was."""
        found = [f"{each} was never told" for each in versions.keys() - self.told.keys()]
        found += [f"{each} was told and never was" for each in self.told.keys() - versions.keys()]
        for about in versions.keys() & self.told.keys():
            said = self.told[about]
            if len(said) > 1:
                found.append(f"{about} was told as {len(said)} deliveries")
            found += [
                f"{about} was told as {each}, it was {versions[about]}"
                for each in said.values()
                if each != versions[about]
            ]
        return sorted(found)


class Told(Webhook):
    """The connector, whose posts go by the simulation's wire."""

    def __init__(self, receiver: Receiver, wire: Wire) -> None:
        super().__init__(Account("default", UID, {"url": "https://receiver.example"}, {}), None)  # type: ignore[arg-type]  # what needs the tools is not used
        self._receiver = receiver
        self._wire = wire

    def deliver(self, message: Message) -> Delivered:
        answer: Delivered = self._wire(
            f"{UID} is told {message.id}", lambda: self._receiver.take(message), None
        )
        return answer
