"""The registry finds workers by name."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from oban_sqla import Job, UnknownWorkerError, Worker, job
from oban_sqla.workers import registry
from oban_sqla.workers.registry import resolve, with_cron


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


def test_a_name_finds_the_worker(module: Any) -> None:
    assert resolve(f"{module.__name__}.Ping").create is module.Ping
    assert resolve(f"{module.__name__}.pong").create() is module.pong


def test_a_second_worker_of_a_name_is_refused(module: Any) -> None:
    with pytest.raises(
        ValueError, match=r"is taken by some_.*Ping; give .*Other another name with"
    ):

        class Other(Worker, name=f"{module.__name__}.Ping"):
            def process(self, job: Job) -> None: ...

    with pytest.raises(
        ValueError, match=r"is taken by some_.*pong; give .*other another name with"
    ):

        @job(name=f"{module.__name__}.pong")
        def other() -> None: ...


def test_a_reloaded_module_registers_again(module: Any) -> None:
    before = module.Ping
    importlib.reload(module)
    assert module.Ping is not before
    assert resolve(f"{module.__name__}.Ping").create is module.Ping


class TestAliases:
    def test_an_alias_finds_the_worker(self) -> None:
        class Renamed(Worker, name="registry.New", aliases=["registry.Old", "registry.Older"]):
            def process(self, job: Job) -> None: ...

        for name in ("registry.New", "registry.Old", "registry.Older"):
            assert resolve(name).create is Renamed
        assert Renamed.new().worker == "registry.New"

    def test_a_subclass_has_aliases_of_its_own(self) -> None:
        class Base(Worker, name="registry.Base", aliases=["registry.OldBase"]):
            def process(self, job: Job) -> None: ...

        class Sub(Base, name="registry.Sub"): ...

        assert resolve("registry.OldBase").create is Base

    def test_a_function_may_have_aliases(self) -> None:
        @job(name="registry.new", aliases=("registry.old",))
        def renamed() -> None: ...

        assert resolve("registry.old").create() is renamed

    def test_an_alias_adds_no_cron_entry(self) -> None:
        class Ticking(Worker, name="registry.Ticking", aliases=["registry.Tick"], cron="@yearly"):
            def process(self, job: Job) -> None: ...

        assert [entry.name for entry in with_cron()].count("registry.Ticking") == 1
        del registry._registrations["registry.Ticking"]

    def test_an_alias_that_is_a_name_is_refused(self, module: Any) -> None:
        taken = f"{module.__name__}.Ping"
        with pytest.raises(ValueError, match=r"Ping; remove it from the aliases of .*Other"):

            class Other(Worker, name="registry.Other", aliases=[taken]):
                def process(self, job: Job) -> None: ...

        assert registry.find("registry.Other") is None

    def test_a_name_that_is_an_alias_is_refused(self) -> None:
        class First(Worker, name="registry.First", aliases=["registry.Taken"]):
            def process(self, job: Job) -> None: ...

        with pytest.raises(
            ValueError, match=r"'registry.Taken' is taken by .*First; give .*Second"
        ):

            class Second(Worker, name="registry.Taken"):
                def process(self, job: Job) -> None: ...


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


def test_a_worker_defined_in_a_function_is_told_to_move() -> None:
    with pytest.raises(UnknownWorkerError, match=r"defined in a function.* top of a module"):
        resolve("app.main.<locals>.send")
