"""`Oban`: an instance, which enqueues jobs, and runs them if it has queues."""

import asyncio
import os
import time
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, Unpack

import psycopg
from sqlalchemy import URL, literal, select

from . import instances, settings
from .config import Config
from .config.oban_settings import ObanSettings
from .config.rule import shows
from .doctor.examination import Examination
from .enqueueing import Enqueueing
from .errors import ConfigError
from .events import ObanEvents, Observable, PoolTooSmall, WorkersUnfinished, emit, listened
from .limits.limit_questions import LimitQuestions
from .manage.job_management import JobManagement
from .oban_names import ObanNames
from .queue_orders import QueueOrders
from .runtime import pool
from .runtime.database import Database
from .runtime.engine import EngineLike
from .runtime.enqueuer import Enqueuer
from .runtime.psycopg_connection import psycopg_connection
from .runtime.session_threads import close_session_threads
from .runtime.supervisor import Supervisor
from .runtime.vitals import Vitals
from .runtime.waiter import Waiter
from .waiting import Waiting
from .workers.unfinished import name_of_class, unfinished
from .workflows.workflow_management import WorkflowManagement

__all__ = ["Oban", "ObanEvents"]


class Oban(
    WorkflowManagement,
    Enqueueing,
    Waiting,
    ObanNames,
    JobManagement,
    QueueOrders,
    LimitQuestions,
    Examination,
    Observable,
):
    """Background jobs in the database of an engine::

        async with Oban(engine, queues={"default": 10, "mailers": {"limit": 20}}) as oban:
            await oban.enqueue(WelcomeEmail.new({"email": "x@y"}))

    An instance with `queues` runs their jobs between `start` and `stop`. An instance without
    `queues` only enqueues, and need not be started. Workers find their instance by its `name`, so
    that `Worker.enqueue()` needs no `conn`.
    """

    @shows(ObanSettings)
    def __init__(self, engine: EngineLike, **settings: Unpack[ObanSettings]) -> None:
        """Build an instance; nothing is connected yet. All times are seconds.

        engine: an `AsyncEngine`, an `async_sessionmaker` bound to one, or a URL. Behind PgBouncer
            in transaction mode psycopg must not prepare statements: make the engine with
            `connect_args={"prepare_threshold": None}`, or end the URL with
            `?prepare_threshold=none`. Also set `notify="poll"` or a `listen_dsn`.
        queues: the names of the queues, and how many jobs of each run at once on this node: `10`,
            or `{"limit": 10, "paused": True}`. With `{"limit": 10, "global_limit": 30}`, no more
            than 30 run on all nodes together; with `"rate_limit": Rate(60, per=60)`, no more than
            60 start there in a minute.
        name: the name of the instance, unique in a process. Nodes of the same name work together.
        node: the name of this process, unique among those that run. The default is the host name
            and the process id.
        prefix: the schema of the tables. By default the search path finds them. A session inserts
            jobs where its own engine finds the tables: by the search path, or by an entry for
            `None` in its `schema_translate_map`.
        shutdown_grace_period: how long `stop` waits for running jobs.
        notify: with "listen" the node hears of new jobs at once through LISTEN, on a connection of
            its own; with "poll" it queries every `poll_interval`.
        listen_dsn: a direct connection for LISTEN, if the engine connects through a pooler.
        poll_interval: the time between two queries for work while LISTEN does not work, or while
            nodes of another Oban are alive.
        fallback_interval: the time between two queries while LISTEN works. They find jobs whose
            notification was lost.
        heartbeat_expiry: a node without a heartbeat for this time is dead, and its jobs are
            rescued; 5 or more. A node sends four heartbeats in this time.
        rescue_after: jobs on dead nodes of another Oban are rescued after this time. Their
            heartbeats may stop while a job runs.
        leadership: whether this node may become the leader, which runs cron, lifeline and pruner.
        timezone: the time zone of cron entries that name none.
        retention: how long finished jobs are kept: seconds, or `{"completed": 3600, "cancelled":
            ..., "discarded": None, "workers": {"app.Mail": 60}}`. `None` is for ever. A worker may
            also be named by its class.
        stage_batch: how many due jobs one statement of the stager promotes at most.
        pool_size: the most connections of the pool, if `engine` is a URL. The default is the sum
            of the queues' limits, plus 5 for the node itself. If you pass your own engine, make
            its pool that large.
        claim_ahead: the window for claiming ahead. A queue of short jobs holds at most as many
            claimed jobs, beside the running ones, as it ended in this time; 0 holds none.

        `TypeError` for an engine of another kind; `ValueError` that lists all wrong settings.
        """
        self._config = Config.check(**settings)
        self._database = Database(engine, self._config.prefix, pool_size=self._config.connections)
        if self._config.pool_size is not None and not self._database.owned:
            raise ConfigError(
                [("pool_size", "pool_size is for a URL: your engine has a pool of its own")]
            )
        self._enqueuer = Enqueuer(self._database)
        self._supervisor: Supervisor | None = None
        self._waiter = Waiter(self._config, self._database, self._emit)
        self._turn = asyncio.Lock()
        instances.register(self)

    @classmethod
    def from_config(
        cls,
        engine: EngineLike | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        **given: Any,
    ) -> Self:
        """Build an instance with the settings of the environment and of a file.

        engine: as for `Oban`; if not given, the database that the settings `dsn`, `engine` or
            `session` name. With an engine of yours, they and `pool_size` are ignored.
        path: the file; if not given, `oban.toml`, or `pyproject.toml` with a table `[tool.oban]`,
            in the working directory.
        given: settings that override variables such as `OBAN_QUEUES="default:10,mailers:20"`.
            Variables override the file. The first source that has a setting decides its whole
            value.

        `ConfigError` that lists every mistake, with its file or variable.
        """
        loaded = settings.load(path, **given)
        database = loaded.database() if engine is None else engine
        if database is None:
            raise ConfigError(
                [("dsn", "name the database: pass an engine or dsn=, or set dsn or OBAN_DSN")]
            )
        arguments = loaded.arguments
        if not isinstance(engine, None | str | URL):
            arguments.pop("pool_size", None)
        return cls(database, **arguments)

    @property
    def name(self) -> str:
        """The name by which workers find the instance."""
        return self._config.name

    @property
    def node(self) -> str:
        """The name of this process among those that run jobs."""
        return self._config.node

    @property
    def prefix(self) -> str | None:
        """The schema of the tables; `None` before the start, if it was not given."""
        return self._database.prefix

    @property
    def is_leader(self) -> bool:
        """Whether this node runs the cluster-wide services: cron, lifeline, pruner."""
        return self._supervisor is not None and self._supervisor.leader.is_leader

    async def start(self) -> Self:
        """Run the jobs of the queues, if there are any.

        `SchemaMissingError` if the tables are missing. The message says how to install them.
        `PrivilegeMissingError` if the role lacks a privilege. The message says how to grant it.
        """
        instances.register(self)
        async with self._turn:
            if self._supervisor is not None and self._supervisor.stopping:
                # The last stop was cancelled: finish it, since its producers claim no more jobs.
                await self._end()
            if self._config.queues and self._supervisor is None:
                supervisor = Supervisor(self._config, self._database, self._emit, self._listened)
                try:
                    await supervisor.start()
                except BaseException:
                    # If `_end` is cancelled, too, a later stop can still end the supervisor.
                    self._supervisor = supervisor
                    await self._end()
                    raise
                self._supervisor = supervisor
                self._check_pool()
                if workers := tuple(map(name_of_class, unfinished())):
                    self._emit("workers_unfinished", WorkersUnfinished(workers))
        return self

    def _check_pool(self) -> None:
        limits = {queue.name: queue.limit for queue in self._config.queues}
        size, needed = pool.capacity(self._database.engine), pool.needed(limits)
        if size is not None and size < needed:
            self._emit("pool_too_small", PoolTooSmall(size, needed))

    async def stop(self) -> None:
        """Claim no more jobs, and wait for the running ones for the grace period.

        A job that does not finish in time is cancelled and goes back to its queue at once, its
        attempt not spent. A thread can't be cancelled: it runs on, and its outcome is ignored. A
        stop of an instance that is not started does nothing. A second stop waits for the first.
        """
        async with self._turn:
            await self._end()

    async def _end(self) -> None:
        if self._supervisor is not None:
            await self._supervisor.stop()
            self._supervisor = None
        await self._enqueuer.close()
        await close_session_threads(self._database)
        await self._database.dispose()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

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

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection]:
        """A psycopg connection from the engine's pool, for a block.

        An open transaction is committed at the end of the block, or rolled back after an
        exception. `ObanError` if the engine's driver is not psycopg.
        """
        return psycopg_connection(self._database)

    def _listened(self, name: str) -> bool:
        return listened(self, name)

    def _emit(self, name: str, data: object) -> None:
        emit(self, name, data)

    def __repr__(self) -> str:
        return f"<Oban {self.name!r} on {self.node}>"
