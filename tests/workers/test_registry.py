"""Workers by name."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from oban_sqla import Job, UnknownWorkerError, Worker, job
from oban_sqla.workers.registry import resolve


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Any:
    """A module with a worker class and a worker function, imported."""
    name = f"some_{request.function.__name__}"
    (tmp_path / f"{name}.py").write_text(
        "from oban_sqla import Worker, job\n"
        "class Ping(Worker):\n"
        "    def process(self, job): return 'ping'\n"
        "@job()\n"
        "def pong(): return 'pong'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(name)
    del sys.modules[name]


def test_a_name_leads_to_the_code(module: Any) -> None:
    assert resolve(f"{module.__name__}.Ping").create is module.Ping
    assert resolve(f"{module.__name__}.pong").create() is module.pong


def test_a_name_is_taken_by_the_first(module: Any) -> None:
    with pytest.raises(ValueError, match=r"is taken by some_.*Ping; give .*Other another one with"):

        class Other(Worker, name=f"{module.__name__}.Ping"):
            def process(self, job: Job) -> None: ...

    with pytest.raises(ValueError, match=r"is taken by some_.*pong; give .*other another one with"):

        @job(name=f"{module.__name__}.pong")
        def other() -> None: ...


def test_a_reloaded_module_registers_anew(module: Any) -> None:
    before = module.Ping
    importlib.reload(module)
    assert module.Ping is not before
    assert resolve(f"{module.__name__}.Ping").create is module.Ping


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "worker must not be blank, got ''"),
        ("w" * 128, "worker is 128 characters long, at most 127 fit"),
        ("a\x00", "worker has a NUL character"),
        (5, "worker must be a string, not 5"),
    ],
)
def test_a_name_that_can_t_be_stored_is_refused(name: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):

        class Misnamed(Worker, name=name):
            def process(self, job: Job) -> None: ...

    with pytest.raises((TypeError, ValueError), match=message):

        @job(name=name)
        def misnamed() -> None: ...


@pytest.mark.parametrize(
    ("name", "module"), [("app.workers.Email", "app.workers"), ("Email", "Email")]
)
def test_an_unknown_name_says_how_to_make_it_known(name: str, module: str) -> None:
    with pytest.raises(UnknownWorkerError) as raised:
        resolve(name)
    assert str(raised.value) == (
        f"worker '{name}' is not registered; import its module with"
        f" `oban-sqla start --import {module}`, or before Oban starts"
    )
