"""What a mapping says that may be meant otherwise: it is taken, and the person who wrote it is told. Pure."""

import re
from collections.abc import Iterator

from crm_core.model.mapping import EntityMap

PHONES = frozenset({"phone", "mobile"})
_DOCUMENT = re.compile(
    r"document|(^|_)(dni|ruc|rut|nit|cuit|cpf|cnpj|rfc|tax_?id|national_?id)($|_)", re.IGNORECASE
)


def warnings(emap: EntityMap) -> Iterator[str]:
    """A sentence for each."""
    for each in emap.fields:
        name = each.field.rpartition(".")[2]
        for place in each.places if name in PHONES else ():
            if _DOCUMENT.search(place[-1]):
                yield (
                    f"fields.{each.field}: a phone number is sent as {'.'.join(place)}, which reads like the number of a "
                    "document: two people with one phone become one person there. Send the document's number once you have it."
                )
