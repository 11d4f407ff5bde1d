"""What an instance tells of itself: part of `Oban`."""

import time

from sqlalchemy import literal, select

from .config import Config
from .doctor.examination import examine
from .doctor.finding import Finding
from .runtime.database import Database
from .runtime.supervisor import Supervisor
from .runtime.vitals import Vitals


class Reports:
    """How the node does, and whether its database answers."""

    _config: Config
    _database: Database
    _supervisor: Supervisor | None

    @property
    def vitals(self) -> Vitals | None:
        """The state of the node, without asking the database; `None` if it runs no queues.

        It may be read from any thread.
        """
        return None if self._supervisor is None else self._supervisor.vitals()

    async def ping(self) -> float:
        """Send a statement to the database, and return the seconds until the answer.

        Raises the driver's error if there is no answer.
        """
        started = time.monotonic()
        await self._database.fetch(select(literal(1)), at_once=True)
        return time.monotonic() - started

    async def examine(self, *, latest: int) -> list[Finding]:
        """What `oban-sqla doctor` finds; `latest` is the version that the schema should have."""
        return [one async for one in examine(self._database, self._config, latest=latest)]
