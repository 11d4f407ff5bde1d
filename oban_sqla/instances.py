"""The instances of this process by name, so that a worker can enqueue without being handed one."""

from collections.abc import Iterator
from typing import Any, Protocol
from weakref import WeakValueDictionary

from .errors import InstanceNotFoundError

DEFAULT_NAME = "Oban"


class Instance(Protocol):
    """What a worker needs of an `Oban`."""

    @property
    def name(self) -> str: ...

    @property
    def prefix(self) -> str | None: ...

    async def enqueue(self, job: Any, /) -> Any: ...


# By their own identity, the newest last: when it is gone, an older one of its name is found again.
_instances: WeakValueDictionary[int, Instance] = WeakValueDictionary()


def register(instance: Instance) -> None:
    """Make an instance known by its name; the newest of a name wins."""
    _instances.pop(id(instance), None)
    _instances[id(instance)] = instance


def _newest_first() -> Iterator[Instance]:
    for reference in reversed(_instances.valuerefs()):
        if (instance := reference()) is not None:
            yield instance


def every() -> list[Instance]:
    """All instances that this process still holds, the newest of each name."""
    newest: dict[str, Instance] = {}
    for instance in _newest_first():
        newest.setdefault(instance.name, instance)
    return list(newest.values())


def find(name: str) -> Instance | None:
    """The instance of that name, if this process built one and still holds it."""
    return next((instance for instance in _newest_first() if instance.name == name), None)


def get(name: str) -> Instance:
    """The instance of that name; `InstanceNotFoundError` without one."""
    instance = find(name)
    if instance is None:
        names = sorted({instance.name for instance in _newest_first()})
        known = ", ".join(map(repr, names)) or "none"
        raise InstanceNotFoundError(
            f"no Oban instance named {name!r} in this process (there: {known}):"
            " build one with Oban(engine), or pass the session or connection as conn=..."
        )
    return instance
