"""`JobFactory`: rows of jobs for tests, with factory-boy. It needs the extra `testing`."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import factory

from ..clock import client_now
from ..config import name_of
from ..models import Job, JobState
from ..workers.options import WorkerOptions

# What the constructor of Job takes; the rest is what happens to a job later.
_GIVEN = (
    "worker",
    "args",
    "queue",
    "priority",
    "max_attempts",
    "tags",
    "meta",
    "scheduled_at",
    "state",
)


class _JobFactory(factory.Factory):  # type: ignore[misc, type-arg]
    pass
