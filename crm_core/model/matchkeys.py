"""The normal form of a value by which two records may be the same one. Pure."""

import re
import unicodedata
from typing import Any
from urllib.parse import urlsplit

_ADDRESS = frozenset({"website"})
_NUMBERS = frozenset({"phone", "mobile"})
_CODES = frozenset({"tax_id", "sku", "number", "barcode", "document_number"})


def normal_form(name: str, value: Any) -> str:
    """What two values of a field have in common if they mean the same; "" for nothing to go by.

    An address on the web is its host without "www."; a phone number its digits; a code its letters and digits; any
    other text is compared without regard to case and to spaces around it.
    """
    if not isinstance(value, str):
        return ""
    text = unicodedata.normalize("NFKC", value).casefold().strip()
    if name in _ADDRESS:
        host = urlsplit(text if "//" in text else f"//{text}").hostname or ""
        return host.removeprefix("www.")
    if name in _NUMBERS:
        return re.sub(r"\D", "", text)
    if name in _CODES:
        return "".join(character for character in text if character.isalnum())
    return " ".join(text.split())


def match_key(name: str, value: Any) -> str:
    """The key that a record claims by a field; "" for none."""
    form = normal_form(name, value) if name else ""
    return f"{name}~{form}" if form else ""
