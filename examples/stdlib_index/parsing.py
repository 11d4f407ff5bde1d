"""Find the definitions in a Python file, in processes of their own.

A thread that parses would hold the interpreter's lock, so the event loop could not start jobs.
"""

import ast
import gc
import signal
import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

Scope = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Found(NamedTuple):
    """A class or a function in a file."""

    kind: str
    name: str
    line: int


@dataclass(frozen=True, slots=True)
class Outline:
    """The lines and the definitions of a file."""

    module: str
    lines: int
    definitions: list[Found]


def outline(root: str, path: str) -> Outline:
    """The outline of a file; `SyntaxError` if it does not parse."""
    source = Path(root, path).read_bytes()
    tree = ast.parse(source, filename=path)
    definitions: list[Found] = []
    _collect(tree.body, "", definitions)
    parts = Path(path).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Outline(module, len(source.splitlines()), definitions)


def _collect(nodes: Iterable[ast.AST], scope: str, found: list[Found]) -> None:
    for node in nodes:
        if isinstance(node, ast.expr):
            continue  # expressions contain no definitions, and most of a file is expressions
        name = scope
        if isinstance(node, Scope):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            found.append(Found(kind, scope + node.name, node.lineno))
            name = f"{scope}{node.name}."
        _collect(ast.iter_child_nodes(node), name, found)


def _prepare() -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C ends the main process, which ends its children
    warnings.simplefilter("ignore")  # the library's own files cause some warnings
    gc.disable()  # syntax trees have no cycles, and the garbage collector would double the time


parsers = ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_prepare)
