"""The locks for claims that count jobs, so that each claim sees the jobs of the claim before."""

from functools import lru_cache

from sqlalchemy import ColumnElement, Executable, Text, bindparam, func, literal, select

# A claim that counts sends its whole transaction in one message. If the driver can't do that, this
# limits how long a process that stops in between can block the claims of other nodes.
LONGEST_IDLE = "5s"

BY_INDEX = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_memoize": "off",
    "jit": "off",
}
"""The planner's settings for a claim by keys."""


@lru_cache(maxsize=1)
def lock_queue() -> Executable:
    """Lock the queue `queue_name` in the schema `home`, after other claims that count.

    The lock lasts until the end of the transaction. Only the next statement of the transaction sees
    the jobs of other claims, since a statement does not see changes committed after its start.
    """
    return select(
        _lock("queue", bindparam("home", type_=Text), bindparam("queue_name", type_=Text)),
        _for_this_transaction("idle_in_transaction_session_timeout", LONGEST_IDLE),
    )


@lru_cache(maxsize=1)
def lock_keys() -> Executable:
    """Lock all keys and the queue in the schema `home`, after other claims that count.

    There is one lock for all keys, since a claim does not know its keys in advance.
    """
    return select(
        _lock("queue", bindparam("home", type_=Text), bindparam("queue_name", type_=Text)),
        _lock("keys", bindparam("home", type_=Text)),
        _for_this_transaction("idle_in_transaction_session_timeout", LONGEST_IDLE),
        # The statement is planned once. A plan that follows the indexes is always good, and wrong
        # statistics of a table that was just filled must not lead to another plan.
        *(_for_this_transaction(setting, value) for setting, value in BY_INDEX.items()),
    )


@lru_cache(maxsize=1)
def lock_rates() -> Executable:
    """Lock all keys in the schema `home`, after other claims that count by keys."""
    return select(
        _lock("keys", bindparam("home", type_=Text)),
        _for_this_transaction("idle_in_transaction_session_timeout", LONGEST_IDLE),
    )


@lru_cache(maxsize=1)
def isolation() -> Executable:
    """The isolation level of the transaction."""
    return select(func.current_setting(literal("transaction_isolation", Text)))


def _lock(*names: str | ColumnElement[str]) -> ColumnElement[None]:
    parts = (literal(name, Text) if isinstance(name, str) else name for name in names)
    name = func.concat_ws(literal(" ", Text), literal("oban_sqla limits", Text), *parts)
    return func.pg_advisory_xact_lock(func.hashtextextended(name, literal(0)))


def _for_this_transaction(setting: str, value: str) -> ColumnElement[str]:
    return func.set_config(literal(setting, Text), literal(value, Text), literal(True))
