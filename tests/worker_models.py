"""Models of a user that are workers."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, MetaData, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column

from oban_sqla import Cancel, Job, Record, Worker, worker


class Base(DeclarativeBase): ...


class Stamped:
    """A mixin with columns."""

    note: Mapped[str] = mapped_column(default="")


class Invoice(Worker, Stamped, Base, queue="billing"):
    __tablename__ = "rows_invoices"
    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int] = mapped_column(default=0)
    kind: Mapped[str] = mapped_column(default="invoice")
    __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "invoice"}  # noqa: RUF012

    async def process(self, job: Job, session: AsyncSession) -> Any:
        self.total += job.args.get("add", 1)
        return Record(self.total)


class Reminder(Invoice, queue="mailers"):
    __tablename__ = "rows_reminders"
    id: Mapped[int] = mapped_column(ForeignKey(Invoice.id), primary_key=True)
    level: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"polymorphic_identity": "reminder"}  # noqa: RUF012

    async def process(self, job: Job, session: AsyncSession) -> Any:
        self.level += 1
        return Cancel("enough") if self.level > 3 else None


class Export(Worker, Base):
    """A worker without a session, with a composite key."""

    __tablename__ = "rows_exports"
    owner: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    year: Mapped[int] = mapped_column("of_year", primary_key=True, default=2026)

    def process(self, job: Job) -> Any:
        return Record([str(self.owner), self.year])


class Parcel(Worker, MappedAsDataclass, Base, lock="skip"):
    __tablename__ = "rows_parcels"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    weight: Mapped[int]

    def process(self, job: Job, session: Session) -> Any:
        self.weight += 1


@worker(lock="update", missing="raise", max_attempts=1)
class Account(Base):
    __tablename__ = "rows_accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(default=0)

    async def process(self, job: Job, session: AsyncSession) -> Any:
        before = self.balance
        # Without the lock, the other jobs would read the same balance now.
        await session.scalar(select(1))
        self.balance = before + 1


class Elsewhere(DeclarativeBase):
    metadata = MetaData(schema="rows_elsewhere")


class Letter(Worker, Elsewhere):
    __tablename__ = "letters"
    id: Mapped[int] = mapped_column(primary_key=True)

    async def process(self, job: Job) -> Any:
        return Record(self.id)


class Vehicle(Worker, Base):
    """A model with its own table and key, like its subclass."""

    __tablename__ = "rows_vehicles"
    id: Mapped[int] = mapped_column(primary_key=True)

    async def process(self, job: Job) -> Any:
        return Record(type(self).__name__)


class Car(Vehicle):
    __tablename__ = "rows_cars"
    id: Mapped[int] = mapped_column(primary_key=True)
    __mapper_args__ = {"concrete": True}  # noqa: RUF012
