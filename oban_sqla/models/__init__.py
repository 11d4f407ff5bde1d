"""The tables as declarative models, and the checks of their columns."""

from .cron import CronEntry
from .job import Job
from .leader_lease import LeaderLease
from .metadata import Base, metadata
from .producer_row import ProducerRow
from .queue_order import QueueOrder
from .state import JobState
from .unique import Unique
from .version import SchemaVersion

__all__ = [
    "Base",
    "CronEntry",
    "Job",
    "JobState",
    "LeaderLease",
    "ProducerRow",
    "QueueOrder",
    "SchemaVersion",
    "Unique",
    "metadata",
]
