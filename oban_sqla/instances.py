"""The instances of this process by name, so that a worker can enqueue without being handed one."""

from collections.abc import Iterable
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

    async def enqueue_many(self, jobs: Iterable[Any], /, *, conn: Any = None) -> list[Any]: ...


_instances: WeakValueDictionary[str, Instance] = WeakValueDictionary()


def register(instance: Instance) -> None:
    """Make an instance known by its name; the newest of a name wins."""
    _instances[instance.name] = instance


def find(name: str) -> Instance | None:
    """The instance of that name, if this process built one and still holds it."""
    return _instances.get(name)


def get(name: str) -> Instance:
    """The instance of that name; `InstanceNotFoundError` without one."""
    instance = _instances.get(name)
    if instance is None:
        known = ", ".join(repr(known) for known in sorted(_instances)) or "none"
        raise InstanceNotFoundError(
            f"no Oban instance named {name!r} in this process (there: {known}):"
            " build one with Oban(engine), or pass the session or connection as conn=..."
        )
    return instance
