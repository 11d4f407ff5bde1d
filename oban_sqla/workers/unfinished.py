"""Find unfinished workers: classes without a method `process`."""

import inspect
from collections.abc import Iterator

from .worker import Worker

UNFINISHED = (
    "has no method process(self, job), so no job of it can run; if it is a base of workers, declare"
    " process as an abstract method"
)


def unfinished() -> list[type]:
    """The worker classes without a method `process`.

    A class with subclasses or with an abstract `process` is a base of workers, so it is left out.
    """
    return [cls for cls in _leaves(Worker) if not hasattr(cls, "process") and not _is_abstract(cls)]


def name_of_class(cls: type) -> str:
    """The name of a class, with its module."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _leaves(cls: type) -> Iterator[type]:
    subclasses: list[type] = cls.__subclasses__()
    for subclass in subclasses:
        if subclass.__subclasses__():
            yield from _leaves(subclass)
        else:
            yield subclass


def _is_abstract(cls: type) -> bool:
    # An abstract model has no table, so it has no rows with jobs.
    return inspect.isabstract(cls) or vars(cls).get("__abstract__") is True
