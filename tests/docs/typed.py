"""The Python snippets of the docs and the README, as modules for a type checker.

`python -m tests.docs.typed DIRECTORY` writes a package for each page, with its files and one module
of all its snippets. Type checkers refuse `await` outside of functions, so it becomes a call there.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.docs.page import DOCS, QUICKSTART, ROOT, Snippet, snippets

# Plugins add operations to Alembic's `op` at run time, so type checkers don't know them.
_OPERATIONS = re.compile(r"\bop\.\w+_oban\w*\(")

_WAITING = """\
from collections.abc import AsyncIterable, Awaitable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TypeVar

_T = TypeVar("_T")


def _await(it: Awaitable[_T]) -> _T:
    raise NotImplementedError


def _enter(it: AbstractAsyncContextManager[_T]) -> AbstractContextManager[_T]:
    raise NotImplementedError


def _iterate(it: AsyncIterable[_T]) -> Iterable[_T]:
    raise NotImplementedError
"""
"""The module with the calls that replace `await`, `async with` and `async for`."""


def write(directory: Path) -> None:
    """Write all pages into an empty directory."""
    directory.mkdir(parents=True)
    (directory / "waiting.py").write_text(_WAITING)
    (directory / "pyrightconfig.json").write_text("{}")
    names = [path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")]
    pages = {name: list(snippets(name)) for name in sorted(names)}
    shop = next(one for one in pages[QUICKSTART] if one.file == "shop.py")
    for page, own in {**pages, "readme": list(_readme())}.items():
        if not any(one.file == "shop.py" for one in own):
            own = [shop, *own]
        # A package with the bare name of the page, such as `alembic`, would hide an installed one.
        _write_page(directory / re.sub(r"\W", "_", f"docs_{page}"), own)


def _readme() -> Iterator[Snippet]:
    for code in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M):
        yield Snippet("python", code)


def _write_page(directory: Path, own: list[Snippet]) -> None:
    python = [one for one in own if one.language == "python" and not _OPERATIONS.search(one.code)]
    files = {one.file: one.code for one in python if one.file}
    modules = {Path(file).parts[0].removesuffix(".py") for file in files}
    code = "".join(one.code for one in python if not one.file)
    directory.mkdir()
    (directory / "__init__.py").touch()
    for file, text in {**files, "snippets.py": _without_await(code)}.items():
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_within(directory.name, modules, text))


def _within(package: str, modules: set[str], code: str) -> str:
    """The code with the imports of the page's own modules from its package."""
    if not modules:
        return code
    names = "|".join(map(re.escape, modules))
    code = re.sub(rf"^( *)from ({names})\b", rf"\1from {package}.\2", code, flags=re.MULTILINE)
    return re.sub(rf"^( *)import ({names})\b", rf"\1from {package} import \2", code, flags=re.M)


def _without_await(code: str) -> str:
    """The code with calls for each `await`, `async with` and `async for` outside of functions."""
    lines = code.splitlines(keepends=True)
    edits: list[tuple[int, int, str, str]] = []

    def wrap(node: ast.expr, name: str) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        edits.append((node.lineno, node.col_offset, "", f"{name}("))
        edits.append((node.end_lineno, node.end_col_offset, "", ")"))

    for node in _outside_functions(ast.parse(code)):
        if isinstance(node, ast.Await):
            edits.append((node.lineno, node.col_offset, "await ", ""))
            wrap(node.value, "_await")
        elif isinstance(node, ast.AsyncWith):
            edits.append((node.lineno, node.col_offset, "async ", ""))
            for item in node.items:
                wrap(item.context_expr, "_enter")
        elif isinstance(node, ast.AsyncFor):
            edits.append((node.lineno, node.col_offset, "async ", ""))
            wrap(node.iter, "_iterate")
    for number, column, old, new in sorted(edits, key=lambda edit: edit[:2], reverse=True):
        line = lines[number - 1].encode()
        assert line[column:].startswith(old.encode())
        lines[number - 1] = (line[:column] + new.encode() + line[column + len(old) :]).decode()
    return "from waiting import _await, _enter, _iterate\n" + "".join(lines)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _outside_functions(child)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
