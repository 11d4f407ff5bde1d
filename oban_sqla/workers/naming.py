"""The name of a worker: what its jobs are stored under, and found by in another process."""

import sys
from collections.abc import Callable
from typing import Any

from ..import_path import importable
from ..models import validation


def worker_name(subject: type | Callable[..., Any], given: str | None) -> str:
    """The given name, or `module.qualname` as another process would import it.

    `ValueError` when the module has no such name: a REPL, a notebook, standard input, or a script
    whose file could not be imported.
    """
    if given is not None:
        return validation.worker_name(given)
    module = importable(subject.__module__)
    if module is None:
        file = getattr(sys.modules.get(subject.__module__), "__file__", None)
        raise ValueError(
            f"worker {subject.__qualname__!r} is defined where no other process could import it"
            f" ({file or 'an interactive session'}): give it a name, name='...', or move it to a"
            " module"
        )
    return validation.worker_name(f"{module}.{subject.__qualname__}")
