"""Where a search for jobs without limits, or without keys, begins."""

from datetime import UTC, datetime

import pytest

from oban_sqla.limits import search
from oban_sqla.limits.search import FRONT, MARGIN, PRIORITIES, Search
from tests.conftest import Tune

AT = datetime(2026, 12, 1, 12)


@pytest.fixture(autouse=True)
def from_front_once(tune: Tune) -> None:
    tune(search, LONGEST=3600.0, SHARE=0.0)


@pytest.fixture
def complete() -> Search:
    """A search that has found all jobs."""
    made = Search()
    assert made.since() == [FRONT] * PRIORITIES
    made.passed([], AT.replace(tzinfo=UTC), 0.001)
    return made


def test_a_search_begins_at_the_last_search_that_found_all_jobs(complete: Search) -> None:
    assert complete.since() == [AT] * PRIORITIES


def test_a_search_begins_earlier_after_news(complete: Search) -> None:
    """If each search began earlier, each claim would read two more seconds of limited jobs."""
    complete.news()
    assert complete.since() == [AT - MARGIN] * PRIORITIES
    complete.passed([], AT, 0.001)
    assert complete.since() == [AT] * PRIORITIES


def test_some_searches_begin_earlier(complete: Search, tune: Tune) -> None:
    complete.news()
    complete.since()
    tune(search, SHARE=1e9)
    complete.passed([], AT, 0.001)
    complete.news()
    assert complete.since() == [AT] * PRIORITIES
    assert 0 < complete.again_in < 3600


def test_a_search_begins_behind_the_jobs_that_it_found(complete: Search) -> None:
    complete.since()
    complete.passed([(3, AT, 7)], None, 0.001)
    assert complete.since() == [AT] * PRIORITIES
    assert complete.after[3] == 7
