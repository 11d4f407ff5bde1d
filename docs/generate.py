"""Writes the pages of the reference that are made from the code: `python docs/generate.py`.

The pages are committed, so that they can be read without building them.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from oban_sqla.workers.function import FunctionOptions
from oban_sqla.workers.option import options_of, types_of
from oban_sqla.workers.options import JobOptions, SharedOptions, WorkerOptions
from oban_sqla.workers.worker import ClassOptions

REFERENCE = Path(__file__).parent / "reference"

_OPTIONS = """\
# Options

Options of a worker are keywords of its class, of `@worker` or of `@job`. A subclass takes them over
unless the table says otherwise. `None` stands for an option that is not given. A type checker knows
all of them: a misspelt option, or one of the wrong type, is an error.
"""

_SECTIONS = (
    (
        "Of a worker and of a single job",
        "A worker sets them for all its jobs. `new` and `enqueue` override them for one job.",
        SharedOptions,
        None,
    ),
    (
        "Of a single job",
        "Only `new` and `enqueue` take them.",
        JobOptions,
        SharedOptions,
    ),
    ("Of a worker", "Classes and functions take them.", WorkerOptions, SharedOptions),
    ("Of a class", "Only `Worker` and `@worker` take them.", ClassOptions, WorkerOptions),
    (
        "Of a function",
        "Only `@job` takes them, and `session=True`.",
        FunctionOptions,
        WorkerOptions,
    ),
)


def options() -> str:
    """The page about the options of workers and jobs."""
    return "\n".join([_OPTIONS, *_sections()])


def _sections() -> Iterator[str]:
    for title, lead, declared, without in _SECTIONS:
        known = options_of(without) if without else {}
        yield f"## {title}\n\n{lead}\n\n| option | type | default | |\n| --- | --- | --- | --- |"
        types = types_of(declared)
        for name, option in options_of(declared).items():
            if name not in known:
                default = "" if option.default in (None, (), {}) else f"`{option.default!r}`"
                says = option.says if option.inherited else f"{option.says} Not inherited."
                cells = (f"`{name}`", f"`{_shown(types[name])}`", default, says)
                yield f"| {' | '.join(map(_escaped, cells))} |"
        yield ""


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _shown(kind: Any) -> str:
    """A type as the tables show it: without modules, and without the `None` at its end."""
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(_shown(one) for one in get_args(kind) if one is not NoneType)
    text = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return re.sub(r"\b(\w+\.)+(?=\w)", "", text)


PAGES = {"options.md": options}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())
