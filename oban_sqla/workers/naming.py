"""The name of a worker: what its jobs are stored under, and found by in another process."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..models import validation

_MAIN = ("__main__", "__mp_main__")
"""What a script is called in its own process, and in one that multiprocessing spawned from it."""


def worker_name(subject: type | Callable[..., Any], given: str | None) -> str:
    """The given name, or `module.qualname` as another process would import it.

    `ValueError` when the module has no such name: a REPL, a notebook, standard input, or a script
    whose file could not be imported.
    """
    if given is not None:
        return validation.worker_name(given)
    module = _importable(subject.__module__)
    if module is None:
        file = getattr(sys.modules.get(subject.__module__), "__file__", None)
        raise ValueError(
            f"worker {subject.__qualname__!r} is defined where no other process could import it"
            f" ({file or 'an interactive session'}): give it a name, name='...', or move it to a"
            " module"
        )
    return validation.worker_name(f"{module}.{subject.__qualname__}")


def origin(subject: type | Callable[..., Any]) -> str:
    """Where the code is, `module.qualname`; the same for a script and the script imported."""
    return f"{_importable(subject.__module__) or subject.__module__}.{subject.__qualname__}"


def _importable(name: str) -> str | None:
    if name not in _MAIN:
        return name
    main = sys.modules.get(name)
    spec = getattr(main, "__spec__", None)
    # A directory or an archive that is run has a spec, but no name that others could import.
    if spec is not None and spec.name not in _MAIN:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return None if file is None else _module_of(Path(file).resolve())


def _module_of(path: Path) -> str | None:
    parts = [path.stem]
    folder = path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    # Alone, `__main__` would be the other process's own.
    if path.suffix != ".py" or parts == ["__main__"]:
        return None
    return ".".join(parts) if all(part.isidentifier() for part in parts) else None
