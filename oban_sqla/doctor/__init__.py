"""The doctor: what keeps jobs from running, now or before long, and what to do about it."""
