"""Rows for tests, with factory-boy."""

from oban_sqla.testing.factory import JobFactory

__all__ = ["JobFactory"]
