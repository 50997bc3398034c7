"""A Microsoft Dataverse / Dynamics 365 environment: Web API v9.x and the token endpoint in front of it."""

from sandbox.dynamics365.org import Identity
from sandbox.dynamics365.service import Dataverse

__all__ = ["Dataverse", "Identity"]
