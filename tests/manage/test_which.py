"""The argument `which`: one job, several, or a SELECT; and invalid arguments."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, func, select, union
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import aliased, joinedload

from oban_sqla import Job, JobState, Oban
from oban_sqla.models import ProducerRow
from tests.conftest import Add
from tests.databases import User
from tests.factories import JobFactory
from tests.manage.conftest import States

Sessions = async_sessionmaker[AsyncSession]

S = JobState
VERBS = ("cancel_jobs", "retry_jobs", "delete_jobs")


async def manage(oban: Oban, verb: str, which: Any, **options: Any) -> Any:
    if verb == "update_jobs":
        return await oban.update_jobs(which, {"priority": 1}, **options)
    return await getattr(oban, verb)(which, **options)


class TestGiven:
    async def test_a_job_or_an_id_is_accepted(self, oban: Oban, add: Add, states: States) -> None:
        jobs = [JobFactory(), JobFactory(), JobFactory()]
        ids = await add(*jobs)
        assert await oban.cancel_jobs(jobs[0]) == 1
        assert await oban.cancel_jobs(ids[2]) == 1
        assert await states() == [S.CANCELLED, S.AVAILABLE, S.CANCELLED]

    @pytest.mark.parametrize("kind", [list, tuple, iter, set, lambda given: (x for x in given)])
    async def test_any_iterable_of_jobs_and_ids_is_accepted(
        self, oban: Oban, add: Add, states: States, kind: Callable[[Any], Any]
    ) -> None:
        jobs = [JobFactory(), JobFactory(), JobFactory()]
        ids = await add(*jobs)
        assert await oban.cancel_jobs(kind([jobs[0], ids[2]])) == 2
        assert await states() == [S.CANCELLED, S.AVAILABLE, S.CANCELLED]

    async def test_repeated_and_missing_ids_count_once_or_not_at_all(
        self, oban: Oban, add: Add, states: States
    ) -> None:
        job = JobFactory()
        (id,) = await add(job)
        assert await oban.cancel_jobs([id, job, id, 2**63 - 1]) == 1
        assert await states() == [S.CANCELLED]

    async def test_an_empty_iterable_changes_nothing(
        self, oban: Oban, add: Add, states: States
    ) -> None:
        await add(JobFactory())
        for verb in VERBS:
            assert await manage(oban, verb, []) == 0
        assert await oban.update_jobs([], {"priority": 1}) == []
        assert await states() == [S.AVAILABLE]

    async def test_an_expired_job_is_not_loaded_for_its_id(
        self, oban: Oban, add: Add, engine: AsyncEngine, states: States
    ) -> None:
        async with AsyncSession(engine) as session:
            session.add(job := JobFactory())
            await session.commit()  # which expires the instance
            assert await oban.cancel_jobs(job) == 1
        assert await states() == [S.CANCELLED]

    async def test_3000_jobs_are_accepted(
        self, oban: Oban, sessions: Sessions, states: States
    ) -> None:
        jobs = await oban.enqueue_many(Job("app.Worker") for _ in range(3000))
        assert await oban.cancel_jobs(jobs) == 3000
        assert set(await states()) == {S.CANCELLED}


NAMED = Job.args["n"].astext == User.name
Other = aliased(Job)

SELECTS: list[Any] = [
    (select(Job).where(Job.args["n"].as_integer() > 2), [3, 4]),
    (select(Job).join(User, NAMED).where(User.name.in_(["1", "3"])), [1, 3]),
    (select(Job).select_from(User).outerjoin(Job, NAMED).where(User.id > 0), range(5)),
    (select(Job).join(User, User.name < Job.args["n"].astext), [1, 2, 3, 4]),
    (select(Job).order_by(Job.priority.desc()).limit(2), [3, 4]),
    (select(Job).order_by(Job.priority).offset(1).limit(2), [1, 2]),
    (select(Job).join(User, NAMED).distinct(), range(5)),
    (select(Job).group_by(Job.id).having(func.count() > 1), []),
    (select(Other).where(Other.priority == 2), [2]),
    (select(Job).join(Other, Other.priority == Job.priority + 1), [0, 1, 2, 3]),
    (select(Job).where(Job.id.in_(select(User.id).where(User.name == "4"))), [4]),
    (select(Job).where(Job.priority > 3).with_for_update(skip_locked=True), [4]),
    (select(Job).options(joinedload("*")).where(Job.priority == 1), [1]),
]


class TestSelected:
    """Jobs with the arguments {"n": 0} to {"n": 4}, and users named "0" to "4"."""

    @pytest.fixture(autouse=True)
    async def ids(self, sessions: Sessions, add: Add) -> list[int]:
        async with sessions.begin() as session:
            session.add_all(User(name=str(n)) for n in range(5))
        return await add(*(JobFactory(args={"n": n}, priority=n) for n in range(5)))

    # All verbs select jobs alike, so each statement is sent by one of them, and one by each.
    @pytest.mark.parametrize(
        ("verb", "statement", "found"),
        [
            *(("cancel_jobs", *given) for given in SELECTS),
            *((verb, *SELECTS[1]) for verb in ("retry_jobs", "delete_jobs", "update_jobs")),
        ],
        ids=lambda value: "" if isinstance(value, list | range) else str(value)[-60:].strip(),
    )
    async def test_only_jobs_that_the_select_finds_are_changed(
        self, oban: Oban, ids: list[int], sessions: Sessions, verb: str, statement: Any, found: Any
    ) -> None:
        await oban.update_jobs(ids, {"tags": ["old"]})
        if verb == "retry_jobs":
            await oban.cancel_jobs(ids)
        result = await manage(oban, verb, statement)
        assert (len(result) if verb == "update_jobs" else result) == len(found)
        left = {
            "cancel_jobs": Job.state == S.AVAILABLE,
            "retry_jobs": Job.state == S.CANCELLED,
            "delete_jobs": Job.id > 0,
            "update_jobs": Job.priority != 1,
        }[verb]
        async with sessions() as session:
            untouched = list(await session.scalars(select(Job.id).where(left)))
        others = [id for n, id in enumerate(ids) if n not in found]
        if verb == "update_jobs":
            others = [id for id in others if id != ids[1]]  # a job with this priority
        assert sorted(untouched) == others

    async def test_updated_jobs_are_returned_in_the_order_of_the_select(
        self, oban: Oban, ids: list[int]
    ) -> None:
        jobs = await oban.update_jobs(select(Job).order_by(Job.priority.desc()), {"queue": "x"})
        assert [job.id for job in jobs] == ids[::-1]
        jobs = await oban.update_jobs([ids[2], ids[0], ids[2]], {"queue": "y"})
        assert [job.id for job in jobs] == [ids[2], ids[0]]


class TestWrong:
    @pytest.mark.parametrize(
        "which",
        ["17", b"17", None, True, 1.0, {1: 2}, Job, [1, "2"], [[1]], [None], ..., JobFactory],
        ids=repr,
    )
    async def test_an_object_that_is_not_a_job_is_refused(self, oban: Oban, which: Any) -> None:
        for verb in (*VERBS, "update_jobs"):
            with pytest.raises(
                TypeError, match=r"which must be a Job, an id, an iterable of jobs or ids"
            ):
                await manage(oban, verb, which)

    @pytest.mark.parametrize("id", [0, -1, 2**63, 10**30])
    async def test_an_invalid_id_is_refused(self, oban: Oban, id: int) -> None:
        with pytest.raises(ValueError, match=r"no job has the id"):
            await oban.cancel_jobs([1, id])

    @pytest.mark.parametrize("verb", [*VERBS, "update_jobs"])
    async def test_a_job_that_was_not_enqueued_is_refused(self, oban: Oban, verb: str) -> None:
        with pytest.raises(ValueError, match=r"<Job worker=tests.Nobody .* has no id: it was not"):
            await manage(oban, verb, JobFactory())

    @pytest.mark.parametrize(
        "statement",
        [
            select(Job.id),
            select(User),
            select(Job, User),
            select(Job, Job.id),
            select(func.count()),
            select(ProducerRow),
            select(aliased(User)),
            Job.__table__.select(),
        ],
        ids=lambda statement: str(statement).replace("\n", " ")[:40],
    )
    async def test_a_select_of_another_entity_is_refused(self, oban: Oban, statement: Any) -> None:
        with pytest.raises(TypeError, match=r"the SELECT must be of Job only, select\(Job\)"):
            await oban.delete_jobs(statement)

    @pytest.mark.parametrize(
        "statement",
        [delete(Job), union(select(Job), select(Job)), select(Job).from_statement(select(Job))],
        ids=["delete", "union", "from_statement"],
    )
    async def test_another_kind_of_statement_is_refused(self, oban: Oban, statement: Any) -> None:
        with pytest.raises(TypeError, match=r"which must be a Job"):
            await oban.delete_jobs(statement)
