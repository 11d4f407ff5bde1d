"""The heartbeat: tells the other nodes that the producers of this one are alive."""

from collections.abc import Collection

from ..statements.heartbeat import beat, end
from .database import FAREWELL, Database, deadline
from .producer import Producer
from .service import Emit, Service


class Heartbeat(Service):
    """Keeps a row for each producer in `oban_producers`, and takes it away at the end."""

    name = "heartbeat"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        instance: str,
        node: str,
        producers: Collection[Producer],
        interval: float,
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._instance = instance
        self._node = node
        self._producers = producers
        self._interval = interval
        self._beating = False

    async def run_once(self) -> float:
        """Write the rows anew."""
        rows = [
            {
                "uuid": str(producer.uuid),
                "name": self._instance,
                "node": self._node,
                "queue": producer.queue,
                "meta": {"local_limit": producer.limit, "paused": producer.paused},
            }
            for producer in self._producers
        ]
        self._beating = True
        await self._database.fetch(beat(rows))
        return self._interval

    async def forget(self, producer: Producer) -> None:
        """Take the row of one producer away."""
        await self._database.fetch(end([producer.uuid]))

    def steady(self) -> float:
        """For how many seconds the beats have gone on without a failure or a missing row."""
        return 0.0

    async def close(self) -> None:
        """Take the rows away; without a database they expire by themselves."""
        if not self._beating:
            return
        async with deadline(FAREWELL):
            await self._database.fetch(end([producer.uuid for producer in self._producers]))
        self._beating = False
