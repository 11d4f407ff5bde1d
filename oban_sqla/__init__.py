"""Background jobs that live in your SQLAlchemy unit of work."""

from .contrib import log as _log
from .enqueue import unit_of_work as _unit_of_work
from .errors import InstanceNotFoundError, ObanError, SchemaMissingError, UnknownWorkerError
from .events import ObanEvents
from .models import Job, JobState
from .oban import Oban
from .workers import Cancel, JobFunction, Record, Snooze, Worker, current_job, job, worker

__version__ = "0.1.0"

__all__ = [
    "Cancel",
    "InstanceNotFoundError",
    "Job",
    "JobFunction",
    "JobState",
    "Oban",
    "ObanError",
    "ObanEvents",
    "Record",
    "SchemaMissingError",
    "Snooze",
    "UnknownWorkerError",
    "Worker",
    "current_job",
    "job",
    "worker",
]

_unit_of_work.attach()
_log.attach()
