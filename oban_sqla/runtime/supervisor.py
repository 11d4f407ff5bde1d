"""The supervisor: what runs in an instance, in which order it starts and stops, who wakes whom."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

from .. import wakeups
from ..config import Config
from ..models import validation
from ..statements.announce import INSERT, SCHEDULE
from ..wakeups import Wakeup
from .database import Database
from .executor import Executor
from .heartbeat import Heartbeat
from .notifier import Notifier
from .producer import Producer
from .service import Emit
from .stager import Stager


class Supervisor:
    """Builds the services of an instance that has queues, and connects them."""

    def __init__(self, config: Config, database: Database, emit: Emit) -> None:
        self._config = config
        self._database = database
        self.stager = Stager(
            database,
            emit,
            wake_queues=self._wake_queues,
            poll_interval=self._poll_interval,
            batch=config.stage_batch,
        )
        executor = Executor(emit)
        self.producers = {
            queue.name: Producer(
                database,
                emit,
                executor,
                queue=queue.name,
                limit=queue.limit,
                paused=queue.paused,
                node=config.node,
                poll_interval=self._poll_interval,
                due_in=self.stager.wake_in,
            )
            for queue in config.queues
        }
        self.heartbeat = Heartbeat(
            database,
            emit,
            instance=config.name,
            node=config.node,
            producers=self.producers.values(),
            interval=config.heartbeat_interval,
        )
        self.notifier = Notifier(
            database,
            emit,
            channels={INSERT: self._hear_insert, SCHEDULE: self._hear_schedule},
            on_change=self._wake_everything,
            listen_dsn=config.listen_dsn,
        )
        self._unsubscribe: Callable[[], None] | None = None

    async def start(self) -> None:
        """Start the services: what is heard and known first, what claims last."""
        prefix = await self._database.verify()
        async with AsyncExitStack() as undo:
            # A start that fails in the middle leaves nothing running.
            undo.push_async_callback(self.stop)
            self._unsubscribe = wakeups.subscribe(self._database.address, prefix, self._woken)
            if self._config.notify == "listen":
                await self.notifier.start()
            await self.heartbeat.run_once()
            await self.heartbeat.start()
            await self.stager.start()
            for producer in self.producers.values():
                await producer.start()
            undo.pop_all()

    async def stop(self) -> None:
        """Stop the services: what claims first, and the heartbeat when nothing is claimed."""
        grace = self._config.shutdown_grace_period
        await asyncio.gather(*(producer.stop(grace) for producer in self.producers.values()))
        await asyncio.gather(self.stager.stop(), self.heartbeat.stop(), self.notifier.stop())
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _poll_interval(self) -> float:
        if self.notifier.listening:
            return self._config.fallback_interval
        return self._config.poll_interval

    def _woken(self, wakeup: Wakeup) -> None:
        if wakeup.queues is None:
            self._wake_everything()
            return
        self._wake_queues(wakeup.queues)
        if wakeup.due_at is not None:
            self.stager.expect(wakeup.due_at)

    def _wake_queues(self, queues: Collection[str]) -> None:
        for queue in queues:
            if producer := self.producers.get(queue):
                producer.wake()

    def _wake_everything(self) -> None:
        self.stager.wake()
        self._wake_queues(self.producers)

    def _hear_insert(self, news: dict[str, Any]) -> None:
        if isinstance(queue := news.get("queue"), str):
            self._wake_queues([queue])

    def _hear_schedule(self, news: dict[str, Any]) -> None:
        try:
            due_at = validation.instant("at", datetime.fromisoformat(news["at"]))
        except (KeyError, TypeError, ValueError):
            self.stager.wake()
        else:
            self.stager.expect(due_at)
