"""Format numbers, times and JSON for the pages."""

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..durations import duration
from ..monitor.excerpts import Excerpt
from ..monitor.status import Count
from .icons import ICONS

STATIC = Path(__file__).parent / "static"
NONE = "\N{EN DASH}"
# The most characters of JSON on a page, and of its HTML. Longer JSON is cut, and the page says so.
LONGEST_JSON, LARGEST_JSON = 10_000, 14_000
# Bytes of some characters in HTML; others have one, or about three if they are not ASCII.
_BYTES = {"<": 4, ">": 4, "&": 5, "'": 5, '"': 5}


def number(value: float | Count) -> str:
    """A number with separators, and ~ before an estimate."""
    if isinstance(value, Count):
        return f"{'~' if value.estimated else ''}{value.count:,}"
    return f"{value:,}"


def short(value: int | Count) -> str:
    """A number in few characters: 12.3k."""
    count, estimated = (value.count, value.estimated) if isinstance(value, Count) else (value, 0)
    text = f"{count:,}"
    for unit, size in (("M", 1_000_000), ("k", 10_000)):
        if count >= size:
            text = f"{count / (1000 if unit == 'k' else size):.1f}".removesuffix(".0") + unit
            break
    return f"~{text}" if estimated else text


def plain(value: float | None) -> str:
    """A number for an input; empty for `None`."""
    return "" if value is None else f"{value:.15g}"


def span(value: float | None) -> str:
    """A duration in few characters: 4.2 s."""
    if value is None:
        return NONE
    if value < 1:
        return f"{1000 * value:.0f} ms"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if value >= 2 * length:
            return f"{value / length:.0f} {unit}"
    return f"{value:.1f}".removesuffix(".0") + " s" if value < 10 else f"{value:.0f} s"


def between(first: Any, second: Any) -> float | None:
    """Seconds; `None` if an instant is missing, or Python can't represent it."""
    if isinstance(first, datetime) and isinstance(second, datetime):
        return (second - first).total_seconds()
    return None


def instant(value: datetime) -> str:
    """An instant in UTC, in ISO 8601. An instant of the table has no zone: it is in UTC."""
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def when(value: datetime | str | None, now: datetime) -> Markup:
    """An instant relative to now, with the absolute time on hover.

    A text stands for an instant that Python can't represent. It is shown unchanged.
    """
    if not isinstance(value, datetime):
        return Markup('<span class="none">{}</span>').format(value or NONE)
    at = instant(value)
    passed = (_aware(now) - _aware(value)).total_seconds()
    text = f"{_rounded(passed)} ago" if passed >= 0 else f"in {_rounded(-passed)}"
    shown = f"{at[:19].replace('T', ' ')} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at, shown, text)


def _rounded(seconds: float) -> str:
    # As app.js writes it: with another text, the layout would shift when the script runs.
    return duration(round(seconds)).replace(".0 ", " ")


def cut(value: Any, longest: int) -> str:
    """A text, cut at the end if it is too long. Another program may have stored other values."""
    text = str(value)
    kept = beginning(text, longest)
    return text if len(kept) == len(text) else f"{kept[:-1]}…"


def beginning(text: str, longest: int) -> str:
    """Up to `longest` characters, and fewer if they make more than half as many bytes of HTML."""
    text = text[:longest]
    if len(escape(text).encode("utf-8", "replace")) <= 1.5 * longest:
        return text
    left = 1.5 * longest
    for index, character in enumerate(text):
        left -= _BYTES.get(character, 1 if character.isascii() else 3)
        if left < 0:
            return text[:index]
    return text


def end(text: str, longest: int) -> str:
    """The end of a text, with a size as in `beginning`."""
    return beginning(text[: -longest - 1 : -1], longest)[::-1]


def one_line(value: Any, longest: int = 120) -> str:
    """JSON in a line, cut."""
    return cut(value if isinstance(value, Excerpt) else _json(value), longest)


def pretty(value: Any) -> Markup:
    """JSON over several lines, with its kinds of values marked; cut if it is very long."""
    text = _json(value, indent=2)
    shown, size, rest = Markup(""), 0, len(text)
    for line in beginning(text, LONGEST_JSON).splitlines(True):
        marked = _marked(line)
        size += len(marked)
        if size > LARGEST_JSON + len(line):
            break
        shown, rest = shown + marked, rest - len(line)
    if rest > 0:
        shown += Markup('\n<span class="none">… {} more characters</span>').format(f"{rest:,}")
    return shown


def _json(value: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    except RecursionError:
        return "(nested too deep to show)"


def _marked(line: str) -> Markup:
    body = line.lstrip(" ")
    indent = line[: len(line) - len(body)]
    key, colon, value = body.partition('": ') if body.startswith('"') else ("", "", body)
    if colon:
        return Markup('{}<b>{}"</b>: {}').format(indent, key, _value(value))
    return Markup("{}{}").format(indent, _value(body))


def _value(text: str) -> Markup:
    kind = "str" if text.startswith('"') else "num" if text[:1] in "-0123456789" else "lit"
    if text.strip(" \n,[]{}") == "":
        return Markup("{}").format(text)
    bare = text.rstrip("\n,")
    return Markup('<i class="{}">{}</i>{}').format(kind, bare, text[len(bare) :])


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


@cache
def version_of(name: str) -> str:
    """The part of a static file's address that changes with the file."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def query(**given: Any) -> str:
    """The query of an address, without empty parameters."""
    pairs = {name: value for name, value in given.items() if value not in (None, "", (), [])}
    return f"?{urlencode(pairs, doseq=True)}" if pairs else ""


@cache
def environment() -> Environment:
    """The templates, which escape all inserted values."""
    made = Environment(
        loader=PackageLoader("oban_sqla.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "short": short,
        "span": span,
        "cut": cut,
        "one_line": one_line,
        "plain": plain,
        "pretty": pretty,
        "instant": instant,
    }
    made.globals |= {"ICONS": ICONS, "when": when, "query": query}
    return made
