"""Warm up: an idle node does at its start what would delay one of its first jobs."""

import gc
from collections.abc import Iterable, Sequence

from sqlalchemy import Executable

from ..statements.acknowledge import acknowledge
from ..statements.available import any_available
from ..statements.claim import claim_of_queue
from ..statements.insert import insert
from ..statements.insert_few import insert_few
from ..statements.insert_one import insert_one
from ..statements.stage import stage
from .database import Database
from .raw_statement import RawStatement

# Whether a node of this process has warmed up.
_is_warm = False


async def warm_up(database: Database, queues: Iterable[str]) -> None:
    """Compile the statements of jobs and collect garbage, for the first idle node of a process.

    Compiling a statement takes 3 to 8 ms, and a full collection up to 100 ms. The modules and the
    statements of a new process bring Python close to a full collection, which would otherwise
    begin while one of the first jobs runs. A later node finds most of its statements compiled.

    Does nothing if jobs of the `queues` are available, since these jobs would have to wait.
    """
    global _is_warm
    if _is_warm:
        return
    ((busy,),) = await database.fetch(any_available(), {"queue_names": [*queues]})
    if busy:
        return
    _is_warm = True
    for statement in statements_of_jobs(database.prefix):
        RawStatement(database, statement).compile()
    if gc.isenabled():
        gc.collect()


def statements_of_jobs(prefix: str | None) -> Sequence[Executable]:
    """The statements that most jobs need: the same objects that the services send."""
    return (
        insert_one(prefix=prefix),
        insert_few(prefix=prefix),
        insert(prefix=prefix),
        stage(prefix=prefix, shared=False),
        claim_of_queue(),
        claim_of_queue(keep_plan=True),
        acknowledge(skip_locked=True),
    )
