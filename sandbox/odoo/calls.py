"""From a model's and a method's name to what it answers, for every protocol."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.odoo.env import Database, Env
from sandbox.odoo.errors import Refused, access_error, not_found, type_error, unprocessable
from sandbox.odoo.orm import BaseModel, private, public

READS = frozenset(
    (
        "search", "search_read", "search_count", "read", "fields_get", "name_search", "default_get", "read_group", "web_read",
        "formatted_read_group", "web_search_read", "check_access_rights", "has_access", "context_get", "has_group", "get_metadata",
        "check", "get_param", "check_object_reference",
    )
)  # fmt: skip


def method_of(model: BaseModel, name: str) -> Callable[..., Any]:
    """The method for clients. AttributeError in the server's words if there is none."""
    if private(name):
        raise access_error(f"Private methods (such as '{model._name}.{name}') cannot be called remotely.")
    gone = (name == "has_access" and model._env.db.version < 18) or (
        name == "formatted_read_group" and model._env.db.version < 19
    )
    found = None if gone else public(model, name)
    if found is None:
        raise Refused("builtins.AttributeError", f"The method '{model._name}.{name}' does not exist")
    return found


def bound(function: Callable[..., Any], model: BaseModel, *args: Any, **kwargs: Any) -> str | None:
    """Why these arguments do not fit, or None."""
    try:
        inspect.signature(function).bind(model, *args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


def guarded(step: Callable[[], Any]) -> Any:
    """What a real server's code would stumble over is told as what it is: an exception of Python."""
    try:
        return step()
    except Refused:
        raise
    except (
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise Refused(f"builtins.{type(error).__name__}", str(error)) from error


def call(db: Database, uid: int, name: str, work: Callable[[Env], Any]) -> Any:
    """Run one call as a transaction; writes of clients can be told to commit late."""
    lag = 0.0 if name in READS else float(db.frame.options["api_lag"])
    return guarded(lambda: db.run(lambda begun: work(Env(db, uid, begun)), lag))


def execute(
    db: Database, uid: int, model_name: str, name: str, args: list[Any], kwargs: Mapping[str, Any]
) -> Any:
    """As ``execute_kw`` does it: by position, ids first where the method is of rows."""

    def work(env: Env) -> Any:
        if model_name not in db.schema.models:
            raise Refused("odoo.exceptions.UserError", f"Object {model_name} doesn't exist")
        model = env[model_name]
        function = method_of(model, name)
        rest = list(args)
        ids: Any = ()
        if not getattr(function, "_api_model", False):
            if not rest:
                raise Refused("builtins.IndexError", "list index out of range")
            ids, rest = rest[0], rest[1:]
        named = dict(kwargs)
        surroundings = named.pop("context", None) or {}
        records = browse(env.with_context(surroundings), model_name, ids)
        if bound(function, records, *rest, **named) is not None:
            try:
                function(records, *rest, **named)
            except TypeError as error:
                raise type_error(str(error)) from None
        result = function(records, *rest, **named)
        if name == "create" and isinstance(rest[0] if rest else named.get("vals_list"), Mapping):
            return result[0]
        return result

    return call(db, uid, name, work)


def browse(env: Env, model: str, ids: Any) -> BaseModel:
    keys = [] if not ids else [ids] if isinstance(ids, (int, str)) else list(ids)
    found: BaseModel = env[model]._browse(keys)
    return found


def by_name(db: Database, uid: int, model_name: str, name: str, arguments: dict[str, Any]) -> Any:
    """As JSON-2 does it: everything by name, ``ids`` and ``context`` beside it."""

    def work(env: Env) -> Any:
        named = dict(arguments)
        ids, surroundings = named.pop("ids", ()), named.pop("context", None) or {}
        if model_name not in db.schema.models:
            raise not_found(f"the model {model_name!r} does not exist")
        try:
            function = method_of(env[model_name], name)
        except Refused as refused:
            if refused.kind == "AttributeError":
                raise not_found(refused.message) from None
            raise
        if getattr(function, "_api_model", False) and ids:
            raise unprocessable(f"cannot call {model_name}.{name} with ids")
        records = browse(env.with_context(surroundings), model_name, ids)
        if (wrong := bound(function, records, **named)) is not None:
            raise unprocessable(wrong)
        return function(records, **named)

    return call(db, uid, name, work)
