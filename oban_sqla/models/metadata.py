"""The `MetaData` of all our tables."""

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

metadata = MetaData()


class Base(DeclarativeBase):
    """The declarative base of our models. It shares no tables or classes with the user's base."""

    metadata = metadata
