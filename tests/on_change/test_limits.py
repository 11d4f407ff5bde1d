"""The keys of jobs that changes enqueue: their limits and rates count by the changed row."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, delete, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from oban_sqla import Job, Limit, Rate, Worker

Sessions = sessionmaker[Session]


class Base(DeclarativeBase): ...


class Shop(Base):
    __tablename__ = "limited_shops"
    id: Mapped[int] = mapped_column(primary_key=True)


class Item(Base):
    __tablename__ = "limited_items"
    id: Mapped[int] = mapped_column(primary_key=True)
    shop_id: Mapped[int] = mapped_column(ForeignKey(Shop.id))
    price: Mapped[int] = mapped_column(default=1)


ON: dict[str, Any] = {"on": Item, "on_insert": True, "on_update": True}


class ByRow(Worker, name="change.by_row", limit=Limit(1, by="row"), on_delete=True, **ON):
    async def process(self, job: Job) -> None: ...


class ByShop(Worker, name="change.by_shop", rate=Rate(5, per=1, by="row.shop_id"), **ON):
    async def process(self, job: Job) -> None: ...


class Alone(Worker, name="change.alone", limit=Limit(1), **ON):
    async def process(self, job: Job) -> None: ...


class Order(Worker, Base, on_insert=True, on_update=True, limit=Limit(2, by="shop_id")):
    """A model that is a worker: its jobs count by an attribute of the row."""

    __tablename__ = "limited_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    shop_id: Mapped[int]
    note: Mapped[str] = mapped_column(default="")

    async def process(self, job: Job) -> None: ...


@pytest.fixture
def session(session_factory: Sessions) -> Iterator[Session]:
    """A session in a transaction that has the tables, and is rolled back at the end."""
    with session_factory() as session:
        Base.metadata.create_all(session.connection())
        session.add_all([Shop(id=1), Shop(id=2)])
        session.flush()
        yield session


def keys(session: Session, worker: type) -> list[Any]:
    """The keys of the worker's jobs."""
    found = session.scalars(select(Job).where(Job.for_worker(worker)).order_by(Job.id)).all()
    return [job.meta["partition_key"] for job in found]


class TestFlush:
    def test_an_inserted_row_gives_its_key(self, session: Session) -> None:
        session.add(item := Item(shop_id=2))
        session.flush()
        assert keys(session, ByRow) == [f"change.by_row={item.id}"]
        assert keys(session, ByShop) == ["rate change.by_shop=2"]
        assert keys(session, Alone) == ["change.alone"]

    def test_a_row_of_a_rolled_back_savepoint_gives_no_key(self, session: Session) -> None:
        kept, undone = Item(shop_id=1), Item(shop_id=2)
        session.add(kept)
        session.flush()
        savepoint = session.begin_nested()
        session.add(undone)
        session.flush()
        savepoint.rollback()
        assert keys(session, ByShop) == ["rate change.by_shop=1"]

    def test_a_model_worker_gives_its_key(self, session: Session) -> None:
        session.add(order := Order(shop_id=2))
        session.flush()
        assert keys(session, Order) == [f"{Order.__oban__.name}=2"]
        assert order.shop_id == 2


@pytest.fixture
def items(session: Session) -> list[Item]:
    """Rows that another transaction could have made: no job is about them."""
    quietly = {"oban_on_change": False}
    rows = [{"id": id, "shop_id": id % 2 + 1, "price": 1} for id in (1, 2, 3)]
    session.execute(Item.__table__.insert().values(rows), execution_options=quietly)
    orders = [{"id": 5, "shop_id": 2, "note": ""}]
    session.execute(Order.__table__.insert().values(orders), execution_options=quietly)
    return list(session.scalars(select(Item).order_by(Item.id)))


class TestExpiredInstances:
    def test_an_expired_attribute_is_loaded(self, session: Session, items: list[Item]) -> None:
        session.expire(items[0])
        items[0].price = 7
        session.flush()
        assert keys(session, ByShop) == ["rate change.by_shop=2"]

    def test_a_model_worker_is_loaded(self, session: Session, items: list[Item]) -> None:
        order = session.get_one(Order, 5)
        session.expire(order)
        order.note = "x"
        session.flush()
        assert keys(session, Order) == [f"{Order.__oban__.name}=2"]

    def test_a_deleted_row_gives_the_key_none(self, session: Session, items: list[Item]) -> None:
        """Its job has no row, so it has the key None."""
        session.delete(items[1])
        session.flush()
        assert keys(session, ByRow) == ["change.by_row=null"]


class TestStatements:
    def test_an_update_gives_the_keys_of_its_rows(
        self, session: Session, items: list[Item]
    ) -> None:
        session.execute(update(Item).where(Item.id < 3).values(price=7))
        assert sorted(keys(session, ByRow)) == ["change.by_row=1", "change.by_row=2"]
        assert sorted(keys(session, ByShop)) == ["rate change.by_shop=1", "rate change.by_shop=2"]
        assert keys(session, Alone) == ["change.alone"] * 2

    def test_an_update_of_the_key_gives_the_new_key(
        self, session: Session, items: list[Item]
    ) -> None:
        session.execute(update(Item).where(Item.id == 1).values(shop_id=1))
        assert keys(session, ByShop) == ["rate change.by_shop=1"]

    def test_a_bulk_update_gives_the_keys_of_its_rows(
        self, session: Session, items: list[Item]
    ) -> None:
        session.execute(update(Item), [{"id": 1, "price": 5}, {"id": 3, "price": 6}])
        assert keys(session, ByShop) == ["rate change.by_shop=2"] * 2

    def test_a_model_worker_gives_its_key(self, session: Session, items: list[Item]) -> None:
        session.execute(update(Order).values(note="y"))
        assert keys(session, Order) == [f"{Order.__oban__.name}=2"]

    def test_a_delete_gives_the_key_none(self, session: Session, items: list[Item]) -> None:
        session.execute(delete(Item).where(Item.id == 3))
        assert keys(session, ByRow) == ["change.by_row=null"]
