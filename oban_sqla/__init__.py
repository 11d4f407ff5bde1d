"""Background jobs that live in your SQLAlchemy unit of work."""

from . import monitor as _monitor  # noqa: F401 - plugs into the runtime
from . import on_change as _on_change  # noqa: F401 - plugs into the declaration of workers
from .contrib import log as _log
from .enqueue import error_notes as _error_notes
from .enqueue import unit_of_work as _unit_of_work
from .errors import (
    ConfigError,
    InstanceNotFoundError,
    JobNotFoundError,
    JobTimeoutError,
    ObanError,
    PrivilegeMissingError,
    QueueNotFoundError,
    RowMissingError,
    SchemaMissingError,
    SchemaVersionError,
    StandbyError,
    UnknownModelError,
    UnknownWorkerError,
    UnreadableJobError,
)
from .events import ObanEvents
from .limiting import Limit, Rate
from .models import Job, JobState, Unique
from .models.chain import Chain
from .oban import Oban
from .queue_orders import QueueInfo
from .workers.current_job import current_job, running_job
from .workers.decorators import job, worker
from .workers.function import JobFunction
from .workers.outcomes import Cancel, RateLimited, Record, RetryAfter, Snooze
from .workers.worker import Worker
from .workflows.batch import Batch
from .workflows.current import current_workflow
from .workflows.values import From
from .workflows.workflow import Workflow

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Cancel",
    "Chain",
    "ConfigError",
    "From",
    "InstanceNotFoundError",
    "Job",
    "JobFunction",
    "JobNotFoundError",
    "JobState",
    "JobTimeoutError",
    "Limit",
    "Oban",
    "ObanError",
    "ObanEvents",
    "PrivilegeMissingError",
    "QueueInfo",
    "QueueNotFoundError",
    "Rate",
    "RateLimited",
    "Record",
    "RetryAfter",
    "RowMissingError",
    "SchemaMissingError",
    "SchemaVersionError",
    "Snooze",
    "StandbyError",
    "Unique",
    "UnknownModelError",
    "UnknownWorkerError",
    "UnreadableJobError",
    "Worker",
    "Workflow",
    "current_job",
    "current_workflow",
    "job",
    "running_job",
    "worker",
]

_unit_of_work.attach()
_error_notes.attach()
_log.attach()
