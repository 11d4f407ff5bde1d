"""What `start` switches on: the endpoint with the metrics, and the traces."""

import importlib
from contextlib import AsyncExitStack
from types import ModuleType

from ..address import Address
from ..oban import Oban


def measure() -> None:
    """Measure the process for Prometheus, from now on."""
    _contrib("prometheus", "prometheus_client", "prometheus").attach()


async def serve(up: AsyncExitStack, oban: Oban, address: Address) -> int:
    """Serve the endpoint as long as the process is up; returns its port."""
    endpoint = _contrib("endpoint", "prometheus_client", "prometheus")
    port: int = await up.enter_async_context(endpoint.serving(oban, *address))
    return port


def trace(up: AsyncExitStack) -> None:
    """Trace the process as long as it is up."""
    up.enter_context(_contrib("otlp", "opentelemetry", "opentelemetry").tracing())


def _contrib(module: str, needs: str, extra: str) -> ModuleType:
    """A module of `contrib`, which is there only with its extra."""
    try:
        return importlib.import_module(f"oban_sqla.contrib.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != needs:
            raise
        raise ModuleNotFoundError(
            f"the {extra} extra is missing: pip install 'oban-sqla[{extra}]'"
        ) from None
