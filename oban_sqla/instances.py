"""The instances of this process by name. A worker without `conn` finds its instance here."""

from collections.abc import Iterator
from typing import Any, Protocol
from weakref import WeakValueDictionary

from .errors import InstanceNotFoundError

DEFAULT_NAME = "Oban"


class Instance(Protocol):
    """The part of `Oban` that workers use."""

    @property
    def name(self) -> str: ...

    @property
    def prefix(self) -> str | None: ...

    async def enqueue(self, job: Any, /) -> Any: ...


# Keyed by `id()`, the newest last. If the newest instance of a name is gone, `find` returns an
# older one.
_instances: WeakValueDictionary[int, Instance] = WeakValueDictionary()


def register(instance: Instance) -> None:
    """Register an instance under its name. The newest instance of a name wins."""
    _instances.pop(id(instance), None)
    _instances[id(instance)] = instance


def _newest_first() -> Iterator[Instance]:
    for reference in reversed(_instances.valuerefs()):
        if (instance := reference()) is not None:
            yield instance


def every() -> list[Instance]:
    """The newest instance of each name in this process."""
    newest: dict[str, Instance] = {}
    for instance in _newest_first():
        newest.setdefault(instance.name, instance)
    return list(newest.values())


def find(name: str) -> Instance | None:
    """The newest instance of that name in this process, if there is one."""
    return next((instance for instance in _newest_first() if instance.name == name), None)


def get(name: str) -> Instance:
    """The newest instance of that name; `InstanceNotFoundError` if there is none."""
    instance = find(name)
    if instance is None:
        names = sorted({instance.name for instance in _newest_first()})
        known = ", ".join(map(repr, names)) or "none"
        raise InstanceNotFoundError(
            f"no Oban instance named {name!r} in this process (there: {known}):"
            " build one with Oban(engine), or pass the session or connection as conn=..."
        )
    return instance
