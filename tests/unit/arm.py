"""What a compiled ARM template deploys into a resource group: its resources, with every expression worked out.

Only what infra/main.bicep compiles to is known; any other function or kind of resource is an error, so nothing is passed
over. What Azure alone knows (ids and addresses that it gives) is made up from names, in the form that Azure uses.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000000"
GROUP = f"{SUBSCRIPTION}/resourceGroups/rg"
LOCATION = "westeurope"

_TOKEN = re.compile(r"\s*(?:'((?:[^']|'')*)'|(-?\d+)|([A-Za-z_]\w*)|([()\[\],.]))")
_KEYS = {
    "type", "apiVersion", "name", "location", "kind", "sku", "tags", "identity", "scope", "properties",
    "dependsOn", "copy",
}  # fmt: skip


class Unknown(Exception):
    """The template uses what this module does not know."""


@dataclass(frozen=True)
class Resource:
    symbol: str
    body: Mapping[str, Any]

    @property
    def type(self) -> str:
        return self.body["type"]

    @property
    def names(self) -> list[str]:
        """Its own name after those of its parents."""
        return self.body["name"].split("/")

    @property
    def properties(self) -> Mapping[str, Any]:
        return self.body.get("properties", {})

    @cached_property
    def id(self) -> str:
        return resource_id(self.type, *self.names, scope=self.body.get("scope", GROUP))


def resource_id(kind: str, *names: str, scope: str = GROUP) -> str:
    provider, *types = kind.split("/")
    if len(types) != len(names):
        raise Unknown(f"resourceId of {kind} with {len(names)} names")
    return "/".join(
        [scope, "providers", provider, *(part for pair in zip(types, names, strict=True) for part in pair)]
    )


class Deployment:
    """One deployment of a template with these parameters (a name of a parameter and its value)."""

    def __init__(self, template: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        self._template = template
        self._parameters = parameters
        self.resources = [each for name in template["resources"] for each in self._expand(name)]

    def of(self, kind: str) -> list[Resource]:
        return [each for each in self.resources if each.type == kind]

    def one(self, kind: str) -> Resource:
        (found,) = self.of(kind)
        return found

    def output(self, name: str) -> Any:
        return self._value(self._template["outputs"][name]["value"], None)

    def given(self, resource: Resource) -> Mapping[str, Any]:
        """The properties that Azure gives to a resource."""
        name, about = resource.names[-1], _uuid(resource.id)
        match resource.type:
            case "Microsoft.ManagedIdentity/userAssignedIdentities":
                return {"clientId": _uuid("client", about), "principalId": _uuid("principal", about)}
            case "Microsoft.Storage/storageAccounts":
                services = ("blob", "queue", "table")
                return {
                    "primaryEndpoints": {
                        each: f"https://{name}.{each}.core.windows.net/" for each in services
                    }
                }
            case "Microsoft.KeyVault/vaults":
                return {"vaultUri": f"https://{name}.vault.azure.net/"}
            case "Microsoft.KeyVault/vaults/secrets":
                uri = f"https://{resource.names[0]}.vault.azure.net/secrets/{name}"
                return {"secretUri": uri, "secretUriWithVersion": f"{uri}/{about.replace('-', '')}"}
            case "Microsoft.Insights/components":
                return {"ConnectionString": f"InstrumentationKey={about}"}
            case "Microsoft.Web/sites":
                return {"defaultHostName": f"{name}.azurewebsites.net"}
        raise Unknown(f"what Azure gives to {resource.type}")

    def _expand(self, symbol: str) -> Iterator[Resource]:
        """One resource, or as many as its loop makes."""
        body = self._template["resources"][symbol]
        if unknown := set(body) - _KEYS:
            raise Unknown(f"{symbol}: {unknown}")
        if "copy" not in body:
            yield Resource(symbol, self._value(body, None))
            return
        count = self._value(body["copy"]["count"], None)
        once = {key: value for key, value in body.items() if key != "copy"}
        for index in range(count):
            yield Resource(symbol, self._value(once, index))

    def _value(self, value: Any, index: int | None) -> Any:
        if isinstance(value, Mapping):
            return {self._value(key, index): self._value(each, index) for key, each in value.items()}
        if isinstance(value, list):
            return [self._value(each, index) for each in value]
        if isinstance(value, str) and value.startswith("[") and not value.startswith("[["):
            return _Expression(value[1:-1], self, index).value()
        return value

    # --- the functions of templates ------------------------------------------------------------------------------

    def parameter(self, name: str) -> Any:
        if name in self._parameters:
            return self._parameters[name]
        return self._value(self._template["parameters"][name]["defaultValue"], None)

    def variable(self, name: str) -> Any:
        return self._value(self._template["variables"][name], None)

    def reference(self, symbol: str) -> Mapping[str, Any]:
        (resource,) = self._expand(symbol)
        return {**resource.properties, **self.given(resource)}


class _Expression:
    """One expression: parsed and worked out in one go, as none has a part that must not be."""

    def __init__(self, text: str, deployment: Deployment, index: int | None) -> None:
        self._text = text
        self._tokens = [match.groups() for match in _TOKEN.finditer(text)]
        if "".join(match[0] for match in _TOKEN.finditer(text)) != text:
            raise Unknown(text)
        self._deployment = deployment
        self._index = index
        self._at = 0

    def value(self) -> Any:
        found = self._term()
        if self._at != len(self._tokens):
            raise Unknown(self._text)
        return found

    def _term(self) -> Any:
        text, number, name, _ = self._next()
        if text is not None:
            return text.replace("''", "'")
        if number is not None:
            return int(number)
        if name is None:
            raise Unknown(self._text)
        self._expect("(")
        arguments = []
        while not self._takes(")"):
            arguments.append(self._term())
            self._takes(",")
        found = self._call(name, arguments)
        while True:
            if self._takes("."):
                found = found[self._next()[2]]
            elif self._takes("["):
                found = found[self._term()]
                self._expect("]")
            else:
                return found

    def _next(self) -> tuple[str | None, ...]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _takes(self, mark: str) -> bool:
        taken = self._at < len(self._tokens) and self._tokens[self._at][3] == mark
        self._at += taken
        return taken

    def _expect(self, mark: str) -> None:
        if not self._takes(mark):
            raise Unknown(self._text)

    def _call(self, name: str, given: list[Any]) -> Any:
        match name, given:
            case "parameters", [which]:
                return self._deployment.parameter(which)
            case "variables", [which]:
                return self._deployment.variable(which)
            case "reference", [symbol]:
                return self._deployment.reference(symbol)
            case "copyIndex", []:
                return self._index
            case "resourceGroup", []:
                return {"id": GROUP, "location": LOCATION}
            case "tenant", []:
                return {"tenantId": _uuid("tenant")}
            case "resourceId", [kind, *names]:
                return resource_id(kind, *names)
            case "subscriptionResourceId", [kind, *names]:
                return resource_id(kind, *names, scope=SUBSCRIPTION)
        return _pure(name, given)


def _pure(name: str, given: list[Any]) -> Any:
    match name, given:
        case "format", [text, *values]:
            return re.sub(r"\{(\d+)\}", lambda match: str(values[int(match[1])]), text)
        case "string", [value] if isinstance(value, int | str):
            return str(value)
        case "length", [value]:
            return len(value)
        case "items", [value]:
            return [{"key": key, "value": value[key]} for key in sorted(value)]
        case "createArray", values:
            return values
        case "createObject", values:
            return dict(zip(values[::2], values[1::2], strict=True))
        case "union", [*objects] if all(isinstance(each, Mapping) for each in objects):
            return {key: value for each in objects for key, value in each.items()}
        case "uniqueString", values:
            digest = hashlib.sha256("|".join(values).encode()).digest()
            return "".join("abcdefghijklmnopqrstuvwxyz234567"[byte % 32] for byte in digest[:13])
        case "guid", values:
            return _uuid(*values)
    raise Unknown(f"{name}() with {len(given)} arguments")


def _uuid(*about: str) -> str:
    digest = hashlib.sha256("|".join(about).encode()).hexdigest()
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))
