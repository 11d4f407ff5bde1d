"""How long a failed job waits for its next attempt: Oban's default."""

import random

PADDING = 15.0
CLAMPED_ATTEMPTS = 20
JITTER = 0.1


def jittery_clamped(attempt: int, max_attempts: int) -> float:
    """Seconds: 15 + 2^attempt, plus up to a tenth of it.

    With more than 20 `max_attempts` the attempt counts in proportion, as if there were 20: the
    last wait is about 12 days, however many attempts there are.
    """
    clamped = attempt
    if max_attempts > CLAMPED_ATTEMPTS:
        clamped = round(attempt / max_attempts * CLAMPED_ATTEMPTS)
    seconds = PADDING + float(2 ** min(clamped, CLAMPED_ATTEMPTS))
    return seconds * (1 + random.random() * JITTER)
