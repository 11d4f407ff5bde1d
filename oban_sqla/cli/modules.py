"""Import the modules with workers."""

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Iterator

from ..workers.unfinished import UNFINISHED, name_of_class, unfinished

logger = logging.getLogger("oban_sqla")


def import_all(modules: Iterable[str]) -> Iterator[str]:
    """Import modules, also from the working directory.

    Yields a complaint for each module that fails, and for each worker that can't process jobs.
    """
    import_from_here()
    before, modules = set(sys.modules), tuple(modules)
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            logger.debug("failed", exc_info=True)
            cause = traceback.format_exception_only(error)[-1].strip()
            yield f"can't import {module!r}: {cause}{_place(error)}{_hint(module)}"
    ours = {*modules, *(sys.modules.keys() - before)}
    for worker in unfinished():
        if worker.__module__ in ours:
            yield f"{name_of_class(worker)} {UNFINISHED}"


def import_from_here() -> None:
    """Let imports find the modules of the working directory, as `python -m` does."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)


def _hint(module: str) -> str:
    if not module.endswith(".py"):
        return ""
    name = module.removesuffix(".py").removeprefix("./").replace("/", ".")
    return f"; a module is named without .py: {name}"


def _place(error: BaseException) -> str:
    """The line of the user's code at which an import failed, if any."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__)
        and not frame.filename.startswith("<frozen importlib")
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
