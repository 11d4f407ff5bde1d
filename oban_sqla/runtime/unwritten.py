"""`Unwritten`: an outcome that waits to be written, and its changes if the database refuses it."""

import time

from ..models import JobState
from ..statements.acknowledge import Ack, as_json

RETRY_IN = 60.0
"""Seconds until the next attempt of a job whose outcome the database refused."""


class Unwritten:
    """An outcome that waits to be written."""

    __slots__ = (
        "ack",
        "due",
        "failed",
        "last",
        "queue",
        "reported",
        "sent",
        "since",
        "text",
        "tries",
    )

    def __init__(self, ack: Ack, queue: str, last: bool) -> None:
        self.queue = queue
        self.last = last
        """Whether this was the last attempt of the job."""
        self.since = time.monotonic()
        self.due = 0.0
        self.tries = 0
        self.sent = False
        """Whether the outcome was sent without an answer, so it may be written already."""
        self.failed = False
        """Whether the attempt failed because its outcome could not be stored."""
        self.reported = False
        self.ack = ack
        try:
            self.text = as_json(ack)
        except Exception as error:
            self.fail(error)

    def escape(self) -> bool:
        """Replace the error by ASCII with escapes. Returns `False` if it is ASCII already."""
        error = self.ack.error
        if error is None or error.isascii():
            return False
        self.ack = self.ack._replace(error=error.encode("ascii", "backslashreplace").decode())
        self.text = as_json(self.ack)
        return True

    def fail(self, error: Exception) -> None:
        """Turn this into the outcome of an attempt that failed with `error`."""
        self.failed = True
        self.ack = self.ack._replace(
            state=JobState.DISCARDED if self.last else JobState.RETRYABLE,
            delay=None if self.last else RETRY_IN,
            spent=True,
            error=f"the outcome could not be stored, so the attempt failed: {first_line(error)}",
            meta=None,
        )
        self.text = as_json(self.ack)


def first_line(error: Exception) -> str:
    """The first line of the message of an error."""
    text = str(getattr(error, "orig", error)).strip()
    return (text or type(error).__name__).splitlines()[0][:500]
