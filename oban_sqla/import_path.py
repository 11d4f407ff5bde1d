"""Import paths: the names by which a process imports modules and the objects in them."""

import importlib
import re
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

_MAIN = ("__main__", "__mp_main__")
"""The names of a script's module in its own process, and in a child of multiprocessing."""


def is_import_path(value: object) -> bool:
    """Whether a value has the form `module:attribute`; nothing is imported."""
    return isinstance(value, str) and _FORM.fullmatch(value) is not None


def load(path: str) -> Any:
    """Import the module, and return the attribute. Raises `ImportError` or `AttributeError`."""
    module, _, attribute = path.partition(":")
    return reduce(getattr, attribute.split("."), importlib.import_module(module))


def origin(subject: type | Callable[..., Any]) -> str:
    """The origin of code, `module.qualname`. It is the same if a script is run or imported."""
    return f"{importable(subject.__module__) or subject.__module__}.{subject.__qualname__}"


def importable(name: str) -> str | None:
    """The name of a module for other processes; `None` if they could not import it."""
    if name not in _MAIN:
        return name
    main = sys.modules.get(name)
    spec = getattr(main, "__spec__", None)
    # A directory or an archive that is run has a spec, but its name can't be imported.
    if spec is not None and spec.name not in _MAIN:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return None if file is None else _module_of(Path(file).resolve())


def imported(origin: str) -> Any:
    """The object at `module.qualname`, if this process has imported the module, else `None`.

    This function imports nothing, and runs no code of the module.
    """
    module, _, path = origin.rpartition(".")
    names = [path]
    while module:
        for known in (module, *_MAIN):
            # Compare the names first: for the main module, `importable` looks at files.
            if known in sys.modules and (known == module or importable(known) == module):
                found: Any = sys.modules[known]
                for name in names:
                    found = vars(found).get(name) if hasattr(found, "__dict__") else None
                if found is not None:
                    return found
        module, _, name = module.rpartition(".")
        names.insert(0, name)
    return None


def _module_of(path: Path) -> str | None:
    parts = [path.stem]
    folder = path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    # In another process, `__main__` alone would name that process's own script.
    if path.suffix != ".py" or parts == ["__main__"]:
        return None
    return ".".join(parts) if all(part.isidentifier() for part in parts) else None
