"""Mapped instances as arguments, and workers that are models, in a user's tests."""

import json
from collections.abc import Iterator
from unittest.mock import ANY

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban_sqla import Job, Record, Worker, job
from oban_sqla.models.notation import Reference
from oban_sqla.on_change import enqueue_changes
from oban_sqla.testing import all_enqueued, assert_enqueued, drain_queue, inline, process_job
from tests.models_as_arguments import Base, Order
from tests.worker_models import Base as RowBase
from tests.worker_models import Invoice

LOOKALIKE = {"$model": "tests.models_as_arguments.Order", "$key": {"id": 1}}


class Total(Worker, name="testing.total"):
    async def process(self, job: Job) -> Record:
        return Record([order.total for order in job.args["orders"]])


class Echo(Worker, name="testing.echo"):
    async def process(self, job: Job) -> Record:
        return Record(json.loads(json.dumps(job.args, default=lambda row: type(row).__name__)))


class React(Worker, name="testing.react", on=Order, on_insert=True):
    async def process(self, job: Job) -> Record:
        return Record(job.args["row"].total)


# For one test, since other tests count the jobs of their orders.
reaction = enqueue_changes._reactions.pop("testing.react")


@job(name="testing.double")
async def double(order: Order) -> Record:
    return Record(order.total * 2)


@pytest.fixture
def tables(sync_session: Session) -> Iterator[Session]:
    for base in (Base, RowBase):
        base.metadata.create_all(sync_session.connection())
    return sync_session


class TestWithoutADatabase:
    async def test_the_worker_gets_the_same_instance(self) -> None:
        order = Order(total=21)
        assert await process_job(double.new(order)) == Record(42)
        assert await process_job(Total.new({"orders": [order, order]})) == Record([21, 21])

    async def test_a_row_processes_its_job(self) -> None:
        invoice = Invoice(total=1)
        await process_job(invoice.new({"add": 2}), session=object())
        assert invoice.total == 3

    async def test_a_stored_reference_can_not_be_loaded(self) -> None:
        stored = {"order": Reference(LOOKALIKE)}
        with pytest.raises(TypeError, match=r"refers to .*Order id=1, but process_job has no"):
            await process_job(Job(double.new(Order()).worker, stored))

    async def test_json_that_looks_like_a_reference_is_no_instance(self) -> None:
        args = {"payload": [LOOKALIKE]}
        assert await process_job(Echo.new(args)) == Record(args)


class TestInASession:
    def test_json_that_looks_like_a_reference_stays_json(self, tables: Session) -> None:
        tables.add_all([order := Order(id=1), of_row := Echo.new({"it": order, "in": [order]})])
        tables.add(of_json := Echo.new({"it": LOOKALIKE, "in": [LOOKALIKE]}))
        tables.flush()
        tables.expire_all()
        for args in ({"it": order}, {"in": [order]}):
            assert all_enqueued(tables, args=args) == [of_row]
        for given in ({"it": LOOKALIKE}, {"in": [LOOKALIKE]}, {"it": {"$key": ANY}}):
            assert all_enqueued(tables, args=given) == [of_json]
        with pytest.raises(AssertionError, match=r"args\['it'\] is a reference to .*Order id=1"):
            assert_enqueued(tables, args={"it": LOOKALIKE, "in": [order]})
        assert drain_queue(tables)["completed"] == 2
        assert of_json.recorded == {"it": LOOKALIKE, "in": [LOOKALIKE]}

    def test_rows_are_found_by_their_keys(self, tables: Session) -> None:
        tables.add_all([order := Order(), other := Order(), found := double.new(order)])
        assert assert_enqueued(tables, args={"order": order}) is found
        assert all_enqueued(tables, worker=double, args={"order": other}) == []

    def test_rows_are_found_in_lists(self, tables: Session) -> None:
        tables.add_all([one := Order(), two := Order(), found := Total.new({"orders": [one, two]})])
        for orders in ([one, two], (one, two), [one, ANY]):
            assert assert_enqueued(tables, worker=Total, args={"orders": orders}) is found
        for orders in ([two, one], [one], [Order(), two]):
            assert all_enqueued(tables, worker=Total, args={"orders": orders}) == []
        tables.add(nested := Job(double.new(one).worker, {"of": [{"order": two}]}))
        assert assert_enqueued(tables, args={"of": [{"order": two}]}) is nested

    def test_rows_are_loaded_while_draining(self, tables: Session) -> None:
        tables.add_all([Order(total=1), order := Order(total=2)])
        tables.add_all([job := Total.new({"orders": [order]}), invoice := Invoice()])
        tables.add(own := invoice.new({"add": 5}))
        assert drain_queue(tables)["completed"] >= 2
        assert job.recorded == [2]
        assert own.recorded == 5
        assert invoice.total == 5

    def test_jobs_with_rows_run_inline(self, tables: Session) -> None:
        with inline():
            tables.add_all([order := Order(total=4), job := double.new(order)])
            tables.flush()
        assert job.recorded == 8

    def test_jobs_of_changed_rows_run_inline(self, tables: Session) -> None:
        enqueue_changes._reactions["testing.react"] = reaction
        with inline():
            tables.add(Order(total=4))
            tables.flush()
        reacted = tables.query(Job).filter(Job.for_worker(React)).one()
        assert reacted.recorded == 4


async def test_jobs_with_rows_run_inline_in_an_async_session(session: AsyncSession) -> None:
    await session.run_sync(lambda s: Base.metadata.create_all(s.connection()))
    with inline():
        session.add_all([order := Order(total=4), job := double.new(order)])
        await session.flush()
    assert job.recorded == 8


async def test_rows_are_loaded_while_an_async_session_is_drained(session: AsyncSession) -> None:
    await session.run_sync(lambda s: Base.metadata.create_all(s.connection()))
    session.add_all([order := Order(total=3), job := Total.new({"orders": [order]})])
    assert await assert_enqueued(session, args={"orders": [order]}) is job
    await drain_queue(session)
    assert job.recorded == [3]
