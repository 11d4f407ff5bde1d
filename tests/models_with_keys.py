"""Models of a user with keys of types that JSON or PostgreSQL lack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, CHAR, BigInteger, Integer, LargeBinary, String, TypeDecorator
from sqlalchemy import Enum as EnumType
from sqlalchemy.dialects.postgresql import INET, INT4RANGE, Range
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

from oban_sqla import Job, Worker


class Base(DeclarativeBase): ...


class GUID(TypeDecorator[UUID]):
    """A `UUID` stored as 32 characters, as in SQLAlchemy's recipe."""

    impl = CHAR(32)
    cache_ok = True

    def process_bind_param(self, value: UUID | None, dialect: Any) -> str | None:
        return None if value is None else value.hex

    def process_result_value(self, value: str | None, dialect: Any) -> UUID | None:
        return None if value is None else UUID(value)


class Binary(TypeDecorator[UUID]):
    """A `UUID` stored as 16 bytes."""

    impl = LargeBinary(16)
    cache_ok = True

    def process_bind_param(self, value: UUID | None, dialect: Any) -> bytes | None:
        return None if value is None else value.bytes

    def process_result_value(self, value: bytes | None, dialect: Any) -> UUID | None:
        return None if value is None else UUID(bytes=value)


@dataclass(frozen=True)
class Number:
    """A value object."""

    value: int


class NumberType(TypeDecorator[Number]):
    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Number | None, dialect: Any) -> int | None:
        return None if value is None else value.value

    def process_result_value(self, value: int | None, dialect: Any) -> Number | None:
        return None if value is None else Number(value)


class Nested(TypeDecorator[Number]):
    """A type on top of another custom type, whose values it does not change."""

    impl = NumberType
    cache_ok = True


class Code(UserDefinedType[Number]):
    """A custom type that is not a `TypeDecorator`."""

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        return "integer"

    def bind_processor(self, dialect: Any) -> Callable[[Any], Any]:
        return lambda value: value.value

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        return Number


class Color(Enum):
    RED = "r"


class ColorType(TypeDecorator[Color]):
    impl = EnumType(Color, native_enum=False)
    cache_ok = True


class OfGUID(Base):
    __tablename__ = "keys_guid"
    id: Mapped[UUID] = mapped_column(GUID, primary_key=True, default=uuid4)


class OfVariant(Base):
    __tablename__ = "keys_variant"
    id: Mapped[UUID] = mapped_column(String().with_variant(GUID, "postgresql"), primary_key=True)


class OfBinary(Base):
    __tablename__ = "keys_binary"
    id: Mapped[UUID] = mapped_column(Binary, primary_key=True)


class OfNumber(Base):
    __tablename__ = "keys_number"
    id: Mapped[Number] = mapped_column(NumberType, primary_key=True, autoincrement=False)


class OfNested(Base):
    __tablename__ = "keys_nested"
    id: Mapped[Number] = mapped_column(Nested, primary_key=True, autoincrement=False)


class OfCode(Base):
    __tablename__ = "keys_code"
    id: Mapped[Number] = mapped_column(Code, primary_key=True)


class OfColor(Base):
    __tablename__ = "keys_color"
    id: Mapped[Color] = mapped_column(ColorType, primary_key=True)


class OfPadded(Base):
    """The server pads the key, so another string comes back than was written."""

    __tablename__ = "keys_padded"
    id: Mapped[str] = mapped_column(CHAR(10), primary_key=True)


class OfAddress(Base):
    __tablename__ = "keys_address"
    id: Mapped[Any] = mapped_column(INET, primary_key=True)


class OfPath(Base):
    __tablename__ = "keys_path"
    id: Mapped[tuple[int, ...]] = mapped_column(ARRAY(Integer, as_tuple=True), primary_key=True)


class OfRange(Base):
    """Sessions find its rows, but JSON has no ranges."""

    __tablename__ = "keys_range"
    id: Mapped[Range[int]] = mapped_column(INT4RANGE, primary_key=True)


class OfBoth(Base):
    """A composite key of both types."""

    __tablename__ = "keys_both"
    number: Mapped[Number] = mapped_column(NumberType, primary_key=True, autoincrement=False)
    guid: Mapped[UUID] = mapped_column(GUID, primary_key=True)
    code: Mapped[UUID] = mapped_column(String().with_variant(GUID, "postgresql"), primary_key=True)


class Task(Worker, Base, name="tests.keys.Task", lock="update"):
    """A worker that is a model."""

    __tablename__ = "keys_task"
    id: Mapped[UUID] = mapped_column(GUID, primary_key=True, default=uuid4)
    done: Mapped[int] = mapped_column(default=0)

    async def process(self, job: Job, session: AsyncSession) -> None:
        self.done += 1
