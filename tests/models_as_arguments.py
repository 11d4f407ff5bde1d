"""Models of a user with keys of every kind, for references."""

from __future__ import annotations

from datetime import date
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    mapped_column,
    relationship,
)

from oban_sqla import Job


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "arguments_order"

    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int] = mapped_column(default=0)
    lines: Mapped[list[Line]] = relationship(back_populates="order")


class Line(Base):
    """A model with a composite key, whose attributes have other names than the columns."""

    __tablename__ = "arguments_line"

    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), primary_key=True)
    day: Mapped[date] = mapped_column("of_day", primary_key=True)
    order: Mapped[Order] = relationship(back_populates="lines")


class Parcel(Base):
    """A model whose key Python makes during the flush."""

    __tablename__ = "arguments_parcel"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)


class Animal(Base):
    __tablename__ = "arguments_animal"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012


class Dog(Animal):
    __tablename__ = "arguments_dog"

    id: Mapped[int] = mapped_column(ForeignKey(Animal.id), primary_key=True)
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


class Plain(MappedAsDataclass, Base):
    __tablename__ = "arguments_plain"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str]


class Export(Base):
    """A row that refers to its job by a foreign key."""

    __tablename__ = "arguments_export"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey(Job.id))
    job: Mapped[Job | None] = relationship(Job)
