"""What an Odoo server answers when it refuses: the exception's name, its message, and the status that JSON-2 gives it."""

from typing import Any

# HTTP status in JSON-2; what is not named is 500.
STATUS = {
    "odoo.exceptions.AccessError": 403,
    "odoo.exceptions.AccessDenied": 403,
    "odoo.exceptions.MissingError": 404,
    "odoo.exceptions.LockError": 409,
    "odoo.exceptions.UserError": 422,
    "odoo.exceptions.ValidationError": 422,
    "odoo.exceptions.RedirectWarning": 422,
    "werkzeug.exceptions.BadRequest": 400,
    "werkzeug.exceptions.Unauthorized": 401,
    "werkzeug.exceptions.NotFound": 404,
    "werkzeug.exceptions.UnprocessableEntity": 422,
}
BROKEN = "The operation cannot be completed: "
OPERATIONS = {"read": "access", "write": "modify", "create": "create", "unlink": "delete"}


class Refused(Exception):
    """An exception of the server, by the name that clients see."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message

    @property
    def status(self) -> int:
        return STATUS.get(self.name, 500)

    @property
    def kind(self) -> str:
        """The class without its module."""
        return self.name.rpartition(".")[2]

    def data(self) -> dict[str, Any]:
        """As both JSON protocols tell it. The traceback names files of the server, as a real one's does."""
        arguments: list[Any] = [self.message]
        if self.name.startswith("werkzeug."):
            arguments.append(self.status)
        return {
            "name": self.name,
            "message": self.message,
            "arguments": arguments,
            "context": {},
            "debug": self.traceback(),
        }

    def traceback(self) -> str:
        shown = self.kind if self.name.startswith("builtins.") else self.name
        return f'Traceback (most recent call last):\n  File "/usr/lib/python3/dist-packages/odoo/http.py", line 2275, in _serve_db\n{shown}: {self.message}\n'


def value_error(message: str) -> Refused:
    return Refused("builtins.ValueError", message)


def type_error(message: str) -> Refused:
    return Refused("builtins.TypeError", message)


def user_error(message: str) -> Refused:
    return Refused("odoo.exceptions.UserError", message)


def validation(message: str) -> Refused:
    return Refused("odoo.exceptions.ValidationError", message)


def broken(message: str) -> Refused:
    """A constraint of the database or of a model, as it is told outside."""
    return validation(f"{BROKEN}{message}")


def access_error(message: str) -> Refused:
    return Refused("odoo.exceptions.AccessError", message)


def refused_rows(text: str, operation: str, ids: list[int], user: int) -> Refused:
    return RowsRefused(
        "odoo.exceptions.AccessError",
        "The requested operation cannot be completed due to security restrictions. Please contact your system administrator.\n\n"
        f"(Document type: {text}, Operation: {operation})\n\nRecords: {', '.join(map(str, ids))}, User: {user}",
    )


def hidden(user: Any, text: str, model: str) -> Refused:
    """Rows that this user, told as id and name, may not even read."""
    return access_error(
        f"Uh-oh! Looks like you have stumbled upon some top-secret records.\n\nSorry, {user[1]} (id={user[0]}) doesn't have 'read' "
        f"access to:\n- {text} ({model})\n\nIf you really, really need access, perhaps you can win over your friendly "
        "administrator with a batch of freshly baked cookies."
    )


def access_denied() -> Refused:
    return Refused("odoo.exceptions.AccessDenied", "Access Denied")


def missing(model: str, key: object, user: int) -> Refused:
    return Refused(
        "odoo.exceptions.MissingError",
        f"Record does not exist or has been deleted.\n(Record: {model}({key!r},), User: {user})",
    )


class Lacking(Refused):
    """A row without what a field of it needs."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__("odoo.exceptions.ValidationError", message)
        self.field = field


class RowsRefused(Refused):
    """Rows of a model that this user may read, write or create, but not these."""


def not_null(label: str, field: str, text: str, model: str) -> Refused:
    return Lacking(
        f"{BROKEN}Missing required value for the field '{label}' ({field}).\nModel: '{text}' ({model})\n- create/update: a mandatory "
        "field is not set\n- delete: another model requires the record being deleted, you can archive it instead\n",
        field,
    )


def in_use(text: str, model: str, label: str, field: str) -> Refused:
    """A foreign key, told in the words for a delete whatever was done."""
    return broken(
        "Another model is using the record you are trying to delete.\n\n"
        f"The troublemaker is: '{text}' ({model})\nThanks to the following constraint: '{label}' ({field})\n"
        "How about archiving the record instead?"
    )


def not_found(message: str) -> Refused:
    return Refused("werkzeug.exceptions.NotFound", message)


def unprocessable(message: str) -> Refused:
    return Refused("werkzeug.exceptions.UnprocessableEntity", message)
