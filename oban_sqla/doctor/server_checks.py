"""Checks of the server: schema, vacuum, LISTEN, transactions, connections, clock."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.exc import DBAPIError, ProgrammingError

from ..clock import client_now
from ..config import Config
from ..dsn import hide_passwords
from ..durations import ago, duration
from ..errors import ObanError
from ..models.foreign import ERRORS_AS_ARRAY
from ..models.parts import missing_parts
from ..runtime.database import Database
from ..runtime.listening import ListenUnsupportedError
from ..runtime.notifier import Notifier
from ..statements.inspect import errors_as_array, parts
from . import queries
from .finding import Check, Result, note, ok, problem

# Dead rows are a problem if there are this many of them, and they are this part of all rows.
MANY_DEAD = 10_000
LARGE_PART = 0.2
# A transaction is long after this many seconds, or this many transactions of others.
LONG_TRANSACTION = 600.0
MANY_TRANSACTIONS = 10_000_000
FULL_QUEUE = 0.25
# The connections of SQLAlchemy's default pool, with its overflow.
DEFAULT_POOL = 5 + 10
# The connections of a node outside of its pool: LISTEN and the heartbeat.
OUTSIDE = 2
SKEW = 1.0


class ServerChecks:
    """Checks of the server. Some of them also need the tables."""

    def __init__(self, database: Database, config: Config, latest: int) -> None:
        self._database = database
        self._config = config
        self._latest = latest
        self.of_tables: Mapping[str, Check] = {
            "schema": Check(self._schema),
            "vacuum": Check(self._vacuum),
        }
        self.of_server: Mapping[str, Check] = {
            "listen": Check(self._listen),
            "notifications": Check(self._notifications),
            "transactions": Check(self._transactions),
            "connections": Check(self._connections),
            "clock": Check(self._clock),
        }

    async def _schema(self) -> AsyncIterator[Result]:
        try:
            version = (await self._one(queries.version()))[0] or 0
        except ProgrammingError:
            version = 0  # there is no table of versions
        if (await self._one(errors_as_array(self._database.prefix or "")))[0]:
            text, _, remedy = ERRORS_AS_ARRAY.partition(". Nothing was changed. ")
            yield problem(text, remedy)
            return
        where = f"schema {self._database.prefix!r} is at version {version}"
        if version < self._latest:
            text = f"{where}, and {self._latest} is the latest"
            yield problem(text, "oban-sqla schema upgrade")
        elif version > self._latest:
            text = f"{where}, but this oban_sqla only knows versions up to {self._latest}"
            yield problem(text, "install a newer oban_sqla")
        elif lost := await self._lost_parts(version):
            text = f"{where}, but {', '.join(lost)} is missing"
            yield problem(text, "oban-sqla schema upgrade")
        else:
            yield ok(f"{where}, the latest")

    async def _lost_parts(self, version: int) -> list[str]:
        found = await self._database.fetch(parts(self._database.prefix or ""))
        lost = missing_parts((name for (name,) in found), version)
        return [part for of_version in lost.values() for part in of_version]

    async def _vacuum(self) -> AsyncIterator[Result]:
        row = await self._one(queries.vacuum(self._database.prefix or ""))
        when = "never" if row.vacuumed_ago is None else ago(row.vacuumed_ago)
        text = f"oban_jobs has {row.live} live and {row.dead} dead rows, vacuumed {when}"
        if not row.automatic:
            yield problem(
                f"{text}; autovacuum is off",
                f"ALTER TABLE {self._database.prefix}.oban_jobs RESET (autovacuum_enabled), and"
                " autovacuum = on in postgresql.conf",
            )
        elif row.dead > MANY_DEAD and row.dead > LARGE_PART * (row.live + row.dead):
            yield problem(
                text,
                f"VACUUM {self._database.prefix}.oban_jobs; if the rows stay, a transaction keeps"
                " them: see transactions",
            )
        else:
            yield ok(text)

    async def _listen(self) -> AsyncIterator[Result]:
        if self._config.notify == "poll":
            yield ok("not needed: notify is 'poll'")
            return
        notifier = Notifier(
            self._database,
            lambda name, data: None,
            channels={},
            on_change=lambda: None,
            listen_dsn=self._config.listen_dsn,
        )
        try:
            await notifier.run_once()
        except ListenUnsupportedError as error:
            text, _, way_out = str(error).partition(": ")
            yield problem(text, way_out)
        except (ObanError, TimeoutError):
            yield problem(
                "a NOTIFY was not heard, as behind PgBouncer in transaction mode; queues poll",
                "name a direct connection with listen_dsn, or choose notify = 'poll'",
            )
        except (DBAPIError, OSError) as error:
            remedy = "check listen_dsn" if self._config.listen_dsn else None
            cause = hide_passwords(str(getattr(error, "orig", error)))
            yield problem(f"no connection for LISTEN: {cause}", remedy)
        else:
            yield ok("a NOTIFY was heard")
        finally:
            await notifier.close()

    async def _notifications(self) -> AsyncIterator[Result]:
        used = (await self._one(queries.notifications()))[0]
        text = f"the queue of notifications is {used:.0%} full"
        if used < FULL_QUEUE:
            yield ok(text)
        else:
            yield problem(
                f"{text}; if it gets full, every commit with a NOTIFY fails",
                "end the session that listens and stays in a transaction: see transactions",
            )

    async def _transactions(self) -> AsyncIterator[Result]:
        found = [row for row in await self._database.fetch(queries.horizon()) if is_long(row)]
        for row in found[:5]:
            text, remedy = _TRANSACTIONS[row.kind]
            age = f"{row.age} transactions" if row.seconds is None else duration(row.seconds)
            text = text.format(id=row.id, what=row.what)
            yield problem(
                f"{text} has kept dead rows from being removed for {age}",
                remedy.format(id=row.id.replace("'", "''")),
            )
        if not found:
            yield ok("no transaction is long")
        if not (await self._one(queries.sees_all()))[0]:
            yield note(
                "transactions of other roles can't be seen",
                "GRANT pg_read_all_stats to the role that runs this",
            )

    async def _connections(self) -> AsyncIterator[Result]:
        row = await self._one(queries.connections())
        free = row.most - row.reserved - row.used
        text = f"{row.used} of {row.most} are used, {max(free, 0)} are free"
        wanted = (self._config.connections or DEFAULT_POOL) + OUTSIDE
        if free >= wanted:
            yield ok(text)
        else:
            yield problem(
                f"{text}; one more node may open {wanted}",
                "raise max_connections, set a smaller pool_size, or use a connection pooler",
            )

    async def _clock(self) -> AsyncIterator[Result]:
        before = client_now()
        theirs = (await self._one(queries.clock()))[0].astimezone(UTC)
        after = client_now()
        # The server read its clock at some moment between both.
        skew = max((theirs - after).total_seconds(), (before - theirs).total_seconds(), 0.0)
        if skew <= SKEW:
            yield ok("this host and the database agree")
            return
        side = "behind" if theirs > after else "ahead of"
        yield problem(
            f"the clock of this host is {duration(skew)} {side} that of the database, and"
            " schedule_in is off by as much",
            "synchronize the clocks of both, by NTP",
        )

    async def _one(self, statement: Executable) -> Any:
        (row,) = await self._database.fetch(statement)
        return row


_TRANSACTIONS = {
    "session": ("the session {id} ({what})", "SELECT pg_terminate_backend({id})"),
    "prepared": ("the prepared transaction {id!r}", "ROLLBACK PREPARED '{id}'"),
    "slot": ("the replication slot {id!r}", "SELECT pg_drop_replication_slot('{id}')"),
}


def is_long(row: Any) -> bool:
    """Whether the transaction or slot of a row is long."""
    if row.seconds is not None and row.seconds > LONG_TRANSACTION:
        return True
    return row.age is not None and row.age > MANY_TRANSACTIONS
