"""The page of messages quotes messages of the code word for word."""

import ast
import re
from collections.abc import Iterator

from tests.docs.page import DOCS, ROOT

HEADINGS = re.findall(
    r"^### `(.*)`$", (DOCS / "troubleshooting.md").read_text(), flags=re.MULTILINE
)


def texts() -> Iterator[str]:
    """Every string of the package, with `...` for inserted values."""
    for file in (ROOT / "oban_sqla").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[.\d]*[sfg]", "...", node.value)
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    part.value if isinstance(part, ast.Constant) else "..." for part in node.values
                )


def test_the_page_explains_each_message() -> None:
    assert len(HEADINGS) > 30


def test_each_message_is_one_of_ours() -> None:
    ours = "\0".join(set(texts()))
    strange = []
    for message in HEADINGS:
        wanted = "[^\0]*".join(map(re.escape, message.split("...")))
        if not re.search(wanted, ours):
            strange.append(message)
    assert strange == []
