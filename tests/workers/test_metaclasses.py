"""Workers whose classes other libraries make: SQLModel, pydantic, attrs, `declarative_base()`."""

from collections.abc import Iterator
from typing import Any

import attrs
import pydantic
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, declarative_base, mapped_column, sessionmaker
from sqlmodel import Field, SQLModel

from oban_sqla import Job, Record, Worker, worker
from oban_sqla.testing import drain_queue

Base: Any = declarative_base()


@worker(name="metaclasses.Export", queue="exports", max_attempts=3, on_insert=True, lock="update")
class Export(Worker, SQLModel, table=True):
    __tablename__ = "metaclasses_export"
    id: int | None = Field(default=None, primary_key=True)
    title: str

    def process(self, job: Job, session: Session) -> Record:
        return Record(f"{job.args['change']} {self.title}")


@worker(name="metaclasses.Letter", queue="mail")
class Letter(SQLModel, table=True):
    """A worker without the base class."""

    __tablename__ = "metaclasses_letter"
    id: int | None = Field(default=None, primary_key=True)

    async def process(self, job: Job) -> None: ...


class Invoice(Worker, Base, name="metaclasses.Invoice", queue="billing", on_insert=True):
    __tablename__ = "metaclasses_invoice"
    id: Mapped[int] = mapped_column(primary_key=True)

    async def process(self, job: Job) -> Record:
        return Record(self.id)


@pytest.fixture
def session(session_factory: sessionmaker[Session]) -> Iterator[Session]:
    with session_factory() as session:
        for metadata in (SQLModel.metadata, Base.metadata):
            metadata.create_all(session.connection())
        yield session
        session.rollback()


class TestSQLModel:
    def test_takes_options_from_the_decorator(self) -> None:
        assert Export.__oban__.queue == "exports"
        assert Letter.__oban__.queue == "mail"
        assert Letter(id=1).new().args == {  # type: ignore[attr-defined]
            "self": {"$model": "tests.workers.test_metaclasses.Letter", "$key": None}
        }

    def test_has_jobs_that_its_row_processes(self, session: Session) -> None:
        session.add(export := Export(title="november"))
        session.flush()
        (job,) = session.scalars(select(Job).where(Job.for_worker(Export)))
        assert (job.queue, job.max_attempts) == ("exports", 3)
        assert drain_queue(session)["completed"] == 1
        assert job.recorded == "insert november"
        session.refresh(export)
        assert export.jobs == [job]

    @pytest.mark.parametrize("bases", [(Worker, SQLModel), (SQLModel, Worker)])
    def test_refuses_keywords_that_would_be_lost(self, bases: tuple[type, ...]) -> None:
        with pytest.raises(
            TypeError,
            match=r"Lost has the keywords queue, on_insert, but SQLModelMetaclass does not pass"
            r" .* write @worker\(queue=..., on_insert=...\) above it",
        ):

            class Lost(*bases, table=True, queue="exports", on_insert=True):  # type: ignore[call-arg,misc]
                id: int | None = Field(default=None, primary_key=True)

                async def process(self, job: Job) -> None: ...


class TestDeclarativeBase:
    """Its metaclass maps a class only after the bases were told of it."""

    def test_is_a_model_with_jobs(self, session: Session) -> None:
        session.add(invoice := Invoice())
        session.flush()
        drain_queue(session)
        assert [job.recorded for job in invoice.jobs] == [invoice.id]

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"cron": "@daily"}, "is a model, and a cron entry has no row"),
            ({"missing": "none"}, "is a model, and can't run without its row"),
            ({"lock": "update"}, "but the lock ends with the transaction"),
            ({"on": Invoice, "on_insert": True}, "leave on= out"),
        ],
    )
    def test_refuses_options_that_no_model_can_have(self, options: Any, why: str) -> None:
        base: Any = declarative_base()
        with pytest.raises(TypeError, match=why):

            class Wrong(Worker, base, name="metaclasses.wrong", **options):
                __tablename__ = "wrong"
                id: Mapped[int] = mapped_column(primary_key=True)

                async def process(self, job: Job) -> None: ...


class TestOthers:
    def test_a_pydantic_class_takes_keywords(self) -> None:
        class Send(Worker, pydantic.BaseModel, name="metaclasses.pydantic", queue="mail"):
            async def process(self, job: Job) -> None: ...

        assert Send.new().queue == "mail"

    def test_an_attrs_class_takes_keywords(self) -> None:
        @attrs.define
        class Send(Worker, name="metaclasses.attrs", queue="mail"):
            async def process(self, job: Job) -> None: ...

        assert Send.new().queue == "mail"

    def test_a_metaclass_that_loses_keywords_is_named(self) -> None:
        class Keep(type):
            def __new__(cls, name: str, bases: Any, values: Any, **options: Any) -> Any:
                return super().__new__(cls, name, bases, values)

            def __init__(cls, *args: Any, **options: Any) -> None: ...

        with pytest.raises(TypeError, match="Lost has the keywords queue, but Keep does not pass"):

            class Lost(Worker, metaclass=Keep, queue="mail"): ...

    def test_a_base_that_loses_keywords_is_named(self) -> None:
        class Keep:
            def __init_subclass__(cls, **options: Any) -> None:
                super().__init_subclass__()

        with pytest.raises(TypeError, match="queue, but a base before Worker does not pass"):

            class Lost(Keep, Worker, queue="mail"): ...

    def test_a_class_made_inside_another_declaration_has_its_own_keywords(self) -> None:
        class Also(type):
            def __new__(cls, name: str, bases: Any, values: Any, **options: Any) -> Any:
                class Inner(Worker, name="metaclasses.inner"): ...

                return super().__new__(cls, name, bases, values, **options)

            def __init__(cls, *args: Any, **options: Any) -> None: ...

        class Outer(Worker, metaclass=Also, queue="mail"): ...

        assert Outer.__oban__.queue == "mail"
