"""Live pages: all viewers share one look at the database."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from starlette.applications import Starlette

from oban_sqla import Oban
from oban_sqla.web import dashboard, live
from oban_sqla.web.board import Board
from oban_sqla.web.live import stream
from oban_sqla.web.shared import Shared
from tests.conftest import Add, Tune
from tests.factories import JobFactory
from tests.runtime.conftest import until
from tests.web.site import Site


@pytest.fixture
def app(oban: Oban, tune: Tune) -> Starlette:
    tune(live, INTERVAL=0.01)
    tune("oban_sqla.web.board", STATUS=0.05)
    return dashboard(oban)


@pytest.fixture
def board(app: Starlette) -> Board:
    found = app.state.board
    assert isinstance(found, Board)
    return found


async def test_a_change_is_read_once_for_all_viewers(board: Board, add: Add) -> None:
    viewers = [stream(board) for _ in range(20)]
    assert {await anext(one) for one in viewers} == {"retry: 1000\n\n"}
    first = {await anext(one) for one in viewers}
    assert len(first) == 1
    reads = board._status.reads
    waiting = [asyncio.ensure_future(anext(one)) for one in viewers]
    await add(JobFactory())
    second = set(await asyncio.gather(*waiting))
    assert len(second) == 1
    assert second != first
    assert second.pop().startswith("event: pulse\ndata: ")
    assert board._status.reads - reads < 20
    for one in viewers:
        await one.aclose()


@pytest.fixture
def statements(engine: AsyncEngine) -> list[str]:
    """The statements that are sent, without those that set up a transaction."""
    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "set_config" not in statement:
            found.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    return found


async def test_fifty_viewers_share_one_statement_per_look(
    board: Board, statements: list[str], add: Add
) -> None:
    await board.status()
    viewers = [stream(board) for _ in range(50)]
    for _ in range(2):  # the delay before a new stream, and the first mark
        await asyncio.gather(*(anext(one) for one in viewers))
    statements.clear()
    looks = board._status.reads
    waiting = [asyncio.ensure_future(anext(one)) for one in viewers]
    await add(JobFactory())
    told = await asyncio.gather(*waiting)
    assert len(set(told)) == 1
    sent = [one for one in statements if "INSERT" not in one]
    assert 0 < len(sent) == board._status.reads - looks < 50
    for one in viewers:
        await one.aclose()


@pytest.mark.parametrize(
    "path", ["", "jobs", "jobs?q=tag:vip", "jobs/1", "queues", "errors", "workflows", "cron"]
)
async def test_the_viewers_of_a_page_share_one_read(
    oban: Oban, statements: list[str], add: Add, path: str, tune: Tune
) -> None:
    tune("oban_sqla.web.board", STATUS=60.0)
    await add(JobFactory())

    async def sent_by(viewers: int) -> int:
        app = dashboard(oban)
        await app.state.board.status()
        statements.clear()
        site, refresh = Site(app), {"HX-Request": "true"}
        await asyncio.gather(*(site.get(path, headers=refresh) for _ in range(viewers)))
        await site.client.aclose()
        return len(statements)

    assert await sent_by(10) == await sent_by(1)


async def test_without_viewers_nothing_is_read(board: Board) -> None:
    before = asyncio.all_tasks()
    viewer = stream(board)
    await anext(viewer)
    await anext(viewer)
    await viewer.aclose()
    # Nothing is left that could look.
    await until(lambda: asyncio.all_tasks() == before)


async def test_a_stream_ends_after_its_time_limit(board: Board) -> None:
    assert len([event async for event in stream(board, longest=0.05)]) == 2


async def test_viewers_are_told_of_an_outage(oban: Oban, tune: Tune) -> None:
    tune(live, INTERVAL=0.01)
    nowhere = create_async_engine("postgresql+psycopg://localhost:1/app")
    board = dashboard(oban, engine=nowhere).state.board
    told = [event async for event in stream(board, longest=0.05)]
    assert told[1:] == ["event: outage\ndata:\n\n"]


async def test_a_failure_is_shared_and_a_slow_read_rests() -> None:
    fails = True

    async def read() -> int:
        if fails:
            raise OSError("gone")
        return shared.reads

    shared = Shared(read, 0.02)
    results = await asyncio.gather(*(shared.get() for _ in range(5)), return_exceptions=True)
    assert len(results) == 5
    assert all(isinstance(one, OSError) for one in results)
    assert shared.reads == 1
    fails = False
    async with asyncio.timeout(5):
        while True:
            try:
                assert await shared.get() == 2
                break
            except OSError:
                await asyncio.sleep(0.005)


async def test_a_viewer_that_leaves_does_not_disturb_the_others() -> None:
    go = asyncio.Event()

    async def read() -> str:
        await go.wait()
        return "read"

    shared = Shared(read, 1.0)
    first, second = (asyncio.ensure_future(shared.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    go.set()
    assert await second == "read"
    assert first.cancelled()


async def test_a_shared_read_is_shown_by_the_rights_of_each_viewer(oban: Oban, add: Add) -> None:
    [id] = await add(JobFactory(args={"card": "5105"}))
    site = Site(dashboard(oban, authorize=lambda request: request.headers["x-rights"].split()))
    for path in ("jobs", f"jobs/{id}"):
        for rights, sees in (("args", True), ("retry", False), ("args", True)):
            headers = {"HX-Request": "true", "X-Rights": rights}
            page = await site.get(path, headers=headers)
            assert ("5105" in page.text) == sees
    await site.client.aclose()
