"""XML as apps post it, read as what JSON would say."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_DEPTH = 50
TEXT = "#text"


def is_xml(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("application/xml", "text/xml") or kind.endswith("+xml")


def parse_xml(body: bytes) -> Mapping[str, Any]:
    """What the root holds, by the names of its parts: a text, or what a part holds itself; a list of what comes several times.

    Namespaces are left out; attributes are `@name`; the text beside other parts is `#text`. A part without anything is null.
    Raises ValueError for what is no XML, or has a document type: entities of its own are how small texts become large ones.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
    from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

    try:
        root = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError, UnicodeError) as error:
        raise ValueError(f"no XML that is taken: {type(error).__name__}") from None
    found = _value(root, 0)
    return found if isinstance(found, Mapping) else {} if found is None else {TEXT: found}


def _value(element: "Element", depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"XML of more than {MAX_DEPTH} levels")
    text = (element.text or "").strip()
    parts: dict[str, Any] = {f"@{_local(name)}": value for name, value in element.attrib.items()}
    seen: set[str] = set()
    for each in element:
        name, value = _local(each.tag), _value(each, depth + 1)
        if name not in parts:
            parts[name] = value
        elif name in seen:
            parts[name].append(value)
        else:
            seen.add(name)
            parts[name] = [parts[name], value]
    if not parts:
        return text or None
    return {**parts, TEXT: text} if text else parts


def _local(name: Any) -> str:
    return str(name).rpartition("}")[2]
