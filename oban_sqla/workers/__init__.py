"""Declaring work: classes, functions and models that process jobs."""

from .current_job import current_job
from .decorators import job, worker
from .function import JobFunction
from .outcomes import Cancel, Record, Snooze
from .worker import Worker

__all__ = ["Cancel", "JobFunction", "Record", "Snooze", "Worker", "current_job", "job", "worker"]
