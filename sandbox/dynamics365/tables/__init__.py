"""Facts about tables, an area a module: one line per column, ``SchemaName kind [length] [facts]``; the logical name is lower case.

Facts of a column: ``ro`` read-only, ``once`` writable on create only, ``req=`` level of requirement, ``of=`` name of
the choices, ``default=`` value of a new row, ``scale=`` decimals, ``min=`` and ``max=`` of an integer,
``to=table:NavigationProperty`` targets of a lookup, ``back=table:collection`` the way back, ``parental`` the row is
deleted with its parent, ``cascade`` so it is where the option says so.

Facts of a table besides its names: ``key`` its key column, ``keys`` alternate keys, ``duplicates`` the column that
duplicate detection compares, ``tracked`` change tracking is on, ``number`` a column that the server numbers and its
prefix, ``lines`` the lookup to the document whose lines these are, ``activity``, ``view`` the tables it lists,
``only`` the operations there are.
"""

from sandbox.dynamics365.tables import (
    activities,
    common,
    customers,
    documents,
    marketing,
    organization,
    products,
    sales,
    service,
    states,
)
from sandbox.dynamics365.tables.common import Choices, Facts

AREAS = (customers, sales, products, documents, service, activities, marketing, organization)
ENTITIES: list[Facts] = [facts for area in AREAS for facts in area.ENTITIES]
OPTIONS: dict[str, Choices] = {**common.OPTIONS, **states.choices()}
for _area in AREAS:
    OPTIONS |= _area.OPTIONS
ACTIONS: list[Facts] = states.ACTIONS
RULES: dict[str, Facts] = states.RULES
