"""All files and folders that the page about the code names exist."""

import re

from tests.docs.page import DOCS, ROOT

NAMED = set(re.findall(r"`([\w/]+(?:\.py|\.md|\.toml|/))`", (DOCS / "code.md").read_text()))


def test_each_named_file_exists() -> None:
    assert not {
        path
        for path in NAMED
        if not (ROOT / path).exists() and not (ROOT / "oban_sqla" / path).exists()
    }


def test_the_page_has_the_walks() -> None:
    assert {"workers/worker.py", "statements/insert.py", "statements/claim.py"} <= NAMED
