"""`process_job` returns the result of a worker, without a database."""

from datetime import UTC, datetime
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from oban_sqla import Cancel, Job, Record, Snooze, UnknownWorkerError, Worker, current_job
from oban_sqla.testing import frozen_time, process_job
from tests.testing.workers import Outcome, Plain, PlainRename, Rename, report

results: list[Any] = []


class Return(Worker):
    """A worker that returns a value of the test."""

    def process(self, job: Job) -> Any:
        return results.pop()


class Look(Worker, queue="looks"):
    async def process(self, job: Job) -> Job:
        assert current_job() is job
        return job


async def test_returns_the_result_of_an_async_worker() -> None:
    assert await process_job(Outcome.new()) == Record({"attempt": 1})
    assert await process_job(Outcome.new({"end": "cancel"})) == Cancel("not wanted")
    assert await process_job(Outcome.new({"end": "snooze"})) == Snooze(60)


async def test_returns_the_result_of_a_sync_worker_and_of_a_function() -> None:
    assert await process_job(Plain.new()) == Record("plain")
    assert await process_job(report.new("2026-11", detailed=True)) == "2026-11 True"


def test_returns_the_result_without_an_event_loop() -> None:
    assert process_job(Outcome.new()) == Record({"attempt": 1})
    assert process_job(report.new("2026-11")) == "2026-11 False"


async def test_raises_the_error_of_the_worker() -> None:
    with pytest.raises(ValueError, match="boom"):
        await process_job(Outcome.new({"end": "raise"}))


async def test_the_job_is_in_its_first_attempt() -> None:
    at = datetime(2031, 5, 1, tzinfo=UTC)
    with frozen_time(at):
        given = Look.new({"a": (1, 2)}, tags=["x"])
        seen = await process_job(given)
    assert seen is not given
    assert (seen.args, seen.queue, seen.tags) == ({"a": [1, 2]}, "looks", ["x"])
    assert (seen.state, seen.attempt, seen.attempted_at) == ("executing", 1, at)
    assert (given.state, given.attempt) == ("available", 0)
    assert (await process_job(Look.new(schedule_in=5))).attempted_at > at.replace(year=2000)


async def test_the_job_may_be_in_another_attempt() -> None:
    given = Look.new()
    given.attempt = 7
    assert (await process_job(given)).attempt == 7


async def test_a_session_is_passed_on() -> None:
    session = AsyncMock()
    await process_job(Rename.new({"id": 7, "name": "Bob"}), session=session)
    session.flush.assert_awaited_once()
    session.commit.assert_not_called()
    plain = Mock()
    await process_job(PlainRename.new({"id": 7, "name": "Bob"}), session=plain)
    assert plain.get_one.return_value.name == "Bob"


async def test_a_session_too_many_or_too_few_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"Rename takes a session: process_job\(job, session=\.\.\."
    ):
        await process_job(Rename.new())
    with pytest.raises(TypeError, match="Outcome takes no session"):
        await process_job(Outcome.new(), session=Mock())


async def test_arguments_that_json_would_change_are_refused() -> None:
    given = Outcome.new({"list": []})
    given.args["list"].append({1})
    with pytest.raises(TypeError, match=r"args\['list'\]\[0\] is a set, not JSON"):
        await process_job(given)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Snooze, r"returned the class Snooze instead of an instance: return Snooze\(\.\.\.\)"),
        (
            ValueError("no"),
            r"returned ValueError\('no'\), which would complete the job: raise it instead",
        ),
    ],
    ids=["class", "exception"],
)
async def test_invalid_results_are_refused(result: Any, message: str) -> None:
    results.append(result)
    with pytest.raises(TypeError, match=message):
        await process_job(Return.new())


async def test_an_object_that_is_not_a_job_is_refused() -> None:
    with pytest.raises(UnknownWorkerError, match="nobody"):
        process_job(Job("nobody"))
    with pytest.raises(TypeError, match="process_job takes a job"):
        process_job(Outcome)  # type: ignore[arg-type]
