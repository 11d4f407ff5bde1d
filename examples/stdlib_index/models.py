"""The tables of the index: runs, files and definitions."""

from datetime import datetime

from sqlalchemy import DateTime, ForeignKey, UniqueConstraint, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Run(Base):
    """One indexing of a library."""

    __tablename__ = "index_runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    python: Mapped[str]
    root: Mapped[str]
    size: Mapped[int]
    """The number of files."""
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    files: Mapped[list["SourceFile"]] = relationship(back_populates="run", order_by="SourceFile.id")


class SourceFile(Base):
    """A file of the library. Its job sets `module` and `lines`."""

    __tablename__ = "index_files"
    __table_args__ = (UniqueConstraint("run_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey(Run.id))
    path: Mapped[str]
    """The path, relative to the root of the run."""
    module: Mapped[str | None]
    lines: Mapped[int | None]

    run: Mapped[Run] = relationship(back_populates="files")
    definitions: Mapped[list["Definition"]] = relationship(back_populates="file")


class Definition(Base):
    """A class or a function, and its line."""

    __tablename__ = "index_definitions"

    id: Mapped[int] = mapped_column(primary_key=True)
    file_id: Mapped[int] = mapped_column(ForeignKey(SourceFile.id), index=True)
    kind: Mapped[str]
    """`class` or `function`."""
    name: Mapped[str]
    """The qualified name in the module, such as `Thread.run`."""
    line: Mapped[int]

    file: Mapped[SourceFile] = relationship(back_populates="definitions")
