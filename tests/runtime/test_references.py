"""Jobs whose arguments refer to rows: the worker gets the instances."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, func, insert, inspect, select, text
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, object_session

from oban_sqla import Job, JobState, Oban, RowMissingError, Unique, UnknownModelError, Worker, job
from tests import models_with_keys as keys
from tests.conftest import Add, StartOban
from tests.databases import async_engine
from tests.listening import hear
from tests.models_as_arguments import Base, Dog, Line, Order, Parcel

Sessions = async_sessionmaker[AsyncSession]

seen: list[Any] = []


@pytest.fixture(autouse=True)
async def tables(sessions: Sessions) -> AsyncIterator[None]:
    """The tables of a user."""
    seen.clear()
    async with sessions.begin() as session:
        await session.run_sync(lambda s: Base.metadata.create_all(s.connection()))
    yield
    async with sessions.begin() as session:
        await session.run_sync(lambda s: Base.metadata.drop_all(s.connection()))


class Look(Worker, name="references.look"):
    async def process(self, job: Job) -> None:
        seen.append(job.args)


class LookInThread(Worker, name="references.thread"):
    def process(self, job: Job) -> None:
        seen.append(job.args)


class Raise(Look, name="references.raise", missing="raise", max_attempts=1): ...


class Leave(Look, name="references.leave", missing="none"): ...


class Double(Worker, name="references.double"):
    async def process(self, job: Job, session: AsyncSession) -> None:
        order: Order = job.args["order"]
        assert object_session(order) is session.sync_session
        order.total *= 2


class PlainDouble(Worker, name="references.plain_double"):
    def process(self, job: Job, session: Session) -> None:
        order: Order = job.args["order"]
        assert object_session(order) is session
        order.total *= 2


@job(name="references.function")
async def look(order: Order, note: str = "") -> None:
    seen.append({"order": order, "note": note})


async def run(start: StartOban, *, then: str = "job_stop", jobs: int = 1) -> Any:
    """Run the jobs one by one, and return the event of the end of the last one."""
    with hear(Oban, then) as heard:
        oban = await start(queues={"default": 1})
        found = await heard.wait(jobs)
    await oban.stop()  # the stop writes the outcomes
    return found[-1]


async def store(sessions: Sessions, worker: type[Worker], args: dict[str, Any]) -> None:
    """Insert a job, like another program."""
    async with sessions.begin() as session:
        connection = await session.connection()
        prefix = connection.sync_connection.get_execution_options()["schema_translate_map"][None]
        names, values = "worker, max_attempts, args", ":worker, :max_attempts, :args"
        statement = f"INSERT INTO {prefix}.oban_jobs ({names}) VALUES ({values})"
        options = worker.__oban__
        given = {"worker": options.name, "max_attempts": options.max_attempts}
        given["args"] = json.dumps(args)
        await session.execute(text(statement), given)


async def add_with(sessions: Sessions, instances: list[Any], job: Job) -> Job:
    async with sessions.begin() as session:
        session.add_all([*instances, job])
    return job


@pytest.mark.parametrize("worker", [Look, LookInThread])
async def test_instances_arrive_loaded_and_detached(
    sessions: Sessions, start: StartOban, worker: type[Worker]
) -> None:
    order, dog = Order(total=5), Dog(name="rex")
    line = Line(order=order, day=func.current_date())
    parcel = Parcel()
    args = {"order": order, "nested": [{"line": line}, dog], "parcel": parcel, "n": 1}
    await add_with(sessions, [line, dog, parcel], worker.new(args))
    await run(start)
    (given,) = seen
    assert isinstance(given["order"], Order)
    assert given["order"].total == 5
    assert isinstance(given["nested"][0]["line"], Line)
    assert given["nested"][1].name == "rex"
    assert given["parcel"].id == parcel.id
    assert given["n"] == 1
    assert inspect(given["order"]).detached


async def test_one_statement_loads_all_instances_of_a_class(
    sessions: Sessions, start: StartOban, engine: AsyncEngine
) -> None:
    orders = [Order() for _ in range(5)]
    await add_with(sessions, orders, Look.new({"orders": orders, "first": orders[0]}))
    selects: list[str] = []

    def listener(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if re.match(r"SELECT .*arguments_order", statement, re.DOTALL):
            selects.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", listener)
    await run(start)
    assert len(selects) == 1
    (given,) = seen
    assert [one.id for one in given["orders"]] == [one.id for one in orders]
    assert given["first"] is given["orders"][0]


@pytest.mark.parametrize("worker", [Double, PlainDouble])
async def test_a_worker_with_a_session_gets_instances_of_it(
    sessions: Sessions, start: StartOban, worker: type[Worker]
) -> None:
    order = Order(total=21)
    await add_with(sessions, [order], worker.new({"order": order}))
    await run(start)
    async with sessions() as session:
        assert (await session.get_one(Order, order.id)).total == 42
        assert (await session.scalars(select(Job.state))).all() == [JobState.COMPLETED]


async def test_a_function_gets_instances_as_arguments(sessions: Sessions, start: StartOban) -> None:
    order = Order(total=1)
    await add_with(sessions, [order], look.new(order, note="hi"))
    await run(start)
    assert seen[0]["order"].id == order.id
    assert seen[0]["note"] == "hi"


class TestKeysOfCustomTypes:
    @pytest.fixture(autouse=True)
    async def tables_with_keys(self, sessions: Sessions) -> AsyncIterator[None]:
        async with sessions.begin() as session:
            await session.run_sync(lambda s: keys.Base.metadata.create_all(s.connection()))
        yield
        async with sessions.begin() as session:
            await session.run_sync(lambda s: keys.Base.metadata.drop_all(s.connection()))

    async def test_a_row_is_found(self, sessions: Sessions, start: StartOban) -> None:
        rows: list[Any] = [
            keys.OfGUID(),
            keys.OfVariant(id=uuid4()),
            keys.OfBinary(id=uuid4()),
            keys.OfNumber(id=keys.Number(7)),
            keys.OfNested(id=keys.Number(7)),
            keys.OfCode(id=keys.Number(7)),
            keys.OfColor(id=keys.Color.RED),
            keys.OfPadded(id="a"),
            keys.OfAddress(id=ip_address("10.0.0.1")),
            keys.OfPath(id=(1, 2)),
            keys.OfBoth(number=keys.Number(1), guid=uuid4(), code=uuid4()),
        ]
        for row in rows:
            await add_with(sessions, [row], Look.new({"row": row, "rows": [row]}))
        async with sessions() as session:
            for row in rows:
                found = await session.scalars(select(Job).where(Job.args_contain({"row": row})))
                assert len(found.all()) == 1
        await run(start, jobs=len(rows))
        async with sessions() as session:
            states = await session.scalars(select(Job.state))
            assert set(states) == {JobState.COMPLETED}
        assert [type(given["row"]) for given in seen] == [type(row) for row in rows]
        assert all(given["rows"] == [given["row"]] for given in seen)

    async def test_a_key_that_a_job_can_not_store_is_refused_when_it_is_enqueued(
        self, sessions: Sessions
    ) -> None:
        async with sessions() as session:
            session.add(row := keys.OfRange(id=Range(1, 5)))
            await session.flush()
            with pytest.raises(TypeError, match=r"key id of OfRange .* INT4RANGE\(\)"):
                Look.new({"row": row})
            session.add(row := keys.OfRange(id=Range(6, 7)))
            session.add(Look.new({"row": row}))
            with pytest.raises(TypeError, match="can't be stored in a job"):
                await session.flush()

    async def test_each_row_is_distinguished(self, sessions: Sessions, start: StartOban) -> None:
        rows = [keys.OfBoth(number=keys.Number(n), guid=uuid4(), code=uuid4()) for n in range(3)]
        await add_with(sessions, rows, Look.new({"rows": rows}))
        await run(start)
        (given,) = seen
        assert [one.guid for one in given["rows"]] == [row.guid for row in rows]

    async def test_a_missing_row_is_named(self, sessions: Sessions, start: StartOban) -> None:
        row = keys.OfNumber(id=keys.Number(7))
        await add_with(sessions, [row], Look.new({"row": row}))
        async with sessions.begin() as session:
            await session.delete(row)
        assert (await run(start)).state == JobState.CANCELLED
        async with sessions() as session:
            (job,) = await session.scalars(select(Job))
            assert job.errors[0]["error"] == "row not found: tests.models_with_keys.OfNumber id=7"

    async def test_a_model_worker_is_loaded(self, sessions: Sessions, start: StartOban) -> None:
        await add_with(sessions, [task := keys.Task()], task.new())
        await run(start)
        async with sessions() as session:
            assert (await session.get_one(keys.Task, task.id)).done == 1


class TestMissingRow:
    @pytest.fixture
    async def orphan(self, sessions: Sessions) -> dict[str, Any]:
        async with sessions.begin() as session:
            session.add(order := Order())
            await session.flush()
            args: dict[str, Any] = json.loads(json.dumps(Look.new({"order": order}).args))
            await session.delete(order)
        return args

    async def test_cancels_the_job(
        self, sessions: Sessions, start: StartOban, orphan: dict[str, Any]
    ) -> None:
        await store(sessions, Look, orphan)
        stop = await run(start)
        assert stop.state == JobState.CANCELLED
        assert not seen
        async with sessions() as session:
            (job,) = await session.scalars(select(Job))
            assert job.errors[0]["error"] == "row not found: tests.models_as_arguments.Order id=1"

    async def test_cancels_the_job_of_a_worker_with_a_session(
        self, sessions: Sessions, start: StartOban, orphan: dict[str, Any]
    ) -> None:
        await store(sessions, Double, orphan)
        assert (await run(start)).state == JobState.CANCELLED

    async def test_fails_the_job(
        self, sessions: Sessions, start: StartOban, orphan: dict[str, Any], expect_errors: None
    ) -> None:
        await store(sessions, Raise, orphan)
        exception = await run(start, then="job_exception")
        assert isinstance(exception.error, RowMissingError)
        assert exception.state == JobState.DISCARDED

    async def test_is_none_on_request(
        self, sessions: Sessions, start: StartOban, orphan: dict[str, Any]
    ) -> None:
        await store(sessions, Leave, orphan)
        assert (await run(start)).state == JobState.COMPLETED
        assert seen == [{"order": None}]

    def test_refuses_an_invalid_policy(self) -> None:
        with pytest.raises(ValueError, match="missing must be one of 'cancel', 'raise', 'none'"):

            class Wrong(Look, missing="ignore"): ...  # type: ignore[arg-type]


class TestInvalidReference:
    async def fails(
        self, start: StartOban, sessions: Sessions, args: dict[str, Any]
    ) -> BaseException:
        await store(sessions, Look, args)
        exception = await run(start, then="job_exception")
        assert not seen
        return exception.error  # type: ignore[no-any-return]

    @pytest.mark.parametrize(
        "name", ["antigravity.Order", "tests.models_as_arguments.Base", "os.path", "Order", 7]
    )
    async def test_an_unknown_class_fails_the_job(
        self, start: StartOban, sessions: Sessions, expect_errors: None, name: Any
    ) -> None:
        error = await self.fails(start, sessions, {"order": {"$model": name, "$key": {"id": 1}}})
        assert isinstance(error, UnknownModelError)
        assert "this process has imported no mapped class" in str(error)

    async def test_a_key_of_another_form_fails_the_job(
        self, start: StartOban, sessions: Sessions, expect_errors: None
    ) -> None:
        name = "tests.models_as_arguments.Order"
        error = await self.fails(start, sessions, {"order": {"$model": name, "$key": 1}})
        assert isinstance(error, ValueError)
        assert f"$key of a {name} must hold id; it is 1" in str(error)


async def test_a_reference_written_by_another_program_is_loaded(
    sessions: Sessions, start: StartOban
) -> None:
    async with sessions.begin() as session:
        session.add(Order(id=9, total=3))
    args = {"order": {"$model": "tests.models_as_arguments.Order", "$key": {"id": 9}}}
    await store(sessions, Look, args)
    await run(start)
    assert seen[0]["order"].total == 3


LOOKALIKE = {"$model": "tests.models_as_arguments.Order", "$key": {"id": 1}}


@dataclass
class Message:
    payload: Any


@job(name="references.payload")
async def look_at(payload: Any, message: Message, **others: Any) -> None:
    seen.append({"payload": payload, "message": message.payload, **others})


class LookInSession(Worker, name="references.look_in_session"):
    async def process(self, job: Job, session: AsyncSession) -> None:
        seen.append(job.args)


class Forward(Worker, name="references.forward"):
    async def process(self, job: Job) -> None:
        await Look.enqueue(job.args)


class TestJSONThatLooksLikeAReference:
    """JSON from users must not become a row, whatever keys it has."""

    @pytest.fixture(autouse=True)
    async def secret(self, sessions: Sessions) -> Order:
        async with sessions.begin() as session:
            session.add(order := Order(id=1, total=42))
        return order

    @pytest.mark.parametrize("worker", [Look, LookInThread, LookInSession])
    async def test_arrives_unchanged(
        self, start: StartOban, add: Add, worker: type[Worker]
    ) -> None:
        given: list[dict[str, Any]] = [
            {"payload": LOOKALIKE},
            {"of": [[{"payload": LOOKALIKE}]]},
            {"payload": {"$model": LOOKALIKE, "$key": LOOKALIKE}},
            {"payload": {"$$model": LOOKALIKE["$model"], "$$key": LOOKALIKE["$key"]}},
            {"payload": {"$model": None, "$key": LOOKALIKE}},
            LOOKALIKE,
            {"self": LOOKALIKE},
        ]
        await add(*map(worker.new, given))
        await run(start, jobs=len(given))
        assert seen == given

    async def test_arrives_unchanged_beside_an_instance(
        self, start: StartOban, add: Add, secret: Order
    ) -> None:
        await add(Look.new({"order": secret, "payload": [LOOKALIKE, secret]}))
        await run(start)
        (given,) = seen
        assert given["order"].total == 42
        assert given["payload"] == [LOOKALIKE, given["order"]]

    async def test_arrives_unchanged_in_a_function(self, start: StartOban, add: Add) -> None:
        await add(look_at.new(LOOKALIKE, Message([LOOKALIKE]), other=LOOKALIKE))
        await run(start)
        assert seen == [{"payload": LOOKALIKE, "message": [LOOKALIKE], "other": LOOKALIKE}]

    async def test_is_refused_for_a_parameter_of_a_model_type(self) -> None:
        with pytest.raises(TypeError, match=r"order must be .*Order, not"):
            look.new(LOOKALIKE)  # type: ignore[arg-type]

    async def test_stays_json_when_a_job_is_updated(
        self, start: StartOban, add: Add, secret: Order, engine: AsyncEngine
    ) -> None:
        (id,) = await add(Look.new({"order": secret, "payload": LOOKALIKE}))
        oban = Oban(engine)
        await oban.update_job(id, lambda job: {"args": {**job.args, "more": LOOKALIKE}})
        await run(start)
        (given,) = seen
        assert given["order"].total == 42
        assert given["payload"] == given["more"] == LOOKALIKE

    async def test_stays_json_when_a_duplicate_replaces_it(
        self, start: StartOban, add: Add, secret: Order
    ) -> None:
        unique = Unique(fields=["worker"], replace=["args"])
        await add(Look.new({"it": secret}, unique=unique))
        await add(duplicate := Look.new({"it": LOOKALIKE}, unique=unique))
        assert duplicate.conflict
        assert duplicate.args == {"it": LOOKALIKE}
        await run(start)
        assert seen == [{"it": LOOKALIKE}]

    async def test_stays_json_when_the_job_is_passed_on(
        self, sessions: Sessions, start: StartOban, add: Add
    ) -> None:
        """A worker enqueues a job with its own arguments."""
        await add(Forward.new({"payload": LOOKALIKE}))
        with hear(Oban, "job_stop") as heard:
            await start(queues={"default": 1})
            await heard.wait(2)
        assert seen == [{"payload": LOOKALIKE}]

    async def test_stays_json_in_the_result_of_a_wait(self, start: StartOban) -> None:
        oban = await start(queues={"default": 1})
        job = await oban.enqueue(Look.new({"payload": LOOKALIKE}))
        done = await oban.wait(job, timeout=30)
        assert done.args == {"payload": LOOKALIKE}

    async def test_stays_json_through_asyncpg(
        self, start: StartOban, add: Add, postgres_dsn: str, prefix: str, secret: Order
    ) -> None:
        await add(Look.new({"order": secret, "payload": LOOKALIKE}))
        engine = async_engine(postgres_dsn, prefix, "asyncpg")
        with hear(Oban, "job_stop") as heard:
            oban = await start(engine, queues={"default": 1})
            await heard.wait()
        await oban.stop()
        await engine.dispose()
        (given,) = seen
        assert given["order"].total == 42
        assert given["payload"] == LOOKALIKE

    async def test_stays_json_in_a_statement_of_sqlalchemy(
        self, sessions: Sessions, start: StartOban
    ) -> None:
        async with sessions.begin() as session:
            rows = [{"worker": Look.__oban__.name, "args": {"payload": LOOKALIKE}}]
            await session.execute(insert(Job), rows)
        await run(start)
        assert seen == [{"payload": LOOKALIKE}]
