"""`NodeQueues`: the queues of a node, and what orders do to them."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ..config.queues import Queue
from .heartbeat import Heartbeat
from .producer import Producer


class NodeQueues:
    """The producers of a node by their queues. Orders start, stop and change them."""

    def __init__(
        self,
        queues: Iterable[Queue],
        build: Callable[[Queue], Producer],
        *,
        heartbeat: Callable[[], Heartbeat],
        cancel: Callable[[int], None],
        grace: float,
    ) -> None:
        self.producers = {queue.name: build(queue) for queue in queues}
        self.closing = False
        """Whether the node stops, so that no queue starts any more."""
        self._build = build
        self._heartbeat = heartbeat
        self._cancel = cancel
        self._grace = grace
        # Queues start and stop one after the other.
        self._turn = asyncio.Lock()

    async def start_queue(self, queue: str, limit: int, paused: bool = False) -> None:
        """Start a queue on this node; one that runs stays as it is."""
        async with self._turn:
            if self.closing:
                return
            if (running := self.producers.get(queue)) is not None:
                if not running.stopping:
                    return
                # Its stop was cancelled.
                await self._stop_producer(running)
            producer = self.producers[queue] = self._build(Queue(queue, limit, paused))
            try:
                # Known to the other nodes before it claims.
                await self._heartbeat().run_once()
            except BaseException:
                del self.producers[queue]
                # Or the heartbeat would tell of a queue that does not run.
                await self._heartbeat().forget(producer)
                raise
            if not self.closing:
                await producer.start()

    async def stop_queue(self, queue: str) -> None:
        """Stop a queue of this node, as at the end of the process."""
        async with self._turn:
            if producer := self.producers.get(queue):
                await self._stop_producer(producer)

    async def _stop_producer(self, producer: Producer) -> None:
        # It stays among the others meanwhile, for the stop of all that may come.
        await producer.stop(self._grace)
        del self.producers[producer.queue]
        await self._heartbeat().forget(producer)

    def pause_queue(self, queue: str) -> None:
        """Claim no more jobs of a queue."""
        for producer in self._named(queue):
            producer.pause()

    def resume_queue(self, queue: str) -> None:
        """Claim jobs of a queue again."""
        for producer in self._named(queue):
            producer.resume()

    def scale_queue(self, queue: str, limit: int) -> None:
        """Run so many jobs of a queue at once."""
        if producer := self.producers.get(queue):
            producer.scale(limit)

    def limit_queue(self, queue: str, changes: Mapping[str, Any]) -> None:
        """Change how many jobs of a queue run or start over all nodes."""
        if producer := self.producers.get(queue):
            producer.limit_by(changes)

    def cancel_job(self, id: int) -> None:
        """Tell a job that it is cancelled, if it runs here; one that is held does not start."""
        self._cancel(id)
        for producer in self.producers.values():
            producer.cancel(id)

    async def report(self) -> None:
        """Have the other nodes know at once how the queues are now."""
        await self._heartbeat().run_once()

    def running(self) -> list[int]:
        """The ids of the jobs that run here, or are held."""
        producers = self.producers.values()
        return [id for producer in producers for id in (*producer.running, *producer.held)]

    def wake(self, queues: Collection[str]) -> None:
        """Have the producers of queues claim now."""
        for queue in queues:
            if producer := self.producers.get(queue):
                producer.wake()

    def _named(self, queue: str) -> list[Producer]:
        return [p for name, p in self.producers.items() if queue in (name, "*")]
