"""What every environment has: users, teams, business units and currencies."""

from sandbox.dynamics365.tables.common import SYSTEM, Choices, Facts, numbered, state

OPTIONS: dict[str, Choices] = {
    "accessmode": numbered(0, "Read-Write|Administrative|Read|Support User|Non-interactive|Delegated Admin"),
}

ENTITIES: list[Facts] = [
    {
        "name": "systemuser", "schema": "SystemUser", "set": "systemusers", "primary_name": "fullname", "code": 8,
        "columns": f"""
            SystemUserId key req=sys
            FirstName string 64
            LastName string 64
            FullName string 200 ro
            DomainName string 1024
            InternalEMailAddress string 100
            Title string 128
            IsDisabled bool ro
            AccessMode picklist
            ApplicationId guid once
            AzureActiveDirectoryObjectId guid ro
            BusinessUnitId lookup to=businessunit:businessunitid
            {SYSTEM}
        """,
    },
    {
        "name": "team", "set": "teams", "primary_name": "name", "code": 9,
        "columns": f"""
            TeamId key req=sys
            Name string 160
            BusinessUnitId lookup to=businessunit:businessunitid
            {SYSTEM}
        """,
    },
    {
        "name": "businessunit", "schema": "BusinessUnit", "set": "businessunits", "primary_name": "name", "code": 10,
        "columns": f"""
            BusinessUnitId key req=sys
            Name string 160
            {SYSTEM}
        """,
    },
    {
        "name": "transactioncurrency", "schema": "TransactionCurrency", "set": "transactioncurrencies",
        "primary_name": "currencyname", "code": 9105,
        "columns": f"""
            TransactionCurrencyId key req=sys
            CurrencyName string 100
            ISOCurrencyCode string 5
            CurrencySymbol string 13
            CurrencyPrecision int
            ExchangeRate decimal
            {state("transactioncurrency")}{SYSTEM}
        """,
    },
]  # fmt: skip
