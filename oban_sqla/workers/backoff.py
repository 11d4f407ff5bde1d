"""The default backoff, as in Oban: how long a failed job waits for its next attempt."""

import random

PADDING = 15.0
CLAMPED_ATTEMPTS = 20
JITTER = 0.1


def jittery_clamped(attempt: int, max_attempts: int) -> float:
    """The seconds until the next attempt: 15 + 2^attempt, plus a random part up to a tenth.

    If `max_attempts` is more than 20, the attempt is scaled to a range of 20. So the last wait is
    always at most about 12 days.
    """
    clamped = attempt
    if max_attempts > CLAMPED_ATTEMPTS:
        clamped = round(attempt / max_attempts * CLAMPED_ATTEMPTS)
    seconds = PADDING + float(2 ** min(clamped, CLAMPED_ATTEMPTS))
    return seconds * (1 + random.random() * JITTER)
