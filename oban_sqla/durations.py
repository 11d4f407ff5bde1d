"""Write durations in words, such as "3 minutes ago"."""


def ago(seconds: float) -> str:
    """A time in the past in words, such as "5 hours ago"."""
    return f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """A duration in words, such as "5 hours"."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    text = f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"
    return "1 second" if text == "1.0" else f"{text} seconds"
