"""All files and folders that the page about the code names exist."""

import re

import pytest

from tests.docs.page import DOCS, ROOT

NAMED = sorted(set(re.findall(r"`([\w/]+(?:\.py|\.md|\.toml|/))`", (DOCS / "code.md").read_text())))


@pytest.mark.parametrize("path", NAMED)
def test_each_named_file_exists(path: str) -> None:
    assert (ROOT / path).exists() or (ROOT / "oban_sqla" / path).exists()


def test_the_page_has_the_walks() -> None:
    assert {"workers/worker.py", "statements/insert.py", "statements/claim.py"} <= {*NAMED}
