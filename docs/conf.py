"""Sphinx: the pages are Markdown, the reference is made from docstrings, the CLI and the settings.

`tox -e docs` builds them into build/docs, with warnings as errors, and needs no network for it.
"""

import inspect
import re
import subprocess
import sys
from typing import Any

from sphinx.application import Sphinx

from oban_sqla import Oban, __version__
from oban_sqla.settings import DEFAULTS, PREFIX, SECRET

project = "oban_sqla"
author = "the authors of oban_sqla"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"oban_sqla {release}"
html_copy_source = False

myst_heading_anchors = 3
# What single backticks are in docstrings, which are plain text first.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__new__, dispatch"}
python_maximum_signature_line_length = 80
# GitHub shows the same files: fences there have the names of languages.
suppress_warnings = ["myst.header"]

_CALLED = ("class", "function", "method")
_FIELD = re.compile(r"( *)([A-Za-z_]+): (?=\S)")
_OTHER_SETTINGS = {
    "dsn": "The database: `postgresql://user:password@host/name`.",
    "engine": "Your engine instead of `dsn`, as an import path: `shop:engine`. It may be an"
    " `AsyncEngine` or an `async_sessionmaker` that is bound to one.",
    "session": "Your `async_sessionmaker`, which makes the sessions of workers, as an import path:"
    " `shop:Session`. If neither `dsn` nor `engine` is set, it names the database, too.",
    "imports": "Modules with workers, which `oban-sqla start` imports; not used by `Oban`.",
    "log_level": "`debug`, `info`, `warning` or `error`: of `oban-sqla start`.",
    "log_format": "`text` or `json`: of `oban-sqla start`.",
    "metrics": "Where `oban-sqla start` serves `/metrics`, `/health` and `/ready`: `:9100`, or"
    " `127.0.0.1:9100`.",
    "tracing": "Whether `oban-sqla start` sends traces by OTLP.",
}


def fields(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Paragraphs of our docstrings such as `engine: a URL`, and `Args:`, are lists of fields."""
    _cut_examples(lines)
    kind, indent = "", 0
    for number, line in enumerate(lines):
        begins = number == 0 or not lines[number - 1].strip()
        found = _FIELD.match(line)
        if line in ("Args:", "Raises:"):
            kind, indent = {"Args:": "param", "Raises:": "raises"}[line], 4
            lines[number] = ""
        elif line.startswith("Returns: "):
            lines[number] = f":returns: {line.removeprefix('Returns: ')}"
        elif not line.strip():
            kind = ""
        elif found and begins and not found[1] and found[2].islower() and what in _CALLED:
            kind, indent = "param", 0
        if kind and found and len(found[1]) == indent:
            lines[number] = f":{kind} {found[2]}: {line[found.end() :]}"


def _cut_examples(lines: list[str]) -> None:
    """SQLAlchemy adds to each event how to listen for it, of which once is enough."""
    if ".. container:: event_signatures" in lines:
        start = lines.index(".. container:: event_signatures")
        end = next((n for n in range(start + 1, len(lines)) if lines[n][:1].strip()), len(lines))
        del lines[start:end]


def generated(app: Sphinx, page: str, source: list[str]) -> None:
    """Put in what a page of the reference is made from."""
    if page == "reference/cli":
        source[0] = source[0].replace("<!-- the commands -->", _commands())
    if page == "reference/settings":
        source[0] = source[0].replace("<!-- the settings -->", _settings())


def _commands() -> str:
    command = [sys.executable, "-m", "typer", "oban_sqla.cli.app", "utils", "docs"]
    text = subprocess.run(
        [*command, "--name", "oban-sqla"], capture_output=True, text=True, check=True
    ).stdout
    # The page has a title of its own.
    return re.sub(r"\A# .*\n", "", text)


def _settings() -> str:
    said = _OTHER_SETTINGS | _said_of_arguments()
    rows = ["| setting | variable | default | |", "| --- | --- | --- | --- |"]
    for name, default in DEFAULTS.items():
        shown = "" if default is None or name in SECRET else f"`{default!r}`"
        rows.append(f"| `{name}` | `{PREFIX}{name.upper()}` | {shown} | {said[name]} |")
    return "\n".join(rows)


def _said_of_arguments() -> dict[str, str]:
    text = inspect.getdoc(Oban.__init__) or ""
    found = re.findall(r"^([a-z_]+): (.*(?:\n    .*)*)", text, re.MULTILINE)
    return {name: " ".join(said.split()).replace("|", r"\|") for name, said in found}


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", fields)
    app.connect("source-read", generated)
    return {"parallel_read_safe": True}
