"""`op.grant_oban()`: the least privileges for roles that enqueue, run or read jobs."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from alembic.operations import MigrateOperation, Operations

from ..statements.inspect import RUNNING
from .ddl import execute, execute_block, literal, name
from .versions import TABLES, v7

Roles: TypeAlias = str | Sequence[str]
Privileges: TypeAlias = Mapping[str, Sequence[str]]

ENQUEUE: Privileges = {
    "oban_jobs": ("SELECT", "INSERT"),
    "oban_producers": ("SELECT",),
    **dict.fromkeys(v7.TABLES, ("SELECT", "INSERT", "UPDATE")),
}
RUN: Privileges = {table: RUNNING for table in TABLES}
READ: Privileges = {table: ("SELECT",) for table in TABLES}


@Operations.register_operation("grant_oban")
class GrantObanOp(MigrateOperation):
    """Grant privileges on the tables of oban_sqla."""

    def __init__(
        self,
        *,
        enqueue: Roles = (),
        run: Roles = (),
        read: Roles = (),
        prefix: str | None = None,
    ) -> None:
        self.prefix = prefix
        self.grants = [(_roles(enqueue), ENQUEUE), (_roles(run), RUN), (_roles(read), READ)]

    @classmethod
    def grant_oban(
        cls,
        operations: Operations,
        *,
        enqueue: Roles = (),
        run: Roles = (),
        read: Roles = (),
        prefix: str | None = None,
    ) -> None:
        """Grant roles the privileges on the tables that they need, and no others.

        Grant again after an upgrade, which may add tables. The role that migrates must own the
        tables.

        Args:
            enqueue: roles that enqueue jobs, except unique jobs with `replace`.
            run: roles that run queues, manage jobs, or enqueue unique jobs with `replace`.
            read: roles that only read, such as the role of a dashboard, `status` or `doctor`.
            prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
        """
        operations.invoke(cls(enqueue=enqueue, run=run, read=read, prefix=prefix))


@Operations.implementation_for(GrantObanOp)
def _grant(op: Operations, operation: GrantObanOp) -> None:
    for roles, privileges in operation.grants:
        if not roles:
            continue
        to = ", ".join(map(name, roles))
        _grant_use_of_schema(op, operation.prefix, to)
        for table, granted in privileges.items():
            of = name(table, operation.prefix)
            execute(op, f"GRANT {', '.join(granted)} ON {of} TO {to}")
        if "INSERT" in privileges["oban_jobs"]:
            _grant_use_of_sequence(op, name("oban_jobs", operation.prefix), to)


def _grant_use_of_schema(op: Operations, prefix: str | None, to: str) -> None:
    if prefix is not None:
        execute(op, f"GRANT USAGE ON SCHEMA {name(prefix)} TO {to}")
        return
    of = "(SELECT relnamespace::regnamespace FROM pg_class WHERE oid = to_regclass('oban_jobs'))"
    grant = f"'GRANT USAGE ON SCHEMA ' || {of} || {literal(f' TO {to}')}"
    execute_block(op, f"BEGIN EXECUTE {grant}; END")


def _grant_use_of_sequence(op: Operations, jobs: str, to: str) -> None:
    # Needed if the id is a bigserial, as in a table that Oban for Elixir made.
    of = f"pg_get_serial_sequence({literal(jobs)}, 'id')"
    grant = f"'GRANT USAGE ON SEQUENCE ' || {of} || {literal(f' TO {to}')}"
    execute_block(op, f"BEGIN EXECUTE {grant}; END")


def _roles(roles: Roles) -> tuple[str, ...]:
    return (roles,) if isinstance(roles, str) else tuple(roles)
