"""The states of jobs as tabs: their order, and the text of an empty tab."""

from collections.abc import Mapping

from ..models import JobState

STATES = (
    JobState.EXECUTING,
    JobState.AVAILABLE,
    JobState.SCHEDULED,
    JobState.RETRYABLE,
    JobState.SUSPENDED,
    JobState.COMPLETED,
    JobState.DISCARDED,
    JobState.CANCELLED,
)
"""The states in the order of the tabs."""

EMPTY: Mapping[JobState | None, str] = {
    None: "No job is in the table. Enqueue one: await MyWorker.enqueue({...}).",
    JobState.EXECUTING: "No job runs. If jobs are available, see whether a node runs their queue.",
    JobState.AVAILABLE: "No job is available: no job waits for a free slot of its queue.",
    JobState.SCHEDULED: "No job waits for its time. Enqueue one with schedule_in or scheduled_at.",
    JobState.RETRYABLE: "No failed job waits for its next attempt.",
    JobState.SUSPENDED: "No job is suspended: no step waits for other steps, no job for its turn.",
    JobState.COMPLETED: "No completed job is kept. The retention says how long they are kept.",
    JobState.DISCARDED: "No job has failed for the last time.",
    JobState.CANCELLED: "No job was cancelled.",
}
