"""Nodes on a server whose clock is set while they run, for example to a night in which a zone
changes.
"""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla.embedded.cluster import Cluster
from oban_sqla.migrations import upgrade
from tests.databases import async_engine
from tests.failures.conftest import Runs, Spawn, ended, enqueue, name_of, notes
from tests.failures.test_failover import url

LIBRARY = next(iter(Path("/usr").glob("lib*/*/faketime/libfaketime.so.1")), None)

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed"),
]

Sessions = async_sessionmaker[AsyncSession]


class Clock:
    """The wall clock of the server. The monotonic clock is that of the machine."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set(datetime(2026, 6, 1, tzinfo=UTC))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, instant: datetime) -> None:
        """Set the clock to an instant, from which it goes on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{instant.timestamp() - time.time():+.6f}\n")
        new.chmod(0o644)
        new.replace(self._file)

    def step(self, **by: float) -> None:
        """Set the clock forward or back."""
        ahead = float(self._file.read_text())
        self.set(datetime.fromtimestamp(time.time() + ahead, UTC) + timedelta(**by))


@pytest.fixture
def clock() -> Iterator[Clock]:
    # Not pytest's directory, since the path of a socket must be short.
    directory = Path(tempfile.mkdtemp(prefix="oban-clock-"))
    directory.chmod(0o755)
    yield Clock(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def server(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A server with this clock. The nodes use the clock of the machine."""
    version = int(os.environ.get("OBAN_TEST_POSTGRES", "18"))
    directory = clock._file.parent / "server"
    directory.mkdir()
    cluster = Cluster(directory, version)
    cluster.ensure_initialized(durable=False)
    cluster.configure(["max_connections = 100", "fsync = off"])
    with monkeypatch.context() as patch:
        for name, value in clock.environment.items():
            patch.setenv(name, value)
        cluster.ensure_started()
    yield cluster
    cluster.ensure_stopped("immediate")


@pytest.fixture
async def sessions(server: Cluster) -> AsyncIterator[Sessions]:
    engine = async_engine(url(server), "public")
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
    yield async_sessionmaker(engine)
    await engine.dispose()


@pytest.fixture
def runs(server: Cluster, sessions: Sessions) -> Runs:
    runs = Runs(url(server), "public")
    runs.install()
    return runs


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# By zone and expression: the instants, in UTC, to which the clock is set in turn, and the
# expected ticks. The clock runs for some seconds from each instant.
NIGHTS = {
    "Berlin, the hour comes twice": (
        {"expr": "30 2 * * *", "timezone": "Europe/Berlin"},
        [
            "2026-10-25 00:29:58",
            "2026-10-25 00:59:58",
            "2026-10-25 01:29:58",
            "2026-10-26 01:29:58",
        ],
        ["2026-10-25 00:30", "2026-10-26 01:30"],
    ),
    "Berlin, each half hour": (
        {"expr": "*/30 2 * * *", "timezone": "Europe/Berlin"},
        [
            "2026-10-24 23:59:58",
            "2026-10-25 00:29:58",
            "2026-10-25 00:59:58",
            "2026-10-25 01:29:58",
        ],
        ["2026-10-25 00:00", "2026-10-25 00:30", "2026-10-25 01:00", "2026-10-25 01:30"],
    ),
    "New York, the hour is skipped": (
        {"expr": "30 2 * * *", "timezone": "America/New_York"},
        [
            "2026-03-07 07:29:58",
            "2026-03-08 06:59:58",
            "2026-03-08 07:29:58",
            "2026-03-09 06:29:58",
        ],
        ["2026-03-07 07:30", "2026-03-08 07:00", "2026-03-09 06:30"],
    ),
    "Lord Howe, half an hour comes twice": (
        {"expr": "45 1 * * *", "timezone": "Australia/Lord_Howe"},
        ["2026-04-04 14:44:58", "2026-04-04 15:14:58", "2026-04-05 15:14:58"],
        ["2026-04-04 14:45", "2026-04-05 15:15"],
    ),
    "set forward over ticks and back": (
        {"expr": "0 * * * *", "catch_up": "all"},
        [
            "2026-06-01 01:59:58",
            "2026-06-01 04:10:00",
            "2026-06-01 02:30:00",
            "2026-06-01 04:59:58",
        ],
        ["2026-06-01 02:00", "2026-06-01 03:00", "2026-06-01 04:00", "2026-06-01 05:00"],
    ),
}


@pytest.mark.parametrize(("cron", "moments", "ticks"), NIGHTS.values(), ids=NIGHTS.keys())
async def test_each_tick_is_enqueued_once_while_the_clock_changes(
    clock: Clock,
    spawn: Spawn,
    runs: Runs,
    cron: dict[str, str],
    moments: list[str],
    ticks: list[str],
) -> None:
    clock.set(at(moments[0]) - timedelta(minutes=10))
    # Nothing is pruned, even if a day or more passes.
    options = {"cron": cron, "heartbeat_expiry": 8, "retention": None}
    options |= {"dsn": runs.dsn, "runs_dsn": runs.dsn, "schema": "public"}
    nodes = [await spawn(**options) for _ in range(2)]
    await runs.until(lambda: runs.leader() is not None)
    for moment in moments:
        clock.set(at(moment))
        due = [at(tick) for tick in ticks if at(tick) <= at(moment) + timedelta(seconds=4)]
        await runs.until(lambda due=due: set(due) <= set(runs.ticks()), f"{moment} {runs.ticks()}")
        # Long enough for a second tick to come.
        await asyncio.sleep(4)
    assert runs.ticks() == [at(tick) for tick in ticks]
    await runs.all_completed(len(ticks))
    assert set(runs.per_job().values()) == {1}
    assert runs.rescued() == {}
    for node in nodes:
        node.terminate()
        assert await ended(node) == 0


STEPS = {
    "minutes forward": {"minutes": 7},
    "minutes back": {"minutes": -7},
    "hours forward": {"hours": 5},
    "hours back": {"hours": -5},
}


async def test_no_living_node_loses_its_jobs_when_the_clock_is_set(
    clock: Clock, spawn: Spawn, runs: Runs, sessions: Sessions
) -> None:
    nodes = [
        await spawn(dsn=runs.dsn, runs_dsn=runs.dsn, schema="public", limit=5, heartbeat_expiry=8)
        for _ in range(2)
    ]
    await enqueue(sessions, notes(6, 45.0))
    await runs.until(lambda: runs.states() == {"executing": 6})
    for done, step in enumerate(STEPS.values(), 1):
        clock.step(**step)
        # New jobs run at once, whatever the time is.
        await enqueue(sessions, notes(5))
        await runs.until(lambda done=done: runs.completed() == 5 * done, f"{step}")
        await asyncio.sleep(6)  # longer than two beats, after which a node counts as dead
    await runs.all_completed(6 + 5 * len(STEPS))
    assert runs.rescued() == {}
    assert set(runs.per_job().values()) == {1}
    for node in nodes:
        node.terminate()
        assert await ended(node) == 0


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
async def test_the_jobs_of_a_leader_that_dies_before_the_clock_is_set_are_rescued(
    clock: Clock, spawn: Spawn, runs: Runs, sessions: Sessions, step: dict[str, float]
) -> None:
    options = {"dsn": runs.dsn, "runs_dsn": runs.dsn, "schema": "public", "heartbeat_expiry": 8}
    leader = await spawn(limit=5, **options)
    await runs.until(lambda: runs.leader() == name_of(leader))
    await enqueue(sessions, notes(5, 8.0))
    await runs.until(lambda: runs.states() == {"executing": 5} and runs.count() == 5)
    # No job ends while the other node starts, however long that takes.
    leader.send_signal(signal.SIGSTOP)
    other = await spawn(limit=5, **options)
    leader.kill()
    clock.step(**step)
    await ended(leader)
    await runs.all_completed(5)
    assert runs.rescued().keys() == runs.per_job().keys()
    assert set(runs.per_job().values()) == {2}
    other.terminate()
    assert await ended(other) == 0
