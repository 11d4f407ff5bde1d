"""What is kept of the library: the run, its files, and what they define."""

from datetime import datetime

from sqlalchemy import ForeignKey, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Run(Base):
    """One indexing of a library."""

    __tablename__ = "index_runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    python: Mapped[str]
    root: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())

    files: Mapped[list["SourceFile"]] = relationship(back_populates="run")


class SourceFile(Base):
    """A file of the library; `module` is set when it has been indexed."""

    __tablename__ = "index_files"

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey(Run.id))
    path: Mapped[str]
    """Relative to the run's root."""
    module: Mapped[str | None]
    lines: Mapped[int | None]

    run: Mapped[Run] = relationship(back_populates="files")
    definitions: Mapped[list["Definition"]] = relationship(back_populates="file")


class Definition(Base):
    """A class or a function, by the line on which it stands."""

    __tablename__ = "index_definitions"

    id: Mapped[int] = mapped_column(primary_key=True)
    file_id: Mapped[int] = mapped_column(ForeignKey(SourceFile.id), index=True)
    kind: Mapped[str]
    name: Mapped[str]
    line: Mapped[int]

    file: Mapped[SourceFile] = relationship(back_populates="definitions")
