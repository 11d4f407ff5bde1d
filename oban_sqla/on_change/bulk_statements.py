"""Find the rows that UPDATE, DELETE and INSERT statements of a session change without a flush."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnClause,
    ColumnElement,
    CursorResult,
    Result,
    ScalarResult,
    inspect,
    select,
)
from sqlalchemy.orm import FromStatement, Mapper, ORMExecuteState
from sqlalchemy.sql import visitors

from ..enqueue.news import executed
from ..errors import ObanError
from ..models.keys import having, key_names
from .reaction import Change, Reaction

OPTION = "oban_on_change"
"""The execution option for a statement: if it is False, the statement enqueues nothing."""

# The most keys in one SELECT. A statement takes at most 65,535 parameters.
_BATCH = 5_000

Key: TypeAlias = tuple[Any, ...]


def change(state: ORMExecuteState) -> Change | None:
    """The kind of change that a statement makes; `None` for a SELECT."""
    if state.is_insert:
        return "insert"
    if state.is_update:
        return "update"
    return "delete" if state.is_delete else None


def concerned(
    state: ORMExecuteState, change: Change, reactions: Iterable[Reaction]
) -> list[Reaction]:
    """The reactions that may react to the rows of a statement."""
    return [
        reaction
        for reaction in reactions
        if _is_about(state, reaction) and reaction.counts(change, _sets(state, reaction))
    ]


def refuse_untold(state: ORMExecuteState, change: Change, reactions: Sequence[Reaction]) -> None:
    """`ObanError` for a statement that does not return the keys of its rows."""
    statement: Any = state.statement
    why = None
    if change == "insert":
        why = "an INSERT that does not return its keys: add instances to the session"
    elif state.bind_mapper is None:
        why = "a statement on the table: use the model instead of the table"
    elif isinstance(statement, FromStatement) or statement.returning_column_descriptions:
        why = "a statement with RETURNING, which can't also return the keys: leave RETURNING out"
    elif not isinstance(state.parameters, Sequence) and not _returned(state.bind_mapper):
        why = "a table whose primary key differs from that of the model: change the instances"
    elif change == "delete" and any(
        one.when or not issubclass(state.bind_mapper.class_, one.model) for one in reactions
    ):
        why = "a DELETE, after which the rows can't be read: delete the instances"
    if why is not None:
        reaction = reactions[0]
        raise ObanError(
            f"{reaction.declaration.name} reacts to every {change} of"
            f" {reaction.model.__qualname__}, but this is {why}; or execute it with"
            f" execution_options({OPTION}=False), and nothing is enqueued"
        )


def execute(state: ORMExecuteState) -> tuple[Result[Any], Sequence[Key]]:
    """Execute a statement. Returns its result, and the primary keys of the changed rows."""
    assert state.bind_mapper is not None
    if isinstance(state.parameters, Sequence):
        # A bulk UPDATE by primary key; SQLAlchemy refuses rows without a key.
        by_key = state.invoke_statement()
        cls: type = state.bind_mapper.class_
        names = key_names(cls)
        return by_key, [tuple(row[name] for name in names) for row in state.parameters]
    # With "fetch", the server returns the keys.
    result = state.invoke_statement(execution_options={"synchronize_session": "fetch"})
    assert isinstance(result, CursorResult)
    columns = _returned(state.bind_mapper)
    rows = [row._mapping for row in result.returned_defaults_rows or ()]
    # The server does not return a column that the statement sets to a value.
    known = not rows or all(column in rows[0] for column in columns)
    given: Any = {} if known else result.last_updated_params()
    return result, [tuple(row[c] if c in row else given[c.key] for c in columns) for row in rows]


def rows(
    state: ORMExecuteState, reaction: Reaction, keys: Sequence[Key]
) -> Iterator[tuple[type, Key, object | None]]:
    """The class and key of each row to which a reaction reacts, and the row if it was read."""
    assert state.bind_mapper is not None
    cls = state.bind_mapper.class_
    reads = reaction.when is not None or (bool(reaction.counted_by) and not state.is_delete)
    if not reads and issubclass(cls, reaction.model):
        yield from ((cls, key, None) for key in keys)
        return
    for start in range(0, len(keys), _BATCH):
        chosen = having(reaction.model, keys[start : start + _BATCH])
        found: ScalarResult[Any] = state.session.scalars(select(reaction.model).where(chosen))
        for row in found.unique():
            if reaction.when is None or reaction.when(row):
                identity = inspect(row).identity
                assert identity is not None
                yield type(row), identity, row


def _returned(mapper: Mapper[Any]) -> Sequence[ColumnElement[Any]]:
    """The primary key of a table in the order of the mapper; empty if the mapper's key differs."""
    table: Any = mapper.local_table
    if table is not mapper.base_mapper.local_table:
        return tuple(table.primary_key)  # joined inheritance: the subclass has its own table
    return mapper.primary_key if {*mapper.primary_key} == {*table.primary_key} else ()


def _is_about(state: ORMExecuteState, reaction: Reaction) -> bool:
    if state.bind_mapper is not None:
        cls = state.bind_mapper.class_
        return issubclass(cls, reaction.model) or issubclass(reaction.model, cls)
    mapper: Mapper[Any] = inspect(reaction.model)
    return getattr(executed(state), "table", None) in mapper.tables


def _sets(state: ORMExecuteState, reaction: Reaction) -> Callable[[str], bool]:
    """A function that says whether an UPDATE sets the column of an attribute."""
    mapper: Mapper[Any] = inspect(reaction.model)
    statement = executed(state)

    def sets(name: str) -> bool:
        if isinstance(state.parameters, Sequence):
            return any(name in row for row in state.parameters)
        if state.bind_mapper is None:
            return True  # for a statement on the table, the attributes are unknown
        set_ = mapper.columns[name]
        used = _columns(statement)
        if statement.whereclause is not None:
            used -= _columns(statement.whereclause)
        # The values may also be parameters, by the keys of the columns.
        return used[set_.name] > 0 or set_.key in (state.parameters or ())

    return sets


def _columns(element: Any) -> Counter[str]:
    return Counter(one.name for one in visitors.iterate(element) if isinstance(one, ColumnClause))
