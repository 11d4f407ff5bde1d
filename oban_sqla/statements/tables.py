"""The tables of jobs and producers, as SQLAlchemy Core knows them.

A statement that names a model instead takes 50 % longer to compile, and the first statements of a
node are compiled while its first jobs wait.
"""

from sqlalchemy import Table

from ..models import Job, ProducerRow

assert isinstance(Job.__table__, Table)
assert isinstance(ProducerRow.__table__, Table)

JOBS = Job.__table__
JOB = JOBS.c
"""The columns of a job."""

PRODUCERS = ProducerRow.__table__
PRODUCER = PRODUCERS.c
"""The columns of a producer."""
