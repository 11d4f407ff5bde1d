"""Update: which fields may be changed, and in which jobs."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, JobState, Oban, Worker, job, worker
from tests.conftest import Add, StartOban
from tests.enqueue.conftest import Listener
from tests.factories import JobFactory
from tests.listening import hear
from tests.manage.conftest import Find
from tests.runtime.workers import Quick

S = JobState
FIELDS = "args, max_attempts, meta, priority, queue, scheduled_at, tags, worker, schedule_in"


@worker(name="decorated")
class Decorated:
    async def process(self, job: Job) -> None: ...


@job(name="of_a_function")
def function() -> None: ...


class TestChanges:
    async def test_changed_values_are_stored_as_in_a_new_job(self, oban: Oban, add: Add) -> None:
        (id,) = await add(JobFactory(meta={"old": 1}))
        changes = {
            "args": MappingProxyType({"to": ("a", "b")}),
            "meta": {"by": None},
            "tags": {" B", "a", "b"},
            "priority": 9,
            "max_attempts": 32767,
            "queue": "other",
            "worker": "app.Other",
        }
        updated = await oban.update_job(id, changes)
        stored = await oban.get_job(id)
        for found in (updated, stored):
            assert found is not None
            assert found.args == {"to": ["a", "b"]}
            assert (found.meta, found.tags) == ({"by": None}, ["a", "b"])
            assert (found.priority, found.max_attempts, found.queue) == (9, 32767, "other")
            assert (found.worker, found.state) == ("app.Other", S.AVAILABLE)

    @pytest.mark.parametrize(
        ("given", "name"),
        [
            (Quick, "tests.runtime.workers.Quick"),
            (Decorated, "decorated"),
            pytest.param(function, "of_a_function", id="function"),
            ("MyApp.Workers.Email", "MyApp.Workers.Email"),
        ],
        ids=repr,
    )
    async def test_a_worker_is_given_as_a_name_or_a_class(
        self, oban: Oban, add: Add, given: Any, name: str
    ) -> None:
        (id,) = await add(JobFactory())
        assert (await oban.update_job(id, {"worker": given})).worker == name

    async def test_changes_may_depend_on_the_job(
        self, oban: Oban, add: Add, find: Find, engine: AsyncEngine
    ) -> None:
        ids = await add(*(JobFactory(args={"n": n}) for n in range(60)))

        def change(job: Job) -> Mapping[str, Any]:
            n = job.args["n"]
            return [{"priority": n % 10}, {"tags": [f"t{n}"]}, {}][n % 3]

        sent: list[str] = []
        event.listen(
            engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2])
        )
        assert [job.id for job in await oban.update_jobs(ids, change)] == ids
        # One statement locks and loads, one per kind of change updates, one loads again, one
        # announces.
        assert len(sent) == 5
        for n, found in enumerate(await find()):
            assert found.priority == (n % 10 if n % 3 == 0 else 0)
            assert found.tags == ([f"t{n}"] if n % 3 == 1 else [])

    async def test_an_update_without_changes_is_allowed(self, oban: Oban, add: Add) -> None:
        (id,) = await add(JobFactory())
        assert (await oban.update_job(id, {})).id == id
        assert (await oban.update_job(id, lambda job: {})).id == id

    async def test_a_running_job_is_updated(self, oban: Oban, add: Add) -> None:
        (id,) = await add(JobFactory(executing=True))
        await oban.cancel_job(id)
        updated = await oban.update_job(id, {"meta": {"new": 1}, "priority": 2})
        assert (updated.state, updated.priority) == (S.EXECUTING, 2)
        # The mark of the cancellation stays.
        assert updated.meta.keys() == {"new", "cancel_attempted_at"}


class TestTime:
    async def test_a_new_time_moves_the_job_into_the_future_and_back(
        self, oban: Oban, add: Add, listener: Listener
    ) -> None:
        (id,) = await add(JobFactory(queue="mails"))
        await listener.heard()
        updated = await oban.update_job(id, {"schedule_in": timedelta(hours=1)})
        in_an_hour = datetime.now(UTC) + timedelta(hours=1)
        assert updated.state is S.SCHEDULED
        assert abs(updated.scheduled_at - in_an_hour) < timedelta(seconds=60)
        at = updated.scheduled_at.isoformat()
        assert await listener.heard() == [("oban_schedule", {"at": at})]
        updated = await oban.update_job(id, {"scheduled_at": datetime(2020, 1, 1)})
        assert updated.state is S.AVAILABLE
        assert updated.scheduled_at == datetime(2020, 1, 1, tzinfo=UTC)
        assert await listener.heard() == [("oban_insert", {"queue": "mails"})]

    async def test_the_stager_and_the_queues_of_this_process_are_woken(
        self, start: StartOban, oban: Oban, add: Add
    ) -> None:
        scheduled, put_off = await add(
            Quick.new(schedule_in=3600, tags=["now"]), Quick.new(schedule_in=3600)
        )
        never = {"notify": "poll", "poll_interval": 3600.0}
        running = await start(queues={"default": 5}, **never)
        with hear(running, "ack_stop") as acks, hear(running, "stage_stop") as stages:
            await stages.wait()
            await oban.update_job(scheduled, {"schedule_in": 0})
            await acks.counted(1)
            await oban.update_job(put_off, {"schedule_in": 0.05})
            await acks.counted(2)

    async def test_the_new_queue_of_a_job_is_notified(
        self, oban: Oban, add: Add, listener: Listener
    ) -> None:
        await add(JobFactory(), JobFactory(completed=True), JobFactory(executing=True))
        await listener.heard()
        await oban.update_jobs(select(Job), {"queue": "other"})
        assert await listener.heard() == [("oban_insert", {"queue": "other"})]


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"state": "available"}, TypeError, f"no field 'state' .* there are {FIELDS}"),
            ({"attempt": 1}, TypeError, "no field 'attempt' that can be changed"),
            ({1: 2}, TypeError, "no field 1 that can be changed"),
            ({"args": [1]}, TypeError, "args must be a mapping"),
            ({"args": {"x": float("nan")}}, ValueError, r"args\['x'\] is nan"),
            ({"meta": {"x": "\x00"}}, ValueError, r"meta\['x'\] has a NUL"),
            ({"meta": None}, TypeError, "meta must be a mapping"),
            ({"queue": " "}, ValueError, "queue must not be blank"),
            ({"worker": ""}, ValueError, "worker must not be blank"),
            ({"worker": dict}, TypeError, "worker must be a string, not <class 'dict'>"),
            ({"worker": Worker}, ValueError, "worker must not be blank"),
            ({"tags": "one"}, TypeError, "tags must be a list of strings"),
            ({"priority": 10}, ValueError, "priority must be from 0 to 9, got 10"),
            ({"priority": None}, TypeError, "priority must be an integer"),
            ({"max_attempts": 0}, ValueError, "max_attempts must be from 1 to 32767, got 0"),
            ({"scheduled_at": None}, TypeError, "scheduled_at must be a datetime"),
            ({"scheduled_at": "now"}, TypeError, "scheduled_at must be a datetime"),
            ({"schedule_in": None}, TypeError, "schedule_in must be a timedelta or seconds"),
            ({"schedule_in": -1}, ValueError, "schedule_in must not be negative"),
            (
                {"schedule_in": 1, "scheduled_at": datetime(2026, 11, 1, tzinfo=UTC)},
                ValueError,
                "schedule_in and scheduled_at exclude each other",
            ),
            ("priority", TypeError, "changes must be a mapping of fields, not 'priority'"),
            ([("priority", 1)], TypeError, "changes must be a mapping of fields"),
            (None, TypeError, "changes must be a mapping of fields, not None"),
        ],
        ids=str,
    )
    async def test_invalid_changes_are_refused_before_a_statement(
        self, engine: AsyncEngine, add: Add, changes: Any, error: type[Exception], message: str
    ) -> None:
        (id,) = await add(JobFactory())
        unreachable = Oban("postgresql://nobody@127.0.0.1:1/nothing")
        with pytest.raises(error, match=message):
            await unreachable.update_jobs(id, changes)
        # The result of a function for a job can only be checked after the job is loaded.
        with pytest.raises(error, match=message):
            await Oban(engine).update_jobs(id, lambda job: changes)

    async def test_max_attempts_below_the_spent_attempts_is_refused(
        self, oban: Oban, add: Add, find: Find
    ) -> None:
        _, second = await add(JobFactory(attempt=2), JobFactory(attempt=3))
        message = f"max_attempts 2 is less than the 3 attempts that job {second} has had"
        for changes in ({"max_attempts": 2}, lambda job: {"max_attempts": 2}):
            with pytest.raises(ValueError, match=message):
                await oban.update_jobs(select(Job).order_by(Job.id), changes)
        assert [job.max_attempts for job in await find()] == [20, 20]
        await oban.update_jobs(select(Job), {"max_attempts": 3})
        assert [job.max_attempts for job in await find()] == [3, 3]
