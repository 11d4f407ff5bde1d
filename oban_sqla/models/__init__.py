"""The tables as declarative models, and the rules their columns obey."""

from .control import Control
from .cron import CronEntry
from .job import Job
from .leader import Leader
from .metadata import Base, metadata
from .producer import Producer
from .state import JobState
from .unique import Unique
from .version import SchemaVersion

__all__ = [
    "Base",
    "Control",
    "CronEntry",
    "Job",
    "JobState",
    "Leader",
    "Producer",
    "SchemaVersion",
    "Unique",
    "metadata",
]
