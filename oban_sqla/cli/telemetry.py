"""Start the metrics and the traces of `oban-sqla start`."""

import importlib
from contextlib import AsyncExitStack
from types import ModuleType

from ..address import Address
from ..oban import Oban


def measure() -> None:
    """Begin to measure the process for Prometheus."""
    _contrib("prometheus", "prometheus_client", "prometheus").attach()


async def serve(up: AsyncExitStack, oban: Oban, address: Address) -> int:
    """Serve the endpoint until the process ends. Returns its port."""
    endpoint = _contrib("endpoint", "prometheus_client", "prometheus")
    port: int = await up.enter_async_context(endpoint.serving(oban, *address))
    return port


def trace(up: AsyncExitStack) -> None:
    """Trace the process until it ends."""
    up.enter_context(_contrib("otlp", "opentelemetry", "opentelemetry").tracing())


def _contrib(module: str, needs: str, extra: str) -> ModuleType:
    """Import a module of `contrib`; the error names the extra if it is not installed."""
    try:
        return importlib.import_module(f"oban_sqla.contrib.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != needs:
            raise
        raise ModuleNotFoundError(
            f"the {extra} extra is missing: pip install 'oban-sqla[{extra}]'"
        ) from None
