"""Orders to queues and jobs that one library gives reach the nodes of the other."""

import oban as oban_py
import pytest

from oban_sqla import Oban
from tests.beside_oban.conftest import NEVER, StartTheirs, Table
from tests.beside_oban.workers import OURS, THEIRS, Ours, Script, Theirs
from tests.conftest import StartOban
from tests.listening import hear
from tests.runtime.conftest import until
from tests.services import services

pytestmark = pytest.mark.oban


@pytest.fixture
async def ours(start: StartOban) -> Oban:
    """A node of ours, with LISTEN or without."""
    ours = await start(queues={"shared": 5}, node=OURS, fallback_interval=NEVER)
    await until(lambda: services(ours).notifier.listening)
    return ours


@pytest.fixture
async def theirs(start_theirs: StartTheirs) -> oban_py.Oban:
    return await start_theirs(node=THEIRS)


class TestObanPyOrdersOurQueues:
    async def test_oban_py_pauses_and_resumes_our_queue(
        self, ours: Oban, theirs: oban_py.Oban, table: Table
    ) -> None:
        with hear(ours, "queue_paused") as paused, hear(ours, "queue_resumed") as resumed:
            await theirs.pause_queue("shared")
            await paused.wait()
            job = await ours.enqueue(Ours.new())
            await theirs.resume_queue("shared")
            await resumed.wait()
        await table.until({"completed": 1})
        assert (await table.job(job.id))["attempt"] == 1

    async def test_oban_py_orders_all_our_queues(self, ours: Oban, theirs: oban_py.Oban) -> None:
        with hear(ours, "queue_paused") as paused, hear(ours, "queue_resumed") as resumed:
            await theirs.pause_all_queues()
            await paused.wait()
            await theirs.resume_all_queues()
            await resumed.wait()

    async def test_oban_py_orders_the_queue_of_one_node(
        self, ours: Oban, theirs: oban_py.Oban
    ) -> None:
        with hear(ours, "queue_paused") as paused:
            await theirs.scale_queue(queue="shared", limit=99, node="another")
            await theirs.pause_queue("shared", node=OURS)
            await paused.wait()
        assert ours.check_queue("shared").limit == 5
        assert not theirs.check_queue("shared").paused

    async def test_oban_py_scales_our_queue(self, ours: Oban, theirs: oban_py.Oban) -> None:
        await theirs.scale_queue(queue="shared", limit=17)
        await until(lambda: ours.check_queue("shared").limit == 17)

    async def test_oban_py_starts_and_stops_our_queue(
        self, ours: Oban, theirs: oban_py.Oban, table: Table
    ) -> None:
        await theirs.start_queue(queue="extra", limit=2, paused=True)
        await until(lambda: ours.check_queue("extra") is not None)
        started = ours.check_queue("extra")
        assert (started.limit, started.paused) == (2, True)
        await theirs.stop_queue("extra")
        await until(lambda: ours.check_queue("extra") is None)
        query = "SELECT 1 FROM {oban_producers} WHERE queue = 'extra' AND node = %s"
        await until(lambda: table.finds_nothing(query, OURS))

    async def test_an_order_of_oban_py_replaces_our_older_order(
        self, ours: Oban, theirs: oban_py.Oban
    ) -> None:
        """Our orders are stored and may be read again; orders of oban-py are only heard."""
        await ours.pause_queue("shared")
        await ours.resume_queue("shared")
        await until(lambda: not theirs.check_queue("shared").paused)
        with hear(ours, "queue_paused") as paused, hear(ours, "queue_resumed") as resumed:
            await theirs.pause_queue("shared")
            await paused.wait()
            await services(ours).orders.run_once()
            assert resumed.events == []
        assert ours.check_queue("shared").paused


class TestWeOrderQueuesOfObanPy:
    async def test_we_pause_and_resume_their_queue(self, ours: Oban, theirs: oban_py.Oban) -> None:
        await ours.pause_queue("shared")
        await until(lambda: theirs.check_queue("shared").paused)
        await ours.resume_queue("shared")
        await until(lambda: not theirs.check_queue("shared").paused)

    async def test_we_order_all_their_queues(self, ours: Oban, theirs: oban_py.Oban) -> None:
        await ours.pause_all_queues()
        await until(lambda: theirs.check_queue("shared").paused)
        await ours.resume_all_queues()
        await until(lambda: not theirs.check_queue("shared").paused)

    async def test_we_order_the_queue_of_one_node(self, ours: Oban, theirs: oban_py.Oban) -> None:
        await ours.pause_queue("shared", node=THEIRS)
        await until(lambda: theirs.check_queue("shared").paused)
        assert not ours.check_queue("shared").paused

    async def test_we_scale_their_queue(self, ours: Oban, theirs: oban_py.Oban) -> None:
        await ours.scale_queue(queue="shared", limit=17)
        await until(lambda: theirs.check_queue("shared").limit == 17)

    async def test_we_start_and_stop_their_queue(self, ours: Oban, theirs: oban_py.Oban) -> None:
        await ours.start_queue(queue="extra", limit=2, paused=True)
        await until(lambda: theirs.check_queue("extra") is not None)
        started = theirs.check_queue("extra")
        assert (started.limit, started.paused) == (2, True)
        await ours.stop_queue("extra")
        await until(lambda: theirs.check_queue("extra") is None)

    async def test_a_client_without_queues_orders_their_queue(
        self, start: StartOban, theirs: oban_py.Oban
    ) -> None:
        await (await start(node="client")).pause_queue("shared")
        await until(lambda: theirs.check_queue("shared").paused)


class TestCancelling:
    async def test_oban_py_cancels_a_job_that_runs_here(
        self, ours: Oban, client: oban_py.Oban, table: Table
    ) -> None:
        job = await ours.enqueue(Ours.new({"do": "wait for cancel"}))
        await Script.next_begun()
        await client.cancel_job(job.id)
        await table.until({"cancelled": 1})
        assert "heard: ours" in (await table.job(job.id))["errors"][0]["error"]

    async def test_we_cancel_a_job_that_runs_on_oban_py(
        self, theirs: oban_py.Oban, start: StartOban, table: Table
    ) -> None:
        ours = await start(node="client")
        job = await ours.enqueue(Ours.new({"do": "wait for cancel"}))
        await Script.next_begun()
        assert await ours.cancel_jobs(job) == 1
        await table.until({"cancelled": 1})
        assert "heard: theirs" in (await table.job(job.id))["errors"][0]["error"]

    async def test_each_side_cancels_a_waiting_job_of_the_other(
        self, start: StartOban, client: oban_py.Oban, table: Table
    ) -> None:
        ours = await start(node="client")
        first = await ours.enqueue(Ours.new(schedule_in=60))
        second = await client.enqueue(Theirs.new(scheduled_in=60))
        await client.cancel_job(first.id)
        assert await ours.cancel_jobs(second.id) == 1
        one, other = await table.job(first.id), await table.job(second.id)
        assert one["state"] == other["state"] == "cancelled"
        assert one["cancelled_at"] is not None
        assert other["cancelled_at"] is not None
        assert one["meta"].keys() == other["meta"].keys() == {"cancel_attempted_at"}

    async def test_a_job_that_oban_py_cancelled_and_retried_is_not_cancelled_again(
        self, ours: Oban, client: oban_py.Oban, table: Table
    ) -> None:
        """oban-py leaves the mark when it retries the job. The mark must not cancel the next
        attempt.
        """
        job = await client.enqueue(Theirs.new({"do": "fail", "times": 1}, scheduled_in=60))
        await client.cancel_job(job)
        await client.retry_job(job)
        services(ours).producers["shared"].wake()  # oban-py sends no notification of this
        await table.until({"retryable": 1})
        await table.an_hour_later()
        services(ours).stager.wake()
        await table.until({"completed": 1})
        assert len(Script.ran) == 2


class TestRetrying:
    async def test_each_side_retries_jobs_that_the_other_finished(
        self, ours: Oban, client: oban_py.Oban, table: Table
    ) -> None:
        job = await ours.enqueue(Ours.new({"do": "cancel"}))
        await table.until({"cancelled": 1})
        await client.retry_job(job.id)
        services(ours).producers["shared"].wake()
        await until(lambda: len(Script.ran) == 2)
        await table.until({"cancelled": 1})
        assert await ours.retry_jobs(job.id) == 1
        await until(lambda: len(Script.ran) == 3)
        await table.until({"cancelled": 1})
        assert [entry["attempt"] for entry in (await table.job(job.id))["errors"]] == [1, 2, 3]

    async def test_a_retry_by_either_side_leaves_an_attempt(
        self, start: StartOban, client: oban_py.Oban, table: Table
    ) -> None:
        ours = await start(node="client")
        for retry in (ours.retry_jobs, client.retry_many_jobs):
            job = await ours.enqueue(Ours.new(max_attempts=3))
            await table.query(
                "UPDATE {oban_jobs} SET state = 'discarded', attempt = 3 WHERE id = %s", job.id
            )
            assert await retry([job.id]) == 1
            row = await table.job(job.id)
            assert (row["state"], row["attempt"], row["max_attempts"]) == ("available", 3, 4)


async def test_each_side_deletes_and_changes_jobs_of_the_other(
    start: StartOban, client: oban_py.Oban, table: Table
) -> None:
    ours = await start(node="client")
    mine, yours = await ours.enqueue(Ours.new()), await client.enqueue(Theirs.new())
    changes = {"priority": 7, "tags": ["changed"], "queue": "another"}
    await client.update_job(await client.get_job(mine.id), changes)
    await ours.update_jobs(yours.id, changes)
    for job in (mine, yours):
        row = await table.job(job.id)
        assert (row["priority"], row["tags"], row["queue"]) == (7, ["changed"], "another")
    await client.delete_job(mine.id)
    assert await ours.delete_jobs(yours.id) == 1
    assert await table.states() == {}
