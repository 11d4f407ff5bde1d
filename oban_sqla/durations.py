"""Durations in words."""


def ago(seconds: float) -> str:
    """How long ago, in words."""
    return f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """How long, in words."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} seconds" if seconds < 10 else f"{seconds:.0f} seconds"
