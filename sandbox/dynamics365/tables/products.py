"""Products, and what products and lines refer to: units, price lists, subjects."""

from sandbox.dynamics365.tables.common import (
    CURRENCY,
    MONEY,
    PROCESS,
    SYSTEM,
    Choices,
    Facts,
    amounts,
    numbered,
    state,
)

OPTIONS: dict[str, Choices] = {
    "productstructure": numbered(1, "Product|Product Family|Product Bundle"),
    "producttypecode": numbered(1, "Sales Inventory|Miscellaneous Charges|Services|Flat Fees"),
}

PRODUCT = f"""
    ProductId key req=sys
    Name string 100 req=app
    ProductNumber string 100 req=app
    ProductStructure picklist default=1
    ProductTypeCode picklist default=1
    {amounts("Price", "StandardCost", "CurrentCost")}
    DefaultUoMId lookup to=uom:defaultuomid req=app back=uom:unit_of_measurement_products
    DefaultUoMScheduleId lookup to=uomschedule:defaultuomscheduleid req=app back=uomschedule:unit_of_measurement_schedule_products
    QuantityDecimal int req=app default=2
    ParentProductId lookup to=product:parentproductid back=product:product_parent_product
    PriceLevelId lookup to=pricelevel:pricelevelid back=pricelevel:price_level_products
    SubjectId lookup to=subject:subjectid back=subject:subject_products
    Description memo 2000
    ProductUrl string 255
    Size string 200
    SupplierName string 100
    VendorId string 100
    VendorName string 100
    VendorPartNumber string 100
    HierarchyPath string 450 ro
    IsKit bool
    IsStockItem bool
    QuantityOnHand decimal scale=5
    StockVolume decimal scale=5
    StockWeight decimal scale=5
    ValidFromDate datetime
    ValidToDate datetime
    {PROCESS}{MONEY}{state("product")}{SYSTEM}
"""

ENTITIES: list[Facts] = [
    {
        "name": "product", "set": "products", "primary_name": "name", "code": 1024, "columns": PRODUCT, "tracked": True,
    },
    {
        "name": "uomschedule", "schema": "UoMSchedule", "set": "uomschedules", "primary_name": "name", "code": 1056,
        "tracked": True,
        "columns": f"""
            UoMScheduleId key req=sys
            Name string 200 req=app
            BaseUoMName string 100
            Description memo 2000
            {state("uomschedule")}{SYSTEM}
        """,
    },
    {
        "name": "uom", "schema": "UoM", "set": "uoms", "primary_name": "name", "code": 1055, "tracked": True,
        "columns": f"""
            UoMId key req=sys
            Name string 100 req=app
            Quantity decimal scale=10
            IsScheduleBaseUoM bool ro
            UoMScheduleId lookup to=uomschedule:uomscheduleid back=uomschedule:unit_of_measurement_schedule_units
            BaseUoM lookup to=uom:baseuom back=uom:unit_of_measurement_base_unit
            {SYSTEM}
        """,
    },
    {
        "name": "pricelevel", "schema": "PriceLevel", "set": "pricelevels", "primary_name": "name", "code": 1022,
        "tracked": True,
        "columns": f"""
            PriceLevelId key req=sys
            Name string 100 req=app
            Description memo 2000
            BeginDate date
            EndDate date
            {CURRENCY}{state("pricelevel")}{SYSTEM}
        """,
    },
    {
        "name": "subject", "set": "subjects", "primary_name": "title", "code": 129,
        "columns": f"""
            SubjectId key req=sys
            Title string 500 req=app
            Description memo 2000
            ParentSubject lookup to=subject:parentsubject back=subject:subject_parent_subject
            {SYSTEM}
        """,
    },
]  # fmt: skip
