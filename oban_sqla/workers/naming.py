"""The name of a worker: what its jobs are stored under, and found by in another process."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..models import validation


def worker_name(subject: type | Callable[..., Any], given: str | None) -> str:
    """The given name, or `module.qualname` as another process would import it.

    `ValueError` when the module has no such name: a REPL, a notebook, standard input, or a script
    whose file could not be imported.
    """
    if given is not None:
        return validation.worker_name(given)
    module = subject.__module__
    if module in ("__main__", "__mp_main__"):
        module = _importable_main(subject)
    return validation.worker_name(f"{module}.{subject.__qualname__}")


def _importable_main(subject: type | Callable[..., Any]) -> str:
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if file is not None:
        path = Path(file).resolve()
        parts = [path.stem]
        folder = path.parent
        while (folder / "__init__.py").exists():
            parts.insert(0, folder.name)
            folder = folder.parent
        if path.suffix == ".py" and all(part.isidentifier() for part in parts):
            return ".".join(parts)
    raise ValueError(
        f"worker {subject.__qualname__!r} is defined where no other process could import it"
        f" ({file or 'an interactive session'}): give it a name, name='...', or move it to a module"
    )
