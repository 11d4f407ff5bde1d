"""Update: only the given fields change, and the state changes with the time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban_sqla import Job, JobState
from oban_sqla.statements.update import FIELDS, update, update_parameters
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Find, Run

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
S = JobState

NEW: dict[str, Any] = {
    "args": {"to": "ü'; DROP TABLE oban_jobs; --", "none": None, "deep": [{"a": 1.5}]},
    "max_attempts": 7,
    "meta": {"by": "hand"},
    "priority": 9,
    "queue": 'it\'s "quoted", {other}',
    "scheduled_at": NOW + SECOND / 8,
    "tags": ["a,b", '"', "ü"],
    "worker": "app.Other",
}


async def updated(run: Run, *changes: tuple[list[int], dict[str, Any]]) -> list[Any]:
    statement = update(frozenset(changes[0][1]), now=NOW)
    return sorted(await run(statement, **update_parameters(changes)))


async def test_every_field_is_updated(add: Add, run: Run, find: Find) -> None:
    assert NEW.keys() == FIELDS.keys()
    (id,) = await add(JobFactory(meta={"mine": 1}))
    row = (id, NEW["queue"], S.SCHEDULED, NEW["scheduled_at"])
    assert await updated(run, ([id], NEW)) == [row]
    job = await find(id)
    assert {field: getattr(job, field) for field in FIELDS} == NEW


@pytest.mark.parametrize("field", FIELDS)
async def test_an_update_of_one_field_keeps_the_others(
    add: Add, run: Run, find: Find, field: str
) -> None:
    (id,) = await add(JobFactory(state=S.SUSPENDED, meta={"mine": 1}, tags=["old"]))
    before = await find(id)
    await updated(run, ([id], {field: NEW[field]}))
    job = await find(id)
    assert getattr(job, field) == NEW[field]
    columns = {*Job.__mapper__.column_attrs.keys()} - {field}
    assert [getattr(job, name) for name in columns] == [getattr(before, name) for name in columns]


async def test_each_job_gets_its_own_changes(add: Add, run: Run, find: Find) -> None:
    ids = await add(*(JobFactory(priority=5) for _ in range(4)))
    changes = (([ids[0], ids[2]], {"priority": 1}), ([ids[3]], {"priority": 2}))
    assert [row.id for row in await updated(run, *changes)] == [ids[0], ids[2], ids[3]]
    assert [(await find(id)).priority for id in ids] == [1, 5, 1, 2]


@pytest.mark.parametrize("moved", [-SECOND, timedelta(0), SECOND])
async def test_a_new_time_changes_the_state_of_a_waiting_job(
    add: Add, run: Run, find: Find, moved: timedelta
) -> None:
    ids = await add(*(JobFactory(state=state) for state in JobState))
    await updated(run, (ids, {"scheduled_at": NOW + moved}))
    waits = S.SCHEDULED if moved > timedelta(0) else S.AVAILABLE
    for id, state in zip(ids, JobState, strict=True):
        job = await find(id)
        assert job.scheduled_at == NOW + moved
        assert job.state is (waits if state in (S.SCHEDULED, S.AVAILABLE) else state)


async def test_a_new_meta_keeps_the_mark_of_a_running_job(add: Add, run: Run, find: Find) -> None:
    mark = {"cancel_attempted_at": "2026-11-23T11:00:00"}
    ids = await add(*(JobFactory(state=state, meta={"old": 1, **mark}) for state in JobState))
    await updated(run, (ids, {"meta": {"new": 1}}))
    for id, state in zip(ids, JobState, strict=True):
        kept = mark if state is S.EXECUTING else {}
        assert (await find(id)).meta == {"new": 1, **kept}, state
