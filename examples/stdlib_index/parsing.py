"""Read a Python file, and find what it defines."""

import ast
from dataclasses import dataclass
from pathlib import Path

Found = tuple[str, str, int]
"""Kind, qualified name, and line of a definition."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What a file says of itself."""

    module: str
    lines: int
    definitions: list[Found]


def outline(root: str, path: str) -> Outline:
    """The outline of a file; `SyntaxError` or `ValueError` if it does not parse."""
    source = (Path(root) / path).read_bytes()
    definitions: list[Found] = []
    _collect(ast.parse(source, filename=path), "", definitions)
    parts = Path(path).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Outline(module, source.count(b"\n"), definitions)


def _collect(node: ast.AST, scope: str, found: list[Found]) -> None:
    for child in ast.iter_child_nodes(node):
        inner = scope
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            kind = "class" if isinstance(child, ast.ClassDef) else "function"
            inner = f"{scope}{child.name}."
            found.append((kind, inner[:-1], child.lineno))
        _collect(child, inner, found)
