"""Version 4: no two jobs that count hold the same unique key at the same time.

A unique job keeps in its meta its unique key, the states in which it counts, and for how
many seconds after its insertion. Other jobs are not in the constraint's index.

A job that has left its states does not count again when it comes back: it gives up its key. So
no move of a job can break the constraint, whoever makes it, and only an insert has to look.
"""

from alembic.operations import Operations

from ..ddl import add_constraint, create_function, execute, name

TABLES = ()

CONSTRAINT = "oban_sqla_unique"
GIVE_UP = "oban_sqla_give_up_claim"

KEY = "hashtextextended(meta #>> '{oban_sqla_unique,key}', 0) >> 1"
PERIOD = "CAST(meta #>> '{oban_sqla_unique,period}' AS float8)"
# Not the state as a text, which is not IMMUTABLE. And without a word of 'suspended', of which
# nothing may make use in the transaction that added it to an older type.
STATE = """
    CASE state
        WHEN 'available' THEN 'available'
        WHEN 'scheduled' THEN 'scheduled'
        WHEN 'executing' THEN 'executing'
        WHEN 'retryable' THEN 'retryable'
        WHEN 'completed' THEN 'completed'
        WHEN 'discarded' THEN 'discarded'
        WHEN 'cancelled' THEN 'cancelled'
        ELSE 'suspended'
    END
"""

# As ranges, since GiST knows those without an extension. No period is an end that is open.
DEFINITION = f"""
EXCLUDE USING gist (
    int8range({KEY}, {KEY}, '[]') WITH &&,
    tsrange(inserted_at, inserted_at + make_interval(0, 0, 0, 0, 0, 0, {PERIOD})) WITH &&
)
WHERE (meta ? 'oban_sqla_unique' AND (meta #> '{{oban_sqla_unique,states}}') ? {STATE})
"""

COMES_BACK = """
OLD.meta ? 'oban_sqla_unique'
AND (OLD.meta #> '{oban_sqla_unique,states}') ? CAST(OLD.state AS text) IS NOT TRUE
"""


def upgrade(op: Operations, prefix: str | None) -> None:
    jobs, give_up = name("oban_jobs", prefix), name(GIVE_UP, prefix)
    add_constraint(op, jobs, CONSTRAINT, DEFINITION)
    create_function(
        op,
        f"{give_up}() RETURNS trigger",
        "BEGIN NEW.meta := NEW.meta - 'oban_sqla_unique'; RETURN NEW; END",
    )
    # Its condition is asked without a call of the function: other jobs do not pay for it.
    execute(
        op,
        f"CREATE OR REPLACE TRIGGER {GIVE_UP} BEFORE UPDATE OF state ON {jobs}"
        f" FOR EACH ROW WHEN ({COMES_BACK}) EXECUTE FUNCTION {give_up}()",
    )


def downgrade(op: Operations, prefix: str | None) -> None:
    jobs, give_up = name("oban_jobs", prefix), name(GIVE_UP, prefix)
    execute(op, f"DROP TRIGGER IF EXISTS {GIVE_UP} ON {jobs}")
    execute(op, f"DROP FUNCTION IF EXISTS {give_up}()")
    execute(op, f"ALTER TABLE IF EXISTS {jobs} DROP CONSTRAINT IF EXISTS {CONSTRAINT}")
