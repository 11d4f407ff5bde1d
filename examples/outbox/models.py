"""The orders."""

from typing import Literal

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Status = Literal["placed", "paid", "shipped"]


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (CheckConstraint("quantity BETWEEN 1 AND 100", name="orders_quantity"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    quantity: Mapped[int] = mapped_column(default=1)
    status: Mapped[str] = mapped_column(default="placed")
