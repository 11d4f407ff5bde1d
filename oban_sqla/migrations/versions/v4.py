"""Version 4: a constraint by which no two jobs hold the same unique key at the same time.

The meta of a unique job stores its unique key, the states in which the job holds the key, and for
how many seconds after its insertion. The constraint's index contains no other jobs.

When a job comes back to such a state from another state, a trigger removes its key. So no change
of a state can break the constraint, only an insert can.
"""

from alembic.operations import Operations

from ..ddl import add_constraint, create_function, execute, name

TABLES = ()

CONSTRAINT = "oban_sqla_unique"
GIVE_UP = "oban_sqla_give_up_claim"

KEY = "hashtextextended(meta #>> '{oban_sqla_unique,key}', 0) >> 1"
PERIOD = "CAST(meta #>> '{oban_sqla_unique,period}' AS float8)"
# An index needs IMMUTABLE expressions, and a cast of the enum to text is not. 'suspended' must not
# be named: the same transaction may have added it to an older type, and can't use it yet.
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

# Ranges, because GiST supports them without an extension. Without a period, the end is open.
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
    # The condition is in WHEN, so that the function is not called for other jobs.
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
