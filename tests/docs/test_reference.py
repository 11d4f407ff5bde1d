"""The reference leaves no public name out."""

import re

import pytest

import oban_sqla
from tests.docs.page import DOCS

REFERENCE = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))


@pytest.mark.parametrize("name", oban_sqla.__all__)
def test_the_reference_has(name: str) -> None:
    assert re.search(rf"^\.\. auto\w+:: (\S*\.)?{name}\b", REFERENCE, re.MULTILINE)
