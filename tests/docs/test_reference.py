"""The reference has all public names, and its generated pages are up to date."""

import re
import runpy

import pytest

import oban_sqla
from tests.docs.page import DOCS

REFERENCE = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))


def test_the_reference_documents_each_name() -> None:
    documented = set(re.findall(r"^##+ `(\w+)(?:\(\))?`$", REFERENCE, re.MULTILINE))
    assert {*oban_sqla.__all__} <= documented


GENERATED = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]


@pytest.mark.parametrize("page", GENERATED)
def test_a_generated_page_is_up_to_date(page: str) -> None:
    written = (DOCS / "reference" / page).read_text()
    assert written == GENERATED[page](), "run python docs/generate.py"
