"""Nodes of oban-py move our unique jobs between states."""

import oban as oban_py
import pytest

from oban_sqla import Oban
from tests.beside_oban.conftest import NEVER, StartTheirs, Table
from tests.beside_oban.workers import OURS, THEIRS, Ours
from tests.conftest import StartOban

pytestmark = pytest.mark.oban


@pytest.fixture
async def ours(start: StartOban) -> Oban:
    return await start(queues={}, node=OURS, fallback_interval=NEVER)


@pytest.fixture
async def theirs(start_theirs: StartTheirs) -> oban_py.Oban:
    return await start_theirs(node=THEIRS)


async def test_oban_py_retries_a_job_whose_unique_key_is_held(
    ours: Oban, theirs: oban_py.Oban, table: Table
) -> None:
    first = await ours.enqueue(Ours.new({"n": 1}, queue="nobody", unique=True))
    await theirs.cancel_job(first.id)
    second = await ours.enqueue(Ours.new({"n": 1}, queue="nobody", unique=True))
    await theirs.retry_job(first.id)
    assert await table.states() == {"available": 2}
    again = await ours.enqueue(Ours.new({"n": 1}, queue="nobody", unique=True))
    assert (second.conflict, again.id) == (False, second.id)
