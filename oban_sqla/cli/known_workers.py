"""Find the worker that a command names, and import its module."""

from difflib import get_close_matches
from importlib.util import find_spec

from ..settings import Settings
from ..workers.declaration import Declaration
from ..workers.registry import declarations
from .failures import fail
from .modules import import_all, import_from_here


def known_worker(settings: Settings, name: str) -> Declaration:
    """The worker with this name, or the only one whose name ends with it.

    Imports the modules of the settings, and the module in the name if it is not among those.
    """
    for complaint in import_all(settings.imports):
        fail(complaint)
    known = {one.name: one for one in declarations()}
    if name not in known and (module := _module(name)):
        for complaint in import_all([module]):
            fail(complaint)
        known = {one.name: one for one in declarations()}
    if name in known:
        return known[name]
    ending = [full for full in known if full.endswith(f".{name}")]
    if len(ending) > 1:
        fail(f"several workers are named {name!r}: {', '.join(sorted(ending))}; use a full name")
    if not ending:
        close = get_close_matches(name, known, 1, 0.6)
        hint = f"; did you mean {close[0]!r}?" if close else "; import its module with --import"
        fail(f"no imported worker is named {name!r}{hint}")
    return known[ending[0]]


def _module(name: str) -> str | None:
    """The longest prefix of a worker's name that is a module."""
    import_from_here()
    parts = name.split(".")[:-1]
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        try:
            if find_spec(module) is not None:
                return module
        except (ImportError, ValueError):
            continue
    return None
