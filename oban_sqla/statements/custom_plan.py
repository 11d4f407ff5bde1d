"""How the server plans a statement that is prepared once, and sent over and over."""

from sqlalchemy import Boolean, ColumnElement, bindparam, case, func, literal_column, select, true


def planned_anew() -> ColumnElement[bool]:
    """True; and makes the server plan a prepared statement each time, for the table as it is then.

    A plan that it keeps may be one for the few rows of an idle queue, and reads the whole table for
    each batch when a hundred thousand jobs have come, until that is analyzed. It keeps one unless
    that looks dearer than the others: here it is, by a count that is never made.
    """
    numbers = func.generate_series(literal_column("1"), literal_column("1000000000"))
    count = select(func.count()).select_from(numbers.table_valued("number")).scalar_subquery()
    never = bindparam("never", False, type_=Boolean)
    return case((never, count > literal_column("0")), else_=true())
