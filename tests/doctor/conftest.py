"""The fixtures that the tests of the doctor share with the tests of the node."""

from tests.runtime.conftest import proxy, workers

__all__ = ["proxy", "workers"]
