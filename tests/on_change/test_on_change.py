"""Enqueue on change: sessions change rows, and jobs of the reacting workers are enqueued."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Integer,
    Table,
    Text,
    Update,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    mapped_column,
    relationship,
    sessionmaker,
)

from oban_sqla import Job, ObanError, Unique, Worker, worker
from oban_sqla.on_change import enqueue_changes
from oban_sqla.workers.current_job import executing

Sessions = sessionmaker[Session]

QUIETLY = {"oban_on_change": False}


class Base(DeclarativeBase): ...


class Order(Worker, Base, on_insert=True, on_update=("status", "email")):
    """A model that reacts to its own rows."""

    __tablename__ = "change_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="new")
    email: Mapped[str] = mapped_column(default="")
    note: Mapped[str] = mapped_column(default="")
    lines: Mapped[list["Line"]] = relationship(cascade="all, delete-orphan")

    async def process(self, job: Job) -> None: ...


class Line(Base):
    __tablename__ = "change_lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id))
    amount: Mapped[int] = mapped_column(default=1)
    kind: Mapped[str] = mapped_column(default="line")
    __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "line"}  # noqa: RUF012


class Gift(Line):
    """A model of the same table."""

    __mapper_args__ = {"polymorphic_identity": "gift"}  # noqa: RUF012


class Deliver(
    Worker, name="change.deliver", on=Line, on_insert=True, on_update=True, on_delete=True
):
    async def process(self, job: Job) -> None: ...


@worker(name="change.large", on=Line, on_update=["amount"], when=lambda line: line.amount > 10)
class NoteLarge:
    async def process(self, job: Job) -> None: ...


class Tick(Base):
    __tablename__ = "change_ticks"
    id: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int | None]


class NoteLast(
    Worker, name="change.last", on=Tick, on_update=True, when=lambda tick: tick.id == 65_536
):
    async def process(self, job: Job) -> None: ...


class Seat(Base):
    """A model whose key has another order than that of the table."""

    __tablename__ = "change_seats"
    number: Mapped[int] = mapped_column(primary_key=True)
    hall: Mapped[str] = mapped_column(primary_key=True)
    free: Mapped[bool] = mapped_column(default=True)
    label: Mapped[str] = column_property(hall + "-")
    __mapper_args__ = {"primary_key": ["hall", "number"]}  # noqa: RUF012


class Page(Base):
    __tablename__ = "change_pages"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class IndexPage(Worker, name="change.index", on=Page, on_update=True, on_delete=True, unique=True):
    async def process(self, job: Job) -> None: ...


class Coupon(Base):
    """A model whose key is not that of the table."""

    __table__ = Table(
        "change_coupons",
        Base.metadata,
        Column("number", Integer, primary_key=True),
        Column("code", Text, unique=True, nullable=False),
        Column("used", Boolean, nullable=False),
    )
    __mapper_args__ = {"primary_key": [__table__.c.code]}  # noqa: RUF012


class Print(Worker, name="change.print", on=Seat, on_update=True, on_delete=True):
    async def process(self, job: Job) -> None: ...


class Redeem(Worker, name="change.redeem", on=Coupon, on_update=True, on_delete=True):
    async def process(self, job: Job) -> None: ...


@pytest.fixture
def session(session_factory: Sessions) -> Iterator[Session]:
    """A session in a transaction that contains the tables, and is rolled back at the end."""
    with session_factory() as session:
        Base.metadata.create_all(session.connection())
        yield session


@pytest.fixture
def order(session: Session) -> Order:
    """A committed order."""
    values = {"id": 7, "status": "new", "email": "", "note": ""}
    session.execute(insert(Order.__table__).values(values), execution_options=QUIETLY)
    return session.get_one(Order, 7)


@pytest.fixture
def lines(session: Session, order: Order) -> list[Line]:
    rows = [{"id": id, "order_id": 7, "amount": 1, "kind": "line"} for id in (1, 2, 3)]
    session.execute(insert(Line.__table__).values(rows), execution_options=QUIETLY)
    return list(session.scalars(select(Line).order_by(Line.id)))


def row(cls: type, id: int) -> dict[str, Any]:
    return {"$model": f"{__name__}.{cls.__name__}", "$key": {"id": id}}


def jobs(session: Session, *workers: Any) -> list[Any]:
    """The arguments of the jobs; of these workers only, if given."""
    query = select(Job).order_by(Job.id)
    if workers:
        query = query.where(Job.for_worker(*workers))
    return [job.args for job in session.scalars(query)]


class TestFlush:
    def test_an_assignment_of_the_same_value_is_no_update(
        self, session: Session, lines: list[Line]
    ) -> None:
        """The session counts it as changed until it flushes."""
        line = session.get_one(Line, 1)
        line.amount = int(line.amount)
        assert line in session.dirty
        session.flush()
        assert jobs(session) == []

    def test_an_inserted_row_enqueues_a_job(self, session: Session) -> None:
        session.add(order := Order())
        session.flush()
        assert jobs(session) == [{"change": "insert", "self": row(Order, order.id)}]

    def test_an_update_of_the_attributes_enqueues_a_job(
        self, session: Session, order: Order
    ) -> None:
        order.note = "of no interest"
        order.status = "new"  # the original value
        assert jobs(session) == []
        order.status = "paid"
        assert jobs(session) == [{"change": "update", "self": row(Order, 7)}]

    def test_a_deleted_row_enqueues_a_job_with_its_key(
        self, session: Session, lines: list[Line]
    ) -> None:
        session.delete(lines[1])
        assert jobs(session) == [{"change": "delete", "key": {"id": 2}}]

    def test_cascaded_rows_enqueue_jobs(self, session: Session, order: Order) -> None:
        order.lines.append(Line())
        order.lines.append(gift := Gift())
        session.flush()
        inserted = [{"change": "insert", "row": row(type(x), x.id)} for x in order.lines]
        assert jobs(session, Deliver) == inserted
        assert gift.id in {one["row"]["$key"]["id"] for one in inserted}

    def test_deleted_orphans_enqueue_jobs(
        self, session: Session, lines: list[Line], order: Order
    ) -> None:
        order.lines.pop(0)
        assert jobs(session) == [{"change": "delete", "key": {"id": 1}}]

    def test_a_predicate_decides(self, session: Session, lines: list[Line]) -> None:
        lines[0].amount = 10
        lines[1].amount = 11
        assert jobs(session, NoteLarge) == [{"change": "update", "row": row(Line, 2)}]

    def test_the_jobs_of_many_rows_are_one_batch(self, session: Session) -> None:
        sent: list[str] = []
        engine = session.get_bind()
        session.add_all(Order() for _ in range(500))

        def listener(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
            sent.append(statement)

        event.listen(engine, "before_cursor_execute", listener)
        session.flush()
        event.remove(engine, "before_cursor_execute", listener)
        assert [one.split()[0] for one in sent] == ["INSERT", "WITH"]
        assert len(jobs(session)) == 500


class TestTransaction:
    def test_enqueues_one_job_for_a_row(self, session: Session) -> None:
        session.add(order := Order())
        session.flush()
        for status in ("paid", "sent"):
            order.status = status
            session.flush()
        assert [args["change"] for args in jobs(session)] == ["insert"]

    def test_a_rolled_back_transaction_enqueues_no_job(
        self, session: Session, order: Order
    ) -> None:
        savepoint = session.begin_nested()
        order.status = "paid"
        session.flush()
        savepoint.rollback()
        assert jobs(session) == []
        # The change with which it was merged is gone, too.
        order.status = "paid"
        assert len(jobs(session)) == 1

    def test_coalesces_across_savepoints(self, session: Session, order: Order) -> None:
        with session.begin_nested():
            order.status = "paid"
        with session.begin_nested():
            order.status = "sent"
        assert len(jobs(session)) == 1

    def test_forgets_a_flush_that_failed(self, session: Session, order: Order) -> None:
        savepoint = session.begin_nested()
        order.status = "paid"
        session.add(Line(order_id=0))
        with pytest.raises(IntegrityError):
            session.flush()
        savepoint.rollback()
        assert jobs(session) == []

    def test_a_row_inserted_and_deleted_enqueues_no_job(
        self, session: Session, order: Order
    ) -> None:
        order.lines.append(line := Line())
        session.flush()
        assert len(jobs(session)) == 1
        session.delete(line)
        session.flush()
        assert jobs(session) == []

    def test_an_update_and_a_delete_enqueue_the_job_of_the_delete(
        self, session: Session, lines: list[Line]
    ) -> None:
        lines[0].amount = 5
        session.flush()
        session.delete(lines[0])
        session.flush()
        assert jobs(session) == [{"change": "delete", "key": {"id": 1}}]

    @pytest.mark.parametrize("autoflush", [True, False])
    def test_enqueues_a_unique_job_for_a_row_that_was_put_back(
        self, session: Session, autoflush: bool
    ) -> None:
        """The job of the first change is gone before that of the last change is enqueued."""
        session.autoflush = autoflush
        session.execute(insert(Page.__table__).values(id=1, text=""), execution_options=QUIETLY)
        session.execute(update(Page).values(text="a"))
        with session.begin_nested() as savepoint:
            session.execute(delete(Page))
            savepoint.rollback()
        changes = [args["change"] for args in jobs(session, IndexPage)]
        assert changes == ["update"]
        session.execute(delete(Page))
        session.execute(insert(Page.__table__).values(id=1, text=""), execution_options=QUIETLY)
        session.execute(update(Page).values(text="b"))
        session.flush()
        changes = [args["change"] for args in jobs(session, IndexPage)]
        assert changes == ["delete", "update"]

    def test_a_row_with_the_key_of_a_deleted_row_enqueues_both_jobs(
        self, session: Session, lines: list[Line], order: Order
    ) -> None:
        lines[0].amount = 5
        session.flush()
        session.delete(lines[0])
        session.flush()
        session.add(Line(id=1, order_id=order.id))
        session.flush()
        session.flush()
        assert [args["change"] for args in jobs(session)] == ["delete", "insert"]

    def test_leaves_the_unique_job_of_another_transaction(self, session_factory: Sessions) -> None:
        class Once(
            Worker, name="change.once", on=Line, on_update=True, on_delete=True, unique=True
        ):
            async def process(self, job: Job) -> None: ...

        with session_factory() as session:
            Base.metadata.create_all(session.connection())
            session.add(Order(lines=[line := Line()]))
            session.commit()
            for amount in (2, 3):
                line.amount = amount
                session.commit()
            line.amount = 4
            session.flush()
            session.delete(line)
            session.commit()
            of_once = select(Job.args["change"].astext).where(Job.worker == "change.once")
            assert session.scalars(of_once.order_by(Job.id)).all() == ["update", "delete"]
            Base.metadata.drop_all(session.connection())
            session.commit()

    def test_enqueues_further_jobs_after_the_commit(self, session_factory: Sessions) -> None:
        with session_factory() as session:
            Base.metadata.create_all(session.connection())
            session.add(order := Order())
            session.commit()
            order.status = "paid"
            session.commit()
            assert [args["change"] for args in jobs(session)] == ["insert", "update"]
            Base.metadata.drop_all(session.connection())
            session.commit()


class TestStatements:
    """UPDATE and DELETE statements of a model pass no flush."""

    def test_an_update_enqueues_a_job_for_each_row(
        self, session: Session, lines: list[Line]
    ) -> None:
        result = session.execute(update(Line).where(Line.id > 1).values(amount=20))
        assert result.rowcount == 2  # type: ignore[attr-defined]
        expected = [{"change": "update", "row": row(Line, id)} for id in (2, 3)]
        assert jobs(session, Deliver) == expected
        assert jobs(session, NoteLarge) == expected
        assert [line.amount for line in lines] == [1, 20, 20]

    def test_an_update_of_other_attributes_enqueues_no_job(
        self, session: Session, order: Order
    ) -> None:
        session.execute(update(Order).where(Order.status == "new").values(note="n"))
        assert jobs(session) == []
        session.execute(update(Order), {"note": "m"})
        assert jobs(session) == []
        session.execute(update(Order).values(status=Order.email + "x"))
        assert len(jobs(session)) == 1

    def test_an_update_may_have_its_values_as_parameters(
        self, session: Session, order: Order
    ) -> None:
        session.execute(update(Order).where(Order.id == 7), {"status": "paid"})
        assert session.scalar(select(Order.status)) == "paid"
        assert jobs(session) == [{"change": "update", "self": row(Order, 7)}]

    def test_a_bulk_update_is_heard_if_one_row_sets_the_attribute(
        self, session: Session, order: Order
    ) -> None:
        values = {"id": 8, "status": "new", "email": "", "note": ""}
        session.execute(insert(Order.__table__).values(values), execution_options=QUIETLY)
        session.execute(update(Order), [{"id": 7, "note": "n"}, {"id": 8, "status": "paid"}])
        assert {"change": "update", "self": row(Order, 8)} in jobs(session)

    def test_the_predicate_decides_about_updated_rows(
        self, session: Session, lines: list[Line]
    ) -> None:
        session.execute(update(Line).values(amount=3))
        assert len(jobs(session, Deliver)) == 3
        assert jobs(session, NoteLarge) == []

    def test_an_update_may_change_more_rows_than_a_statement_has_parameters(
        self, session: Session
    ) -> None:
        ids = select(func.generate_series(1, 65_536))
        session.execute(insert(Tick.__table__).from_select(["id"], ids), execution_options=QUIETLY)
        session.execute(update(Tick).values(count=1))
        assert jobs(session) == [{"change": "update", "row": row(Tick, 65_536)}]

    def test_a_bulk_update_by_key_enqueues_jobs(self, session: Session, lines: list[Line]) -> None:
        session.execute(update(Line), [{"id": 1, "amount": 2}, {"id": 3, "amount": 50}])
        keys = [args["row"]["$key"]["id"] for args in jobs(session, Deliver)]
        assert keys == [1, 3]
        assert jobs(session, NoteLarge) == [{"change": "update", "row": row(Line, 3)}]

    def test_a_bulk_update_without_a_key_is_refused(
        self, session: Session, lines: list[Line]
    ) -> None:
        with pytest.raises(InvalidRequestError, match="No primary key value supplied"):
            session.execute(update(Line), [{"amount": 2}])

    def test_the_mapper_may_order_the_key_differently_than_the_table(
        self, session: Session
    ) -> None:
        row = {"hall": "east", "number": 5, "free": True}
        session.execute(insert(Seat.__table__).values(row), execution_options=QUIETLY)
        session.execute(update(Seat).values(free=False))
        session.execute(delete(Seat))
        assert jobs(session) == [{"change": "delete", "key": {"hall": "east", "number": 5}}]

    @pytest.mark.parametrize("statement", [update(Coupon).values(used=True), delete(Coupon)])
    def test_a_mapper_key_that_differs_from_the_table_is_refused(
        self, session: Session, statement: Any
    ) -> None:
        with pytest.raises(
            ObanError, match="a table whose primary key differs from that of the model"
        ):
            session.execute(statement)

    def test_a_delete_enqueues_a_job_for_each_row(
        self, session: Session, lines: list[Line]
    ) -> None:
        assert session.execute(delete(Line).where(Line.id < 3)).rowcount == 2  # type: ignore[attr-defined]
        expected = [{"change": "delete", "key": {"id": id}} for id in (1, 2)]
        assert jobs(session, Deliver) == expected

    @pytest.mark.parametrize(
        ("statement", "given", "keys"),
        [
            (update(Seat).values(hall="B"), None, [("B", 1), ("B", 2)]),
            (update(Seat), {"hall": "B"}, [("B", 1), ("B", 2)]),
            (update(Seat).values(hall=Seat.hall + "2"), None, [("A2", 1), ("A2", 2)]),
            (
                update(Seat).where(Seat.number == 2).values(hall=func.lower("B"), number=9),
                None,
                [("b", 9)],
            ),
        ],
    )
    def test_a_statement_that_sets_the_key_enqueues_the_new_key(
        self, session: Session, statement: Update, given: Any, keys: list[Any]
    ) -> None:
        rows = [{"number": number, "hall": "A", "free": True} for number in (1, 2)]
        session.execute(insert(Seat.__table__).values(rows), execution_options=QUIETLY)
        session.execute(statement, given)
        found = [args["row"]["$key"] for args in jobs(session, Print)]
        assert sorted((key["hall"], key["number"]) for key in found) == keys

    def test_rows_are_found_where_a_routing_session_writes(self, session_factory: Sessions) -> None:
        writer = session_factory.kw["bind"]
        reader = writer.execution_options(postgresql_readonly=True)

        class Routing(Session):
            def get_bind(self, mapper: Any = None, *, clause: Any = None, **others: Any) -> Any:
                return writer if self._flushing or isinstance(clause, Update) else reader

        Base.metadata.create_all(writer)
        try:
            with Routing() as session:
                session.add(Order(id=7))
                session.commit()
                session.execute(update(Order).values(status="paid"))
                session.commit()
                assert [args["change"] for args in jobs(session)] == ["insert", "update"]
        finally:
            Base.metadata.drop_all(writer)

    def test_statements_coalesce_with_flushes(self, session: Session, order: Order) -> None:
        order.status = "paid"
        session.flush()
        session.execute(update(Order).values(status="sent"))
        assert len(jobs(session)) == 1

    @pytest.mark.parametrize(
        ("statement", "why"),
        [
            (
                insert(Order).values(note="n"),
                "an INSERT that does not return its keys: add instances",
            ),
            (update(Order.__table__).values(status="x"), "a statement on the table: use the model"),
            (update(Order).values(status="x").returning(Order.id), "a statement with RETURNING"),
            (
                select(Order).from_statement(update(Order).values(status="x").returning(Order)),
                "a statement with RETURNING",
            ),
        ],
    )
    def test_statements_that_do_not_return_their_rows_are_refused(
        self, session: Session, order: Order, statement: Any, why: str
    ) -> None:
        with pytest.raises(ObanError, match=why):
            session.execute(statement)
        # The transaction is unchanged, and the error names a remedy.
        session.execute(statement, execution_options=QUIETLY)
        assert jobs(session) == []

    def test_a_delete_with_a_predicate_is_refused(self, session: Session) -> None:
        class Told(Worker, name="change.told", on=Order, on_delete=True):
            async def process(self, job: Job) -> None: ...

        class Gone(Worker, name="change.gone", on=Order, on_delete=True, when=lambda order: True):
            async def process(self, job: Job) -> None: ...

        with pytest.raises(ObanError, match="after which the rows can't be read"):
            session.execute(delete(Order))


class TestWorkerThatChangesItsRow:
    @pytest.fixture
    def processing(self, order: Order) -> Iterator[None]:
        job = order.new()
        vars(job)["args"] = {"self": order}
        token = executing.set(job)
        yield
        executing.reset(token)

    def test_does_not_enqueue_itself(
        self, session: Session, order: Order, processing: None
    ) -> None:
        order.status = "processed"
        session.flush()
        session.execute(update(Order).values(status="sent"))
        assert jobs(session) == []

    def test_enqueues_jobs_for_other_rows(self, session: Session, processing: None) -> None:
        session.add(Order())
        session.flush()
        assert len(jobs(session)) == 1


class TestRefusals:
    def refused(self, why: str, base: Any = (Worker,), **options: Any) -> None:
        async def process(self: Any, job: Job) -> None: ...

        with pytest.raises((TypeError, ValueError), match=why):
            type(Worker)("Wrong", base, {"process": process, "__qualname__": "Wrong"}, **options)

    def test_options_without_effect_are_refused(self) -> None:
        self.refused("does not react to any change: add on_insert=True", on=Line)
        self.refused("Wrong has on= or when=", when=lambda row: True)

    def test_a_class_that_is_not_a_model_is_refused(self) -> None:
        self.refused("name it with on=Model, not None", on_insert=True)
        self.refused("name it with on=Model, not <class 'int'>", on=int, on_insert=True)

    def test_unknown_attributes_are_refused(self) -> None:
        self.refused(
            "names 'state', but Line has no such column; there are id, order_id",
            on=Line,
            on_update=("state",),
        )
        self.refused(
            r"must be True or names of attributes, \('status', ...\)", on=Line, on_update="amount"
        )

    def test_an_attribute_that_is_an_expression_is_refused(self) -> None:
        self.refused(
            "names 'label', but Seat has no such column; there are number, hall, free",
            on=Seat,
            on_update=("label",),
        )

    def test_invalid_options_are_refused(self) -> None:
        self.refused("on_insert must be True or False, not 'yes'", on=Line, on_insert="yes")
        self.refused("when of Wrong must be a function of the row", on=Line, on_insert=True, when=1)

    def test_unique_keys_that_all_deleted_rows_share_are_refused(self) -> None:
        why = "have 'key' instead of 'row', so all of them would be duplicates"
        self.refused(why, on=Line, on_delete=True, unique=Unique(keys=["row"]))

    def test_a_model_that_reacts_to_its_own_deletion_is_refused(self) -> None:
        with pytest.raises(TypeError, match="can't process a deleted row: declare another worker"):

            class Wrong(Worker, Base, on_delete=True):
                __tablename__ = "change_wrong"
                id: Mapped[int] = mapped_column(primary_key=True)

                async def process(self, job: Job) -> None: ...

        Base.metadata.remove(Base.metadata.tables["change_wrong"])

    def test_a_subclass_inherits_no_reactions(self) -> None:
        class Quiet(Deliver, name="change.quiet"): ...

        assert "change.quiet" not in enqueue_changes._reactions
