"""CRM Hub: connections to CRM and ERP systems around one store of records."""

__version__ = "0.1.0"
