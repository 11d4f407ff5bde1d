"""Operations that create and drop an index for `Job.args_contain`."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import text

from .ddl import execute, literal, name
from .locks import WAIT, lock_tables

INDEX = "oban_sqla_jobs_args_contain_index"


@Operations.register_operation("create_oban_args_index")
class CreateObanArgsIndexOp(MigrateOperation):
    """Create an index on the arguments of the jobs."""

    def __init__(self, prefix: str | None = None, *, concurrently: bool = True) -> None:
        self.prefix = prefix
        self.concurrently = concurrently

    def reverse(self) -> "DropObanArgsIndexOp":
        """The operation that drops the index."""
        return DropObanArgsIndexOp(self.prefix, concurrently=self.concurrently)

    @classmethod
    def create_oban_args_index(
        cls, operations: Operations, prefix: str | None = None, *, concurrently: bool = True
    ) -> None:
        """Make `Job.args_contain` fast, with a GIN index on the arguments of all jobs.

        With the index, each insert and each claim of a job writes about a third more. An existing
        index stays, but an invalid index of an interrupted build is built again.

        Args:
            prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
            concurrently: build the index while jobs are enqueued and run. Alembic commits the open
                transaction first, as `autocommit_block()` does. False: build the index in the
                transaction of the migration, while writers wait.
        """
        operations.invoke(cls(prefix, concurrently=concurrently))


@Operations.register_operation("drop_oban_args_index")
class DropObanArgsIndexOp(MigrateOperation):
    """Drop the index on the arguments of the jobs."""

    def __init__(self, prefix: str | None = None, *, concurrently: bool = True) -> None:
        self.prefix = prefix
        self.concurrently = concurrently

    def reverse(self) -> CreateObanArgsIndexOp:
        """The operation that creates the index."""
        return CreateObanArgsIndexOp(self.prefix, concurrently=self.concurrently)

    @classmethod
    def drop_oban_args_index(
        cls, operations: Operations, prefix: str | None = None, *, concurrently: bool = True
    ) -> None:
        """Drop the index that `create_oban_args_index` made, if it exists.

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
        # `jsonb_path_ops` supports only containment: a smaller index, and cheaper inserts.
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
    """Prepare the transaction for the statement, and give its keyword CONCURRENTLY, if any."""
    if not concurrently:
        # Otherwise writers would queue behind a statement that waits for older transactions.
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
