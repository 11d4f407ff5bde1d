"""`op.create_oban_args_index()` and its opposite: an index for `Job.args_contain`."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import text

from .ddl import execute, literal, name
from .locks import WAIT, lock_tables

INDEX = "oban_sqla_jobs_args_contain_index"


@Operations.register_operation("create_oban_args_index")
class CreateObanArgsIndexOp(MigrateOperation):
    """Make an index on the arguments of the jobs."""

    def __init__(self, prefix: str | None = None, *, concurrently: bool = True) -> None:
        self.prefix = prefix
        self.concurrently = concurrently

    def reverse(self) -> "DropObanArgsIndexOp":
        """The operation that undoes it."""
        return DropObanArgsIndexOp(self.prefix, concurrently=self.concurrently)

    @classmethod
    def create_oban_args_index(
        cls, operations: Operations, prefix: str | None = None, *, concurrently: bool = True
    ) -> None:
        """Make `Job.args_contain` fast, with a GIN index on the arguments of all jobs.

        Each insert and each claim of a job then writes about a third more. An index that is there
        stays; one that an interrupted build left invalid is built again.

        Args:
            prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
            concurrently: build it while jobs are enqueued and run. Alembic commits the open
                transaction before, as `autocommit_block()` does. False: in the transaction of the
                migration, while writers wait.
        """
        operations.invoke(cls(prefix, concurrently=concurrently))


@Operations.register_operation("drop_oban_args_index")
class DropObanArgsIndexOp(MigrateOperation):
    """Drop the index on the arguments of the jobs."""

    def __init__(self, prefix: str | None = None, *, concurrently: bool = True) -> None:
        self.prefix = prefix
        self.concurrently = concurrently

    def reverse(self) -> CreateObanArgsIndexOp:
        """The operation that undoes it."""
        return CreateObanArgsIndexOp(self.prefix, concurrently=self.concurrently)

    @classmethod
    def drop_oban_args_index(
        cls, operations: Operations, prefix: str | None = None, *, concurrently: bool = True
    ) -> None:
        """Drop what `create_oban_args_index` made, if it is there.

        Args:
            prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
            concurrently: as for `create_oban_args_index`.
        """
        operations.invoke(cls(prefix, concurrently=concurrently))


@Operations.implementation_for(CreateObanArgsIndexOp)
def _create(op: Operations, operation: CreateObanArgsIndexOp) -> None:
    jobs = name("oban_jobs", operation.prefix)
    with _place(op, jobs, operation.concurrently) as concurrently:
        if not op.get_context().as_sql and _is_invalid(op, operation.prefix):
            _drop_index(op, operation.prefix, concurrently)
        # The operators of containment alone make a smaller index, and cheaper inserts.
        execute(
            op,
            f"CREATE INDEX{concurrently} IF NOT EXISTS {INDEX} ON {jobs}"
            " USING gin (args jsonb_path_ops)",
        )


@Operations.implementation_for(DropObanArgsIndexOp)
def _drop(op: Operations, operation: DropObanArgsIndexOp) -> None:
    jobs = name("oban_jobs", operation.prefix)
    with _place(op, jobs, operation.concurrently) as concurrently:
        _drop_index(op, operation.prefix, concurrently)


@contextmanager
def _place(op: Operations, jobs: str, concurrently: bool) -> Iterator[str]:
    """Where to run the statement: outside of any transaction, and the word that asks for it."""
    if not concurrently:
        # Else those who write would wait behind what waits for older transactions.
        lock_tables(op, [jobs], WAIT)
        yield ""
        return
    with op.get_context().autocommit_block():
        yield " CONCURRENTLY"


def _drop_index(op: Operations, prefix: str | None, concurrently: str) -> None:
    execute(op, f"DROP INDEX{concurrently} IF EXISTS {name(INDEX, prefix)}")


def _is_invalid(op: Operations, prefix: str | None) -> bool:
    index = f"to_regclass({literal(name(INDEX, prefix))})"
    valid = op.get_bind().scalar(
        text(f"SELECT indisvalid FROM pg_index WHERE indexrelid = {index}".replace(":", r"\:"))
    )
    return valid is False
