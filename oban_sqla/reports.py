"""`Reports`, a part of `Oban`: the state of the node and of its database."""

import time

from sqlalchemy import literal, select

from .config import Config
from .doctor.examination import examine
from .doctor.finding import Finding
from .runtime.database import Database
from .runtime.supervisor import Supervisor
from .runtime.vitals import Vitals


class Reports:
    """Report the state of the node, and check its database."""

    _config: Config
    _database: Database
    _supervisor: Supervisor | None

    @property
    def vitals(self) -> Vitals | None:
        """The state of the node, without I/O; `None` if the node runs no queues.

        Any thread may read it.
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
        """The findings of `oban-sqla doctor`; `latest` is the version that the schema needs."""
        return [one async for one in examine(self._database, self._config, latest=latest)]
