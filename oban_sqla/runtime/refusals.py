"""Tell the refusal of a single outcome from a failure of the database, by the SQLSTATE."""

# Classes of SQLSTATE: the connection, the server or its resources, a conflict, a lock, a wrong
# password, a missing database. A single outcome is not the reason, so all outcomes wait.
_PASSING = ("08", "53", "55", "57", "58", "40", "25", "28", "3D")
# The statement exceeded the server's timeout. Half as many outcomes may be fast enough.
_TOO_SLOW = "57014"
_STRUCTURE = "42"
_NOT_IN_ENCODING = ("22P05", "22021")


def concerns_some(state: str, count: int) -> bool:
    """Whether the error for `count` outcomes concerns some of them, not the whole database."""
    # PostgreSQL refuses some data, and a user's trigger may raise any other error.
    if state == _TOO_SLOW:
        return count > 1
    return bool(state) and not state.startswith(_PASSING)


def concerns_structure(state: str) -> bool:
    """Whether a table or column is missing, for which no attempt must fail."""
    return state.startswith(_STRUCTURE)


def concerns_encoding(state: str) -> bool:
    """Whether the database's encoding lacks a character."""
    return state in _NOT_IN_ENCODING
