"""The name of a worker, which jobs store, and by which other processes find the worker."""

import sys
from collections.abc import Callable
from typing import Any

from ..import_path import importable
from ..models import validation


def worker_name(subject: type | Callable[..., Any], given: str | None) -> str:
    """The given name, or the `module.qualname` under which another process can import the worker.

    `ValueError` if the module can't be imported by name: a REPL, a notebook, standard input, or a
    script whose file name is not a module name.
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
