"""How Dataverse says no (Web API: compose HTTP requests and handle errors)."""

from dataclasses import dataclass, field

from sandbox.frame import Response, json_response

MISSING = "0x80040217"
PRIVILEGE = "0x80040220"
DUPLICATE = "0x80040237"
KEY_DUPLICATE = "0x80060892"
KEY_MISSING = "0x80060891"
STALE = "0x80060882"
TOO_LONG = "0x80044331"
BAD_OPTION = "0x8004431a"
BAD_STATUS = "0x80048408"
UNEXPECTED = "0x80040216"
QUERY = "0x80060888"  # anything wrong in the URL
PAYLOAD = "0x80048d19"  # anything wrong in the body
EXPIRED = "0x80044352"
DETECTED = "0x80040333"
INVALID = "0x80040203"  # an argument is missing or wrong
CLOSED = "0x80040220"  # with status 400: the row is read-only in its state
NOT_OPEN = "0x80040211"
UNSUPPORTED = "0x80040800"  # the table has no such message


@dataclass
class Refused(Exception):
    """An error answer on its way up."""

    status: int
    code: str
    message: str
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        body = {"error": {"code": self.code, "message": self.message}}
        return json_response(self.status, body, {"OData-Version": "4.0", **self.headers})


def bad_query(message: str) -> Refused:
    return Refused(400, QUERY, message)


def bad_payload(message: str) -> Refused:
    return Refused(400, PAYLOAD, f"Error identified in Payload provided by the user: {message}")


def no_property(name: str, entity: str) -> Refused:
    return bad_query(f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{entity}'.")


def no_row(entity: str, key: str) -> Refused:
    return Refused(404, MISSING, f"Entity '{entity}' With Id = {key} Does Not Exist")


def no_segment(name: str) -> Refused:
    return Refused(404, QUERY, f"Resource not found for the segment '{name}'.")
