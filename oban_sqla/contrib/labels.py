"""The labels of instruments: the names of queues and workers, in a limited number."""

from typing import TypeAlias

Labels: TypeAlias = tuple[str, ...]
"""The values of an instrument's labels, in their order."""

MOST_NAMES = 500
"""The most queues, and the most workers, that have labels of their own."""
OTHER = "(other)"
"""The label of all further queues and workers."""
UNKNOWN = "(unknown)"
"""The label of workers that this process does not know."""


class Names:
    """The names that are labels. Their number is limited, since a user may enqueue any name."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= MOST_NAMES:
                return OTHER
            known = self._known[name] = name
        return known
