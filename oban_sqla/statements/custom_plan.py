"""Make the server plan a prepared statement anew at each execution."""

from sqlalchemy import Boolean, ColumnElement, bindparam, case, func, literal_column, select, true


def planned_anew() -> ColumnElement[bool]:
    """A condition that is always true, and that makes the server plan the statement each time.

    PostgreSQL keeps a generic plan for a prepared statement unless the plan costs more than the
    custom plans. A plan made for an idle queue would read the whole table for each batch once
    100,000 jobs have come, until the next ANALYZE. Here the generic plan includes a huge count,
    which looks expensive and never runs.
    """
    numbers = func.generate_series(literal_column("1"), literal_column("1000000000"))
    count = select(func.count()).select_from(numbers.table_valued("number")).scalar_subquery()
    never = bindparam("never", False, type_=Boolean)
    return case((never, count > literal_column("0")), else_=true())
