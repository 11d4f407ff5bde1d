"""A page of docs/, whose snippets run in order as a reader would run them.

- python: in one namespace, with `await` at the top. A snippet that begins with `# shop.py` is that
  file.
- toml and ini: a file, which the first line names.
- sh: each line is a command. `# exits with 1` at its end says that the command must fail.
- text: the output of the snippet before it. `...` stands for anything.

A page that imports from `shop` and has no `shop.py` of its own has that of the quickstart.
"""

import ast
import asyncio
import doctest
import os
import re
import shlex
import sys
import tomllib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from oban_sqla.cli.app import app
from tests.forked import ROOT, Python

DOCS = ROOT / "docs"
QUICKSTART = "quickstart"

# A test suite of a user on the server of these tests, without the plugins of these tests.
_TESTED = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_PLUGINS": "pytest_asyncio.plugin,pytest_oban_sqla",
}

_FENCE = re.compile(r"^( *)```(python|sh|toml|ini|text)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|toml|ini))\n")
_DSN = re.compile(r"postgresql(\+\w+)?://localhost/\w+")
_EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@dataclass(frozen=True)
class Snippet:
    language: str
    code: str

    @property
    def file(self) -> str | None:
        """The name of the file, if the first line of the snippet names one."""
        found = _FILE.match(self.code)
        return found[1] if found else None


def snippets(page: str) -> Iterator[Snippet]:
    """The snippets of a page, in order."""
    for indent, language, code in _FENCE.findall((DOCS / f"{page}.md").read_text()):
        yield Snippet(language, re.sub(f"^{indent}", "", code, flags=re.MULTILINE))


class Page:
    """Runs the snippets of a page in a directory and a database of their own."""

    def __init__(
        self,
        name: str,
        directory: Path,
        dsn: str,
        capsys: pytest.CaptureFixture[str],
        python: Python,
    ) -> None:
        self.name = name
        self._directory = directory
        self._dsn = dsn
        self._capsys = capsys
        self._python = python
        self._module = types.ModuleType(f"docs_{name}")
        self._printed = ""

    async def run(self) -> None:
        sys.modules[self._module.__name__] = self._module
        try:
            for snippet in (*self._shop(), *snippets(self.name)):
                await self._run(snippet)
        finally:
            await self._dispose()
            del sys.modules[self._module.__name__]

    def _shop(self) -> Iterator[Snippet]:
        own = list(snippets(self.name))
        if any(snippet.file == "shop.py" for snippet in own):
            return
        yield from (snippet for snippet in snippets(QUICKSTART) if snippet.file == "shop.py")

    async def _run(self, snippet: Snippet) -> None:
        code = _DSN.sub(
            lambda found: self._dsn.replace("://", f"{found[1] or ''}://"), snippet.code
        )
        if snippet.file is not None:
            self._write(snippet.file, code)
        elif snippet.language == "python":
            await self._exec(code)
        elif snippet.language == "sh":
            await self._run_commands(code)
        elif snippet.language == "text":
            self._compare(snippet.code)
        else:
            raise AssertionError(f"which file is this? {code}")

    def _write(self, file: str, code: str) -> None:
        path = self._directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        for name in [name for name, module in sys.modules.items() if _is_file(module, path)]:
            del sys.modules[name]

    async def _exec(self, code: str) -> None:
        compiled = compile(code, self.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if (coroutine := eval(compiled, self._module.__dict__)) is not None:
            await coroutine
        self._printed = self._capsys.readouterr().out

    async def _run_commands(self, code: str) -> None:
        said = []
        for line in code.replace("\\\n", " ").splitlines():
            command = shlex.split(line, comments=True)
            expected = re.search(r"# .*exits with (\d)", line)
            if not command:
                continue
            if command[:1] == ["pip"]:
                _check_extras(command)
                continue
            if command[0] == "export":
                name, _, value = command[1].partition("=")
                os.environ[name] = value  # the test removes it at the end
                continue
            status, output = await self._command(command)
            assert status == (int(expected[1]) if expected else 0), f"{line}\n{output}"
            said.append(output)
        self._printed = "".join(said)

    async def _command(self, command: list[str]) -> tuple[int, str]:
        program, *arguments = command
        if program == "oban-sqla" and arguments[0] != "start":
            result = await asyncio.to_thread(
                CliRunner().invoke, app, arguments, prog_name="oban-sqla"
            )
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
            return result.exit_code, result.output
        modules = {"oban-sqla": ["-m", "oban_sqla.cli"], "alembic": ["-m", "alembic"], "python": []}
        return await asyncio.to_thread(self._run_process, *modules[program], *arguments)

    def _run_process(self, *arguments: str) -> tuple[int, str]:
        tested = {**_TESTED, "OBAN_TEST_DSN": self._dsn} if "pytest" in arguments else {}
        process = self._python.start(*arguments, cwd=self._directory, env=os.environ | tested)
        output = ""
        for line in process.stdout:
            output += line
            if "oban_sqla.cli" in arguments and re.search(r"node \S+ runs ", output):
                process.terminate()  # the command runs until it gets a signal
                break
        rest, _ = process.communicate()
        return process.wait(), output + rest

    def _compare(self, expected: str) -> None:
        checker = doctest.OutputChecker()
        options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert checker.check_output(expected, self._printed, options), self._printed

    async def _dispose(self) -> None:
        own = [module for module in sys.modules.values() if _is_file(module, self._directory)]
        for module in (self._module, *own):
            for value in list(vars(module).values()):
                if isinstance(value, AsyncEngine):
                    await value.dispose()
                elif isinstance(value, Engine):
                    value.dispose()
        for module in own:
            del sys.modules[module.__name__]


def _is_file(module: Any, path: Path) -> bool:
    # Compared as text, since each snippet asks it of every module that is loaded.
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and (file == str(path) or file.startswith(f"{path}{os.sep}"))


def _check_extras(command: list[str]) -> None:
    for requirement in command[2:]:
        if found := re.fullmatch(r"(?:oban-sqla|\.)\[([\w,]+)\]", requirement):
            assert {*found[1].split(",")} <= _EXTRAS.keys(), requirement
