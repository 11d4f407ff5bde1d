"""The lock under which a claim counts: what one claim has taken, the next one sees."""

from functools import lru_cache

from sqlalchemy import ColumnElement, Executable, Text, bindparam, func, literal, select

# Whoever counts sends all of its transaction at once. Where a driver can't, a process that stops
# in the middle must not keep the other nodes from their claims for longer.
LONGEST_IDLE = "5s"

BY_INDEX = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "jit": "off",
}
"""The planner's settings for a claim by keys."""


@lru_cache(maxsize=1)
def lock_queue() -> Executable:
    """Wait for the claims of the queue `queue_name` in the schema `home` that count, too.

    It lasts until the end of the transaction. Only the next statement of the transaction sees what
    the other claims have taken: a statement does not see what was committed after it began.
    """
    return select(
        _lock("queue", bindparam("home", type_=Text), bindparam("queue_name", type_=Text)),
        _for_this_transaction("idle_in_transaction_session_timeout", LONGEST_IDLE),
    )


@lru_cache(maxsize=1)
def lock_keys() -> Executable:
    """Wait for all claims in the schema `home` that count by keys, and for those of the queue.

    One lock for all keys: a claim learns only on its way which keys it may take.
    """
    return select(
        _lock("queue", bindparam("home", type_=Text), bindparam("queue_name", type_=Text)),
        _lock("keys", bindparam("home", type_=Text)),
        _for_this_transaction("idle_in_transaction_session_timeout", LONGEST_IDLE),
        # The statement is planned once. It is a good plan whatever the tables hold, if it follows
        # the indexes, and the statistics of a table that was just filled must not say otherwise.
        *(_for_this_transaction(setting, value) for setting, value in BY_INDEX.items()),
    )


@lru_cache(maxsize=1)
def lock_rates() -> Executable:
    """Wait for all claims in the schema `home` that count by keys."""
    return select(
        _lock("keys", bindparam("home", type_=Text)),
        _for_this_transaction("idle_in_transaction_session_timeout", LONGEST_IDLE),
    )


def _lock(*names: str | ColumnElement[str]) -> ColumnElement[None]:
    parts = (literal(name, Text) if isinstance(name, str) else name for name in names)
    name = func.concat_ws(literal(" ", Text), literal("oban_sqla limits", Text), *parts)
    return func.pg_advisory_xact_lock(func.hashtextextended(name, literal(0)))


def _for_this_transaction(setting: str, value: str) -> ColumnElement[str]:
    return func.set_config(literal(setting, Text), literal(value, Text), literal(True))
