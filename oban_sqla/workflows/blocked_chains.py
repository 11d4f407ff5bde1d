"""Find the chains that a discarded job holds."""

from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Executable, Text, cast, func, select
from sqlalchemy.orm import aliased

from ..models import Job, JobState
from .chains import chain_of, in_chain


class BlockedChain(NamedTuple):
    """A chain that a discarded job holds."""

    chain: str
    job_id: int
    """The discarded job."""
    waiting: int
    """How many jobs wait behind it."""


@lru_cache(maxsize=1)
def blocked() -> Executable:
    """The chains that a discarded job holds: chain, job, and how many jobs wait."""
    held, waiting = aliased(Job, name="held"), aliased(Job, name="waiting")
    return (
        select(chain_of(held), func.min(held.id), func.count(waiting.id.distinct()))
        .join(waiting, chain_of(waiting) == chain_of(held))
        .where(
            in_chain(held),
            cast(held.state, Text) == JobState.DISCARDED.value,
            held.meta["chain"].astext == "hold",
            in_chain(waiting),
            cast(waiting.state, Text) == JobState.SUSPENDED.value,
        )
        .group_by(chain_of(held))
        .order_by(chain_of(held))
    )
