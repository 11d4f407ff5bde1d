"""After `drain_queue` and `inline`, the session of the test sees the values of the database."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, delete, func, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    WriteOnlyMapped,
    column_property,
    mapped_column,
    relationship,
    selectinload,
    sessionmaker,
)

from oban_sqla import Job, Worker
from oban_sqla.testing import drain_queue, inline


class Base(DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "shelves"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None]
    note: Mapped[str | None] = mapped_column(deferred=True)
    books: Mapped[list["Book"]] = relationship(
        back_populates="shelf", cascade="all", passive_deletes=True, order_by="Book.id"
    )
    strict: Mapped[list["Book"]] = relationship(viewonly=True, lazy="raise", order_by="Book.id")
    many: WriteOnlyMapped["Book"] = relationship(viewonly=True)


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    rating: Mapped[int | None]
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id", ondelete="SET NULL"))
    shelf: Mapped[Shelf | None] = relationship(back_populates="books")


Shelf.size = column_property(  # type: ignore[attr-defined]
    select(func.count()).where(Book.shelf_id == Shelf.id).correlate_except(Book).scalar_subquery()
)


work: Callable[[Session], Any]


class Work(Worker, name="refresh.work"):
    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.run_sync(work)


@pytest.fixture
async def awaited(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with engine.connect() as connection, connection.begin() as outer:
        await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        await outer.rollback()


@pytest.fixture
def plain(session_factory: sessionmaker[Session]) -> Iterator[Session]:
    with session_factory() as session:
        Base.metadata.create_all(session.connection())
        yield session
        session.rollback()


async def through_drain(session: AsyncSession) -> None:
    session.add(Work.new())
    await drain_queue(session)


async def through_inline(session: AsyncSession) -> None:
    with inline():
        session.add(Work.new())
        await session.flush()


Run = Callable[[AsyncSession], Any]


@pytest.fixture(params=[through_drain, through_inline])
def run(request: pytest.FixtureRequest) -> Run:
    """Let a worker change something behind the session's back."""

    async def run(session: AsyncSession, change: Callable[[Session], Any]) -> None:
        global work
        work = change
        await request.param(session)

    return run


@pytest.fixture
async def shelf(awaited: AsyncSession) -> Shelf:
    """A shelf with two books, whose nullable columns were never set."""
    awaited.add(shelf := Shelf(id=1, books=[Book(id=1, title="a"), Book(id=2, title="b")]))
    await awaited.flush()
    return shelf


async def test_a_column_that_was_never_set_is_refreshed(
    awaited: AsyncSession, shelf: Shelf, run: Run
) -> None:
    assert (shelf.label, shelf.books[0].rating) == (None, None)
    await run(
        awaited,
        lambda s: (
            s.execute(update(Shelf).values(label="new")),
            s.execute(update(Book).values(rating=5)),
        ),
    )
    assert (shelf.label, [book.rating for book in shelf.books]) == ("new", [5, 5])


async def test_an_expired_column_is_refreshed(
    awaited: AsyncSession, shelf: Shelf, run: Run
) -> None:
    await awaited.commit()
    await run(awaited, lambda s: s.execute(update(Shelf).values(label="new")))
    assert shelf.label == "new"


async def test_a_computed_column_is_refreshed(
    awaited: AsyncSession, shelf: Shelf, run: Run
) -> None:
    await awaited.refresh(shelf)
    assert shelf.size == 2  # type: ignore[attr-defined]
    await run(awaited, lambda s: s.add(Book(id=3, title="c", shelf_id=1)))
    assert shelf.size == 3  # type: ignore[attr-defined]


async def test_a_collection_is_refreshed(awaited: AsyncSession, shelf: Shelf, run: Run) -> None:
    await run(awaited, lambda s: s.add(Book(id=3, title="c", shelf_id=1)))
    assert [book.title for book in shelf.books] == ["a", "b", "c"]
    assert shelf.books[2].shelf is shelf


async def test_a_raiseload_collection_is_refreshed(
    awaited: AsyncSession, shelf: Shelf, run: Run
) -> None:
    options = {"populate_existing": True}
    query = select(Shelf).options(selectinload(Shelf.strict)).execution_options(**options)
    assert len((await awaited.scalars(query)).one().strict) == 2
    await run(awaited, lambda s: s.add(Book(id=3, title="c", shelf_id=1)))
    assert [book.title for book in shelf.strict] == ["a", "b", "c"]


async def test_a_reference_is_refreshed(awaited: AsyncSession, shelf: Shelf, run: Run) -> None:
    book = shelf.books[0]

    def move(session: Session) -> None:
        session.add(other := Shelf(id=2, label="other"))
        session.get_one(Book, 1).shelf = other

    await run(awaited, move)
    assert book.shelf is not None
    assert (book.shelf_id, book.shelf.label) == (2, "other")
    assert [book.title for book in shelf.books] == ["b"]


async def test_a_deleted_row_leaves_the_session(
    awaited: AsyncSession, shelf: Shelf, run: Run
) -> None:
    first, second = shelf.books
    await run(awaited, lambda s: s.execute(delete(Book).where(Book.id == 1)))
    assert shelf.books == [second]
    assert first not in awaited
    assert (first.title, inspect(first).persistent) == ("a", False)
    assert await awaited.get(Book, 1) is None


async def test_a_deleted_row_removes_no_other_instance(
    awaited: AsyncSession, shelf: Shelf, run: Run
) -> None:
    first, second = shelf.books
    await run(awaited, lambda s: s.execute(delete(Shelf)))
    assert shelf not in awaited
    assert first in awaited
    assert second in awaited
    assert (first.shelf, first.shelf_id) == (None, None)


async def test_unloaded_attributes_stay_unloaded(
    awaited: AsyncSession, shelf: Shelf, run: Run
) -> None:
    awaited.expunge_all()
    shelf = await awaited.get_one(Shelf, 1)
    await run(awaited, lambda s: s.execute(update(Shelf).values(note="long")))
    assert {"note", "books"} <= inspect(shelf).unloaded


@pytest.mark.parametrize("way", ["drain", "inline"])
def test_a_sync_session_is_refreshed(plain: Session, way: str) -> None:
    global work

    def work(session: Session) -> None:
        session.execute(update(Shelf).values(label="new"))
        session.execute(delete(Book).where(Book.id == 1))
        session.add(Book(id=3, title="c", shelf_id=1))

    plain.add(shelf := Shelf(id=1, books=[Book(id=1, title="a"), Book(id=2, title="b")]))
    plain.flush()
    plain.add(Work.new())
    if way == "drain":
        drain_queue(plain)
    else:
        with inline():
            plain.flush()
    assert shelf.label == "new"
    assert [book.title for book in shelf.books] == ["b", "c"]
