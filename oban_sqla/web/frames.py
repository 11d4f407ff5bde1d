"""Fold the frames of libraries in the text of an error."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_FRAME = re.compile(r'^\s+File "(?P<file>[^"]*)", line \d+(?:, in (?P<function>.*))?')
_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib(?:64)?/python3|^<frozen |[\\/]Lib[\\/]")


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of an error that belong together."""

    lines: Sequence[str]
    folded: int = 0
    """The number of library frames; 0 for other lines."""

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)


def blocks(text: str) -> list[Block]:
    """The blocks of an error's text, in order."""
    found: list[Block] = []
    for lines, library in _runs(text.splitlines()):
        if library and found and found[-1].folded:
            found[-1] = Block([*found[-1].lines, *lines], found[-1].folded + 1)
        elif not library and found and not found[-1].folded:
            found[-1] = Block([*found[-1].lines, *lines])
        else:
            found.append(Block(lines, int(library)))
    return found


def last_frame(text: str) -> str | None:
    """The last frame of the user's code in a traceback, or else of a library."""
    chosen = None
    for line in reversed(text.splitlines()):
        if frame := _FRAME.match(line):
            is_own = not _LIBRARY.search(frame["file"])
            chosen = frame if chosen is None or is_own else chosen
            if is_own:
                break
    if chosen is None:
        return None
    name = re.split(r"[\\/]", chosen["file"])
    return f"{'/'.join(name[-2:])}, in {chosen['function'] or '?'}"


def _runs(lines: list[str]) -> Iterator[tuple[list[str], bool]]:
    """Each frame with its code, and each other line, and whether it belongs to a library."""
    run: list[str] = []
    library = False
    for line in lines:
        frame = _FRAME.match(line)
        if frame or not line.startswith("    "):
            if run:
                yield run, library
            run, library = [], bool(frame and _LIBRARY.search(frame["file"]))
        run.append(line)
    if run:
        yield run, library
