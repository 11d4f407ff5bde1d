"""The dashboard: an ASGI application that shows and manages the jobs of an `Oban` (extra `web`)."""

from .access import RIGHTS, Access, Right
from .dashboard import dashboard

__all__ = ["RIGHTS", "Access", "Right", "dashboard"]
