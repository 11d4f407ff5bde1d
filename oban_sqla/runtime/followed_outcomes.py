"""`FollowedOutcomes`: writes outcomes for which other jobs wait, and the effects on those jobs."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import psycopg
from sqlalchemy import Executable
from sqlalchemy.exc import DBAPIError

from .. import wakeups
from ..errors import sqlstate
from .database import Database
from .following import Followed, follow_by
from .raw_transaction import RawTransactions
from .refusals import concerns_some
from .service import Emit

LATER = 0.05
"""Seconds until an outcome is followed again if rows were locked."""


class FollowedOutcomes:
    """Writes outcomes and lets features follow them, in one transaction.

    A locked row does not delay the outcome: it is followed later.
    """

    def __init__(
        self,
        database: Database,
        emit: Emit,
        written: Callable[[Iterable[int], Iterable[str]], None],
    ) -> None:
        """`written` is called as in `Outbox`."""
        self._database = database
        self._emit = emit
        self._written = written
        self._transactions = RawTransactions(database)
        # The ids of the written outcomes that must be followed later.
        self._late: set[int] = set()
        self.due = math.inf
        """When, by the monotonic clock, outcomes must be followed again."""

    def hurry(self) -> None:
        """Follow late outcomes now."""
        if self._late:
            self.due = 0.0

    async def write(
        self, statement: Executable, params: Mapping[str, Any]
    ) -> frozenset[int] | None:
        """Write outcomes by the statement `acknowledge`. Returns the ids of those that applied.

        `None` if the database refuses the outcomes or what follows from them.
        """
        try:
            async with self._transactions.begin() as fetches:
                rows = await fetches.fetch(statement, params)
                ids = [row[0] for row in rows]
                prefix = self._database.prefix
                followed = await follow_by(fetches, ids, prefix) if ids else Followed()
        except (DBAPIError, psycopg.Error) as error:
            if not concerns_some(sqlstate(error), 2):
                raise
            return None
        self.tell(followed)
        return frozenset(ids)

    async def follow_late(self) -> None:
        """Follow the late outcomes."""
        late, self._late, self.due = self._late, set(), math.inf
        try:
            async with self._transactions.begin() as fetches:
                followed = await follow_by(fetches, [*late], self._database.prefix)
        except BaseException as error:
            if not concerns_some(sqlstate(error), 2):
                self._late, self.due = late, 0.0
                raise
            return
        self.tell(followed)

    def tell(self, followed: Followed) -> None:
        """Emit the results of following outcomes."""
        wakeups.publish(self._database.address, self._database.prefix, followed.wakeup)
        self._written(followed.ended, ())
        for name, event in followed.events:
            self._emit(name, event)
        if followed.late:
            self._late.update(followed.late)
            self.due = time.monotonic() + LATER
