"""Limits over all nodes: how many jobs run at once, and how many start in a period."""

from ..runtime import claiming
from .limited_claim import LimitedClaim

claiming.register(LimitedClaim)
