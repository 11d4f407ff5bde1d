"""The overview: the jobs that ended, and those that wait."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban_sqla.runtime.database import Database
from oban_sqla.web import history
from oban_sqla.web.chart import nice, queue_times, throughput
from oban_sqla.web.history import Ended, History, recent
from tests.conftest import Add, StartOban
from tests.factories import JobFactory
from tests.web.conftest import Open
from tests.web.site import Site


def ago(**span: float) -> datetime:
    return datetime.now(UTC) - timedelta(**span)


def completed(at: datetime, waited: float = 1.0, **fields: Any) -> Any:
    fields |= {"completed_at": at, "attempted_at": at}
    scheduled = at - timedelta(seconds=waited)
    return JobFactory(
        completed=True, **fields, scheduled_at=scheduled, inserted_at=scheduled, state="completed"
    )


async def test_an_empty_installation_is_shown(site: Site) -> None:
    text = (await site.read()).text
    assert "No node runs. Start one" in text
    assert "No job ended in this time" in text


async def test_nodes_queues_and_findings_are_shown(site: Site, start: StartOban, add: Add) -> None:
    await start(queues={"mailers": 3}, node="n1")
    await add(JobFactory(queue="lost"), JobFactory(queue="mailers", retryable=True))
    page = (await site.read()).text
    assert "n1" in page
    assert "lost no node" in page
    assert "retryable 1" in page
    assert "lost" in (await site.read("findings")).text


async def test_many_queues_are_shown(site: Site, add: Add) -> None:
    await add(*(JobFactory(queue=f"queue-{n:03}") for n in range(300)))
    for path in ("", "queues"):
        page = await site.get(path)
        assert len(page.content) < 100_000
        assert "more" in page.text
    assert "queue-299" in (await site.read("queues?q=299")).text
    assert "queue-299" in (await site.read("?queue=queue-299")).text


async def test_the_history_of_a_queue_is_shown(engine: AsyncEngine, add: Add) -> None:
    await add(
        *(completed(ago(minutes=10), waited=2.0, queue="a") for _ in range(19)),
        completed(ago(minutes=10), waited=100.0, queue="a"),
        completed(ago(minutes=40), waited=0.0, queue="b"),
        completed(ago(minutes=70)),
        JobFactory(discarded=True, queue="b", discarded_at=ago(minutes=10)),
        JobFactory(cancelled=True, queue="b", cancelled_at=ago(seconds=1)),
        JobFactory(retryable=True, queue="b", attempted_at=ago(minutes=5)),
    )
    found = (await recent(Database(engine, None), window=3600, jobs=100)).history()
    assert found.total.counts == {"completed": 21, "discarded": 1, "cancelled": 1, "retryable": 1}
    assert not found.sampled
    counts = [dict(bucket.counts) for bucket in found.buckets]
    assert sum(bool(one) for one in counts) == 4
    assert counts[59] == {"cancelled": 1}
    assert found.queues["a"].counts == {"completed": 20}
    assert found.queues["a"].queue_time == pytest.approx(2.0, rel=0.2)
    bars = throughput(found).bars
    assert max(len(bar.parts) for bar in bars) == 2
    assert throughput(found).values == ("30", "15", "0")
    assert not queue_times(found).is_empty


def test_a_few_failures_are_visible_in_a_chart() -> None:
    many = Ended({"completed": 10_000, "discarded": 1}, None)
    found = throughput(History(datetime(2026, 1, 1), 3600.0, [many], {}, many, False))
    assert found.summary == "10,000 completed, 1 discarded"
    [completed, discarded] = found.bars[0].parts
    assert (discarded.state, discarded.height) == ("discarded", 2.0)
    assert discarded.y == completed.y - 2.0


async def test_counts_beyond_the_limit_are_estimated(engine: AsyncEngine, add: Add) -> None:
    at = ago(minutes=10)
    # The padding can't be compressed, so that the table has a hundred pages to choose from.
    await add(*(completed(at, args={"padding": token_hex(850)}) for _ in range(400)))
    found = await recent(Database(engine, None), window=3600, jobs=800, most=200)
    estimate = found.history().total.counts["completed"]
    assert found.history().sampled
    assert 100 < estimate < 2000


def test_the_top_of_a_chart_is_a_round_number() -> None:
    assert [nice(value) for value in (0, 0.3, 1, 1.1, 7, 2300)] == pytest.approx(
        [1, 0.3, 1, 2, 8, 3000]
    )


def test_the_values_of_queue_times_are_round_in_their_unit() -> None:
    def values(waited: float) -> tuple[str, ...]:
        one = Ended({"completed": 1}, waited)
        return tuple(queue_times(History(datetime(2026, 1, 1), 60.0, [one], {}, one, False)).values)

    assert values(0.25) == ("300 ms", "150 ms", "0")
    assert values(24.0) == ("30 s", "15 s", "0")
    assert values(190.0) == ("4 min", "2 min", "0")
    assert values(30_000.0) == ("10 h", "5 h", "0")


@pytest.fixture
def look_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the page send a statement of the test's own."""
    return lambda sent: monkeypatch.setattr(history, "are_more", lambda *_: text(sent))


async def test_a_slow_statement_is_stopped(
    open_site: Open, engine: AsyncEngine, look_with: Callable[[str], None]
) -> None:
    look_with("SELECT pg_sleep(60)")
    site = open_site(timeout=0.2)
    page = await site.read("", 503)
    assert "took too long" in page.text
    # The next request gets a connection without the limit.
    async with engine.connect() as connection:
        shown = await connection.scalar(text("SHOW statement_timeout"))
    assert shown == "0"


async def test_pages_can_not_write(open_site: Open, look_with: Callable[[str], None]) -> None:
    look_with("CREATE TEMPORARY TABLE t (n int)")
    page = await open_site().read("", 503)
    assert "does not answer" in page.text


async def test_a_missing_database_is_reported(open_site: Open) -> None:
    engine = create_async_engine("postgresql+psycopg://user:secret@localhost:1/app")
    site = open_site(engine=engine)
    for path in ("", "jobs", "jobs/1", "queues", "errors", "cron"):
        page = await site.read(path, 503)
        assert "The database does not answer" in page.text
        assert "secret" not in page.text
        assert "localhost" not in page.text


async def test_missing_tables_are_reported(open_site: Open, database_dsn: str) -> None:
    engine = create_async_engine(make_url(database_dsn).set(drivername="postgresql+psycopg"))
    site = open_site(engine=engine)
    assert "oban-sqla schema upgrade" in (await site.read("", 503)).text
    await engine.dispose()
