"""A worker of a script has a name by which other processes can import it, or is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import ROOT, Completed, Python

SCRIPT = """\
from oban_sqla import Worker, job

class Ping(Worker):
    def process(self, job): ...

@job()
def pong(): ...

if __name__ == "__main__":
    print(Ping.new().worker, pong.new().worker)
"""
NAMED = SCRIPT.replace("Ping(Worker)", "Ping(Worker, name='a')").replace("@job()", "@job(name='b')")
SPAWNING = (
    SCRIPT
    + """
    from multiprocessing import get_context
    with get_context("spawn").Pool(1) as pool:
        print(*pool.map(name_of, [None]))
"""
)
SPAWNING = SPAWNING.replace(
    "if __name__", "def name_of(_): return Ping.new().worker\n\nif __name__"
)
RESOLVE = """\
import importlib, sys
from oban_sqla.workers.registry import resolve
for name in sys.argv[1:]:
    importlib.import_module(name.rpartition(".")[0])
    print(resolve(name).declaration.origin)
"""


class Folder:
    """A folder with source files, in which Python runs."""

    def __init__(self, path: Path, python: Python) -> None:
        self._path = path
        self._python = python

    def write(self, sources: dict[str, str]) -> None:
        for name, source in sources.items():
            path = self._path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)

    def python(self, *arguments: str) -> str:
        """The output of Python, or the last line of its traceback."""
        return printed(self._python.run(*arguments, cwd=self._path))

    def new_python(self, *arguments: str, stdin: str) -> str:
        """`python` in a new process, which may read its program from `stdin`."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self._path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return printed(done)

    def resolve(self, *names: str) -> str:
        """The code that another process finds under these names."""
        return self.python("-c", RESOLVE, *names)


def printed(done: Completed) -> str:
    return (done.stdout + done.stderr.strip().rpartition("\n")[2]).strip()


@pytest.fixture
def folder(tmp_path: Path, python: Python) -> Folder:
    return Folder(tmp_path, python)


def test_a_script_has_the_name_of_its_file(folder: Folder) -> None:
    folder.write({"script.py": SCRIPT})
    assert folder.python("script.py") == "script.Ping script.pong"
    assert folder.resolve("script.Ping", "script.pong") == "script.Ping\nscript.pong"


@pytest.mark.parametrize("arguments", [["-m", "pkg.sub.mod"], ["pkg/sub/mod.py"]], ids=" ".join)
def test_a_module_of_a_package_has_its_full_name(folder: Folder, arguments: list[str]) -> None:
    folder.write({"pkg/__init__.py": "", "pkg/sub/__init__.py": "", "pkg/sub/mod.py": SCRIPT})
    assert folder.python(*arguments) == "pkg.sub.mod.Ping pkg.sub.mod.pong"
    assert folder.resolve("pkg.sub.mod.Ping") == "pkg.sub.mod.Ping"


def test_a_package_that_is_run_has_the_name_of_its_main_module(folder: Folder) -> None:
    folder.write({"pkg/__init__.py": "", "pkg/__main__.py": SCRIPT})
    assert folder.python("-m", "pkg") == "pkg.__main__.Ping pkg.__main__.pong"
    assert folder.resolve("pkg.__main__.Ping") == "pkg.__main__.Ping"


def test_a_process_that_a_script_spawns_finds_the_same_name(folder: Folder) -> None:
    folder.write({"script.py": SPAWNING})
    assert folder.python("script.py") == "script.Ping script.pong\nscript.Ping"


def test_a_script_may_be_imported_by_its_own_modules(folder: Folder) -> None:
    folder.write({"script.py": f"{SCRIPT}    import other", "other.py": "import script"})
    assert folder.python("script.py") == "script.Ping script.pong"


@pytest.mark.parametrize(
    ("arguments", "place"), [(["-"], "<stdin>"), (["-c", SCRIPT], "an interactive session")]
)
def test_a_worker_without_a_file_has_no_name(
    folder: Folder, arguments: list[str], place: str
) -> None:
    assert folder.new_python(*arguments, stdin=SCRIPT) == (
        "ValueError: worker 'Ping' is defined where no other process could import it"
        f" ({place}): give it a name, name='...', or move it to a module"
    )


@pytest.mark.parametrize(
    ("run", "file"),
    [
        ("my-script.py", "my-script.py"),
        ("2026.py", "2026.py"),
        ("script", "script"),
        ("my-folder/mod.py", "my-folder/mod.py"),
        ("app", "app/__main__.py"),
    ],
)
def test_a_file_that_can_t_be_imported_has_no_name(folder: Folder, run: str, file: str) -> None:
    folder.write({"my-folder/__init__.py": "", file: SCRIPT})
    last = folder.python(run)
    assert last.startswith("ValueError: worker 'Ping' is defined where no other process could impo")
    assert f"{file}): give it a name, name='...'" in last


def test_a_given_name_needs_no_file(folder: Folder) -> None:
    assert folder.new_python("-", stdin=NAMED) == "a b"
