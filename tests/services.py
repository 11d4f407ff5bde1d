"""The services of a running node, for tests that call one pass or look at one service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from oban_sqla import Oban
from oban_sqla.runtime.producer import Producer
from oban_sqla.runtime.supervisor import Supervisor


def services(oban: Oban) -> Supervisor:
    """The services of an instance that has queues: `await services(oban).orders.run_once()`."""
    supervisor = oban._supervisor
    assert supervisor is not None, "the instance has no queues, or does not run"
    return supervisor


@contextmanager
def paused_in_claims(oban: Oban, queue: str) -> Iterator[Producer]:
    """Pause a queue whenever a claim has brought jobs, before the producer receives them."""
    producer = services(oban).producers[queue]
    claim = producer._way.claim

    async def paused_meanwhile(*given: Any) -> Any:
        found = await claim(*given)
        if found.jobs:
            producer.pause()
        return found

    producer._way.claim = paused_meanwhile  # type: ignore[method-assign]
    yield producer
    producer._way.claim = claim  # type: ignore[method-assign]
