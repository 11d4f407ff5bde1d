"""The one `MetaData` that holds every table of ours."""

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

metadata = MetaData()


class Base(DeclarativeBase):
    """The declarative base of our models; apart from the user's, so that neither sees the other."""

    metadata = metadata
