"""`NodeQueues`: the queues of a node, and the orders that change them."""

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
        """Whether the node is stopping, so that no queue starts any more."""
        self._build = build
        self._heartbeat = heartbeat
        self._cancel = cancel
        self._grace = grace
        # Only one queue at a time starts or stops.
        self._turn = asyncio.Lock()

    async def start_queue(self, queue: str, limit: int, paused: bool = False) -> None:
        """Start a queue on this node. A running queue stays unchanged."""
        async with self._turn:
            if self.closing:
                return
            if (running := self.producers.get(queue)) is not None:
                if not running.stopping:
                    return
                # An earlier stop of the queue was cancelled, so finish it.
                await self._stop_producer(running)
            producer = self.producers[queue] = self._build(Queue(queue, limit, paused))
            try:
                # Write the row of the producer before it claims.
                await self._heartbeat().run_once()
            except BaseException:
                del self.producers[queue]
                # Otherwise the heartbeat would report a queue that does not run.
                await self._heartbeat().forget(producer)
                raise
            if not self.closing:
                await producer.start()

    async def stop_queue(self, queue: str) -> None:
        """Stop a queue of this node, within the grace period."""
        async with self._turn:
            if producer := self.producers.get(queue):
                await self._stop_producer(producer)

    async def _stop_producer(self, producer: Producer) -> None:
        # The producer stays in `producers` meanwhile, so that a stop of the node includes it.
        await producer.stop(self._grace)
        del self.producers[producer.queue]
        await self._heartbeat().forget(producer)

    def pause_queue(self, queue: str) -> None:
        """Pause a queue, or all queues with "*"."""
        for producer in self._named(queue):
            producer.pause()

    def resume_queue(self, queue: str) -> None:
        """Resume a queue, or all queues with "*"."""
        for producer in self._named(queue):
            producer.resume()

    def scale_queue(self, queue: str, limit: int) -> None:
        """Set the limit of a queue on this node."""
        if producer := self.producers.get(queue):
            producer.scale(limit)

    def limit_queue(self, queue: str, changes: Mapping[str, Any]) -> None:
        """Change the limits of a queue over all nodes."""
        if producer := self.producers.get(queue):
            producer.change_limits(changes)

    def cancel_job(self, id: int) -> None:
        """Tell a job that it is cancelled, if it runs here. A held job does not start."""
        self._cancel(id)
        for producer in self.producers.values():
            producer.cancel(id)

    async def report(self) -> None:
        """Write the state of the queues now, so that other nodes see it."""
        await self._heartbeat().run_once()

    def running(self) -> list[int]:
        """The ids of the running and held jobs of this node."""
        producers = self.producers.values()
        return [id for producer in producers for id in (*producer.running, *producer.held)]

    def wake(self, queues: Collection[str]) -> None:
        """Wake the producers of queues, so that they claim now."""
        for queue in queues:
            if producer := self.producers.get(queue):
                producer.wake()

    def _named(self, queue: str) -> list[Producer]:
        return [p for name, p in self.producers.items() if queue in (name, "*")]

    def hear_freed(self, news: Mapping[str, Any]) -> None:
        """Hear from another node that a limit has a free slot, and claim if jobs wait for one."""
        producers = self.producers.values()
        if news.get("producer") in [str(producer.uuid) for producer in producers]:
            return
        for producer in producers:
            if news.get("queue") in (None, producer.queue):
                producer.freed()
