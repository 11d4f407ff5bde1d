"""Insert a few jobs that make one notification: `insert` with less work for the server.

For one job, the server takes 86 instead of 115 µs of CPU time, and psycopg 58 instead of 70: there
are no WITH and no aggregate, and the notification is not JSON that the server has to read.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import Executable, Text, bindparam, func, select

from ..models import Job
from .announce import schema
from .insert import inserting

FEW = 10
"""With more jobs, their rows cost the process more than the statement saves."""


@lru_cache(maxsize=64)
def insert_few(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """Insert the parameter `jobs`, which `records()` makes, and send `payload` on `channel`.

    Returns the id and `inserted_at` of each job. The smallest id belongs to the first job.
    """
    columns: list[Any] = [Job.id, Job.inserted_at]
    if announced:
        home = schema(prefix)
        channel = home.c.name + "." + bindparam("channel", type_=Text)
        sent = select(func.pg_notify(channel, bindparam("payload", type_=Text))).select_from(home)
        columns.append(sent.scalar_subquery())
    return inserting().returning(*columns)
