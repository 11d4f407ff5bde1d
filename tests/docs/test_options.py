"""Each option of a worker or a job appears in a snippet of the docs, which a test runs."""

import re

from oban_sqla.workers.declaration import JOB_OPTIONS
from oban_sqla.workers.function import FUNCTION_OPTIONS
from oban_sqla.workers.worker import CLASS_OPTIONS
from tests.docs.page import snippets
from tests.docs.test_pages import PAGES

CODE = "".join(one.code for page in PAGES for one in snippets(page) if one.language == "python")


def test_a_snippet_has_each_option() -> None:
    options = {*CLASS_OPTIONS, *FUNCTION_OPTIONS, *JOB_OPTIONS}
    assert options
    assert options <= set(re.findall(r"\b(\w+)=", CODE))
