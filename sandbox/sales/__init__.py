"""The sales app of a customer: it takes webhooks of what happens in the CRM, and keeps what it got."""

from sandbox.sales.system import Sales

__all__ = ["Sales"]
