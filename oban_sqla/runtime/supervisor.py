"""`Supervisor`: builds the services of an instance, and starts, stops and wakes them."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from .. import wakeups
from ..config import Config
from ..config.queues import Queue
from ..statements.announce import AWAIT, FREED, INSERT, LEADER, ORDER, SCHEDULE, SIGNAL
from ..statements.inspect import RUNNING
from ..wakeups import Wakeup
from .claiming import way_to_claim
from .cluster_services import ClusterNode, build_cluster_services
from .database import Database
from .executor import Executor
from .heartbeat import Heartbeat
from .leader import Leader
from .loop_end import LoopEnd
from .node_queues import NodeQueues
from .notifier import Notifier
from .orders import Orders
from .outbox import Outbox
from .outcome_announcer import OutcomeAnnouncer
from .producer import Producer
from .service import Emit, Service
from .stager import Stager
from .time_limits import STOP_TIMEOUT
from .vitals import Vitals
from .warm_up import warm_up

# The most claims at once. The queues of a node take fair turns.
CLAIMS = 3


class Supervisor:
    """Builds the services of an instance that has queues, and connects them."""

    def __init__(
        self,
        config: Config,
        database: Database,
        emit: Emit,
        listened: Callable[[str], bool],
    ) -> None:
        self._config = config
        self._database = database
        self._emit = emit
        self.stager = Stager(
            database,
            emit,
            queues=lambda: self.producers,
            wake_queues=self._wake_queues,
            poll_interval=self._poll_interval,
            batch=config.stage_batch,
        )
        self._executor = Executor(
            database, emit, database.loads, freed=lambda queue: self._wake_queues([queue])
        )
        self.outcome_announcer = OutcomeAnnouncer(database, emit)
        self.outbox = Outbox(
            database,
            emit,
            due_in=self.stager.expect_in,
            written=self._written,
            freed=lambda: self._wake_queues(list(self.producers)),
        )
        self._claims = asyncio.Semaphore(CLAIMS)
        self.queues = NodeQueues(
            config.queues,
            self._producer,
            heartbeat=lambda: self.heartbeat,
            cancel=self._executor.cancel,
            grace=config.shutdown_grace_period,
        )
        self.heartbeat = Heartbeat(
            database,
            emit,
            instance=config.name,
            node=config.node,
            producers=self.producers.values(),
            interval=config.heartbeat_interval,
            expiry=config.heartbeat_expiry,
            on_foreign_nodes=self._meet_foreign_nodes,
        )
        self.leader = Leader(
            database,
            emit,
            instance=config.name,
            node=config.node,
            lease=config.lease,
            on_change=self._wake_cluster_services,
        )
        self.orders = Orders(
            database,
            emit,
            taker=self.queues,
            instance=config.name,
            node=config.node,
            poll_interval=self._poll_interval,
        )
        self.cluster_services = build_cluster_services(
            ClusterNode(
                config,
                database,
                emit,
                is_leader=self._is_leader,
                has_foreign_nodes=self._has_foreign_nodes,
                listened=listened,
                wake_queues=self._wake_queues,
                announce=self.outcome_announcer.written,
            )
        )
        self.notifier = Notifier(
            database,
            emit,
            channels={
                INSERT: self._hear_insert,
                SCHEDULE: self.stager.hear,
                SIGNAL: self.orders.hear,
                ORDER: self.orders.hear_order,
                AWAIT: self.outcome_announcer.hear,
                FREED: self.queues.hear_freed,
                LEADER: self.leader.hear,
            },
            on_change=self._listening_changed,
            listen_dsn=config.listen_dsn,
        )
        self._unsubscribe: Callable[[], None] | None = None
        self._loop_end = LoopEnd(self._stop_with_the_loop)

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun, even if it was cancelled."""
        return self.queues.closing

    @property
    def producers(self) -> Mapping[str, Producer]:
        """The producers of this node, by their queues."""
        return self.queues.producers

    async def start(self) -> None:
        """Start the services: first the listener and the heartbeat, at last the producers.

        If one fails to start, the services before it keep running until `stop`.
        """
        prefix = await self._database.verify(RUNNING)
        await self._database.find_isolation()
        self._database.keep_connections()
        self._loop_end.watch()
        self._unsubscribe = wakeups.subscribe(self._database.address, prefix, self._woken)
        if self._config.notify == "listen":
            await self.notifier.start()
        # The rows of the producers must exist before they claim.
        await self.heartbeat.start()
        await self.orders.restore()
        await self.orders.start()
        await warm_up(self._database, self.producers)
        await self.stager.start()
        await self.outcome_announcer.start()
        await self.outbox.start()
        for producer in self.producers.values():
            await producer.start()
        if self._config.leadership:
            await self.leader.start()
            for service in self.cluster_services:
                await service.start()

    async def stop(self) -> None:
        """Stop the services: first the producers, and the heartbeat when no job is claimed."""
        self.queues.closing = True
        await self._loop_end.forget()
        grace = self._config.shutdown_grace_period
        await asyncio.gather(*(service.stop() for service in (self.orders, *self.cluster_services)))
        # The leader resigns now, so that another node leads while the jobs of this node still run.
        producers = (producer.stop(grace) for producer in self.producers.values())
        await asyncio.gather(self.leader.stop(), *producers)
        await self.outbox.stop()
        last = (self.stager, self.outcome_announcer, self.heartbeat, self.notifier)
        await asyncio.gather(*(service.stop() for service in last))
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        await self._database.release_connections()

    async def _stop_with_the_loop(self) -> None:
        """Stop the node while its event loop ends.

        Otherwise the thread of the heartbeat would keep beating for a node that has ended.
        """
        if not self.stopping:
            with suppress(Exception):
                async with asyncio.timeout(STOP_TIMEOUT):
                    # The outbox was cancelled, too, but must still write outcomes.
                    await self.outbox.stop()
                    await self.outbox.start()
                    await self.stop()
            await self.heartbeat.stop()

    def vitals(self) -> Vitals:
        """The state of the node."""
        producers = list(self.producers.values())
        services: list[Service | Heartbeat] = [*producers, *self.cluster_services]
        services += [
            self.outbox,
            self.stager,
            self.leader,
            self.orders,
            self.notifier,
            self.heartbeat,
        ]
        return Vitals(
            queues=tuple(producer.vitals for producer in producers),
            outcomes=len(self.outbox),
            leader=self.leader.is_leader,
            listening=self.notifier.listening if self._config.notify == "listen" else None,
            heartbeat_age=self.heartbeat.age,
            failures={s.label: s.failures for s in services if s.failures},
            stopping=self.stopping,
        )

    def _producer(self, queue: Queue) -> Producer:
        return Producer(
            self._database,
            self._emit,
            self._executor,
            self.outbox,
            queue=queue.name,
            limit=queue.limit,
            paused=queue.paused,
            claim_ahead=self._config.claim_ahead,
            way=way_to_claim(
                self._database, queue, self._config.node, lambda: self._config.poll_interval
            ),
            claims=self._claims,
            poll_interval=self._poll_interval,
        )

    def _written(self, ids: Iterable[int], queues: Iterable[str]) -> None:
        self.outcome_announcer.written(ids)
        for producer in self.producers.values():
            producer.freed(here=producer.queue in queues)

    def _is_leader(self) -> bool:
        return self.leader.is_leader

    def _has_foreign_nodes(self) -> bool:
        return self.heartbeat.has_foreign_nodes

    def _meet_foreign_nodes(self) -> None:
        self._wake_everything()
        self._wake_cluster_services()

    def _wake_cluster_services(self) -> None:
        for service in self.cluster_services:
            service.wake()

    def _poll_interval(self) -> float:
        # Nodes of another Oban make jobs available without a NOTIFY.
        if self.notifier.listening and not self._has_foreign_nodes():
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
        self.queues.wake(queues)
        for service in self.cluster_services:
            service.news()

    def _listening_changed(self) -> None:
        self.orders.lose_track()
        self._wake_everything()

    def _wake_everything(self) -> None:
        self.stager.wake()
        self.orders.wake()
        self._wake_queues(list(self.producers))

    def _hear_insert(self, news: dict[str, Any]) -> None:
        if isinstance(queue := news.get("queue"), str):
            self._wake_queues([queue])
