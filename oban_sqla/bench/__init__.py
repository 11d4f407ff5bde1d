"""Measure a server, for `oban-sqla bench`: in a schema of its own, which is dropped at the end."""

from .measure import Figure, measure
from .schema import temporary_schema

__all__ = ["Figure", "measure", "temporary_schema"]
