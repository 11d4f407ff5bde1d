"""Version 5: jobs are found by what their arguments contain."""

from alembic.operations import Operations

TABLES = ()


def upgrade(op: Operations, prefix: str | None) -> None:
    # The class that knows containment alone is the smaller one, and the cheaper to insert into.
    op.create_index(
        "oban_sqla_jobs_args_index",
        "oban_jobs",
        ["args"],
        schema=prefix,
        postgresql_using="gin",
        postgresql_ops={"args": "jsonb_path_ops"},
        if_not_exists=True,
    )


def downgrade(op: Operations, prefix: str | None) -> None:
    op.drop_index("oban_sqla_jobs_args_index", "oban_jobs", schema=prefix, if_exists=True)
