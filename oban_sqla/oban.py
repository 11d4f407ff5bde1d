"""`Oban`: an instance, which enqueues jobs, and runs them if it has queues."""

import asyncio
import os
from collections.abc import AsyncIterable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Self, Unpack, overload

import psycopg
from sqlalchemy import URL

from . import instances, settings
from .config import Config
from .config.oban_settings import ObanSettings
from .config.rule import shows
from .enqueue.chunks import enqueue_stream
from .enqueue.collector import slices
from .enqueue.enqueue import Conn, each, enqueue
from .errors import ConfigError
from .events import ObanEvents, Observable, PoolTooSmall, WorkersUnfinished, emit, listened
from .limits.limit_questions import LimitQuestions
from .limits.limited_claim import LimitedClaim
from .models import Job
from .monitor.job_counter import JobCounter
from .oban_names import ObanNames
from .reports import Reports
from .runtime import pool
from .runtime.database import Database
from .runtime.engine import EngineLike
from .runtime.enqueuer import Enqueuer
from .runtime.session_threads import close_session_threads
from .runtime.supervisor import Supervisor
from .runtime.waiter import Waiter
from .waiting import Waiting
from .workers.unfinished import name_of_class, unfinished
from .workflows.enqueue import enqueue_workflow
from .workflows.keeper import WorkflowKeeper
from .workflows.pruner import WorkflowPruner
from .workflows.workflow import Workflow

__all__ = ["Oban", "ObanEvents"]


class Oban(ObanNames, Waiting, LimitQuestions, Reports, Observable):
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
            its own; with "poll" it looks every `poll_interval`.
        listen_dsn: a direct connection for LISTEN, if the engine connects through a pooler.
        poll_interval: the time between two looks for work while LISTEN does not work, or while
            nodes of another Oban are alive.
        fallback_interval: the time between two looks while LISTEN works. They find jobs whose
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
                supervisor = Supervisor(
                    self._config,
                    self._database,
                    self._emit,
                    self._listened,
                    [
                        JobCounter,
                        WorkflowKeeper,
                        partial(WorkflowPruner, retention=self._config.retention),
                    ],
                    ways_to_claim=LimitedClaim,
                )
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

    @overload
    async def enqueue(self, job: Job, /, *, conn: Conn | None = None) -> Job: ...
    @overload
    async def enqueue(self, job: Workflow, /, *, conn: Conn | None = None) -> Workflow: ...
    async def enqueue(self, job: Job | Workflow, /, *, conn: Conn | None = None) -> Job | Workflow:
        """Enqueue a job, or a workflow, in the transaction of `conn`, or in one of its own.

        It has its id afterwards; if `conn` is a session, after the flush.
        """
        if isinstance(job, Workflow):
            await enqueue_workflow(job, conn, self._database)
        elif conn is None:
            await self._enqueuer.enqueue(job)
        else:
            await enqueue([job], conn, prefix=self.prefix)
        return job

    async def enqueue_many(
        self, /, *jobs: Job | Iterable[Job], conn: Conn | None = None
    ) -> list[Job]:
        """Enqueue any number of jobs, given one by one or in iterables: all of them, or none.

        The flush of a session inserts the jobs. Otherwise one statement inserts up to 1,000 jobs.
        Without `conn`, the database inserts jobs while an iterable still makes others.
        `enqueue_stream` keeps no jobs, and takes async iterables.

        `TypeError` or `ValueError` for an object that is not a job, a job given twice, and a `conn`
        of another kind; nothing is sent through `conn` then.
        """
        if conn is None:
            return await self._enqueuer.enqueue_many(each(jobs))
        gathered = [job for some in slices(each(jobs)) for job in some]
        await enqueue(gathered, conn, prefix=self.prefix)
        return gathered

    async def enqueue_stream(
        self, jobs: Iterable[Job] | AsyncIterable[Job], /, *, conn: Conn | None = None
    ) -> int:
        """Enqueue jobs from an iterable, async or not, without keeping them; return their number.

        Memory does not grow with the number of jobs: each statement sends 1,000 jobs, which are
        then forgotten. All jobs are in one transaction, that of `conn` or an own one. A session
        also sends them at once, and does not hold them. Duplicates of unique jobs are not counted.

        Errors of the iterable are raised here. Without `conn`, no job is enqueued then. With
        `conn`, earlier jobs were sent already, so roll back its transaction, or a savepoint.
        The other errors are those of `enqueue_many`.
        """
        if conn is None:
            return await self._enqueuer.enqueue_stream(jobs)
        return await enqueue_stream(jobs, conn, self.prefix)

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection]:
        """A psycopg connection from the engine's pool, for a block.

        An open transaction is committed at the end of the block, or rolled back after an
        exception. `ObanError` if the engine's driver is not psycopg.
        """
        return self._database.psycopg_connection()

    def _listened(self, name: str) -> bool:
        return listened(self, name)

    def _emit(self, name: str, data: object) -> None:
        emit(self, name, data)

    def __repr__(self) -> str:
        return f"<Oban {self.name!r} on {self.node}>"
