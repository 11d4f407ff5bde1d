"""Mapped instances as arguments: the stored reference, also of pending instances."""

import json
from collections.abc import Iterator
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, insert, select
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from oban_sqla import Job, Worker
from tests.models_as_arguments import Base, Dog, Export, Line, Order, Parcel, Plain

Sessions = sessionmaker[Session]
MODELS = "tests.models_as_arguments"


class Send(Worker, name="tests.references.Send"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture
def session(session_factory: Sessions) -> Iterator[Session]:
    """A session in a transaction that contains the user's tables."""
    with session_factory() as session:
        Base.metadata.create_all(session.connection())
        yield session
        session.rollback()
        # The tables may be committed. One of them refers to jobs.
        Base.metadata.drop_all(session.connection())
        session.commit()


@pytest.fixture
def statements(session: Session) -> Iterator[list[str]]:
    """All statements from now on."""
    sent: list[str] = []

    def listener(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", listener)
    yield sent
    event.remove(engine, "before_cursor_execute", listener)


def reference(name: str, **key: Any) -> dict[str, Any]:
    return {"$model": f"{MODELS}.{name}", "$key": key}


def stored(session: Session) -> list[Any]:
    return list(session.scalars(select(Job.args).order_by(Job.id)))


class TestTheStoredForm:
    def test_is_the_class_and_the_key(self, session: Session) -> None:
        session.add(order := Order(id=7))
        session.flush()
        job = Send.new({"order": order, "note": "thanks"})
        assert job.args == {"order": reference("Order", id=7), "note": "thanks"}
        session.add(job)
        session.flush()
        session.expire(job)
        assert job.args == {"order": reference("Order", id=7), "note": "thanks"}

    def test_may_be_nested_anywhere(self, session: Session) -> None:
        session.add_all(orders := [Order(id=1), Order(id=2)])
        session.add(Send.new({"batches": [{"orders": tuple(orders)}]}))
        session.flush()
        expected = [{"orders": [reference("Order", id=1), reference("Order", id=2)]}]
        assert stored(session) == [{"batches": expected}]

    def test_names_the_parts_of_a_composite_key(self, session: Session) -> None:
        session.add(line := Line(order=Order(id=3), day=date(2026, 11, 1)))
        session.add(Send.new({"line": line}))
        session.flush()
        assert stored(session) == [{"line": reference("Line", order_id=3, day="2026-11-01")}]

    def test_has_the_class_of_the_instance_itself(self, session: Session) -> None:
        session.add_all([dog := Dog(name="rex"), plain := Plain(name="plain")])
        session.add(Send.new({"dog": dog, "plain": plain}))
        session.flush()
        key = {"dog": reference("Dog", id=dog.id), "plain": reference("Plain", id=plain.id)}
        assert stored(session) == [key]

    def test_does_not_load_an_expired_instance(self, session: Session) -> None:
        session.add(order := Order(id=5))
        session.flush()
        session.expire(order)
        session.expunge(order)
        assert Send.new({"order": order}).args == {"order": reference("Order", id=5)}

    def test_is_found_by_the_instance(self, session: Session) -> None:
        session.add_all([order := Order(), other := Order()])
        session.add_all([job := Send.new({"order": order}), Send.new({"order": other})])
        session.flush()
        found = select(Job).where(Job.args_contain({"order": order}))
        assert session.scalars(found).all() == [job]

    def test_is_not_found_by_json_that_looks_like_it(self, session: Session) -> None:
        lookalike = reference("Order", id=1)
        session.add_all([order := Order(id=1), of_row := Send.new({"it": order})])
        session.add(of_json := Send.new({"it": {"a": 1, "b": lookalike}, "c": [lookalike]}))
        session.flush()

        def found(args: dict[str, Any]) -> list[Job]:
            return list(session.scalars(select(Job).where(Job.args_contain(args))))

        assert found({"it": order}) == [of_row]
        assert found({"it": lookalike}) == []
        assert found({"it": {"b": lookalike}}) == [of_json]
        assert found({"c": [{"$model": lookalike["$model"]}]}) == [of_json]
        by_operator = select(Job).where(Job.args["it"]["b"] == lookalike)
        assert session.scalars(by_operator).all() == [of_json]
        containing = select(Job).where(Job.args.contains({"c": [lookalike]}))
        assert session.scalars(containing).all() == [of_json]
        assert session.scalars(select(Job.args["c"]).where(containing.whereclause)).all() == [
            [lookalike]
        ]

    def test_gives_way_to_json_that_looks_like_it(self, session: Session) -> None:
        session.add_all([order := Order(id=1), job := Send.new({"it": order})])
        session.commit()
        session.refresh(job)
        job.args = {"it": reference("Order", id=1)}
        session.commit()
        assert session.scalars(select(Job).where(Job.args_contain({"it": order}))).all() == []

    def test_can_be_assigned_to_a_job(self, session: Session) -> None:
        session.add(job := Send.new())
        session.flush()
        session.add(order := Order())
        job.args = {"order": order}
        session.commit()
        assert stored(session) == [{"order": reference("Order", id=order.id)}]

    def test_a_class_that_can_not_be_imported_is_refused(self) -> None:
        class LocalBase(DeclarativeBase): ...

        class Local(LocalBase):
            __tablename__ = "local"
            id: Mapped[int] = mapped_column(primary_key=True)

        with pytest.raises(ValueError, match=r"Local can't be an argument: no other process"):
            Send.new({"it": Local()})

    def test_is_refused_in_meta(self) -> None:
        with pytest.raises(TypeError, match=r"meta\['order'\] is a Order, not JSON"):
            Send.new(meta={"order": Order()})


class TestPendingInstances:
    def test_a_thousand_rows_and_their_jobs_are_two_batches(
        self, session: Session, statements: list[str]
    ) -> None:
        for _ in range(1000):
            session.add(order := Order())
            session.add(Send.new({"order": order}))
        session.flush()
        # SQLAlchemy inserts at most a thousand rows in one statement; our statement inserts all
        # jobs.
        assert [statement.split(" (")[0].split()[0] for statement in statements] == [
            "INSERT",
            "WITH",
        ]
        keys = list(session.scalars(select(Order.id).order_by(Order.id)))
        assert stored(session) == [{"order": reference("Order", id=key)} for key in keys]

    def test_a_key_may_come_from_a_column_default(self, session: Session) -> None:
        session.add(job := Send.new({"parcel": (parcel := Parcel())}))
        session.add(parcel)
        session.flush()
        assert isinstance(parcel.id, UUID)
        assert job.args == {"parcel": reference("Parcel", id=str(parcel.id))}
        assert stored(session) == [job.args]
        assert job.id is not None

    async def test_a_job_of_an_async_session_gets_the_key(
        self, sessions: async_sessionmaker[AsyncSession]
    ) -> None:
        async with sessions() as session:
            await session.run_sync(lambda s: Base.metadata.create_all(s.connection()))
            session.add(order := Order())
            job = await Send.enqueue({"order": order}, conn=session)
            await session.flush()
            assert job.args == {"order": reference("Order", id=order.id)}
            assert [job.id] == list(await session.scalars(select(Job.id)))

    def test_a_waiting_job_behaves_as_any_pending_object(self, session: Session) -> None:
        session.add_all([order := Order(), job := Send.new({"order": order}), Send.new()])
        session.flush()
        assert job in session
        assert job not in session.dirty
        job.priority = 3
        session.flush()
        session.rollback()
        assert job not in session

    def test_a_row_that_refers_to_the_job_is_no_obstacle(self, session: Session) -> None:
        session.add(order := Order())
        session.add(export := Export(job=Send.new({"order": order})))
        session.flush()
        assert export.job is not None
        assert export.job_id == export.job.id
        assert stored(session) == [{"order": reference("Order", id=order.id)}]
        assert not session.dirty

    def test_a_job_may_refer_to_a_pending_job(self, session: Session) -> None:
        first = Send.new()
        second = Send.new({"after": first})
        session.add_all([second, first, Send.new({"after": second})])
        session.flush()
        jobs = session.scalars(select(Job).order_by(Job.id)).all()
        assert {job.args["after"]["$key"]["id"] for job in jobs if job.args} == {
            first.id,
            second.id,
        }

    def test_a_listener_of_the_flush_may_add_the_job(self, session: Session) -> None:
        @event.listens_for(session, "before_flush", once=True)
        def note(session: Session, *rest: Any) -> None:
            session.add_all([Send.new({"order": one}) for one in session.new])

        session.add(order := Order())
        session.flush()
        assert stored(session) == [{"order": reference("Order", id=order.id)}]

    def test_a_job_added_again_after_a_rollback_gets_the_new_key(self, session: Session) -> None:
        order, job = Order(), None
        savepoint = session.begin_nested()
        session.add_all([order, job := Send.new({"order": order})])
        session.flush()
        first = order.id
        savepoint.rollback()
        assert order not in session
        assert job not in session
        order.id = None  # type: ignore[assignment]
        session.execute(insert(Order).values(id=first))
        session.add_all([job, order])
        session.flush()
        assert order.id != first
        assert stored(session) == [{"order": reference("Order", id=order.id)}]


class TestInstancesWithoutARow:
    """The error is raised before the flush, so the transaction stays usable."""

    def refused(self, session: Session, why: str) -> None:
        session.execute(select(1))
        with pytest.raises(ValueError, match=why):
            session.flush()
        assert session.scalar(select(1)) == 1

    def test_an_instance_in_no_session_is_refused(self, session: Session) -> None:
        session.autoflush = False
        session.add(Send.new({"order": Order()}))
        self.refused(session, "refers to a Order, which is in no session and not stored: add the")

    def test_an_instance_of_another_session_is_refused(self, session: Session) -> None:
        session.autoflush = False
        order = Order()
        with Session() as other:
            other.add(order)
            session.add(Send.new({"order": order}))
            self.refused(session, "which is pending in another session")

    def test_an_expunged_instance_is_refused(self, session: Session) -> None:
        session.autoflush = False
        session.add_all([order := Order(), Send.new({"order": order})])
        session.expunge(order)
        self.refused(session, "which is in no session")

    def test_an_instance_that_a_listener_expunged_is_refused(self, session: Session) -> None:
        def leave_out(session: Session, *rest: Any) -> None:
            session.expunge(order)

        session.add(Order())
        session.commit()
        event.listen(session, "before_flush", leave_out, once=True)
        session.add(order := Order())
        session.add(Send.new({"order": order}))
        with pytest.raises(
            ValueError, match="refers to a Order, which was expunged from the session"
        ):
            session.commit()
        session.rollback()
        session.add(Order())
        session.commit()
        assert stored(session) == []

    def test_a_listener_that_refuses_the_flush_loses_no_job(self, session: Session) -> None:
        def refuse(*_: Any) -> None:
            raise LookupError("not yet")

        event.listen(session, "before_flush", refuse, once=True)
        session.add_all([order := Order(), Send.new({"order": order})])
        with pytest.raises(LookupError):
            session.commit()
        session.commit()
        assert stored(session) == [{"order": reference("Order", id=order.id)}]

    def test_a_listener_that_refuses_the_flush_may_close_the_session(
        self, session: Session
    ) -> None:
        def refuse(*_: Any) -> None:
            raise LookupError("no")

        event.listen(session, "before_flush", refuse, once=True)
        session.add_all([order := Order(), Send.new({"order": order})])
        with session, pytest.raises(LookupError):
            session.commit()
        assert not session.new
        session.commit()
        assert stored(session) == []

    def test_a_row_whose_flush_fails_raises_the_error_of_the_database(
        self, session: Session
    ) -> None:
        """The rollback also expunges the instance. The error is that of the database."""
        session.add(first := Order())
        session.commit()
        taken = first.id
        session.expunge(first)
        session.add_all([Order(id=taken), pending := Order()])
        session.add(Send.new({"order": pending}))
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
        session.add(Send.new({"order": session.get_one(Order, taken)}))
        session.commit()
        assert stored(session) == [{"order": reference("Order", id=taken)}]

    def test_an_instance_that_was_rolled_back_is_refused(self, session: Session) -> None:
        session.autoflush = False
        with session.begin_nested() as savepoint:
            session.add(order := Order())
            session.flush()
            job = Send.new({"order": order})
            assert job.args["order"]["$key"] == {"id": order.id}
            savepoint.rollback()
        session.add(job)
        self.refused(session, "which is in no session")

    def test_a_deleted_instance_is_refused(self, session: Session) -> None:
        session.autoflush = False
        session.add(order := Order())
        session.flush()
        session.delete(order)
        session.add(Send.new({"order": order}))
        self.refused(session, "which is deleted, so a worker could not load it")

    def test_a_job_that_was_stored_before_can_still_be_changed(self, session: Session) -> None:
        session.add_all([order := Order(), job := Send.new({"order": order})])
        session.flush()
        session.delete(order)
        job.priority = 3
        session.commit()
        assert session.scalar(select(Job.priority)) == 3

    async def test_a_connection_refuses_a_pending_instance(
        self, sessions: async_sessionmaker[AsyncSession]
    ) -> None:
        async with sessions() as session:
            session.add(order := Order())
            connection = await session.connection()
            with pytest.raises(ValueError, match="which has no key yet: flush it first"):
                await Send.enqueue({"order": order}, conn=connection)

    @pytest.mark.parametrize(
        "store",
        [
            lambda session, job: session.bulk_save_objects([job]),
            lambda session, job: session.execute(
                insert(Job), [{"worker": job.worker, "args": job.args}]
            ),
        ],
    )
    def test_an_insert_statement_refuses_a_pending_instance(
        self, session: Session, store: Any
    ) -> None:
        order = Order()
        with pytest.raises(StatementError, match="refers to an instance that has no key yet"):
            store(session, Send.new({"order": [order]}))
        session.rollback()
        Base.metadata.create_all(session.connection())
        session.add(order)
        session.flush()
        store(session, Send.new({"order": [order]}))
        assert stored(session) == [{"order": [reference("Order", id=order.id)]}]

    def test_a_condition_refuses_a_pending_instance(self) -> None:
        with pytest.raises(ValueError, match="args refers to a Order that has no key yet"):
            Job.args_contain({"order": Order()})


def test_any_connection_accepts_instances_with_a_key(session: Session) -> None:
    session.add(order := Order())
    session.flush()
    job = Send.new({"order": order})
    assert json.loads(json.dumps(job.args)) == {"order": reference("Order", id=order.id)}
